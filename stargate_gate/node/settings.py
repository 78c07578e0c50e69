"""What of the YAML file concerns each package, in that package's own values; and what a new user is told."""

from stargate_gate.access.host_keys import pass_secret_of, public_key_of
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.model import Config
from stargate_gate.datadir.layout import DataDir
from stargate_gate.election.engines import retry_s
from stargate_gate.election.status import Timings
from stargate_gate.gate.admission import Shares
from stargate_gate.gate.session import GateSettings
from stargate_gate.gate.ssh.login_places import PlaceLimits
from stargate_gate.gate.ssh.server import ServerSettings
from stargate_gate.replication.leader.context import FeedSettings
from stargate_gate.replication.leader.sync_rules import Limits, Mode
from stargate_gate.scrub.scrubber import DAY_S, MEGABYTE, ScrubSettings


def mode_in_force(config: Config) -> Mode:
    """What the file asks for; a single node has nobody to wait for."""
    return config.replication.mode if config.cluster is not None else "async"


def timings(config: Config) -> Timings:
    """The elector's."""
    election = config.election
    return Timings(
        retry_s=retry_s(election),
        heartbeat_s=election.heartbeat_s,
        lease_s=election.lease_s,
        handover_wait_s=election.handover_wait_s,
    )


def feed_settings(config: Config) -> FeedSettings:
    """What a leader needs to know for its standbys."""
    replication = config.replication
    return FeedSettings(
        mode_in_force(config),
        Limits(replication.ack_timeout_s, replication.ack_max_s),
        config.election.heartbeat_s,
        replication.full_check_s,
    )


def scrub_settings(config: Config) -> ScrubSettings:
    """What the check of the node's own copies needs to know."""
    return ScrubSettings(config.scrub.interval_days * DAY_S, config.scrub.rate_mb_s * MEGABYTE)


def checks_after_unclean_end(config: Config) -> bool:
    """Whether a node that finds that the last one ended uncleanly checks what that was writing."""
    return scrub_settings(config).on and config.scrub.after_unclean_stop


def gate_settings(config: Config, datadir: DataDir) -> GateSettings:
    """What the gate needs to know for requests."""
    return GateSettings(
        hooks=datadir.hooks,
        spill=datadir.run,
        create_on_push=config.repositories.create_on_push,
        handover_wait_s=config.election.handover_wait_s,
        drain_s=config.election.drain_s,
        shares=_shares(config),
        queue_wait_s=config.limits.queue_wait_s,
        address=str(config.cluster.address) if config.cluster else None,
    )


def server_settings(config: Config, floating: frozenset[str] | None) -> ServerSettings:
    """What the SSH server needs to know; `floating` are the IP addresses that follow the leader."""
    cluster = config.cluster
    return ServerSettings(
        listen=tuple((one.host, one.port) for one in config.ssh.listen),
        authorized_keys=config.authorized_keys_path,
        cluster_key=public_key_of(cluster.key) if cluster else None,
        pass_secret=pass_secret_of(cluster.key) if cluster else None,
        login_timeout_s=config.limits.login_timeout_s,
        places=_places(config),
        max_sessions=config.limits.max_sessions,
        max_connections_per_key=config.limits.max_connections_per_key,
        proxies=config.ssh.proxy_protocol_from,
        floating=floating,
    )


def next_steps(config: Config, where: Endpoint) -> str:
    """What somebody who typed `stargate serve` does next; `where` the node listens."""
    keys = config.authorized_keys_path
    lines = []
    if not keys.exists():
        lines += ["Nobody may log in yet. Let yourself in:", f"    cat ~/.ssh/id_*.pub >> {keys}", ""]
    lines += [
        "A first push makes the repository:",
        f"    git push ssh://git@{where}/me/project HEAD:main",
        f"    ssh -p {where.port} git@{where.host}",
    ]
    return "\n".join(["", *lines, "", ""])


def _places(config: Config) -> PlaceLimits:
    """Connections before a login."""
    limits = config.limits
    return PlaceLimits(
        limits.max_unauthenticated,
        limits.max_unauthenticated_per_address,
        limits.early_drop_from,
        limits.early_drop_percent,
    )


def _shares(config: Config) -> Shares:
    """Sessions, of all and of each."""
    limits = config.limits
    return Shares(
        reads=max(1, limits.max_sessions - limits.max_pushes),
        pushes=limits.max_pushes,
        pushes_per_key=limits.max_pushes_per_key,
        per_key=limits.max_sessions_per_key,
        per_address=limits.max_sessions_per_address,
    )
