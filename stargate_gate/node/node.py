"""The one place that puts the rooms together, and owns start and stop.

Start:  data_dir and node lock → writers lock (end and sweep what an earlier node left) → repositories →
        address released → SSH, HTTP and control listeners → election → lifecycle.
Stop:   readyz 503 → no new pushes → drain → the standby caught up → record clean, successor named →
        address released → leader lock closed → listeners closed → every git process reaped →
        local locks closed.
"""

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from stargate_gate import __version__
from stargate_gate.access.host_keys import (
    fingerprints,
    load_host_keys,
    load_or_make_host_keys,
    pass_secret_of,
    public_key_of,
)
from stargate_gate.address.floating import FloatingAddress
from stargate_gate.address.items import addresses_of
from stargate_gate.aio.sighup import Hangups
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.model import Config
from stargate_gate.control.commands import OperatorCommands
from stargate_gate.control.promotion import NodePromotion
from stargate_gate.control.rescued import RescuedCommands, vanished
from stargate_gate.control.server import ControlServer
from stargate_gate.control.sessions import LocalSessions
from stargate_gate.datadir.layout import DataDir, keep_name, open_data_dir
from stargate_gate.datadir.locks import LeadingLock, NodeLock
from stargate_gate.datadir.writers import WritersLock
from stargate_gate.election.elector import Elector
from stargate_gate.election.engines import open_engine, retry_s
from stargate_gate.election.port import Member
from stargate_gate.election.state import FILE_NAME as ELECTION_STATE
from stargate_gate.election.state import ElectionState
from stargate_gate.election.status import Advertised, LeadershipView, Timings
from stargate_gate.election.term import Term
from stargate_gate.errors import UnavailableError
from stargate_gate.gate.session import Gate, GateSettings
from stargate_gate.gate.ssh.server import ServerSettings, SshServer
from stargate_gate.health.checks import Checks, data_dir_probe, git_probe, ssh_probe
from stargate_gate.health.http import HealthServer
from stargate_gate.health.metrics import Metrics
from stargate_gate.health.report import Reports
from stargate_gate.node.gate_settings import next_steps, places, shares
from stargate_gate.node.host_keys import watch_host_keys
from stargate_gate.node.leadership import NodeLeadership
from stargate_gate.node.lifecycle import Lifecycle, NobodyToFollow
from stargate_gate.node.reload import Reloader
from stargate_gate.node.reports import NodeReports, mode_in_force
from stargate_gate.node.repository_survey import Lookout
from stargate_gate.node.term_changes import DiskSync, LedTerm, PeerCommands, TermChanges
from stargate_gate.node.watchdog import feed_watchdog, notify_systemd
from stargate_gate.replication.leader.context import FeedSettings
from stargate_gate.replication.leader.feed import Feed
from stargate_gate.replication.leader.reach import Dialler, no_peers
from stargate_gate.replication.leader.sync_rules import Limits
from stargate_gate.replication.rescue.journal import FILE_NAME as JOURNAL
from stargate_gate.replication.rescue.journal import Journal, NoJournal, forget_journal
from stargate_gate.replication.rescue.restore import Restorer
from stargate_gate.replication.rescue.store import FOLDER as RESCUES
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.standby.equality import FILE_NAME as IN_STEP
from stargate_gate.replication.standby.equality import InStep
from stargate_gate.replication.standby.intent_files import FOLDER as INTENTS
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.mirror import Mirror, MirrorSettings
from stargate_gate.replication.wire.about import Profile, settings_of
from stargate_gate.replication.wire.numbers import FIRST_POSITION
from stargate_gate.repos.git import git_argv, git_environment
from stargate_gate.repos.hooks import install_hooks
from stargate_gate.repos.housekeeping import Housekeeping
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import find_all
from stargate_gate.repos.store import Store
from stargate_gate.repos.sweep import sweep_data_dir
from stargate_gate.status import MirrorStatus, StandbyStatus

log = structlog.get_logger()

DATA_DIR_CHECK = "data_dir"


async def run_node(config: Config, config_file: Path | None, hangups: Hangups) -> None:
    """Run one node until SIGTERM or SIGINT, then step down and return.

    At each of `hangups` it reads `config_file` again; see node/reload.py.

    Raises:
        ConfigurationError: a file that the configuration names cannot be used, or differs from what
            the cluster's record says.
        UnavailableError: another node runs on this data_dir, or a port is in use.
    """
    datadir = open_data_dir(config.node.data_dir)
    async with AsyncExitStack() as stack:
        stack.enter_context(NodeLock.acquire(datadir))
        keep_name(datadir, config.node.name, is_host_name="name" not in config.node.model_fields_set)
        install_hooks(datadir)
        writers = await WritersLock.open_exclusively_then_share(
            datadir, lambda paths: asyncio.to_thread(sweep_data_dir, datadir, paths)
        )
        stack.callback(writers.close)
        processes = GitProcesses(datadir, writers)
        stack.push_async_callback(processes.end_all)
        await Node(config, datadir, processes).run(config_file, hangups)


class Node:
    """One `stargate serve`: everything that lives as long as the process does."""

    def __init__(self, config: Config, datadir: DataDir, processes: GitProcesses) -> None:
        self._config = config
        self._datadir = datadir
        self._me = Member(config.node.name, datadir.id)
        self._lifecycle: Lifecycle | None = None
        self._led = LedTerm()
        self._host_keys = (
            load_host_keys(config.ssh.host_keys)
            if config.ssh.host_keys
            else load_or_make_host_keys(datadir.state)
        )
        self._processes = processes
        self._rescues = Rescues.open(datadir.state / RESCUES)
        self._journal = _open_journal(config, datadir)
        self._store = Store(
            datadir,
            processes,
            default_branch=config.repositories.default_branch,
            trash_days=config.repositories.trash_days,
            must_stay=self._rescues.has,
            leads=self._led.leads,
        )
        self._lookout = Lookout(self._store, alone=config.cluster is None)
        self._refs = RefReader(processes)
        self._housekeeping = Housekeeping(self._store, processes)
        self._checks = Checks(
            [
                data_dir_probe(datadir.root),
                git_probe(git_argv("version"), git_environment()),
                ssh_probe(lambda: self._ssh_addresses),
            ]
        )
        self._ssh_addresses: list[tuple[str, int]] = []
        self._elector: Elector | None = None
        self._leadership = NodeLeadership(self._me.name, self._view, self._followed)
        self._mirror = self._make_mirror()
        self._address = FloatingAddress(self._me.name, addresses_of(config))
        reports = NodeReports(
            config,
            self._me,
            leadership=self._view,
            accepting=lambda: self._leadership.view().accepting,
            standbys=self._standbys,
            position=lambda: self._feed.position if self._feed else 0,
            mirror=self._mirror_report,
            differs=self._differs,
            checks=self._checks,
            rescued_refs=lambda: self._rescues.count,
            addresses=self._address.reports,
            warnings=lambda: (
                *self._rescues.problems,
                *self._ssh.problems,
                *self._vanished(),
                *self._notes(),
                *self._lookout.warnings(),
            ),
            locked_out=lambda: self._ssh.locked_out,
        )
        self._metrics = Metrics(reports)
        texts = Reports(reports)
        self._disk_sync = DiskSync()
        gate = Gate(
            self._store,
            processes,
            self._leadership,
            PeerCommands(self._me, self._led),
            texts,
            self._metrics,
            GateSettings(
                hooks=datadir.hooks,
                spill=datadir.run,
                create_on_push=config.repositories.create_on_push,
                handover_wait_s=config.election.handover_wait_s,
                drain_s=config.election.drain_s,
                shares=shares(config),
                queue_wait_s=config.limits.queue_wait_s,
                address=str(config.cluster.address) if config.cluster else None,
            ),
        )
        self._ssh = SshServer(
            gate,
            self._host_keys,
            ServerSettings(
                listen=tuple((one.host, one.port) for one in config.ssh.listen),
                authorized_keys=config.authorized_keys_path,
                cluster_key=public_key_of(config.cluster.key) if config.cluster else None,
                pass_secret=pass_secret_of(config.cluster.key) if config.cluster else None,
                login_timeout_s=config.limits.login_timeout_s,
                places=places(config),
                max_sessions=config.limits.max_sessions,
                max_connections_per_key=config.limits.max_connections_per_key,
                proxies=config.ssh.proxy_protocol_from,
                floating=self._address.hosts,
            ),
        )
        self._http = HealthServer(reports, self._metrics, config.health.listen)
        self._control = ControlServer(
            datadir.control_socket, self._operator_commands(gate, texts), LocalSessions(gate)
        )

    # -- what the rooms ask of each other --------------------------------------------------------------

    @property
    def _feed(self) -> Feed | None:
        return self._led.feed

    def _view(self) -> LeadershipView:
        if self._elector is None:
            return LeadershipView("standby", self._me.name, None, 0, False, "it is starting", None)
        return self._elector.view()

    def _followed(self) -> str | None:
        """The leader that the mirror hears from."""
        status = self._mirror.status() if self._mirror is not None else None
        return status.leader if status is not None and status.connected else None

    def _standbys(self) -> tuple[StandbyStatus, ...]:
        return self._feed.standbys() if self._feed is not None else ()

    def _differs(self) -> tuple[str, ...]:
        if self._feed is not None:
            return tuple(text for one in self._feed.standbys() for text in one.differs)
        return self._mirror.status().differs if self._mirror is not None else ()

    def _profile(self) -> Profile:
        """What this node tells its peers of itself."""
        settings = settings_of(
            self._config,
            version=__version__,
            host_keys=fingerprints(self._host_keys),
            user_keys=self._ssh.keys_digest(),
        )
        return Profile(str(self._advertised()), settings)

    def _advertised(self) -> Endpoint:
        """Where peers reach this node."""
        return self._config.ssh.advertise or Endpoint(*self._ssh_addresses[0])

    def _mirror_report(self) -> MirrorStatus | None:
        if self._mirror is None or self._view().role == "leader":
            return None
        return self._mirror.status()

    def _vanished(self) -> list[str]:
        return vanished(self._store, self._mirror, leads=self._led.leads())

    def _notes(self) -> tuple[str, ...]:
        """What is wrong with single repositories, here or on the leader."""
        return self._feed.notes.lines if self._feed else self._mirror.status().notes if self._mirror else ()

    def _leader_address(self) -> Endpoint | None:
        """Where the node that leads takes SSH connections, this one included."""
        record = self._view().record
        leads = self._view().role == "leader" or self._followed() is not None
        return Endpoint.parse(record.ssh) if leads and record is not None and record.ssh else None

    # -- start and stop --------------------------------------------------------------------------------

    async def run(self, config_file: Path | None, hangups: Hangups) -> None:
        """Listen, take part in the election, and stop in order on SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            reloader = Reloader(self._config, config_file, self._ssh.reload_keys)
            stack.callback(asyncio.create_task(reloader.run(hangups), name="reload").cancel)
            stack.push_async_callback(self._address.close)
            await self._address.start()
            if self._journal is not None:
                stack.push_async_callback(self._journal.close)
            stack.push_async_callback(self._ssh.close)
            self._ssh_addresses = await self._ssh.start()
            stack.push_async_callback(self._http.close)
            health_addresses = await self._http.start()
            stack.push_async_callback(self._control.close)
            await self._control.start()
            await self._store.census()  # so that what was there before is known before any push comes
            self._checks.start()
            stack.callback(self._checks.stop)
            self._elector = await self._join_election(health_addresses, stack)
            self._lifecycle = self._make_lifecycle(self._elector)
            self._announce(health_addresses)
            await self._work(stop)

    async def _work(self, stop: asyncio.Event) -> None:
        """Until `stop`; a room that fails ends the node, loudly."""
        elector = self._elector
        assert self._lifecycle is not None and elector is not None  # noqa: S101, PT018
        background = [
            asyncio.create_task(feed_watchdog(self._config.election.watchdog_s), name="watchdog"),
            asyncio.create_task(self._housekeeping.run(), name="housekeeping"),
            asyncio.create_task(watch_host_keys(elector, fingerprints(self._host_keys)), name="host-keys"),
            asyncio.create_task(self._lookout.run(), name="lookout"),
        ]
        lifecycle = asyncio.create_task(self._lifecycle.run(), name="lifecycle")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({*background, lifecycle, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                log.info("stopping", node=self._me.name)
                notify_systemd("STOPPING=1")
                self._leadership.stop()
                self._lifecycle.stop()
                await asyncio.wait({lifecycle})  # each of its steps has its own limit
        finally:
            for task in (*background, lifecycle, stopping):
                task.cancel()
            results = await asyncio.gather(*background, lifecycle, stopping, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        log.info("stopped", node=self._me.name)

    async def _join_election(self, health: list[Endpoint], stack: AsyncExitStack) -> Elector:
        election = self._config.election
        state = ElectionState(self._datadir.state / ELECTION_STATE)
        engine = open_engine(election, state, self._me)
        stack.push_async_callback(engine.close)
        elector = Elector(
            engine,
            self._me,
            timings=Timings(
                retry_s=retry_s(election),
                heartbeat_s=election.heartbeat_s,
                lease_s=election.lease_s,
                handover_wait_s=election.handover_wait_s,
            ),
            advertised=Advertised(
                ssh=str(self._advertised()),
                http=str(health[0]) if health else "",
                host_keys=fingerprints(self._host_keys),
                mode=mode_in_force(self._config),
            ),
            state=state,
        )
        stack.callback(elector.close)
        return elector

    def _make_mirror(self) -> Mirror | None:
        """A standby's loop; a single node has nobody to follow."""
        config = self._config
        if config.cluster is None or self._journal is None:
            return None
        return Mirror(
            self._me,
            self._store,
            self._processes,
            self._refs,
            MirrorSettings(
                cluster_key=config.cluster.key,
                host_keys=tuple(config.ssh.host_keys),
                parallel_fetches=config.replication.parallel_fetches,
            ),
            intents=Intents(self._datadir.state / INTENTS),
            journal=self._journal,
            rescues=self._rescues,
            in_step=InStep(self._datadir.state / IN_STEP),
            profile=self._profile,
            on_checked=self._checked,
            enroll=self._enroll,
            on_change=self._leadership.changed,
            on_applied=self._housekeeping.touched,
        )

    def _operator_commands(self, gate: Gate, texts: Reports) -> OperatorCommands:
        mirror, restorer = self._mirror, None
        if mirror is not None:
            restorer = Restorer(
                self._store, self._processes, self._rescues, mirror.credentials, self._leader_address
            )
        mirror_status = lambda: mirror.status() if mirror is not None else None  # noqa: E731
        promotion = NodePromotion(self._me, lambda: self._elector, mirror_status)
        rescued = RescuedCommands(self._me.name, self._rescues, restorer, self._vanished)
        return OperatorCommands(gate, texts, promotion, rescued)

    def _checked(self, term: int, position: int) -> None:
        if self._elector is not None:
            self._elector.checked(term, position)

    async def _enroll(self, incarnation: str) -> None:
        if self._elector is None:
            raise UnavailableError("the election has not started")
        await self._elector.enroll(incarnation)

    def _make_lifecycle(self, elector: Elector) -> Lifecycle:
        replication = self._config.replication
        settings = FeedSettings(
            mode_in_force(self._config),
            Limits(replication.ack_timeout_s, replication.ack_max_s),
            self._config.election.heartbeat_s,
            replication.full_check_s,
        )
        journal = self._journal if self._journal is not None else NoJournal()

        reach = Dialler(self._me, self._mirror.credentials).reach if self._mirror is not None else no_peers

        def make_changes(term: Term) -> TermChanges:
            feed = Feed(
                term,
                self._me,
                self._store,
                self._refs,
                settings,
                self._disk_sync.on_disk,
                journal,
                profile=self._profile,
                reach=reach,
            )
            changes = TermChanges(feed, self._store, self._housekeeping)
            self._store.tell(changes)
            return changes

        return Lifecycle(
            self._config,
            elector,
            self._leadership,
            self._mirror or NobodyToFollow(self._store.root),
            LeadingLock(self._datadir),
            address=self._address,
            clients=self._ssh,
            led=self._led,
            make_changes=make_changes,
            mode=mode_in_force(self._config),
            data_dir_failing=lambda: self._checks.failing_for_s(DATA_DIR_CHECK),
            on_leading=self._leading,
        )

    def _leading(self, term: int) -> None:
        """What is here is the truth from now on; that others have it all is still to be seen."""
        record = self._view().record
        if self._journal is not None:
            self._journal.settle(term, FIRST_POSITION)
            self._journal.forced(record.forced if record is not None else 0)
        self._metrics.leadership_changed()
        log.info("leading", node=self._me.name, term=term)

    def _announce(self, health: list[Endpoint]) -> None:
        config = self._config
        log.info(
            "node_started",
            node=self._me.name,
            version=__version__,
            pid=os.getpid(),
            data_dir=str(self._datadir.root),
            ssh=[str(Endpoint(*one)) for one in self._ssh_addresses],
            http=[str(one) for one in health],
        )
        notify_systemd("READY=1")
        if config.cluster is None and sys.stderr.isatty():
            sys.stderr.write(next_steps(config, Endpoint(*self._ssh_addresses[0])))


def _open_journal(config: Config, datadir: DataDir) -> Journal | None:
    """A single node keeps none."""
    path = datadir.state / JOURNAL
    if config.cluster is None:
        forget_journal(path)
        return None
    first = next(iter(find_all(datadir.repositories, lambda _path, _reason: None)), None)
    return Journal.open(path, has_repositories=first is not None)
