"""A standby: mirrors whoever the record names. The shell of the product's own `StandbySession`.

As replication/standby/session.py: its instructions become programs, what comes of them events.
"""

from collections import deque
from typing import TYPE_CHECKING, Any

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.port import ClusterRecord
from stargate_gate.errors import StargateError
from stargate_gate.replication.standby import events, steps
from stargate_gate.replication.standby import instructions as do
from stargate_gate.replication.standby.answers import TermOverError
from stargate_gate.replication.standby.core import StandbySession
from stargate_gate.replication.standby.following import Attempts, leadership_of
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.messages import (
    Applied,
    Heartbeat,
    Join,
    ListEnd,
    Welcome,
)
from stargate_gate.repos.names import RepositoryName
from tests.simulation.applying import Carrier
from tests.simulation.disk import FullError, Line, Repo
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.invariants import ViolationError
from tests.simulation.network import BrokenError, Connection

if TYPE_CHECKING:
    from tests.simulation.process import Process

WORKERS = 2
RETRY_S = 3.0  # what fails is tried again within so many seconds
STEADY_S = 5.0
NEVER_S = 1e9
SEEN = {  # what the product logs of it
    "change_does_not_fit": "a change does not fit",
    "repository_vanished_from_leader": "a repository stays that the leader lacks",
    "membership_not_noted": "a membership is not noted",
    "intent_completed": "an intent is completed",
    "intent_undone": "an intent is undone",
}


class Mirror:
    """Follows one leader at a time. `end` returns when nothing of it runs any more."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.current: object | None = None
        self.tasks: list[Task] = []
        self.sessions: list[Session] = []
        self.instance = process.world.new_id("n")

    def run(self) -> Steps:
        process = self.process
        while True:
            target = process.target()
            if target is None:
                yield process.view_changed, None
                continue
            self.current = token = object()
            self.start("mirror", self._keep_following(target, token))
            while leadership_of(process.target()) == leadership_of(target) and self.current is token:
                yield process.view_changed, None
            if process.taking_over and not process.rules.end_mirror_before_claim:
                yield process.view_changed, None
                continue
            yield from self.end()

    def start(self, name: str, steps: Steps) -> Task:
        task = self.process.start(name, steps)
        self.tasks = [one for one in self.tasks if one.alive]
        self.tasks.append(task)
        return task

    def end(self) -> Steps:
        self.current = None
        while self.tasks:
            yield
            if self.tasks:
                self.process.world.engine.end(self.tasks.pop())
        for session in self.sessions:
            session.close()
        self.sessions.clear()

    def _keep_following(self, record: ClusterRecord, token: object) -> Steps:
        world = self.process.world
        attempts = Attempts(Backoff(0.05, 2.0, world.engine.chance.random), steady_s=STEADY_S)
        while True:
            attempts.begin(world.engine.now)
            try:
                yield from self._distrust(record.forced)
                leader = world.leader_of(self.process, (record.term, record.leader))
            except FullError:
                leader = None
            if leader is not None:
                session = Session(self, record, token, leader)
                self.sessions.append(session)
                yield from session.run()
                self.sessions.remove(session)
            yield None, attempts.ended(world.engine.now)

    def _distrust(self, forced: int) -> Steps:
        """What is here counts as not known replicated, if a leadership was forced since. Raises FullError."""
        disk, rules = self.process.disk, self.process.rules
        if rules.distrust_forced and forced > disk.journal.forced_term:
            self.process.world.cover("a forced leadership is distrusted")
            disk.journal.distrust(rules.distrusted(forced))
            yield from self.process.sync_journal()


class Session:
    """One connection."""

    def __init__(self, mirror: Mirror, record: ClusterRecord, token: object, leader: "Process") -> None:
        self.mirror = mirror
        self.process = mirror.process
        self.world = mirror.process.world
        self.term = record.term
        self.token = token
        self.leader = leader
        self.connection = Connection(self.world, self.process, leader, self.term)
        self.world.network.stray(self.connection, self.connection.leader)
        me = self.process.node.member
        self.core = StandbySession(
            me,
            mirror.instance,
            record.leader,
            self.term,
            parallel=WORKERS,
            retry_s=RETRY_S,
            unsound=self.process.disk.unsound if self.process.rules.read_notes else {},
        )
        self.ended = False
        self.over = Event()
        self._carrier = Carrier(self.process, self, self.require_current)
        self._tasks: list[Task] = []
        self._jobs: dict[int, Task] = {}
        self._events: deque[events.Event] = deque()
        self._lines: dict[str, Line] = {}  # of the last list, by id
        self._listed: dict[int, set[str]] = {}  # ids of each list
        self._wake_at = NEVER_S
        self._wake = Event()

    def run(self) -> Steps:
        yield
        if not self.leader_answers(serving=True):
            self.close()
            return
        self._start("clock", self._clock())
        self._tell(events.Begun(self._now))
        while not self.ended:
            yield self.over, None
        self.world.cover("a session ends")
        for task in [*self._tasks, *self._jobs.values()]:
            yield
            self.world.engine.end(task)
        self.close()

    def close(self) -> None:
        self.ended = True
        self.connection.close(self.connection.standby)

    def require_current(self) -> None:
        """Raises TermOverError once the mirror has ended."""
        current = self.mirror.current is self.token and not self.ended
        held_on = self.process.taking_over and not self.world.rules.end_mirror_before_claim
        if not current and not held_on:
            raise TermOverError("the mirror has ended")

    def leader_answers(self, *, serving: bool = False) -> bool:
        """Whether it can be asked; `serving`: as the leader of this term."""
        leader = self.leader
        leading = leader.leading
        return (
            leader.node.process is leader
            and not leader.frozen
            and not self.connection.standby.broken
            and self.world.network.reachable(self.process, leader)
            and (not serving or (leading is not None and leading.number == self.term and not leading.closed))
        )

    def line_of_list(self, repo: Repo) -> Line:
        """What came before that repository on the leader, when it was listed; for the ledger."""
        own = self.process.disk.line(repo.id)  # a list of another connection has none
        return self._lines.get(repo.id, own)

    # -- events and instructions ------------------------------------------------------------------------

    @property
    def _now(self) -> float:
        return self.world.engine.now

    def _tell(self, event: events.Event, mine: int | None = None) -> do.Do | None:
        """As session.py: hand on an event, and see to what follows."""
        self._events.append(event)
        return self._go_on(mine)

    def _go_on(self, mine: int | None = None) -> do.Do | None:
        next_step = None
        while self._events and not self.ended:
            for instruction in self.core.handle(self._events.popleft()):
                if isinstance(instruction, do.Do) and instruction.job == mine:
                    next_step = instruction
                else:
                    self._see_to(instruction)
        return next_step

    def _see_to(self, instruction: do.Instruction) -> None:  # noqa: C901, PLR0912 - one case for each
        match instruction:
            case do.Do():
                self._jobs[instruction.job] = self.mirror.start("job", self._work_off(instruction))
            case do.Cancel():
                if (task := self._jobs.pop(instruction.job, None)) is not None:
                    self.world.engine.end(task)
            case do.OpenFeed():
                self._start("listen", self._listen())
            case do.Send():
                self._send(instruction)
            case do.Wake():
                self._wake_at = instruction.at
                self.world.engine.wake(self._wake)
            case do.Equal():
                self.process.level(self.term, instruction.position)
            case do.End():
                self.ended = True
                if "another term" in instruction.reason:
                    self.world.cover("a leader speaks of another term")
                self.world.engine.wake(self.over)
            case steps.NoteSettled():
                settled = (instruction.term, instruction.seq, instruction.id, instruction.name)
                self.process.disk.journal.settle(*settled)  # type: ignore[arg-type]
            case steps.NoteReplicated():
                self.process.note_replicated(instruction.term, instruction.seq)
            case steps.Log(event="mirror_checked"):
                self._require_sound(self._listed[int(str(instruction.fields["check"]))])
            case steps.Log() if instruction.event in SEEN:
                self.world.cover(SEEN[instruction.event])

    def _send(self, send: do.Send) -> None:
        try:
            for message in send.messages:
                if isinstance(message, Join):
                    self._join()
                else:
                    if isinstance(message, Applied):
                        self._require_sound({message.id})
                    self.connection.send(self.connection.standby, message)
        except BrokenError:
            self._events.append(events.ConnectionEnded(self._now, "the connection has ended"))
            return
        self._events.append(events.Sent(self._now))

    def _require_sound(self, told: set[str]) -> None:
        """I9: nothing is confirmed of a copy that is noted as damaged."""
        unsound = self.process.disk.unsound
        if wrong := {one for one in told & unsound.keys() if self.leader.disk.by_id(one) is not None}:
            what = f"{self.process.node} confirms {min(wrong)}, whose copy it has noted as damaged"
            raise ViolationError("I9", what)

    def found_unsound(self, repo: Repo, why: str) -> None:
        """The note is on disk."""
        if not self.ended:
            self._tell(events.FoundUnsound(self._now, repo.id, RepositoryName(repo.name), why))

    def _join(self) -> None:
        """The leader takes in whoever introduces itself."""
        leading = self.leader.leading
        if leading is None or not self.leader_answers(serving=True):
            raise BrokenError
        self.world.ledger.follows(self.process.disk, self.leader.disk)
        leading.connect(self.connection, self.process.node.member, self.mirror.instance)

    # -- programs ---------------------------------------------------------------------------------------

    def _start(self, name: str, steps: Steps) -> None:
        self._tasks.append(self.mirror.start(name, steps))

    def _work_off(self, first: do.Do) -> Steps:
        instruction: do.Do | None = first
        while instruction is not None and not self.ended:
            job = instruction.job
            event: events.Event
            try:
                event = events.StepDone(
                    self._now, job, (yield from self._carrier.carry_out(instruction.step))
                )
            except (StargateError, OSError) as error:
                self.world.cover(f"a step fails: {type(error).__name__}")
                event = events.StepFailed(self._now, job, error, self.world.engine.chance.random())
            if self.ended:
                return
            instruction = self._tell(event, job)

    def _listen(self) -> Steps:
        yield
        self._tell(events.Connected(self._now))
        try:
            while not self.ended:
                self._hear((yield from self.connection.receive(self.connection.standby, NEVER_S)))
                self._go_on()
                yield
        except BrokenError:
            if not self.ended:
                self._tell(events.ConnectionEnded(self._now, "the connection has ended"))

    def _hear(self, message: Any) -> None:
        if isinstance(message, ListEnd):
            lines, check = self.connection.lines, message.check
            self._listed[check] = {one for (of, one) in lines if of == check}
            self._lines = {one: line for (of, one), line in lines.items() if of == check}
        if isinstance(message, Welcome | Heartbeat):
            self._events.append(events.Measured(self._now, Profile(), 0))
        self._events.append(events.Heard(self._now, message))
        if isinstance(message, Welcome):  # the first word is no other
            self.world.network.stray(self.connection, self.connection.standby)

    def _clock(self) -> Steps:
        while not self.ended:
            yield self._wake, self._wake_at - self._now
            if not self.ended and self._now >= self._wake_at:
                self._wake_at = NEVER_S
                self._tell(events.Tick(self._now))
