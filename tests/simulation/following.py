"""A standby: mirrors whoever the record names. Follows replication/standby/mirror.py and session.py."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.incarnation import noted
from stargate_gate.election.port import Member
from stargate_gate.errors import ElectionUnavailableError
from stargate_gate.replication.standby.job_queue import Job
from stargate_gate.replication.wire.about import About
from stargate_gate.replication.wire.messages import (
    Alive,
    Applied,
    Changed,
    Checked,
    Compare,
    Deleted,
    Enroll,
    Enrolled,
    Heartbeat,
    ListBegin,
    Listed,
    ListEnd,
    ListPart,
)
from tests.simulation.applying import Applier, TermOverError, UnfitError, complete_intents
from tests.simulation.disk import FullError, Repo
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.feeding import SILENCE_S
from tests.simulation.network import BrokenError, Connection

if TYPE_CHECKING:
    from tests.simulation.process import Process

WORKERS = 2


@dataclass
class _Check:
    number: int
    seq: int
    tickets: dict[str, int]


@dataclass
class List:
    """A whole list, from its beginning to its end."""

    check: int
    seq: int
    repositories: list[Listed]


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
            forced = process.record.forced if process.record else 0
            self.start("mirror", self._keep_following(target, forced, token))
            while process.target() == target and self.current is token:
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

    def _keep_following(self, target: tuple[int, Member], forced: int, token: object) -> Steps:
        """`forced`: the newest forced leadership, says the record that was followed first."""
        world = self.process.world
        failures = 0
        backoff = Backoff(0.05, 2.0, world.engine.chance.random)
        while True:
            began = world.engine.now
            try:
                yield from self._distrust(forced)
                leader = world.leader_of(self.process, target)
            except FullError:
                leader = None
            if leader is not None:
                session = Session(self, target, token, leader)
                self.sessions.append(session)
                yield from session.run()
                self.sessions.remove(session)
            failures = 1 if world.engine.now - began > 5.0 else failures + 1
            yield None, backoff.delay_s(failures)

    def _distrust(self, forced: int) -> Steps:
        """What is here counts as not known replicated, if a leadership was forced since. Raises FullError."""
        disk, rules = self.process.disk, self.process.rules
        if rules.distrust_forced and forced > disk.journal.forced_term:
            self.process.world.cover("a forced leadership is distrusted")
            disk.journal.distrust(rules.distrusted(forced))
            yield from self.process.sync_journal()


class Session:
    """One connection."""

    def __init__(self, mirror: Mirror, target: tuple[int, Member], token: object, leader: "Process") -> None:
        self.mirror = mirror
        self.process = mirror.process
        self.world = mirror.process.world
        self.rules = mirror.process.rules
        self.term = target[0]
        self.token = token
        self.leader = leader
        self.leader_disk = leader.disk
        self.connection = Connection(self.world, self.process, leader, self.term)
        self.world.network.stray(self.connection, self.connection.standby)
        self.world.network.stray(self.connection, self.connection.leader)
        self.work = self.rules.work(Backoff(0.2, 3.0, self.world.engine.chance.random))
        self.checked = False
        self.ended = False
        self._applier = Applier(self)
        self._check: _Check | None = None
        self._comparing: Task | None = None
        self._list: List | None = None
        self._told = 0
        self._position = 0
        self._more = Event()
        self._tasks: list[Task] = []

    def run(self) -> Steps:
        yield
        if self.leader.leading is None or self.leader.leading.closed or self.connection.leader.broken:
            self.close()
            return
        try:
            if self.rules.sync_first:
                yield from self.process.folders.settle(self.process.disk)
            yield from complete_intents(self.process, self._applier.require_current)
        except (FullError, TermOverError):
            self.close()
            return
        if self.leader.leading is None or self.leader.leading.closed or self.connection.leader.broken:
            self.close()
            return
        self.leader.leading.connect(self.connection, self.process.node.member, self.mirror.instance)
        self.say(About(self.term, str(self.process.node), ()))
        for number in range(WORKERS):
            self._tasks.append(self.mirror.start(f"worker {number}", self._work_off()))
        try:
            yield from self._listen()
        except BrokenError:
            self.world.cover("a session ends")
        self.ended = True
        for task in [*self._tasks, *([self._comparing] if self._comparing else [])]:
            yield
            self.world.engine.end(task)
        self.close()

    def close(self) -> None:
        self.ended = True
        self.connection.close(self.connection.standby)

    def is_current(self) -> bool:
        return self.mirror.current is self.token and not self.ended

    def say(self, message: Any) -> None:
        try:
            self.connection.send(self.connection.standby, message)
        except BrokenError:
            self.ended = True

    # -- what the leader says -------------------------------------------------------------------------

    def _listen(self) -> Steps:  # noqa: C901 - one case for each kind of message
        while not self.ended:
            message = yield from self.connection.receive(self.connection.standby, SILENCE_S)
            if message.term != self.term and self.rules.check_term_of_leader:
                self.world.cover("a leader speaks of another term")
                raise BrokenError
            match message:
                case ListBegin():
                    self._list = List(message.check, message.seq, [])
                case ListPart() if self._list is not None:
                    self._list.repositories += message.repositories
                case ListEnd() if self._list is not None:
                    if self._comparing is not None:
                        self.world.engine.end(self._comparing)
                    self._comparing = self.mirror.start("compare", self._compare(self._list))
                    self._list = None
                case Changed() | Compare() | Deleted():
                    self.work.add(message, self.world.engine.now)
                    if not self.rules.apply_before_applied:
                        self.say(Applied(self.term, message.seq, message.id))
                    self._wake()
                case Enroll():
                    self.mirror.start("enroll", self._enroll(message.incarnation))
                case Heartbeat():
                    self._told = max(self._told, message.seq)
                    self.process.note_replicated(self.term, message.replicated)
                    self._see_whether_level()
                    self.say(Alive(self.term, self._position))
            yield

    def _enroll(self, incarnation: str) -> Steps:
        """On disk before it is said."""
        while not self.ended:
            known = noted(self.process.disk.known.incarnations, incarnation)
            try:
                yield from self.process.note(incarnations=known)
            except ElectionUnavailableError:
                self.world.cover("a membership is not noted")
                yield None, 1.0
            else:
                self.say(Enrolled(self.term, incarnation))
                return

    def _compare(self, complete: List) -> Steps:
        busy = self.work.busy() if self.rules.busy_is_different else {}
        yield
        listed = {one.id for one in complete.repositories}
        different: dict[str, Any] = {
            repo.id: repo.name for repo in self.process.disk.repos.values() if repo.id not in listed
        }
        for one in complete.repositories:
            yield
            repo = self.process.disk.by_id(one.id)
            if repo is None or repo.snapshot().digest != one.digest:
                different[one.id] = one.name
            elif self._unsettled(repo):
                self.world.cover("what equals a list is not settled")
                different[one.id] = one.name
            else:
                own = self.process.disk.line(repo.name)  # a list of another connection has none
                line = self.connection.lines.get((complete.check, repo.id), own)
                self.world.ledger.equal(self.process.disk, repo.name, line)
        for identity, name in {**different, **busy}.items():
            self.work.add(Compare(self.term, 0, name, identity), self.world.engine.now)
        tickets = self.work.tickets() if self.rules.work_before_checked else {}
        self._check = _Check(complete.check, complete.seq, tickets)
        self._see_whether_checked()
        self._wake()

    def _unsettled(self, repo: Repo) -> bool:
        """Something is left of older terms, and gets a number that covers it."""
        return bool(self.process.disk.journal.kept(repo.id, self.term))

    def _see_whether_checked(self) -> None:
        check = self._check
        if check is None or check.tickets:
            return
        self._check = None
        self.checked = True
        self._applier.settle(check.seq)
        self._told = max(self._told, check.seq)
        self._position = max(self._position, check.seq)
        self.process.level(self.term, self._position)
        self.say(Checked(self.term, check.number))
        self._see_whether_level()

    def _see_whether_level(self) -> None:
        if self.checked and not len(self.work):
            self._position = self._told
            self.process.level(self.term, self._position)

    # -- the work -------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self.world.engine.wake(self._more)

    def _work_off(self) -> Steps:
        while not self.ended:
            job = self.work.next(self.world.engine.now)
            if job is None:
                due = self.work.next_due()
                yield self._more, None if due is None else due - self.world.engine.now
                continue
            yield from self._do(job)

    def _do(self, job: Job) -> Steps:
        try:
            yield from self._apply(job)
        except TermOverError:
            self.ended = True
            self.connection.cut(self.connection.standby, lost=False)
            return
        except (FullError, UnfitError, BrokenError) as error:
            self.world.cover(f"a job fails: {type(error).__name__}")
            if self.rules.retry_failed_jobs:
                self.work.failed(job, type(error).__name__, self.world.engine.now)
                self._wake()
                return
        self.work.done(job)
        yield
        if job.news.seq:
            self.say(Applied(self.term, job.news.seq, job.id))
        check = self._check
        if check is not None and job.ticket >= check.tickets.get(job.id, job.ticket + 1):
            del check.tickets[job.id]
            self._see_whether_checked()
        self._see_whether_level()
        self._wake()

    def _apply(self, job: Job) -> Steps:
        if isinstance(job.news, Changed):
            if (yield from self._applier.change(job.news)):
                self.world.cover("a change is applied")
                return
            self.world.cover("a change does not fit")
        if isinstance(job.news, Deleted):
            yield from self._applier.gone(job.id, str(job.name), deleted=True)
            return
        yield from self._applier.compare(job.id, str(job.name))
