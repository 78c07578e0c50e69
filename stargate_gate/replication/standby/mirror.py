"""The standby's side: follow the current leader, connect again when a connection is lost, until `end`.

A takeover calls `end` first. When it returns, no task of the mirror runs, every git process that it started
is reaped, and the files that those left are removed. After that nothing of the old term changes a ref.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from stargate_gate.aio.backoff import Backoff
from stargate_gate.aio.tasks import HeldTasks, finish
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import (
    ConfigurationError,
    ElectionUnavailableError,
    StargateError,
    UnavailableError,
)
from stargate_gate.replication.notes import Notes
from stargate_gate.replication.peer.connection import Credentials, Peer
from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.standby.equality import InStep
from stargate_gate.replication.standby.following import Attempts
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.intent_steps import complete
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.ref_writer import NotReapedError
from stargate_gate.replication.standby.session import Callbacks, Here, Session, SessionEndedError
from stargate_gate.replication.standby.step_runner import carry_out_all
from stargate_gate.replication.wire.about import Profile, Refilling, differences
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.process import GitProcess, GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store
from stargate_gate.repos.unsound import Note
from stargate_gate.status import Equality, MirrorStatus

log = structlog.get_logger()

# a leader that restarts is back in a second; one that is gone may wait
CONNECT_BACKOFF = Backoff(0.05, 5.0, random.random)

CANCEL_AGAIN_S = 1.0  # a cancellation can get lost in a task that ends a wait for another reason just then


@dataclass(frozen=True)
class MirrorSettings:
    """What of the configuration concerns the mirror. The files hold private keys without passphrases.

    cluster_key       shown to the leader
    host_keys         this node's own; the leader has to have the same
    parallel_fetches  repositories that are worked on at a time
    """

    cluster_key: Path
    host_keys: tuple[Path, ...]
    parallel_fetches: int = 4


class Mirror:
    """One per node. One `follow` at a time; `end` from anywhere.

    in_step     told of every moment at which this node equals its leader
    profile     what this node tells its leader of itself
    on_checked  called with (term, position) when everything up to there is here, and was checked
    on_change   something that `status` tells of connection or leader has changed
    enroll      awaited with the incarnation of a membership of this node; on disk when it returns
    on_applied  awaited after a repository was written to, for housekeeping

    Raises:
        ConfigurationError: a key file cannot be used.
    """

    def __init__(
        self,
        me: Member,
        store: Store,
        processes: GitProcesses,
        refs: RefReader,
        settings: MirrorSettings,
        *,
        intents: Intents,
        journal: Journal,
        rescues: Rescues,
        in_step: InStep,
        profile: Callable[[], Profile],
        on_checked: Callable[[int, int], None],
        enroll: Callable[[str], Awaitable[None]],
        on_change: Callable[[], None] | None = None,
        on_applied: Callable[[Repository], Awaitable[None]] | None = None,
    ) -> None:
        self._here = Here(
            me,
            secrets.token_hex(8),
            store,
            processes,
            refs,
            intents,
            journal,
            rescues,
            FolderSyncs(),
            settings.parallel_fetches,
            profile,
        )
        store.unsound.tell(self._found_unsound)
        self.in_step = in_step
        self.credentials = Credentials.load(settings.cluster_key, settings.host_keys)
        self._on_checked = on_checked
        self._enroll = enroll
        self._on_change = on_change
        self._on_applied = on_applied
        self._tasks = HeldTasks()  # `end` ends it, from outside of `follow`
        self._following: asyncio.Task[None] | None = None
        self._record: ClusterRecord | None = None
        self._session: Session | None = None
        self._connected = False
        self._alone_since = time.monotonic()
        self._checked: tuple[int, int] | None = None
        self._error: str | None = None
        self._tried_at = time.monotonic()
        self._behind: tuple[str, ...] = ()
        self._lingering: list[GitProcess] = []

    async def follow(self, record: ClusterRecord) -> None:
        """Mirror the leader that `record` names, until cancelled or `end`; everything has ended then."""
        await self.end()
        task = self._tasks.start(self._keep_following(record), "mirror-follow", awaited=True)
        self._following = task
        try:
            await asyncio.wait({task})
        finally:
            await finish(self._stop(task))
        if not task.cancelled():
            task.result()

    async def end(self) -> None:
        """End all of it: tasks are over, git processes reaped, repositories swept. Safe to call at any time.

        Raises:
            UnavailableError: a git process does not end; then this node must not lead.
        """
        while (task := self._following) is not None:
            await finish(self._stop(task))
        self._lingering = [process for process in self._lingering if process.returncode is None]
        if self._lingering:
            raise UnavailableError(f"git process {self._lingering[0].pid} of the mirror does not end")

    async def finish_received(self) -> None:
        """Complete what `end` has cut: a change of several refs is there as a whole before this node leads.

        And it is on disk: this node acknowledges whatever it shows as a leader. What can be neither completed
        nor undone in one repository holds up no other: this node leads with what is there. Received values
        that are not put in place are rescued.

        Raises:
            ElectionUnavailableError: it cannot be done now; then this node must not lead.
        """
        here = self._here
        notes = Notes("repository_not_as_on_the_leader", time.monotonic)
        runner = here.step_runner(0, None, here.me.name, notes, lambda: True)
        try:
            await here.folders.settle(here.store.root)
            here.folders.distrust()  # from now on, pushes write here
            for intent in await carry_out_all(complete(rescue=True), runner, Progress()):
                await here.intents.remove(intent.repository_id)  # from now on, pushes write there
        except (StargateError, OSError, NotReapedError) as error:
            if isinstance(error, NotReapedError):
                self._lingering.append(error.process)
            raise ElectionUnavailableError(f"what was received cannot be completed: {error}") from error

    def status(self) -> MirrorStatus:
        """As of now, from memory."""
        session, record = self._session, self._record
        failing = session.core.queue.failing() if session is not None else []
        error = self._error
        if failing:
            error = f"{failing[0].name}: {failing[0].error}"
        refilling = session.core.refilling() if session is not None and self._connected else None
        level = self._connected and session is not None and session.core.equal
        in_step = self.in_step.newest
        return MirrorStatus(
            connected=self._connected,
            leader=record.leader.name if record is not None else None,
            behind_changes=_behind(session, refilling) if self._connected else None,
            last_error=error,
            behind=_at_work(session) if session is not None else self._behind,
            behind_s=0.0 if level else _since(in_step),
            level=level,
            position=self._position(),
            not_connected_s=None if self._connected else time.monotonic() - self._alone_since,
            in_step=in_step,
            refill=refilling.status() if refilling is not None else None,
            problem=(session.core.introductions.problem or None) if session is not None else None,
            differs=self._differs(session),
            notes=session.notes.lines if session is not None else (),
            orphans=tuple(sorted(map(str, session.core.orphans.values()))) if session is not None else (),
            heard_s=time.monotonic() - session.heard_at if session is not None and self._connected else None,
            tried_s=time.monotonic() - self._tried_at if error is not None and not self._connected else None,
        )

    def _position(self) -> int:
        """What this session has confirmed; else what was noted of the same term."""
        session, record, noted = self._session, self._record, self.in_step.newest
        here = session.core.position if session is not None else 0
        if noted is not None and record is not None and noted.term == record.term:
            here = max(here, noted.position)
        return here

    def _differs(self, session: Session | None) -> tuple[str, ...]:
        theirs = session.core.introductions.settings if session is not None else None
        if session is None or theirs is None:
            return ()
        keys = session.core.introductions.keys.lasts(asyncio.get_running_loop().time())
        return differences(self._here.profile().settings, theirs, session.core.leader.name, keys=keys)

    # -- inside ----------------------------------------------------------------------------------------

    async def _stop(self, task: "asyncio.Task[None]") -> None:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)
        if self._following is task:
            self._following = None
            self._record = None
            self._changed()

    async def _keep_following(self, record: ClusterRecord) -> None:
        loop = asyncio.get_running_loop()
        self._record, self._error, self._behind = record, None, ()
        self._changed()
        attempts = Attempts(CONNECT_BACKOFF)
        while True:
            attempts.begin(loop.time())
            try:
                await self._follow_once(record)
            except (StargateError, SessionEndedError, NotReapedError) as error:
                reason = error.message if isinstance(error, StargateError) else str(error)
                if isinstance(error, NotReapedError):
                    self._lingering.append(error.process)
                if _is_ending(asyncio.current_task()):
                    raise asyncio.CancelledError from error
            delay_s = attempts.ended(loop.time())
            report = log.debug if reason == self._error else log.warning
            report(
                "mirror_not_connected", leader=record.leader.name, reason=reason, retry_s=round(delay_s, 3)
            )
            self._error, self._tried_at = reason, time.monotonic()
            await asyncio.sleep(delay_s)

    async def _follow_once(self, record: ClusterRecord) -> None:
        if (mismatch := self.credentials.mismatch(record.leader.name, record.host_keys)) is not None:
            raise mismatch
        try:
            where = Endpoint.parse(record.ssh)
        except ValueError as error:
            raise ConfigurationError([f"ssh.advertise of {record.leader.name}: {error}"]) from error
        await self._distrust(record)
        current = asyncio.current_task()
        peer = await Peer.connect(where, self.credentials)
        callbacks = Callbacks(
            is_current=lambda: self._following is current and not _is_ending(current),
            welcomed=lambda: self._welcomed(record),
            equal=lambda position: self._equal(record.term, position),
            enroll=self._enroll,
            applied=self._applied,
        )
        self._session = Session(peer, record.leader, record.term, self._here, callbacks)
        try:
            await self._session.run()
        finally:
            self._behind = _at_work(self._session)
            self._session, was_connected, self._connected = None, self._connected, False
            if was_connected:
                self._alone_since = time.monotonic()
                self._changed()
            await finish(self._leave(peer))

    async def _leave(self, peer: Peer) -> None:
        await peer.close()
        await self.in_step.flush()

    async def _distrust(self, record: ClusterRecord) -> None:
        """If an operator forced a leadership since: what the sync set had before may be gone there."""
        try:
            await self._here.journal.distrust(record.forced)
        except OSError as error:
            raise UnavailableError(f"the journal cannot be written: {error.strerror}") from error

    def _welcomed(self, record: ClusterRecord) -> None:
        self._connected, self._error = True, None
        log.info("mirror_connected", leader=record.leader.name, term=record.term)
        self._changed()

    def _equal(self, term: int, position: int) -> None:
        if self._session is not None:
            self.in_step.note(Equality(term, position, self._session.core.equal_at))
        before, self._checked = self._checked, (term, position)
        if before is None or before[0] != term:
            log.info("mirror_fully_checked", term=term, position=position)
        if before != self._checked:
            self._on_checked(term, position)

    def _found_unsound(self, identity: str, note: Note | None) -> None:
        if self._session is not None and note is not None:
            self._session.found_unsound(identity, note)

    async def _applied(self, repository: Repository) -> None:
        if self._on_applied is not None:
            await self._on_applied(repository)

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()


def _since(in_step: Equality | None) -> float | None:
    """For how many seconds this node has not been equal to a leader; None: not known."""
    return max(0.0, time.time() - in_step.at) if in_step is not None and in_step.at > 0 else None


def _behind(session: Session | None, refilling: Refilling | None) -> int | None:
    """Repositories that it knows to differ; None while it does not know."""
    if session is None:
        return None
    if refilling is not None:
        return refilling.total - refilling.done if refilling.total else None
    return len(session.core.queue)


def _at_work(session: Session) -> tuple[str, ...]:
    return tuple(sorted(map(str, session.core.queue.busy().values())))


def _is_ending(task: "asyncio.Task[None] | None") -> bool:
    """Whether somebody has asked the task to end."""
    return task is None or task.done() or task.cancelling() > 0
