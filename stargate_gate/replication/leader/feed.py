"""The leader's side of replication, as the node and the gate call it. Decides nothing: see term.py.

Each call and each message becomes an event for the term, and what the term wants is carried out here:

    a call of the gate    runs its own reading (`_read`), or waits for its answer (`replicated`)
    a standby             has a StandbyConnection with a few tasks
    the cluster record    is written by one task, which the feed holds
    time                  one timer, set to when the term wants to be woken
"""

import asyncio
import contextvars
import itertools
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from structlog.contextvars import bound_contextvars

from stargate_gate.aio.backoff import Backoff
from stargate_gate.aio.clock import now
from stargate_gate.aio.tasks import HeldTasks
from stargate_gate.election.incarnation import new_incarnation
from stargate_gate.election.port import Member
from stargate_gate.errors import (
    LeadershipLostError,
    NoSuchRepositoryError,
    NotLeaderError,
    RepositoryGoneError,
    StargateError,
    TryAgainError,
    UnavailableError,
    UsageError,
)
from stargate_gate.exitcodes import ExitCode
from stargate_gate.replication.leader.context import FeedSettings, Outside
from stargate_gate.replication.leader.events import (
    CatchUpGivenUp,
    CatchUpWanted,
    Closed,
    ConnectionEnded,
    Event,
    Joined,
    Purpose,
    ReadGivenUp,
    ReadWanted,
    RecordLost,
    RecordUncertain,
    RecordWritten,
    Tick,
    WaitBegan,
    WaitGivenUp,
    WorkedFor,
)
from stargate_gate.replication.leader.instructions import (
    Admit,
    Answer,
    CannotRead,
    CaughtUp,
    EndLink,
    Instruction,
    JournalRefined,
    JournalReplicated,
    JournalSent,
    ListRepositories,
    Log,
    LookUp,
    Note,
    Numbered,
    Outcome,
    Reach,
    ReadDone,
    ReadRefs,
    Refuse,
    Send,
    SyncRepository,
    Wake,
    WriteRecord,
)
from stargate_gate.replication.leader.reach import RETRY
from stargate_gate.replication.leader.reach import Reach as ReachStandby
from stargate_gate.replication.leader.refs_answer import answer_refs
from stargate_gate.replication.leader.repository_reader import (
    OneReading,
    PendingReading,
    RepositoryReader,
    SyncToDisk,
)
from stargate_gate.replication.leader.standby_connection import StandbyConnection
from stargate_gate.replication.leader.standby_status import standbys_of
from stargate_gate.replication.leader.term import LeaderTerm
from stargate_gate.replication.notes import Notes
from stargate_gate.replication.ports import Channel, LeaderJournal, TermRecord
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import Join, Listed, MessageError, Refused, encode, expect
from stargate_gate.replication.wire.numbers import UNNUMBERED
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository, is_id
from stargate_gate.repos.store import Store
from stargate_gate.status import StandbyStatus

log = structlog.get_logger()

JOIN_LIMIT_S = 10.0  # from the start of a feed's channel to the standby's first line
RECORD_BACKOFF = Backoff(0.2, 5.0, random.random)
FAILED_TICK_S = 1.0  # after a fault of this program, if no other time was set
LATE_BACKOFF = Backoff(1.0, 60.0, random.random)  # one that was late may be late again

T = TypeVar("T")


class Feed:
    """Made when this node begins to lead a term; `close` ends it with the term.

    on_disk  puts all that was complete in a repository before the call on this node's disk; raises
             TryAgainError if it is not
    journal  notes what is written, and what every member of the sync set has
    profile  what this node tells its standbys of itself
    reach    looks whether a standby is where it says that it is
    """

    def __init__(  # noqa: PLR0917 - node/node.py passes its parts in this order
        self,
        term: TermRecord,
        me: Member,
        store: Store,
        refs: RefReader,
        settings: FeedSettings,
        on_disk: SyncToDisk,
        journal: LeaderJournal,
        *,
        profile: Callable[[], Profile],
        reach: ReachStandby,
    ) -> None:
        self.term = term.number
        self.me = me
        self.profile = profile
        self.notes = Notes("repository_not_read", time.monotonic)
        self._record = term
        self._store = store
        self._journal = journal
        self._mode = settings.mode
        self._reach = reach
        self._reader = RepositoryReader(store, refs, on_disk)
        outside = Outside(
            profile=profile,
            new_incarnation=new_incarnation,
            wall_s=time.time,
            late_delay_s=LATE_BACKOFF.delay_s,
            record_delay_s=RECORD_BACKOFF.delay_s,
            reach_delay_s=RETRY.delay_s,
        )
        self._core = LeaderTerm(term, me, settings, outside, now())
        self._numbers = itertools.count(1)
        self._connections: dict[int, StandbyConnection] = {}
        self._readings: dict[int, PendingReading] = {}
        self._waits: dict[int, asyncio.Future[Answer]] = {}
        self._catching_up: asyncio.Future[Member | None] | None = None
        self._writes = HeldTasks()
        self._timer: asyncio.TimerHandle | None = None
        self._context = contextvars.copy_context()  # for what is done in no session's name
        self._handle(Tick(now()))

    @property
    def core(self) -> LeaderTerm:
        """The term, for status: to be looked at only."""
        return self._core

    @property
    def position(self) -> int:
        """The newest change's sequence number; FIRST_POSITION before the first one of this term."""
        return self._core.position

    # -- the gate's side: what has changed -------------------------------------------------------------

    async def writing(self, identity: RepositoryIdentity) -> None:
        """Refs of it are about to get values: noted on disk when this returns. Followed by one `written`.

        Raises:
            OSError: it is not; they must stay as they are.
            RepositoryGoneError: it was deleted.
        """
        repository = await self._store.register.whereabouts(identity)
        if repository is None:
            raise RepositoryGoneError("the repository was deleted meanwhile; nothing was changed: try again")
        await self.expect(identity.id, repository.name)

    async def expect(self, identity: str, name: RepositoryName) -> None:
        """As `writing`, of one that is about to get that id."""
        await self._journal.mark(self.term, UNNUMBERED, identity, str(name), None)

    async def written(self, identity: RepositoryIdentity) -> int:
        """As `pushed`, of what `writing` or `expect` announced.

        Which refs it were is noted when it is sent. What cannot be read stays noted as any of them.
        """
        return await self._number(identity, Purpose.SEND_ANNOUNCED)

    async def pushed(self, identity: RepositoryIdentity) -> int:
        """Read what it holds, put that on disk, and send it, if it is not what was sent last.

        Returns the sequence number that covers what the repository holds now. For a repository that cannot
        be read, standbys are told to compare; nothing is acknowledged in it.

        Raises:
            TryAgainError: it is not on disk, or cannot be read.
            RepositoryGoneError: it was deleted, or another one is in its place.
        """
        return await self._number(identity, Purpose.SEND)

    async def created(self, identity: RepositoryIdentity) -> int:
        """Send a new repository, which `expect` announced; returns the sequence number that covers it."""
        return await self.written(identity)

    async def deleted(self, name: RepositoryName, identity: str) -> int:
        """Send that a user has deleted that repository; returns the sequence number of that."""
        outcome = await self._read(identity, Purpose.DELETE, None, name)
        return outcome.seq if isinstance(outcome, Numbered) else self.position

    async def replicated(self, identity: str, seq: int) -> None:
        """Wait until every member of the sync set has that repository as it was at `seq`, on disk.

        Raises:
            TryAgainError: not in time, or nobody is there in mode strict.
            LeadershipLostError: the term is over.
        """
        found = self._store.register.name_of(identity)
        name = str(found) if found is not None else None
        number, answered = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waits[number] = answered
        try:
            self._handle(WaitBegan(now(), number, identity, seq, name))
            answer = await answered
        finally:
            if self._waits.pop(number, None) is not None:
                self._handle(WaitGivenUp(now(), number))
        if answer.refused is not None:
            with bound_contextvars(repository=name):
                log.warning("not_replicated", repository_id=identity, seq=seq, reason=answer.refused)
            raise TryAgainError(f"not replicated in time: {answer.refused}; the outcome is unknown")
        if not answer.acknowledged:
            raise LeadershipLostError("the term has ended; the outcome is unknown")

    def sync_set(self) -> frozenset[str]:
        """The names of the sync set as it is recorded; nobody in mode async, which waits for nobody."""
        return frozenset() if self._mode == "async" else frozenset(m.name for m in self._record.in_force)

    def waits_for(self, identity: str, seq: int) -> dict[str, int]:
        """Whom `replicated` waits for: the standbys' names, and the bytes that each has got of it."""
        return self._core.sync_set.waits_for(identity, seq)

    def worked_for(self, identity: str, peer_of: str) -> None:
        """Git has worked on that repository here for the standbys at that address: they get on."""
        self._handle(WorkedFor(now(), peer_of, identity))

    # -- the node's side -------------------------------------------------------------------------------

    def standbys(self) -> tuple[StandbyStatus, ...]:
        """The connected standbys, by name."""
        return standbys_of(self._core.links, self._record.in_force, self.profile().settings, now())

    async def caught_up(self, limit_s: float) -> Member | None:
        """The first member of the sync set to confirm that it holds everything sent so far.

        For stepping down, when no more writes come. None if there is none within `limit_s` seconds, or
        nobody is connected any more.
        """
        found: asyncio.Future[Member | None] = asyncio.get_running_loop().create_future()
        self._catching_up = found
        try:
            self._handle(CatchUpWanted(now(), now() + limit_s))
            return await found
        finally:
            if self._catching_up is not None:
                self._catching_up = None
                self._handle(CatchUpGivenUp(now()))

    async def close(self) -> None:
        """The term is over: end every connection, write no more records. Safe to call twice."""
        running = [one for one in self._connections.values() if one.is_admitted]
        self._handle(Closed(now()))
        for connection in running:
            await connection.ended.wait()
        await self._writes.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the standbys' side ----------------------------------------------------------------------------

    async def serve(self, words: Sequence[str], channel: Channel, peer_of: str) -> int:
        """Run one command of a peer's: `stargate-feed`, or `stargate-refs ID`; the exit status.

        Raises:
            UsageError: it is another command, or wrong arguments.
            NotLeaderError: this term is over.
        """
        self._require_open()
        match tuple(words):
            case ("stargate-feed",):
                return await self._serve_feed(channel, peer_of)
            case ("stargate-refs", identity) if is_id(identity):
                return await self._serve_refs(identity, channel)
        raise UsageError(
            f"{' '.join(words)[:100]!r} is not a command for peers of this version: update the older node"
        )

    async def _serve_feed(self, channel: Channel, source: str) -> int:
        lines = LineReader(channel)
        try:
            async with asyncio.timeout(JOIN_LIMIT_S):
                join = expect(await lines.line(), Join)
        except (TimeoutError, EOFError, MessageError) as error:
            raise UsageError(f"no standby of this version: {error or 'it does not say who it is'}") from error
        self._require_open()
        connection = StandbyConnection(
            next(self._numbers),
            channel,
            lines,
            self._handle,
            store=self._store,
            list_entry=self.listed,
            reach=self._reach,
        )
        self._connections[connection.number] = connection
        ended = "it was not admitted"
        try:
            self._handle(Joined(now(), connection.number, join, source))
            refusal = await connection.admission
            if refusal is None:
                ended = await connection.run()
        finally:
            del self._connections[connection.number]
            connection.ended.set()
            self._handle(ConnectionEnded(now(), connection.number, ended))
        if refusal is None:
            log.info("standby_disconnected", standby=join.member.name, reason=ended, term=self.term)
            return ExitCode.NOT_LEADER if self._core.closed else ExitCode.OK
        if refusal.reason is None:
            self._require_open()
        else:
            await channel.write(encode(Refused(refusal.reason)))
        return ExitCode.UNAVAILABLE

    async def _serve_refs(self, identity: str, channel: Channel) -> int:
        """Send all refs of one repository as they are now, with the number that covers them."""
        outcome = await self._read(identity, Purpose.SHOW, self._reader.of_id(identity))
        await answer_refs(
            channel, self.term, identity, outcome, store=self._store, require_open=self._require_open
        )
        return ExitCode.OK

    # -- readings --------------------------------------------------------------------------------------

    async def listed(self, repository: Repository) -> Listed | None:
        """Its entry in a full list; None if it is gone, or another repository is there by now."""
        try:
            identity = self._store.register.identity(repository)
            if not self._store.register.holds(repository, identity):
                return None  # it was moved, or replaced by a copy, just now
            reading = self._reader.of_folder(repository, identity)
            outcome = await self._read(identity.id, Purpose.LIST, reading)
        except (NoSuchRepositoryError, UnavailableError):
            return None  # a standby that has it asks for it by its id
        return outcome if isinstance(outcome, Listed) else None

    async def _number(self, identity: RepositoryIdentity, purpose: Purpose) -> int:
        match await self._read(identity.id, purpose, self._reader.of_push(identity)):
            case Numbered(seq):
                return seq
            case CannotRead(name, reason):
                raise TryAgainError(
                    f"this node cannot read {name} ({reason}): see its status; the outcome is unknown"
                )
        raise RepositoryGoneError("the repository was deleted or moved meanwhile; the outcome is unknown")

    async def _read(
        self,
        identity: str,
        purpose: Purpose,
        reading: OneReading | None,
        name: RepositoryName | None = None,
    ) -> Outcome:
        """Wait for the turn, and do what the term wants, in the caller's task. Raises as `reading`."""
        number, pending = next(self._numbers), PendingReading()
        self._readings[number] = pending
        try:
            self._handle(ReadWanted(now(), number, identity, purpose, name))
            while True:
                match await pending.todo.get():
                    case ReadDone(outcome=outcome):
                        return outcome
                    case ReadRefs() if reading is not None:
                        self._handle(await reading.read(number))
                    case SyncRepository() if reading is not None:
                        self._handle(await reading.sync(number))
        finally:
            del self._readings[number]
            if not pending.over:
                self._handle(ReadGivenUp(now(), number))

    # -- carrying out what the term wants --------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        """Give it to the term, and carry out what follows. Never waits.

        Raises what the term or an instruction raises (a bug), after the other instructions were carried out:
        they are those of other pushes and standbys.
        """
        failed: Exception | None = None
        try:
            instructions = self._core.handle(event)
        except Exception as error:  # noqa: BLE001 - it is raised below
            failed, instructions = error, self._core.take()
            if self._timer is None:
                self._set_timer(now() + FAILED_TICK_S)  # the clock goes on
        for instruction in instructions:
            try:
                self._carry_out(instruction)
            except Exception as error:  # noqa: BLE001 - as well
                failed = failed or error
        if failed is not None:
            raise failed

    def _carry_out(self, instruction: Instruction) -> None:  # noqa: C901, PLR0912 - one case for each kind
        match instruction:
            case ReadRefs() | SyncRepository() | ReadDone():
                pending = self._readings[instruction.read]
                pending.over = isinstance(instruction, ReadDone)
                pending.todo.put_nowait(instruction)
            case Send() | ListRepositories() | LookUp() | Reach():
                self._connections[instruction.link].take(instruction)
            case Admit() | Refuse():
                refusal = instruction if isinstance(instruction, Refuse) else None
                self._connections[instruction.link].decide(refusal)
            case EndLink():
                self._connections[instruction.link].end(instruction.reason)
            case Answer():
                _give(self._waits.pop(instruction.wait, None), instruction)
            case CaughtUp():
                waiting, self._catching_up = self._catching_up, None
                _give(waiting, instruction.successor)
            case WriteRecord():
                self._context.copy().run(self._writes.start, self._write_record(), "sync-set")
            case JournalSent(seq, identity, name, refs):
                self._journal.told(self.term, seq, identity, name, refs)
            case JournalRefined(seq, identity):
                self._journal.refine(identity, self.term, seq, ())
            case JournalReplicated(seq):
                self._journal.replicated(self.term, seq)
            case Note(name, line):
                self.notes.clear(name) if line is None else self.notes.say(name, line)
            case Log(severity, event, fields):
                getattr(log, severity)(event, **fields)
            case Wake():
                self._set_timer(instruction.at)

    async def _write_record(self) -> None:
        event: Event
        try:
            members = await self._record.update_members(self._core.wanted_members, position=self.position)
        except LeadershipLostError:
            event = RecordLost(now())
        except StargateError as error:
            event = RecordUncertain(now(), error.message)
        except Exception as error:  # noqa: BLE001 - a bug; whatever it is, the outcome is not known
            event = RecordUncertain(now(), repr(error))
        else:
            event = RecordWritten(now(), members)
        self._handle(event)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(at, self._tick, at, context=self._context) if at is not None else None

    def _tick(self, at: float) -> None:
        self._timer = None
        self._handle(Tick(max(at, now())))  # the loop may call a little early

    def _require_open(self) -> None:
        if self._core.closed:
            raise NotLeaderError(f"{self.me.name} has stepped down from term {self.term}")


def _give(waiting: "asyncio.Future[T] | None", answer: T) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(answer)
