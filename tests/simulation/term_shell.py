"""The fake network, disk, git and clock of a `LeaderTerm`: carries out its instructions, as feed.py does.

What replication decides on a leader is decided by the product's LeaderTerm. Nothing of that is here.
"""

import itertools
from typing import TYPE_CHECKING, Any

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.port import Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
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
from stargate_gate.replication.ports import TermRecord
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.messages import PROTOCOL, Join, Listed
from stargate_gate.replication.wire.numbers import UNNUMBERED
from tests.simulation.disk import FullError, Line
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.feeding import FULL_CHECK_S, HEARTBEAT_S, Clock, Reading, Shown, StandbyConnection
from tests.simulation.store import where

if TYPE_CHECKING:
    from collections.abc import Callable

    from stargate_gate.repos.identities import RepositoryIdentity
    from tests.simulation.disk import Repo
    from tests.simulation.network import Connection
    from tests.simulation.process import Process

LIMITS = Limits(ack_timeout_s=3.0, ack_max_s=12.0)
REACH_AGAIN_S = 0.5
COVERS = {  # lines of the term's log → what they cover
    "standby_late": "a standby is late",
    "standby_far_behind": "a standby is far behind",
    "standby_did_not_come": "a carried standby does not come",
    "sync_set_not_recorded": "a record's outcome is unknown",
}


class TermShell:
    """What surrounds the LeaderTerm of one term: its record is `Leading`, which is made of this."""

    number: int
    core: LeaderTerm

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.world = process.world
        self.rules = process.rules
        self.closed = True  # nobody is served before `begin`
        self.feedings: dict[int, StandbyConnection] = {}  # by link
        self.changed = Event()
        self._recorder: Task | None = None
        self._tasks: list[Task] = []
        self._numbers = itertools.count(1)
        self._readings: dict[int, Reading] = {}
        self._waits: dict[int, Event] = {}
        self._answers: dict[int, Answer] = {}
        self._successor: CaughtUp | None = None
        self._stages: dict[int, Stage] = {}

    @property
    def position(self) -> int:
        return self.core.position

    def begin(self, record: TermRecord) -> None:
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
        self.core = LeaderTerm(record, self.process.node.member, settings, outside, world.engine.now)
        self._clock = Clock(self, lambda now: self.handle(Tick(now)))
        self._tasks.append(self.process.start("clock", self._clock.run()))
        self.number = record.number
        self.closed = False
        self.handle(Tick(world.engine.now))

    def end(self) -> Steps:
        """The term is over: connections are ended, and nothing of it runs any more."""
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

    def update(self, *, choose: "Callable[[], Any]", **changes: Any) -> Steps:
        """Write the record; see Leading."""
        raise NotImplementedError

    # -- what a feed is asked: replication/leader/feed.py ----------------------------------------------

    def writing(self, identity: "RepositoryIdentity") -> Steps:
        """Any of its refs may get values from now on; followed by one `written`. Raises FullError.

        False: it was deleted meanwhile, and nothing may be written.
        """
        repo = yield from self.process.store.whereabouts(identity)
        if repo is None:
            return False
        yield from self.expect(identity.id, repo.name)
        return True

    def expect(self, identity: str, name: str) -> Steps:
        """As `writing`, of one that is about to get that id. Raises FullError."""
        self.process.disk.journal.mark(self.number, UNNUMBERED, identity, name, None)
        yield from self.process.sync_journal()

    def written(self, identity: "RepositoryIdentity") -> Steps:
        """As `pushed`, of what `writing` announced."""
        return (yield from self._number(identity, Purpose.SEND_ANNOUNCED))

    def pushed(self, identity: "RepositoryIdentity") -> Steps:
        """The sequence number that covers what the repository holds now; None: it was deleted meanwhile."""
        return (yield from self._number(identity, Purpose.SEND))

    def deleted(self, repo: "Repo") -> Steps:
        """A user has deleted it; `repo` is in the trash."""
        outcome = yield from self._read(repo.id, Purpose.DELETE, None, repo.name)
        return outcome.seq

    def listed(self, name: str) -> Steps:
        """Its entry in a full list, and its line for the ledger; None if it is gone, or another one."""
        disk, store = self.process.disk, self.process.store
        found = disk.repos.get(name)
        if found is None or not found.id:
            return None
        identity = store.identity(found)
        lines: list[Line] = []

        def is_there() -> bool:
            return disk.repos.get(name) is found and store.register.holds(where(name), identity)

        def read(number: int) -> Steps:
            yield
            now = self.world.engine.now
            if not is_there() or store.identity(found) != identity:
                return NotThere(now, number)
            self.world.ledger.serves(self.process.node, found)
            lines.append(disk.line(identity.id))
            return DigestRead(now, number, name, found.snapshot().digest, whole=True)  # type: ignore[arg-type]

        if not is_there():
            return None
        outcome = yield from self._read(identity.id, Purpose.LIST, OneReading(self, found, read))
        return (outcome, lines[-1]) if isinstance(outcome, Listed) else None

    def show(self, identity: str, asked: "Shown") -> Steps:
        """Answer a standby that asks for a repository's refs."""
        disk = self.process.disk
        reading = OneReading(self, None)

        def read(number: int) -> Steps:
            reading.repo = yield from self.process.store.find(identity, search=True)
            asked.line = disk.line(identity)
            if reading.repo is None:
                return Vanished(self.world.engine.now, number)
            asked.name = reading.repo.name
            return (yield from reading.refs(number))

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
                    asked.name = str(outcome.state.name)
        except FullError:
            asked.failed = True
        asked.complete = not asked.failed
        self.world.engine.wake(asked.event)

    def _number(self, identity: "RepositoryIdentity", purpose: Purpose) -> Steps:
        """The number; None if it was deleted: what has its name now is another one."""
        reading = OneReading(self, None)

        def read(number: int) -> Steps:
            reading.repo = yield from self.process.store.whereabouts(identity)
            if reading.repo is None:
                self.world.cover("a push's repository is gone")
                return Vanished(self.world.engine.now, number)
            return (yield from reading.refs(number))

        reading.read = read
        outcome = yield from self._read(identity.id, purpose, reading)
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
                if isinstance(instruction, SyncRepository):
                    yield from reading.sync()
                    self.handle(OnDisk(engine.now, number))
                else:
                    self.handle((yield from reading.read(number)))
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

    def connect(self, connection: "Connection", member: Member, instance: str = "") -> None:
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
            link._list_due = self.world.engine.now
            self.handle(Tick(self.world.engine.now))

    def confirmed_list(self, member: Member) -> int:
        """The newest list that it has confirmed; for the coverage."""
        link = self.core.links.get(member)
        return link._confirmed_check if link is not None else 0

    def names(self) -> Steps:
        """All repositories here, each with an id of its own. What is renamed meanwhile may be missed."""
        before = sorted(self.process.disk.repos)
        yield
        names = tuple(name for name in before if name in self.process.disk.repos)
        for name in names:
            yield from self.process.store.require(name)
        return names

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
            case Log(event="standby_failed"):
                raise AssertionError(f"the term has a bug: {instruction.fields}")
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
            self.world.say(self.process.node, f"records the sync set {names_of(members)}")
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
        self, shell: TermShell, repo: "Repo | None", read: "Callable[[int], Steps] | None" = None
    ) -> None:
        self.repo = repo
        self.read = read or self.refs
        self._shell = shell

    def refs(self, number: int) -> Steps:
        """What the repository holds now."""
        yield
        assert self.repo is not None
        self._shell.world.ledger.serves(self._shell.process.node, self.repo)
        state = State(self.repo.id, self.repo.name, self.repo.snapshot())  # type: ignore[arg-type]
        return RefsRead(self._shell.world.engine.now, number, state)

    def sync(self) -> Steps:
        """Put it on disk. Raises FullError."""
        process = self._shell.process
        yield from process.wait_for_disk()
        process.disk.write()
        if self.repo is not None:
            process.disk.sync(self.repo)


def names_of(members: frozenset[Member]) -> str:
    return "{" + ", ".join(sorted(member.name for member in members)) + "}"
