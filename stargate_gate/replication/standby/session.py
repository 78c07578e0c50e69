"""Runs a `StandbySession` over one connection: carries out its instructions, and reports results as events.

`StandbySession` (core.py) decides everything. Here is one task group with

    listen   reads the feed, and passes each message to the session
    send     writes what is to be sent, as fast as the leader takes it
    clock    wakes the session at the time for which it has asked
    and one task for each job, which carries out its steps one after the other

All of them end with the session, and their git processes are reaped by then. Several may hear at the same
moment that the connection is gone. The first of them ends the session; from then on it takes no event, and
a task that has one is cancelled.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stargate_gate.aio.clock import now
from stargate_gate.aio.tasks import TaskGroup
from stargate_gate.election.port import Member
from stargate_gate.errors import StargateError
from stargate_gate.replication.notes import Notes
from stargate_gate.replication.peer.connection import Peer, PeerChannel
from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.standby.answers import Unsound
from stargate_gate.replication.standby.core import StandbySession
from stargate_gate.replication.standby.events import (
    Begun,
    BytesCame,
    Connected,
    ConnectionEnded,
    Event,
    FoundUnsound,
    Heard,
    MadeProgress,
    Measured,
    Sent,
    StepDone,
    StepFailed,
    Tick,
)
from stargate_gate.replication.standby.instructions import (
    Cancel,
    Do,
    End,
    Equal,
    Instruction,
    OpenFeed,
    Send,
    Wake,
    Welcomed,
)
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.leader_client import AskedLeader
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.ref_writer import NotReapedError
from stargate_gate.replication.standby.states import State
from stargate_gate.replication.standby.step_runner import StepRunner, nothing_to_look_after, nothing_to_note
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import Heartbeat, MessageError, Welcome, decode, encode
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store
from stargate_gate.repos.unsound import Note


class SessionEndedError(Exception):
    """The session is over; the message says why, for operators."""


@dataclass(frozen=True)
class Here:
    """This node, as a session needs it. `instance` is random for each start of it."""

    me: Member
    instance: str
    store: Store
    processes: GitProcesses
    refs: RefReader
    intents: Intents
    journal: Journal
    rescues: Rescues
    folders: FolderSyncs
    parallel_fetches: int
    profile: Callable[[], Profile]

    def step_runner(
        self,
        term: int,
        leader: AskedLeader | None,
        leader_name: str,
        notes: Notes,
        is_current: Callable[[], bool],
        *,
        note_incarnation: Callable[[str], Awaitable[None]] = nothing_to_note,
        look_after: Callable[[Repository], Awaitable[None]] = nothing_to_look_after,
    ) -> StepRunner:
        """A StepRunner that works with the parts of this node; its docstring explains the arguments."""
        return StepRunner(
            term,
            leader,
            leader_name,
            store=self.store,
            processes=self.processes,
            refs=self.refs,
            intents=self.intents,
            journal=self.journal,
            rescues=self.rescues,
            folders=self.folders,
            notes=notes,
            is_current=is_current,
            note_incarnation=note_incarnation,
            look_after=look_after,
        )


@dataclass(frozen=True)
class Callbacks:
    """What a session tells the mirror.

    is_current  whether refs may be changed for this session still
    welcomed    the leader has taken this standby in
    equal       everything of the leader's is here up to that position; also told again, at each heartbeat
    enroll      note that incarnation of this node's membership, on disk when it returns; raises StargateError
    applied     that repository was written to
    """

    is_current: Callable[[], bool]
    welcomed: Callable[[], None]
    equal: Callable[[int], None]
    enroll: Callable[[str], Awaitable[None]]
    applied: Callable[[Repository], Awaitable[None]]


class Session:
    """Made for one connection; `run` lasts as long as it.

    core      decides; the mirror reads from it how this session gets on
    notes     what is wrong with single repositories
    heard_at  when the leader said something last, as of time.monotonic()
    """

    def __init__(self, peer: Peer, leader: Member, term: int, here: Here, callbacks: Callbacks) -> None:
        self.core = StandbySession(
            here.me,
            here.instance,
            leader,
            term,
            parallel=here.parallel_fetches,
            unsound={
                identity: Unsound(RepositoryName(note.name), note.why)
                for identity, note in here.store.unsound.notes().items()
            },
        )
        self.notes = Notes("repository_not_as_on_the_leader", time.monotonic)
        self.heard_at = time.monotonic()
        self._peer = peer
        self._here = here
        self._callbacks = callbacks
        self._runner = here.step_runner(
            term,
            AskedLeader(peer, term),
            leader.name,
            self.notes,
            callbacks.is_current,
            note_incarnation=callbacks.enroll,
            look_after=callbacks.applied,
        )
        self._group: TaskGroup
        self._over = False  # no event may follow, and no task may start
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._channel: PeerChannel | None = None
        self._outgoing: Send | None = None
        self._to_send = asyncio.Event()
        self._wake_at: float | None = None
        self._wake_changed = asyncio.Event()

    async def run(self) -> None:
        """Follow until the connection or the session ends.

        Raises:
            SessionEndedError: always, unless cancelled.
            NotReapedError: a git process of the session does not end.
        """
        try:
            async with TaskGroup() as self._group:
                try:
                    self._group.create_task(self._clock(), name="mirror-clock")
                    self._tell(Begun(now()))
                    await asyncio.Event().wait()  # a task that fails ends this, and `finally` comes first
                finally:
                    self._over = True
        except ExceptionGroup as group:
            raise _reason(group) from group
        finally:
            if self._channel is not None:
                self._channel.close()

    def found_unsound(self, identity: str, note: Note) -> None:
        """That copy of this node was noted as unsound: it is to be replaced."""
        if not self._over:
            self._tell(FoundUnsound(now(), identity, RepositoryName(note.name), note.why))

    def _tell(self, event: Event, mine: int | None = None) -> Do | None:
        """Hand on an event, and see to what follows; the next step of the job `mine` is left to the caller.

        Raises:
            SessionEndedError: the session is over, by this event.
            CancelledError: it was over before.
        """
        if self._over:
            raise asyncio.CancelledError
        next_step: Do | None = None
        for instruction in self.core.handle(event):
            if isinstance(instruction, Do) and instruction.job == mine:
                next_step = instruction
            else:
                self._see_to(instruction)
        return next_step

    def _see_to(self, instruction: Instruction) -> None:
        match instruction:
            case Do():
                work = self._work_off(instruction)
                self._tasks[instruction.job] = self._group.create_task(
                    work, name=f"mirror-job-{instruction.job}"
                )
            case Cancel():
                if (task := self._tasks.pop(instruction.job, None)) is not None:
                    task.cancel()
            case OpenFeed():
                self._group.create_task(self._listen(), name="mirror-listen")
            case Send():
                self._outgoing = instruction
                self._to_send.set()
            case Wake():
                self._wake_at = instruction.at
                self._wake_changed.set()
            case Welcomed():
                self._callbacks.welcomed()
            case Equal():
                self._callbacks.equal(instruction.position)
            case End():
                self._over = True
                raise SessionEndedError(instruction.reason)
            case _:
                self._runner.remark(instruction)

    # -- tasks -----------------------------------------------------------------------------------------

    async def _work_off(self, do: Do) -> None:
        """The steps of one job, one after the other, until it is over or has to wait for another job."""
        job = do.job
        progress = self._progress_of(job)
        step: Do | None = do
        while step is not None:
            event: Event
            try:
                event = StepDone(now(), job, await self._runner.carry_out(step.step, progress))
            except (StargateError, OSError, ValueError) as error:
                event = StepFailed(now(), job, error, random.random())  # noqa: S311 - spreads retries, guards nothing
            except NotReapedError:
                self._over = True
                raise
            if _cancelled():  # the session has dropped the job, whatever became of the step
                raise asyncio.CancelledError
            step = self._tell(event, job)
        if self._tasks.get(job) is asyncio.current_task():
            del self._tasks[job]

    def _progress_of(self, job: int) -> Progress:
        if self.core.state is not State.FOLLOWING:
            return Progress()
        return Progress(
            lambda: self._note_progress(BytesCame(now())),
            lambda received: self._note_progress(MadeProgress(now(), job, received)),
        )

    def _note_progress(self, event: BytesCame | MadeProgress) -> None:
        """Something has come, unless the session has ended in between."""
        if not self._over and self.core.state is State.FOLLOWING:
            self._tell(event)

    async def _listen(self) -> None:
        try:
            self._channel = channel = await self._peer.open("stargate-feed")
            self._group.create_task(self._send(channel), name="mirror-send")
            self._tell(Connected(now()))
            lines = LineReader(channel)
            while True:
                message = decode(await lines.line())
                self.heard_at = time.monotonic()
                if isinstance(message, Welcome | Heartbeat):
                    self._tell(Measured(now(), self._here.profile(), self._peer.received_bytes))
                self._tell(Heard(now(), message))
        except EOFError:
            reason = (self._channel.stderr if self._channel else "") or "the leader has ended the feed"
        except StargateError as error:
            reason = error.message
        except (MessageError, ConnectionError) as error:
            reason = str(error)
        self._tell(ConnectionEnded(now(), reason))

    async def _send(self, channel: PeerChannel) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            outgoing, self._outgoing = self._outgoing, None
            try:
                for message in outgoing.messages if outgoing is not None else ():
                    await channel.write(encode(message))
            except ConnectionError as error:
                self._tell(ConnectionEnded(now(), channel.stderr or str(error)))
            self._tell(Sent(now()))

    async def _clock(self) -> None:
        while True:
            try:
                async with asyncio.timeout_at(self._wake_at):
                    await self._wake_changed.wait()
                self._wake_changed.clear()
            except TimeoutError:
                self._wake_at = None
                self._tell(Tick(now()))


def _reason(group: ExceptionGroup[Exception]) -> Exception:
    """What ended the session; the whole group if some of it is nothing that a session may end with."""
    _, others = group.split((NotReapedError, SessionEndedError, ConnectionError))
    if others is not None:
        return group
    for one in group.exceptions:
        if isinstance(one, NotReapedError):
            return one
    return SessionEndedError(str(group.exceptions[0]))


def _cancelled() -> bool:
    """Whether this task was asked to end, whatever became of the request."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
