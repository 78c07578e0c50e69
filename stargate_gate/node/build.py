"""Builds a node from its configuration: each part is built when all that it needs is there.

    Listeners (empty yet) → repositories → elector → mirror → leadership → address → checks, volumes → reports
    → metrics → gate → SSH server (now known to Listeners) → HTTP server, control socket → lifecycle

Nothing listens, and nothing runs, when `build_node` returns: see `node.Node.run`.
"""

from dataclasses import dataclass
from pathlib import Path

import structlog

from stargate_gate.access.host_keys import fingerprints, load_host_keys, load_or_make_host_keys
from stargate_gate.address.floating import FloatingAddress
from stargate_gate.address.items import addresses_of
from stargate_gate.aio.tasks import Signal
from stargate_gate.config.model import Config
from stargate_gate.control.commands import OperatorCommands
from stargate_gate.control.promotion import NodePromotion
from stargate_gate.control.rescued import RescuedCommands
from stargate_gate.control.scrub import ScrubCommands
from stargate_gate.control.server import ControlServer
from stargate_gate.control.sessions import LocalSessions
from stargate_gate.datadir.layout import DataDir
from stargate_gate.datadir.locks import LeadingLock
from stargate_gate.election.elector import Elector
from stargate_gate.election.engines import open_engine
from stargate_gate.election.port import Engine, Member
from stargate_gate.election.state import FILE_NAME as ELECTION_STATE
from stargate_gate.election.state import ElectionState
from stargate_gate.election.term import Term
from stargate_gate.gate.session import Gate
from stargate_gate.gate.ssh.server import SshServer
from stargate_gate.health.checks import Checks, data_dir_probe, git_probe, ssh_probe
from stargate_gate.health.http import HealthServer
from stargate_gate.health.metrics import Metrics
from stargate_gate.health.report import Reports
from stargate_gate.health.volumes import Volumes
from stargate_gate.node.concern_log import ConcernLog
from stargate_gate.node.leadership import NodeLeadership
from stargate_gate.node.lifecycle import Lifecycle, NobodyToFollow
from stargate_gate.node.listeners import Listeners
from stargate_gate.node.reports import NodeReports, followed
from stargate_gate.node.repositories import Repositories, open_repositories
from stargate_gate.node.settings import (
    feed_settings,
    gate_settings,
    mode_in_force,
    server_settings,
    timings,
)
from stargate_gate.node.term_changes import PeerCommands, TermChanges, WatchedJournal
from stargate_gate.node.unsound_findings import UnsoundFindings
from stargate_gate.replication.leader.feed import Feed
from stargate_gate.replication.leader.reach import Dialler, no_peers
from stargate_gate.replication.leader.unconfirmed import Unconfirmed
from stargate_gate.replication.rescue.journal import NoJournal
from stargate_gate.replication.rescue.restore import Restorer
from stargate_gate.replication.standby.equality import FILE_NAME as IN_STEP
from stargate_gate.replication.standby.equality import InStep
from stargate_gate.replication.standby.intent_files import FOLDER as INTENTS
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.mirror import Mirror, MirrorSettings
from stargate_gate.replication.wire.numbers import FIRST_POSITION
from stargate_gate.repos.git import git_argv, git_environment
from stargate_gate.repos.process import GitProcesses

log = structlog.get_logger()

DATA_DIR_CHECK = "data_dir"


@dataclass(frozen=True)
class Parts:
    """What lives as long as the node does, and is started or stopped by it."""

    config: Config
    datadir: DataDir
    fingerprints: tuple[str, ...]
    listeners: Listeners
    repositories: Repositories
    engine: Engine
    elector: Elector
    leadership: NodeLeadership
    address: FloatingAddress
    checks: Checks
    volumes: Volumes
    concern_log: ConcernLog
    ssh: SshServer
    http: HealthServer
    control: ControlServer
    lifecycle: Lifecycle


def build_node(config: Config, datadir: DataDir, processes: GitProcesses) -> Parts:
    """All parts of one node.

    Raises:
        ConfigurationError: a file that the configuration names, or one of the node's own, cannot be used.
        ElectionUnavailableError: the lock file of a single node cannot be made.
    """
    me = Member(config.node.name, datadir.id)
    host_keys = (
        load_host_keys(config.ssh.host_keys)
        if config.ssh.host_keys
        else load_or_make_host_keys(datadir.state)
    )
    listeners = Listeners(config, fingerprints(host_keys))
    repositories = open_repositories(config, datadir, processes)
    engine, elector = _build_elector(config, datadir, me, listeners)
    changed = Signal()
    mirror = _build_mirror(config, repositories, listeners, elector, changed)
    leadership = NodeLeadership(me.name, elector.view, lambda: followed(mirror), changed)
    address = FloatingAddress(me.name, addresses_of(config))
    checks = Checks(
        [
            data_dir_probe(datadir.root),
            git_probe(git_argv("version"), git_environment()),
            ssh_probe(listeners.bound),
        ]
    )
    volumes = Volumes(_volumes_of(config, datadir))
    reports = NodeReports(
        config, elector, leadership, repositories, mirror, address, listeners, checks, volumes
    )
    metrics = Metrics(reports)
    gate = _build_gate(me, reports, metrics)
    ssh = SshServer(gate, host_keys, server_settings(config, address.hosts))
    listeners.serve_with(ssh)
    start = _TermStart(me, reports, metrics)
    return Parts(
        config=config,
        datadir=datadir,
        fingerprints=fingerprints(host_keys),
        listeners=listeners,
        repositories=repositories,
        engine=engine,
        elector=elector,
        leadership=leadership,
        address=address,
        checks=checks,
        volumes=volumes,
        concern_log=ConcernLog(reports.status),
        ssh=ssh,
        http=HealthServer(reports, metrics, config.health.listen),
        control=_build_control(me, gate, reports),
        lifecycle=Lifecycle(
            config,
            elector,
            leadership,
            mirror or NobodyToFollow(repositories.store.root),
            LeadingLock(datadir),
            address=address,
            clients=ssh,
            led=repositories.led,
            make_changes=start.changes,
            mode=mode_in_force(config),
            data_dir_failing=lambda: checks.failing_for_s(DATA_DIR_CHECK),
            on_leading=start.leading,
        ),
    )


def _volumes_of(config: Config, datadir: DataDir) -> dict[str, Path]:
    """What each volume that this node needs is for, and a path on it."""
    paths = {"data_dir": datadir.root}
    if config.cluster is not None and config.election.flock.path is not None:
        paths["lock volume"] = config.election.flock.path.parent
    return paths


def _build_elector(
    config: Config, datadir: DataDir, me: Member, listeners: Listeners
) -> tuple[Engine, Elector]:
    state = ElectionState(datadir.state / ELECTION_STATE)
    engine = open_engine(config.election, state, me)
    return engine, Elector(engine, me, timings=timings(config), advertised=listeners.advertised, state=state)


def _build_mirror(
    config: Config, repositories: Repositories, listeners: Listeners, elector: Elector, changed: Signal
) -> Mirror | None:
    """A standby's loop; a single node has nobody to follow."""
    if config.cluster is None or repositories.journal is None:
        return None
    findings = UnsoundFindings(repositories.store, repositories.led.leads)
    repositories.scrub.report_to(findings.hear)
    repositories.store.unsound.tell(
        lambda _id, note: repositories.scrub.look_again() if note is None else None
    )
    state = repositories.datadir.state
    return Mirror(
        elector.me,
        repositories.store,
        repositories.processes,
        repositories.refs,
        MirrorSettings(
            cluster_key=config.cluster.key,
            host_keys=tuple(config.ssh.host_keys),
            parallel_fetches=config.replication.parallel_fetches,
        ),
        intents=Intents(state / INTENTS),
        journal=repositories.journal,
        rescues=repositories.rescues,
        in_step=InStep(state / IN_STEP),
        profile=listeners.profile,
        on_checked=elector.checked,
        enroll=elector.enroll,
        on_change=changed.wake,
        on_applied=repositories.housekeeping.touched,
    )


def _build_gate(me: Member, reports: NodeReports, metrics: Metrics) -> Gate:
    parts = reports.repositories
    return Gate(
        parts.store,
        parts.processes,
        reports.leadership,
        PeerCommands(me, parts.led),
        Reports(reports),
        metrics,
        gate_settings(reports.config, parts.datadir),
    )


def _build_control(me: Member, gate: Gate, reports: NodeReports) -> ControlServer:
    parts, mirror = reports.repositories, reports.mirror
    restorer = None
    if mirror is not None:
        restorer = Restorer(
            parts.store, parts.processes, parts.rescues, mirror.credentials, reports.leader_address
        )
    commands = OperatorCommands(
        gate,
        Reports(reports),
        NodePromotion(reports.elector, reports.mirror_status),
        RescuedCommands(me.name, parts.rescues, restorer, reports.vanished),
        ScrubCommands(parts.scrub),
    )
    return ControlServer(parts.datadir.control_socket, commands, LocalSessions(gate))


class _TermStart:
    """What each term that this node wins begins with."""

    def __init__(self, me: Member, reports: NodeReports, metrics: Metrics) -> None:
        self._me = me
        self._elector = reports.elector
        self._parts = reports.repositories
        self._journal = reports.repositories.journal
        self._settings = feed_settings(reports.config)
        self._profile = reports.listeners.profile
        mirror = reports.mirror
        self._reach = Dialler(me, mirror.credentials).reach if mirror is not None else no_peers
        self._metrics = metrics

    def changes(self, term: Term) -> TermChanges:
        """The changes of `term`. The store reports new repositories to them from now on."""
        parts = self._parts
        unconfirmed = self._unconfirmed()
        feed = Feed(
            term,
            self._me,
            parts.store,
            parts.refs,
            self._settings,
            parts.disk_sync.on_disk,
            WatchedJournal(self._journal, unconfirmed) if self._journal is not None else NoJournal(),
            profile=self._profile,
            reach=self._reach,
        )
        changes = TermChanges(feed, parts.store, parts.housekeeping, record=term, unconfirmed=unconfirmed)
        parts.store.report_new_to(changes)
        return changes

    def _unconfirmed(self) -> Unconfirmed:
        """Begins with what terms before have left, as far as it is still here."""
        if self._journal is None:
            return Unconfirmed()
        name_of, known = self._parts.store.register.name_of, self._journal.known
        before = [(one, str(name)) for one, _ in known.repositories() if (name := name_of(one)) is not None]
        return Unconfirmed(before, unknown=known.nothing_known)

    def leading(self, term: int) -> None:
        """The term is open. What is here counts from now on; whether others have it all is not known yet."""
        if self._journal is not None:
            record = self._elector.view().record
            self._journal.settle(term, FIRST_POSITION)
            self._journal.forced(record.forced if record is not None else 0)
        self._metrics.leadership_changed()
        log.info("leading", node=self._me.name, term=term)
