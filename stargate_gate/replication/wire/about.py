"""What nodes tell each other about their addresses and settings, and what is wrong with these. Pure.

A standby connects to the leader, so nobody uses its own `ssh.advertise` before it leads; if that is wrong,
nobody can follow it then. And each node has its own YAML file, in which some values must be the same on all
nodes. So each side sends an `About`. The leader tries to connect to the standby at the address in it
(reach.py), and sends the result as `Reached`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from stargate_gate.config.model import Config
from stargate_gate.election.port import Member
from stargate_gate.status import Refill

MAX_SETTINGS = 64  # that a peer may send; there are some ten
MAX_SETTING_CHARACTERS = 1000
KEYS_APART_S = 15.0  # operators change the file on one node after the other; each node looks at it every 5 s

VERSION, HOST_KEYS, USER_KEYS = "version", "ssh.host_keys", "ssh.authorized_keys"
TIMINGS = frozenset({"election.heartbeat_s", "election.watchdog_s", "election.lease_s"})

Settings: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class About:
    """A node tells a peer of itself.

    ssh       where peers reach it, "host:port": its ssh.advertise
    settings  (key, value) of what should be the same on all nodes; see `settings_of`
    """

    term: int
    ssh: str
    settings: Settings


@dataclass(frozen=True)
class Reached:
    """Whether the leader found this standby where `About` says that it is; `problem` says why not, or ""."""

    term: int
    problem: str


@dataclass(frozen=True)
class Whoami:
    """Who answers at an address. `nonce` is that of the question."""

    member: Member
    nonce: str


@dataclass(frozen=True)
class Refilling:
    """How far a standby is that has not confirmed the first list of a connection yet.

    done, total     repositories that differed from the list; both 0 while it compares
    received_bytes  of this connection
    bytes_per_s     of the last seconds
    """

    term: int
    done: int
    total: int
    received_bytes: int
    bytes_per_s: int

    def status(self) -> Refill:
        """The same, for status reports."""
        return Refill(self.done, self.total, self.received_bytes, self.bytes_per_s)


@dataclass(frozen=True)
class Profile:
    """What a node tells its peers of itself; `About` without a term."""

    ssh: str = ""
    settings: Settings = ()

    def about(self, term: int) -> About:
        """The message."""
        return About(term, self.ssh, self.settings)


def settings_of(config: Config, *, version: str, host_keys: tuple[str, ...], user_keys: str) -> Settings:
    """What should be the same on all nodes.

    host_keys  fingerprints
    user_keys  a digest of the usable keys of authorized_keys, never the keys themselves
    """
    election, repositories = config.election, config.repositories
    return (
        (VERSION, version),
        ("cluster.name", config.cluster.name if config.cluster is not None else ""),
        ("cluster.address", str(config.cluster.address) if config.cluster is not None else ""),
        (HOST_KEYS, ", ".join(sorted(host_keys))),
        (USER_KEYS, user_keys),
        ("election.heartbeat_s", f"{election.heartbeat_s:g}"),
        ("election.watchdog_s", f"{election.watchdog_s:g}"),
        ("election.lease_s", f"{election.lease_s:g}"),
        ("election.handover_wait_s", f"{election.handover_wait_s:g}"),
        ("replication.mode", config.replication.mode),
        ("repositories.create_on_push", str(repositories.create_on_push).lower()),
        ("repositories.default_branch", repositories.default_branch),
        ("repositories.trash_days", f"{repositories.trash_days:g}"),
    )


def checked_settings(value: Any) -> Settings:
    """The settings in a message of a peer's. Raises ValueError or TypeError if they are invalid."""
    if not isinstance(value, list) or len(value) > MAX_SETTINGS:
        raise ValueError("not a list of settings")
    found = []
    for key, text in value:
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError("not a setting")
        found.append((key[:MAX_SETTING_CHARACTERS], text[:MAX_SETTING_CHARACTERS]))
    return tuple(found)


class KeysApart:
    """Whether two nodes have let in different keys for longer than changing the file on both takes."""

    def __init__(self) -> None:
        self._since: float | None = None

    def see(self, mine: Settings, theirs: Settings | None, now: float) -> None:
        """What both have now, `now` in seconds of a monotonic clock. To be called every few seconds."""
        if theirs is None or dict(mine).get(USER_KEYS) == dict(theirs).get(USER_KEYS):
            self._since = None
        elif self._since is None:
            self._since = now

    def lasts(self, now: float) -> bool:
        """Whether operators should be told."""
        return self._since is not None and now - self._since >= KEYS_APART_S


def differences(mine: Settings, theirs: Settings, peer: str, *, keys: bool = True) -> tuple[str, ...]:
    """One line for each value that should be the same here and on `peer`, and is not.

    A key that one side does not know is left out: then the versions differ, which is a line of its own.

    keys  whether authorized_keys count; see `KeysApart`
    """
    return tuple(_differences(dict(mine), dict(theirs), peer, keys=keys))


def _differences(mine: dict[str, str], theirs: dict[str, str], peer: str, *, keys: bool) -> Iterator[str]:
    for key, here in mine.items():
        there = theirs.get(key, here)
        if there == here or (key == USER_KEYS and not keys):
            continue
        if key == VERSION:
            yield f"{peer} runs stargate {there}, this node {here}: update the older one"
        elif key == USER_KEYS:
            yield (
                f"{peer} lets in other keys than this node ({key} there: {there}, here: {here}): copy the "
                f"right file to both"
            )
        elif key in TIMINGS:
            yield (
                f"{peer} has {key} {there}, this node {here}: two nodes could lead at the same time; set the "
                f"same value on all nodes, and restart them"
            )
        else:
            yield f"{peer} has {key} {there}, this node {here}: set the same value on all nodes"


def misdirected(found: Whoami, wanted: Member, where: str) -> str | None:
    """What is wrong with the node that answers at `where`, which should be `wanted`; None if nothing is."""
    if found.member == wanted:
        return None
    if found.member.name == wanted.name:
        return (
            f"another node that is called {wanted.name} too answers at {where}: correct ssh.advertise of "
            f"{wanted.name}"
        )
    return f"{found.member.name} answers at {where}: correct ssh.advertise of {wanted.name}"


def not_reached(leader: str, standby: str, reason: str) -> str:
    """Why `leader` did not get to `standby`, with what to do, in one line."""
    return (
        f"{leader} cannot reach {standby}: {reason}; if that address is wrong, correct ssh.advertise of "
        f"{standby}"
    )
