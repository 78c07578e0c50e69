"""What Prometheus scrapes. Dashboards and alerts rely on every name, label and unit here.

The node calls the methods that count events. What describes a state is read from the StatusSource at each
scrape, so metrics and status never differ.
"""

from collections import Counter as Counted
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from stargate_gate.health.concerns import LEVELS
from stargate_gate.health.report import Status, StatusSource
from stargate_gate.status import ScrubStatus

# Labels come from these sets, so that no client can make new time series.
COMMANDS = frozenset(
    {
        "git-receive-pack", "git-upload-pack", "git-upload-archive", "health", "ready", "status",
        "repo", "stargate-feed", "stargate-refs", "stargate-whoami", "greeting",
    }
)  # fmt: skip
REFUSALS = frozenset({"not_leader", "not_allowed", "no_repository", "usage", "unavailable", "not_replicated"})
OTHER = "other"

SESSION_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """All metrics of one node, in a registry of their own."""

    def __init__(self, source: StatusSource) -> None:
        # For the whole process: the time at which a counter was made is of no use to operators.
        disable_created_metrics()  # type: ignore[no-untyped-call] # the library forgot its types
        self._registry = CollectorRegistry(auto_describe=False)
        self._sessions = Counter(
            "stargate_sessions",
            "SSH requests that ended, by command and exit status.",
            ["command", "exit"],
            registry=self._registry,
        )
        self._session_seconds = Histogram(
            "stargate_session_seconds",
            "How long SSH requests took, from the request to the exit status.",
            ["command"],
            buckets=SESSION_BUCKETS_S,
            registry=self._registry,
        )
        self._pushes_refused = Counter(
            "stargate_pushes_refused",
            "Pushes that Stargate itself refused, by reason.",
            ["reason"],
            registry=self._registry,
        )
        self._leadership_changes = Counter(
            "stargate_leadership_changes",
            "How often this node began to lead or stopped leading.",
            registry=self._registry,
        )
        for reason in REFUSALS:
            self._pushes_refused.labels(reason)  # 0 from the start, so that a first refusal is a rise
        self._registry.register(_StatusCollector(source))
        ProcessCollector(registry=self._registry)

    def session_ended(self, command: str, exit_status: int | None, duration_s: float) -> None:
        """Count one request. An unknown command counts as "other"; exit "none": the client was gone."""
        label = command if command in COMMANDS else OTHER
        self._sessions.labels(label, "none" if exit_status is None else str(exit_status)).inc()
        self._session_seconds.labels(label).observe(duration_s)

    def push_refused(self, reason: str) -> None:
        """Count one refused push: one of REFUSALS, else "other"."""
        self._pushes_refused.labels(reason if reason in REFUSALS else OTHER).inc()

    def leadership_changed(self) -> None:
        """Count that this node began or ceased to lead."""
        self._leadership_changes.inc()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition in the format that an Accept header asks for, and its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class _StatusCollector(Collector):
    """Turns the status report into gauges at each scrape."""

    def __init__(self, source: StatusSource) -> None:
        self._source = source

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance: the registry must not ask for a status while the node is being built."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """The gauges, as of now."""
        status = self._source.status()
        yield _build_info(status)
        yield _gauge("stargate_leading", "1 if this node is the leader, else 0.", status.role == "leader")
        yield _gauge("stargate_ready", "1 if this node leads and takes writes, else 0.", status.ready)
        yield _gauge(
            "stargate_healthy", "1 if every check of /healthz passes, else 0.", self._source.health().ok
        )
        yield _gauge("stargate_term", "Number of the leadership this node knows; 0: none.", status.term)
        yield _gauge(
            "stargate_sync_set_size", "Standbys that hold every acknowledged push.", len(status.sync_set)
        )
        yield _gauge(
            "stargate_feed_position",
            "Number of the newest change in this term, as this node counts.",
            status.position,
        )
        yield _gauge(
            "stargate_rescued_refs", "Values of an old leader kept as rescued refs.", status.rescued_refs
        )
        yield _gauge(
            "stargate_status_level",
            "0 well, 1 warning, 2 critical, 3 unknown: as `status` ends.",
            status.level,
        )
        yield _gauge("stargate_warnings", "Warnings in the status report.", len(status.concerns))
        connected = status.mirror is not None and status.mirror.connected
        yield _gauge("stargate_mirror_connected", "1 if this standby follows the leader, else 0.", connected)
        yield from _concern_gauges(status)
        yield from _standby_gauges(status)
        yield from _copy_gauges(status)
        yield from _volume_gauges(status)
        yield from _address_gauges(status)
        yield from _scrub_gauges(status.scrub)


def _build_info(status: Status) -> Metric:
    labels = {"version": status.version, "node": status.node, "cluster": status.cluster or ""}
    return InfoMetricFamily("stargate_build", "What runs here; always 1.", value=labels)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _concern_gauges(status: Status) -> Iterator[Metric]:
    """Every kind, also with 0, so that a first one is a rise."""
    found = GaugeMetricFamily(
        "stargate_concerns", "Things to look at, by kind, as in the status report.", labels=["kind", "level"]
    )
    count = Counted(one.kind for one in status.concerns)
    for kind, level in LEVELS.items():
        found.add_metric([kind, level.word], count[kind])
    yield found


def _copy_gauges(status: Status) -> Iterator[Metric]:
    """What is on fewer nodes than it should be."""
    waiting = status.unreplicated.repositories
    yield _gauge(
        "stargate_unreplicated_repositories",
        "Repositories with changes that not every member of the sync set has confirmed.",
        len(waiting),
    )
    yield _gauge(
        "stargate_only_copy_repositories",
        "The same, where no other connected node has them.",
        sum(not one.elsewhere for one in waiting),
    )
    oldest = min((one.since for one in waiting if one.since), default=status.now)
    yield _gauge(
        "stargate_unreplicated_seconds", "Age of the oldest such change.", max(0.0, status.now - oldest)
    )
    yield _gauge("stargate_aside_repositories", "Repositories that are set aside.", len(status.aside))
    refused = sum(one.served != "normally" for one in status.aside)
    yield _gauge(
        "stargate_aside_refused_repositories", "Of these, the ones that take no pushes here.", refused
    )
    if status.expiring_keys:
        first = min(one.at for one in status.expiring_keys)
        yield _gauge(
            "stargate_next_key_expiry_timestamp_seconds",
            "When the first user's last key ends, if one does within 30 days.",
            first,
        )


def _volume_gauges(status: Status) -> Iterator[Metric]:
    families = {
        "free_bytes": "Free bytes of the volume.",
        "total_bytes": "Size of the volume.",
        "free_inodes": "Free inodes of the volume.",
        "measured_s": "Age of these figures.",
    }
    names = {"measured_s": "measured_seconds"}
    for key, text in families.items():
        found = GaugeMetricFamily(f"stargate_volume_{names.get(key, key)}", text, labels=["volume"])
        for volume in status.volumes:
            if (value := getattr(volume, key)) is not None:
                found.add_metric([volume.what], float(value))
        yield found


def _standby_gauges(status: Status) -> Iterator[Metric]:
    changes = GaugeMetricFamily(
        "stargate_standby_lag_changes", "Changes a standby has not confirmed yet.", labels=["standby"]
    )
    seconds = GaugeMetricFamily(
        "stargate_standby_lag_seconds",
        "Age of the oldest change a standby has not confirmed.",
        labels=["standby"],
    )
    in_sync = GaugeMetricFamily(
        "stargate_standby_in_sync", "1 if the standby is in the sync set, else 0.", labels=["standby"]
    )
    for standby in status.standbys:
        in_sync.add_metric([standby.name], float(standby.in_sync))
        if standby.lag_changes is not None:
            changes.add_metric([standby.name], standby.lag_changes)
        if standby.lag_s is not None:
            seconds.add_metric([standby.name], standby.lag_s)
    yield from (in_sync, changes, seconds)


def _scrub_gauges(scrub: ScrubStatus) -> Iterator[Metric]:
    copies = GaugeMetricFamily(
        "stargate_scrub_repositories", "This node's copies, by what is known of them.", labels=["state"]
    )
    copies.add_metric(["verified"], scrub.verified)
    copies.add_metric(["unverified"], scrub.unverified)
    copies.add_metric(["damaged"], len(scrub.damaged))
    yield copies
    yield _gauge(
        "stargate_scrub_oldest_check_age_seconds",
        "Age of the check that is longest ago, of any copy of this node.",
        scrub.oldest_check_s or 0.0,
    )
    yield CounterMetricFamily(
        "stargate_scrub_read_bytes", "Bytes that checks of copies have read.", value=scrub.read_bytes
    )


def _address_gauges(status: Status) -> Iterator[Metric]:
    claimed = GaugeMetricFamily(
        "stargate_address_claimed",
        "1 if this node has claimed the floating address, else 0.",
        labels=["address"],
    )
    failing = GaugeMetricFamily(
        "stargate_address_failing",
        "1 if the last attempt to claim or to release the floating address failed, else 0.",
        labels=["address"],
    )
    for one in status.addresses:
        claimed.add_metric([one.name], float(one.state == "claimed"))
        failing.add_metric([one.name], float(one.problem is not None))
    yield from (claimed, failing)
