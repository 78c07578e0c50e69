"""A term, as the leader lives it: its record, and the fake disk, git, network and clock of its `LeaderTerm`.

What replication decides is decided by the product's LeaderTerm; this carries out its instructions. The record
follows election/term.py, the rest node/lifecycle.py.
"""

import contextlib
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.incarnation import kept, named
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
from stargate_gate.node.lifecycle import DRAIN_LAST_SHARE
from stargate_gate.replication.leader.context import FeedSettings, Outside
from stargate_gate.replication.leader.events import (
    CatchUpWanted,
    Closed,
    ConnectionEnded,
    DigestRead,
    Joined,
    NotThere,
    OnDisk,
    Purpose,
    ReadEvent,
    ReadGivenUp,
    ReadWanted,
    RecordLost,
    RecordUncertain,
    RecordWritten,
    RefsRead,
    Tick,
    Vanished,
    WaitBegan,
    WaitGivenUp,
)
from stargate_gate.replication.leader.events import Event as TermEvent
from stargate_gate.replication.leader.instructions import (
    Admit,
    Answer,
    CaughtUp,
    EndLink,
    Instruction,
    JournalRefined,
    JournalReplicated,
    JournalSent,
    ListRepositories,
    Log,
    LookUp,
    Missing,
    Moving,
    Numbered,
    Reach,
    ReadDone,
    ReadRefs,
    Refuse,
    Send,
    SyncRepository,
    Wake,
    WriteRecord,
)
from stargate_gate.replication.leader.sent_states import State
from stargate_gate.replication.leader.sync_rules import Limits, Stage
from stargate_gate.replication.leader.term import LeaderTerm
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.messages import PROTOCOL, Join, Listed
from stargate_gate.replication.wire.numbers import FIRST_POSITION, UNNUMBERED
from tests.simulation.disk import FullError, Line
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.feeding import FULL_CHECK_S, HEARTBEAT_S, Clock, Reading, Shown, StandbyConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.disk import Repo
    from tests.simulation.network import Connection
    from tests.simulation.process import Process, Tenure
    from tests.simulation.pushing import Push

LIMITS = Limits(ack_timeout_s=3.0, ack_max_s=12.0)
REACH_AGAIN_S = 0.5
COVERS = {  # lines of the term's log → what they cover
    "standby_late": "a standby is late",
    "standby_far_behind": "a standby is far behind",
    "standby_did_not_come": "a carried standby does not come",
    "sync_set_not_recorded": "a record's outcome is unknown",
}


class Leading:
    """One term of one process."""

    def __init__(self, process: "Process", tenure: "Tenure", record: ClusterRecord) -> None:
        self.process = process
        self.world = process.world
        self.rules = process.rules
        self.tenure = tenure
        self.record = record
        self.attempted: ClusterRecord | None = None
        self.is_open = False
        self.closed = True  # nobody is served before `begin`
        self.feedings: dict[int, StandbyConnection] = {}  # by link
        self.pushes: list[tuple[Task, Push]] = []
        self.changed = Event()
        self.turn = Event()
        self._writing = False
        self._recorder: Task | None = None
        self._tasks: list[Task] = []
        self._numbers = itertools.count(1)
        self._readings: dict[int, Reading] = {}
        self._waits: dict[int, Event] = {}
        self._answers: dict[int, Answer] = {}
        self._successor: CaughtUp | None = None
        self._stages: dict[int, Stage] = {}

    _over = False
    core: LeaderTerm

    # -- election/term.py -----------------------------------------------------------------------------

    @property
    def number(self) -> int:
        return self.record.term

    @property
    def in_force(self) -> frozenset[Member]:
        return frozenset(self.record.sync_set)

    @property
    def needed(self) -> frozenset[Member]:
        return self.rules.needed(self.record, self.attempted)

    @property
    def position(self) -> int:
        return self.core.position

    def valid(self) -> bool:
        return not self._over and self.tenure.valid()

    def accepting(self) -> bool:
        return self.is_open and self.valid()

    @property
    def members(self) -> "dict[Member, str | None]":
        return kept(self.record, self.record.sync_set)

    def update(
        self, *, choose: "Callable[[], dict[Member, str | None]] | None" = None, **changes: Any
    ) -> Steps:
        """The next version of the record; returns its sync set. Raises as Term.update_members."""
        while self._writing:
            yield self.turn, None
        self._writing = True
        try:
            before = self.attempted or self.record
            members = self.members if choose is None else choose()
            members.pop(self.record.leader, None)
            leads = {self.record.leader: self.record.incarnation_of(self.record.leader)}
            changed = replace(
                self.record,
                version=before.version + 1,
                sync_set=tuple(sorted(members)),
                incarnations=named({**members, **leads}),
                **{"successor": None, **changes},
            )
            if not self.valid():
                self.tenure.lose("no proof in time")
                raise LeadershipLostError("the lease has run out")
            self.attempted = changed if self.attempted is None else self.rules.either(self.attempted, changed)
            yield from self._write(changed)
            self.record, self.attempted = changed, None
            return frozenset(members)
        finally:
            self._writing = False
            self.world.engine.wake(self.turn)

    def _write(self, changed: ClusterRecord) -> Steps:
        from tests.simulation.process import TooLateError  # noqa: PLC0415 (they are made of each other)

        process = self.process
        try:
            yield from process.ask(process.write(self.tenure.hold, changed), max(0.0, self.tenure.left_s()))
        except LeadershipLostError:
            self.tenure.lose("by another's record")
            raise
        except TooLateError as error:
            raise ElectionUnavailableError("not written in time: outcome unknown") from error

    # -- node/lifecycle.py ----------------------------------------------------------------------------------

    def carry_over(self, former: Member | None) -> Steps:
        members = self.rules.carried(self.world.mode, self.in_force, former)
        if members != self.in_force:
            yield from self.update(choose=lambda: kept(self.record, members))
        if self.needed:
            self.world.cover("a sync set is carried over")
        self._begin()

    def _begin(self) -> None:
        """The term's feed is made; standbys are served."""
        world, chance = self.world, self.world.engine.chance.random
        outside = Outside(
            profile=Profile,
            new_incarnation=lambda: world.new_id("i"),
            wall_s=lambda: world.engine.now,
            late_delay_s=Backoff(1.0, 8.0, chance).delay_s,
            record_delay_s=Backoff(0.2, 5.0, chance).delay_s,
            reach_delay_s=lambda _: REACH_AGAIN_S,
        )
        settings = FeedSettings(world.mode, LIMITS, HEARTBEAT_S, FULL_CHECK_S)
        self.core = LeaderTerm(self, self.process.node.member, settings, outside, world.engine.now)
        self._clock = Clock(self, lambda now: self.handle(Tick(now)))
        self._tasks.append(self.process.start("clock", self._clock.run()))
        self.closed = False
        self.handle(Tick(world.engine.now))

    def open(self) -> None:
        """Take writes. What is here is the truth from now on; that others have it is still to be seen."""
        self.is_open = True
        journal = self.process.disk.journal
        journal.settle(self.number, FIRST_POSITION)
        journal.forced(self.record.forced)
        self.world.cover("a term opens")
        self.world.say(self.process.node, f"opens term {self.number}, sync set {_names(self.in_force)}")
        self.world.ledger.opens(self.process, self.record)

    def step_down(self, drain_s: float) -> Steps:
        """The running pushes finish, then no new ones, a standby is caught up, the record is clean."""
        engine = self.world.engine
        began, deadline = engine.now, engine.now + drain_s
        first = [task for task, _ in self.pushes]
        while any(task.alive for task in first) and engine.now < began + drain_s * (1 - DRAIN_LAST_SHARE):
            yield None, 0.5
        self.is_open = False
        while any(task.alive for task, _ in self.pushes) and engine.now < deadline:
            yield None, 0.5
        yield from self._end_pushes()
        successor = yield from self.caught_up(drain_s)
        try:
            yield from self.update(position=self.position, clean=True, successor=successor)
        except ElectionUnavailableError:
            self.world.cover("a clean record is not written")
        self.world.cover("a successor is named" if successor else "nobody is named")

    def close(self) -> Steps:
        """The term is over: pushes are ended and reaped, then connections."""
        yield from self._end_pushes()
        self._over = True
        engine = self.world.engine
        if not self.closed:
            self.closed = True
            yield
            self.handle(Closed(engine.now))
            while self.feedings:
                yield
        for task in self._tasks:
            engine.end(task)
        if self._recorder is not None:
            engine.end(self._recorder)

    def _end_pushes(self) -> Steps:
        """Each git is reaped; what it has written by then is told to whoever still listens."""
        for task, push in self.pushes:
            if task.alive and self.rules.reap_pushes:
                yield
                self.world.engine.end(task)
                with contextlib.suppress(FullError):
                    yield from push.tell(self)

    # -- what a feed is asked: replication/leader/feed.py ----------------------------------------------

    def writing(self, repo: "Repo") -> Steps:
        """Any of its refs may get values from now on; followed by one `written`. Raises FullError."""
        self.process.disk.journal.mark(self.number, UNNUMBERED, repo.id, repo.name, None)
        yield from self.process.sync_journal()

    def written(self, repo: "Repo") -> Steps:
        """As `pushed`, of what `writing` announced."""
        return (yield from self._number(repo, Purpose.SEND_ANNOUNCED))

    def pushed(self, repo: "Repo") -> Steps:
        """The sequence number that covers what the repository holds now; None: it was deleted meanwhile."""
        return (yield from self._number(repo, Purpose.SEND))

    def deleted(self, repo: "Repo") -> Steps:
        """A user has deleted it."""
        outcome = yield from self._read(repo.id, Purpose.DELETE, None, repo.name)
        return outcome.seq

    def listed(self, name: str) -> Steps:
        """Its entry in a full list, and its line for the ledger; None if it is gone."""
        found, disk = self.process.disk.repos.get(name), self.process.disk
        if found is None:
            return None
        lines: list[Line] = []

        def read(number: int) -> ReadEvent:
            now = self.world.engine.now
            if disk.repos.get(name) is not found:
                return NotThere(now, number)
            lines.append(disk.line(name))
            return DigestRead(now, number, name, found.snapshot().digest, whole=True)  # type: ignore[arg-type]

        outcome = yield from self._read(found.id, Purpose.LIST, OneReading(self, found, read))
        return (outcome, lines[-1]) if isinstance(outcome, Listed) else None

    def show(self, identity: str, name: str, asked: "Shown") -> Steps:
        """Answer a standby that asks for a repository's refs; `name` is for the ledger."""
        disk = self.process.disk
        reading = OneReading(self, None)

        def read(number: int) -> ReadEvent:
            reading.repo, asked.line = disk.by_id(identity), disk.line(name)
            if reading.repo is None:
                return Vanished(self.world.engine.now, number)
            return reading.refs(number)

        reading.read = read
        try:
            outcome = yield from self._read(identity, Purpose.SHOW, reading)
            yield
            asked.failed = self.closed or isinstance(outcome, Moving)
            if not asked.failed:
                asked.seq = outcome.seq
                asked.deleted = isinstance(outcome, Missing) and identity in disk.deleted
                if isinstance(outcome, Numbered) and outcome.state is not None:
                    asked.id, asked.refs = identity, dict(outcome.state.snapshot.refs)
        except FullError:
            asked.failed = True
        asked.complete = not asked.failed
        self.world.engine.wake(asked.event)

    def _number(self, repo: "Repo", purpose: Purpose) -> Steps:
        """The number; None if it was deleted: what has its name now is another one."""
        reading = OneReading(self, repo)

        def read(number: int) -> ReadEvent:
            now = self.process.disk.repos.get(repo.name)
            if now is None or (now is not repo and self.rules.ids):
                self.world.cover("a push's repository is gone")
                return Vanished(self.world.engine.now, number)
            reading.repo = now
            return reading.refs(number)

        reading.read = read
        outcome = yield from self._read(repo.id, purpose, reading)
        return outcome.seq if isinstance(outcome, Numbered) else None

    def _read(
        self, identity: str, purpose: Purpose, reading: "OneReading | None", name: str | None = None
    ) -> Steps:
        """Wait for the turn, and do what the term wants. Raises FullError."""
        number, pending, engine = next(self._numbers), Reading(), self.world.engine
        self._readings[number] = pending
        try:
            self.handle(ReadWanted(engine.now, number, identity, purpose, name))  # type: ignore[arg-type]
            while True:
                while not pending.todo:
                    yield pending.event, None
                instruction = pending.todo.popleft()
                if isinstance(instruction, ReadDone):
                    return instruction.outcome
                assert reading is not None
                yield
                if isinstance(instruction, SyncRepository):
                    yield from reading.sync()
                    self.handle(OnDisk(engine.now, number))
                else:
                    self.handle(reading.read(number))
        finally:
            del self._readings[number]
            if not pending.over:
                self.handle(ReadGivenUp(engine.now, number))

    def replicated(self, identity: str, seq: int) -> Steps:
        """Wait for it: "ok", "not in time" or "lost"."""
        number, engine = next(self._numbers), self.world.engine
        self._waits[number] = Event()
        try:
            self.handle(WaitBegan(engine.now, number, identity, seq))
            while number not in self._answers:
                yield self._waits[number], None
            answer = self._answers[number]
        finally:
            if self._answers.pop(number, None) is None:
                self.handle(WaitGivenUp(engine.now, number))
            del self._waits[number]
        if answer.refused is not None:
            self.world.cover(f"a push is not replicated: {answer.refused}")
            return "not in time"
        if answer.acknowledged and self.world.mode != "async":
            self.world.cover(f"a push is acknowledged with {min(len(answer.after), 2)} standbys")
        return "ok" if answer.acknowledged else "lost"

    def caught_up(self, limit_s: float) -> Steps:
        """A member of the sync set that has everything; None: nobody has."""
        engine, self._successor = self.world.engine, None
        self.handle(CatchUpWanted(engine.now, engine.now + limit_s))
        while self._successor is None:
            yield self.changed, None
        return self._successor.successor

    # -- connections -----------------------------------------------------------------------------------

    def connect(self, connection: "Connection", member: Member, instance: str) -> None:
        """A standby has introduced itself."""
        if member in self.core.links:
            self.world.cover("a standby is connected twice")
        number = next(self._numbers)
        self.feedings[number] = StandbyConnection(self, number, connection, member)
        self.handle(Joined(self.world.engine.now, number, Join(PROTOCOL, member, instance), member.name))

    def connection_ended(self, number: int, reason: str) -> None:
        """Nothing runs for it any more."""
        if self.feedings.pop(number, None) is not None:
            self.handle(ConnectionEnded(self.world.engine.now, number, reason))

    def check_now(self, member: Member) -> None:
        """A full list is due for that standby."""
        link = self.core.links.get(member)
        if link is not None:
            link.check_now()
            self.handle(Tick(self.world.engine.now))

    def confirmed_list(self, member: Member) -> int:
        """The newest list that it has confirmed; for the coverage."""
        link = self.core.links.get(member)
        return link._confirmed_check if link is not None else 0

    def names(self) -> tuple[Any, ...]:
        """All repositories here."""
        return tuple(sorted(self.process.disk.repos))

    # -- instructions ----------------------------------------------------------------------------------

    def handle(self, event: TermEvent) -> None:
        """Give it to the term, and carry out what it wants. A process that has crashed does nothing."""
        if self.process.node.process is not self.process:
            return
        for instruction in self.core.handle(event):
            self._carry_out(instruction)
        self._see_stages()

    def _carry_out(self, instruction: Instruction) -> None:  # noqa: C901, PLR0912 - one case for each kind
        engine, journal = self.world.engine, self.process.disk.journal
        match instruction:
            case ReadRefs() | SyncRepository() | ReadDone():
                pending = self._readings[instruction.read]
                pending.over = isinstance(instruction, ReadDone)
                pending.todo.append(instruction)
                engine.wake(pending.event)
            case Send() | ListRepositories() | LookUp() | Reach() | EndLink():
                self.feedings[instruction.link].take(instruction)
            case Admit():
                self.feedings[instruction.link].run()
            case Refuse():
                self.feedings[instruction.link].end("refused")
            case Answer():
                self._answers[instruction.wait] = instruction
                engine.wake(self._waits[instruction.wait])
            case CaughtUp():
                self._successor = instruction
                engine.wake(self.changed)
            case WriteRecord():
                self._recorder = self.process.start("recorder", self._write_record())
            case JournalSent(seq, identity, name, refs):
                journal.told(self.number, seq, identity, name, refs)
            case JournalRefined(seq, identity):
                journal.refine(identity, self.number, seq)
            case JournalReplicated(seq):
                self.process.note_replicated(self.number, seq)
            case Wake():
                self._clock.set(instruction.at)
            case Log():
                if instruction.event in COVERS:
                    self.world.cover(COVERS[instruction.event])

    def _write_record(self) -> Steps:
        engine = self.world.engine
        event: TermEvent
        try:
            members = yield from self.update(choose=self.core.wanted_members, position=self.position)
        except LeadershipLostError:
            event = RecordLost(engine.now)
        except ElectionUnavailableError as error:
            event = RecordUncertain(engine.now, error.message)
        else:
            self.world.cover("the sync set is empty" if not members else "a sync set is recorded")
            self.world.say(self.process.node, f"records the sync set {_names(members)}")
            event = RecordWritten(engine.now, members)
        self.handle(event)

    def _see_stages(self) -> None:
        """For the coverage, the trace, and what the simulator knows of memberships."""
        for member, link in self.core.links.items():
            before = self._stages.get(link.number, Stage.CHECKING)
            if link.stage is not before:
                self._stages[link.number] = link.stage
                self.world.cover(f"{before.value} → {link.stage.value}")
                self.world.say(self.process.node, f"takes {member.name} for {link.stage.value}")
                if before is Stage.CHECKING:
                    for node in self.world.nodes:
                        if node.member == member:
                            node.joins(self.world.engine.taken)


class OneReading:
    """Reads and syncs one repository, as leader/repository_reader.py. `read` gives the event."""

    def __init__(
        self, leading: Leading, repo: "Repo | None", read: "Callable[[int], ReadEvent] | None" = None
    ) -> None:
        self.repo = repo
        self.read = read or self.refs
        self._leading = leading

    def refs(self, number: int) -> ReadEvent:
        """What the repository holds now."""
        assert self.repo is not None
        state = State(self.repo.id, self.repo.name, self.repo.snapshot())  # type: ignore[arg-type]
        return RefsRead(self._leading.world.engine.now, number, state)

    def sync(self) -> Steps:
        """Put it on disk. Raises FullError."""
        process = self._leading.process
        yield from process.wait_for_disk()
        process.disk.write()
        if self.repo is not None:
            process.disk.sync(self.repo)


def _names(members: frozenset[Member]) -> str:
    return "{" + ", ".join(sorted(member.name for member in members)) + "}"
