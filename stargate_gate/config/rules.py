"""Rules about several keys of a valid model. Pure: no disk, no network."""

import ipaddress
from collections.abc import Iterator
from itertools import combinations

from stargate_gate.config.address import AddressItem, DnsItem, VipItem
from stargate_gate.config.findings import Finding, KeyPath
from stargate_gate.config.model import Config

MIN_PREFIX = 8  # a warning below: the largest private network is 10.0.0.0/8
PROGRESS_EVERY_S = 1.0  # how often a standby that works on a push reports progress
_CLUSTER: KeyPath = ("cluster",)
_HEARTBEAT: KeyPath = ("election", "heartbeat_s")
_WATCHDOG: KeyPath = ("election", "watchdog_s")
_LEASE: KeyPath = ("election", "lease_s")
_LOCK: KeyPath = ("election", "flock", "path")


def broken_rules(config: Config) -> list[Finding]:
    """A finding for each rule that `config` breaks, in the order of the file's sections."""
    return [
        *_what_a_cluster_needs(config),
        *_what_a_single_node_cannot_have(config),
        *_listening(config),
        *_timings(config),
        *_addresses(config),
        *_limits(config),
    ]


def doubtful(config: Config) -> list[Finding]:
    """Values that are allowed but probably a mistake. A node logs them and starts all the same."""
    return [
        Finding(
            ("ssh", "proxy_protocol_from", index),
            f"{network} is nearly everybody, and each of them can claim to come from any address; "
            "name the addresses of your load balancers",
        )
        for index, network in enumerate(config.ssh.proxy_protocol_from)
        if network.prefixlen < MIN_PREFIX
    ]


def _what_a_cluster_needs(config: Config) -> Iterator[Finding]:
    if config.cluster is None:
        return
    if not config.ssh.host_keys:
        yield Finding(
            ("ssh", "host_keys"),
            "is required with cluster: one host stands behind one address; "
            "name the same private host keys on all nodes",
            (_CLUSTER,),
        )
    if config.election.engine == "flock" and config.election.flock.path is None:
        yield Finding(
            _LOCK,
            "is required with cluster; name the lock file on the shared volume, the same file on all nodes",
            (_CLUSTER, ("election", "engine")),
        )
    wildcards = [endpoint for endpoint in config.ssh.listen if endpoint.is_wildcard]
    if wildcards and config.ssh.advertise is None:
        yield Finding(
            ("ssh", "advertise"),
            f"is required, since ssh.listen has the wildcard '{wildcards[0]}'; "
            "write the 'host:port' where the other nodes reach this one",
            (_CLUSTER, ("ssh", "listen")),
        )
    if config.ssh.advertise == config.cluster.address:
        yield Finding(
            ("ssh", "advertise"),
            f"'{config.ssh.advertise}' is cluster.address, which moves from node to node; "
            "write this node's own name or address",
            (("cluster", "address"),),
        )
    if config.cluster.key in config.ssh.host_keys:
        yield Finding(
            ("cluster", "key"),
            "is also in ssh.host_keys; make a separate key: a host key must not give access to the cluster",
            (("ssh", "host_keys"),),
        )


def _what_a_single_node_cannot_have(config: Config) -> Iterator[Finding]:
    if config.cluster is not None:
        return
    if config.election.flock.path is not None:
        yield Finding(
            _LOCK,
            "has no meaning without cluster, and this node would lead by itself; "
            "add cluster (name, address, key), or remove the path",
            (_CLUSTER,),
        )
    if config.replication.mode == "strict":
        yield Finding(
            ("replication", "mode"),
            "'strict' refuses every push without a standby, and without cluster there is none; "
            "add cluster (name, address, key), or remove the mode",
            (_CLUSTER,),
        )


def _listening(config: Config) -> Iterator[Finding]:
    sections = {"ssh": config.ssh.listen, "health": config.health.listen}
    places = [
        ((section, "listen", index), endpoint)
        for section, endpoints in sections.items()
        for index, endpoint in enumerate(endpoints)
    ]
    for (first, one), (second, other) in combinations(places, 2):
        if one.overlaps(other):
            where = f"{first[0]}.listen"
            yield Finding(
                second, f"'{other}' cannot be had together with '{one}' of {where}; change one", (first,)
            )


def _timings(config: Config) -> Iterator[Finding]:
    election, replication = config.election, config.replication
    if not election.heartbeat_s < election.watchdog_s:
        yield Finding(
            _WATCHDOG,
            f"{election.watchdog_s:g} must be more than election.heartbeat_s ({election.heartbeat_s:g}); "
            "three times as much is usual",
            (_HEARTBEAT,),
        )
    if not election.watchdog_s < election.lease_s:
        yield Finding(
            _LEASE,
            f"{election.lease_s:g} must be more than election.watchdog_s ({election.watchdog_s:g}), "
            "or a node that hangs could still lead when another takes over; five heartbeats are usual",
            (_WATCHDOG,),
        )
    if not replication.ack_timeout_s > PROGRESS_EVERY_S:
        yield Finding(
            ("replication", "ack_timeout_s"),
            f"{replication.ack_timeout_s:g} must be more than {PROGRESS_EVERY_S:g}: a standby at work says "
            f"so once in {PROGRESS_EVERY_S:g} s, and would be late in between; 5 is usual",
        )
    if not replication.ack_timeout_s <= replication.ack_max_s:
        yield Finding(
            ("replication", "ack_max_s"),
            f"{replication.ack_max_s:g} must not be less than replication.ack_timeout_s "
            f"({replication.ack_timeout_s:g}); raise it, or lower the other",
            (("replication", "ack_timeout_s"),),
        )


def _limits(config: Config) -> Iterator[Finding]:
    limits = config.limits
    if limits.max_pushes >= limits.max_sessions > 1:
        yield Finding(
            ("limits", "max_pushes"),
            f"{limits.max_pushes} leaves no session to reads, since limits.max_sessions is "
            f"{limits.max_sessions}; write less",
            (("limits", "max_sessions"),),
        )


def _addresses(config: Config) -> Iterator[Finding]:
    """Each item of `address` must be possible, and no two may move the same address or name."""
    seen: dict[str, int] = {}
    for index, item in enumerate(config.address):
        here: KeyPath = ("address", index)
        if isinstance(item, VipItem):
            yield from _vip(here, item, config)
        if isinstance(item, DnsItem):
            yield from _dns(here, item, config)
        moved = _moved(item, config)
        if moved in seen:
            text = f"moves {moved}, as address[{seen[moved]}] does; remove one of them"
            yield Finding(here, text)
        elif moved:
            seen[moved] = index


def _moved(item: AddressItem, config: Config) -> str:
    if isinstance(item, VipItem):
        return str(item.address.ip)
    return dns_name(item, config) or "" if isinstance(item, DnsItem) else ""


def _vip(here: KeyPath, item: VipItem, config: Config) -> Iterator[Finding]:
    advertised = config.ssh.advertise
    if advertised is not None and advertised.host == str(item.address.ip):
        yield Finding(
            (*here, "address"),
            f"'{item.address.ip}' is this node's own in ssh.advertise; write the address that moves",
            (("ssh", "advertise"),),
        )


def dns_name(item: DnsItem, config: Config) -> str | None:
    """The name that `item` moves: its `name`, else that of cluster.address; None if there is neither."""
    if item.name is not None or config.cluster is None:
        return item.name
    host = config.cluster.address.host.removesuffix(".").lower()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None


def _dns(here: KeyPath, item: DnsItem, config: Config) -> Iterator[Finding]:
    name = dns_name(item, config)
    if name is None:
        yield Finding(
            (*here, "name"),
            "is required, since cluster.address has no name; write the name that follows the leader",
            (_CLUSTER,),
        )
    elif name != item.zone and not name.endswith(f".{item.zone}"):
        yield Finding(
            (*here, "zone"),
            f"'{item.zone}' does not hold '{name}'; write the zone that the name is in",
            ((*here, "name"), _CLUSTER),
        )
