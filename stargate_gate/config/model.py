"""The model of the YAML file: frozen and strict. docs/configuration.md describes every key, default and unit.

Durations are numbers, in seconds (`_s`) or days (`_days`). Rules about several keys are in rules.py.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from stargate_gate.config.address import AddressItem
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.values import (
    MAX_TRASH_DAYS,
    Branch,
    Count,
    Listen,
    LocalPath,
    LocalPaths,
    Name,
    Networks,
    Period,
    Reachable,
    Section,
    Wait,
    read_list,
)

DEFAULT_SSH = Endpoint("127.0.0.1", 2222)
DEFAULT_HEALTH = Endpoint("127.0.0.1", 8080)
MAX_INTERVAL_DAYS = 3650
MAX_RATE_MB_S = 100_000
SHARES = {  # the default is limits.max_sessions divided by this
    "max_pushes": 4,
    "max_pushes_per_key": 8,
    "max_sessions_per_key": 4,
    "max_sessions_per_address": 2,
    "max_connections_per_key": 2,  # twice its sessions, so that further ones can wait for their turn
}


def default_name() -> str:
    """The host name from the kernel."""
    return os.uname().nodename


def default_data_dir() -> Path:
    """$XDG_DATA_HOME/stargate, else ~/.local/share/stargate.

    A relative $XDG_DATA_HOME does not count (XDG Base Directory Specification). The model expands `~`.
    """
    base = os.environ.get("XDG_DATA_HOME", "")
    return Path(base if base.startswith("/") else "~/.local/share", "stargate")


class Node(Section):
    """This node's name and data_dir."""

    name: Name = Field(
        default_factory=default_name, validate_default=True, description="this node's own name"
    )
    data_dir: LocalPath = Field(
        default_factory=default_data_dir, validate_default=True, description="this node's own folder"
    )


class Cluster(Section):
    """What is the same on all nodes of a cluster."""

    name: Name = Field(description="the cluster's name, the same on all nodes")
    address: Reachable = Field(description="what users put in their URLs, as in 'stargate.local:2222'")
    key: LocalPath = Field(
        description="a private key that the nodes know each other by, the same on all nodes; "
        "make one with: ssh-keygen -t ed25519 -N '' -f FILE"
    )


class Ssh(Section):
    """The SSH server."""

    listen: Listen = Field(default=(DEFAULT_SSH,), description="where the gate listens")
    advertise: Reachable | None = Field(default=None, description="where peers reach this node")
    host_keys: LocalPaths = Field(default=(), description="private host keys, the same on all nodes")
    authorized_keys: LocalPath | None = Field(default=None, description="whose keys may do what")
    proxy_protocol_from: Networks = Field(
        default=(), description="load balancers that say by PROXY protocol who the client is"
    )


class Flock(Section):
    """The lock file on the shared volume."""

    path: LocalPath | None = Field(default=None, description="the lock file that all nodes share")
    retry_s: Period = Field(default=0.1, description="how often a standby tries for the lock")


class Election(Section):
    """How the leader is chosen, and the time limits of that."""

    engine: Literal["flock"] = Field(default="flock", description="what decides who leads")
    flock: Flock = Field(default_factory=Flock, description="the lock file")
    heartbeat_s: Period = Field(default=1.0, description="how often the leader proves that it leads")
    watchdog_s: Period = Field(default=3.0, description="a node that hangs that long is ended")
    lease_s: Period = Field(default=5.0, description="a leader without proof for that long stops")
    drain_s: Wait = Field(default=8.0, description="running pushes get that long when stepping down")
    handover_wait_s: Wait = Field(default=5.0, description="a push waits that long for a leader")


class Replication(Section):
    """How the standbys follow."""

    mode: Literal["sync", "strict", "async"] = Field(default="sync", description="what 'ok' promises")
    ack_timeout_s: Period = Field(default=5.0, description="without progress for that long: late")
    ack_max_s: Period = Field(default=3600.0, description="the longest a push waits for its replica")
    full_check_s: Period = Field(default=60.0, description="how often everything is compared")
    parallel_fetches: Annotated[int, Field(ge=1, le=64)] = Field(default=4, description="fetches at a time")


class Repositories(Section):
    """Settings of repositories."""

    create_on_push: bool = Field(default=True, description="a first push makes the repository")
    default_branch: Branch = Field(default="main", description="HEAD of a new repository")
    trash_days: Annotated[float, Field(gt=0, le=MAX_TRASH_DAYS)] = Field(
        default=7.0, description="how long deleted repositories are kept"
    )


class Scrub(Section):
    """The check of this node's own copies in the background. Off if `interval_days` or `rate_mb_s` is 0."""

    interval_days: Annotated[float, Field(ge=0, le=MAX_INTERVAL_DAYS)] = Field(
        default=7.0, description="each copy is checked that often"
    )
    rate_mb_s: Annotated[float, Field(ge=0, le=MAX_RATE_MB_S)] = Field(
        default=20.0, description="megabytes a second that it may read"
    )
    after_unclean_stop: bool = Field(
        default=True, description="what was being written when the node ended uncleanly is checked first"
    )


class Health(Section):
    """The HTTP endpoints for load balancers and monitoring."""

    listen: Listen = Field(default=(DEFAULT_HEALTH,), description="where they listen")


class Limits(Section):
    """Limits for clients that use too much."""

    login_timeout_s: Period = Field(default=20.0, description="a client must have logged in by then")
    max_unauthenticated: Count = Field(default=50, description="connections that have not logged in")
    max_unauthenticated_per_address: Count = Field(default=20, description="of these, from one address")
    early_drop_from: Count = Field(default=25, description="with that many, newcomers may be dropped")
    early_drop_percent: Annotated[int, Field(ge=0, le=100)] = Field(
        default=30, description="how many of them then; all at max_unauthenticated"
    )
    max_sessions: Count = Field(default=200, description="requests that run at a time")
    max_pushes: Count = Field(default=50, description="how many of them are for pushes, and only for them")
    max_pushes_per_key: Count = Field(default=25, description="how many of the pushes one key may have")
    max_sessions_per_key: Count = Field(default=50, description="how many of them one key may have")
    max_sessions_per_address: Count = Field(default=100, description="how many of them one address may have")
    queue_wait_s: Wait = Field(default=5.0, description="a request waits that long for its turn")
    max_connections_per_key: Count = Field(default=100, description="connections that one key may have open")

    @model_validator(mode="before")
    @classmethod
    def _default_shares(cls, value: Any) -> Any:
        """Limits that are a share of `max_sessions` and are not given follow from it."""
        sessions = value.get("max_sessions") if isinstance(value, Mapping) else None
        if type(sessions) is not int or sessions < 1:  # invalid, which pydantic reports, or not given
            return value
        return {**{key: max(1, sessions // parts) for key, parts in SHARES.items()}, **value}


class Log(Section):
    """What is written to stderr."""

    format: Literal["auto", "console", "json"] = Field(default="auto", description="how lines look")
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="how much")


class Config(Section):
    """A whole YAML file. `load_config` makes one; `Config()` is the single node on loopback."""

    node: Node = Field(default_factory=Node)
    cluster: Cluster | None = None
    ssh: Ssh = Field(default_factory=Ssh)
    election: Election = Field(default_factory=Election)
    replication: Replication = Field(default_factory=Replication)
    repositories: Repositories = Field(default_factory=Repositories)
    scrub: Scrub = Field(default_factory=Scrub)
    health: Health = Field(default_factory=Health)
    address: Annotated[tuple[AddressItem, ...], BeforeValidator(read_list)] = ()
    limits: Limits = Field(default_factory=Limits)
    log: Log = Field(default_factory=Log)

    @property
    def authorized_keys_path(self) -> Path:
        """Where the keys of users are: `ssh.authorized_keys`, else authorized_keys in the data_dir."""
        return self.ssh.authorized_keys or self.node.data_dir / "authorized_keys"

    @field_validator("cluster", mode="before")
    @classmethod
    def _cluster_is_filled_in(cls, value: Any) -> Any:
        if value is None:  # only when the key is there: a default is no key
            raise ValueError("is empty; write name, address and key, or remove it for a single node")
        return value
