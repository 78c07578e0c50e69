"""A standby: mirrors whoever the record names. Follows replication/mirror.py, session.py and apply.py."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stargate_gate.election.port import Member
from stargate_gate.replication.delta import before_and_after
from stargate_gate.replication.intent import Intent, needed, remaining
from stargate_gate.replication.messages import Alive, Applied, Changed, Checked, Compare, Heartbeat
from stargate_gate.replication.retry import Backoff
from stargate_gate.replication.unreplicated import Mark
from stargate_gate.replication.work import Job
from stargate_gate.repos.plan import RefChange
from tests.simulation.disk import Disk, FullError, Repo, fits
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.feeding import SILENCE_S, List
from tests.simulation.network import BrokenError, Connection

if TYPE_CHECKING:
    from tests.simulation.process import Process

WORKERS = 2
ATTEMPTS = 3


class TermOverError(Exception):
    """The mirror has ended."""


class UnfitError(Exception):
    """It cannot be done now."""


@dataclass
class _Check:
    number: int
    seq: int
    tickets: dict[str, int]


class Mirror:
    """Follows one leader at a time. `end` returns when nothing of it runs any more."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.current: object | None = None
        self.tasks: list[Task] = []
        self.sessions: list[Session] = []

    def run(self) -> Steps:
        process = self.process
        while True:
            target = process.target()
            if target is None:
                yield process.view_changed, None
                continue
            self.current = token = object()
            self.start("mirror", self._keep_following(target, token))
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

    def _keep_following(self, target: tuple[int, Member], token: object) -> Steps:
        world = self.process.world
        failures = 0
        backoff = Backoff(0.05, 2.0, world.engine.chance.random)
        while True:
            began = world.engine.now
            leader = world.leader_of(self.process, target)
            if leader is not None:
                session = Session(self, target, token, leader)
                self.sessions.append(session)
                yield from session.run()
                self.sessions.remove(session)
            failures = 1 if world.engine.now - began > 5.0 else failures + 1
            yield None, backoff.delay_s(failures)


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
        self.leader_disk: Disk = leader.disk
        self.connection = Connection(self.world, self.process, leader, self.term)
        self.world.network.stray(self.connection, self.connection.standby)
        self.world.network.stray(self.connection, self.connection.leader)
        self.work = self.rules.work(Backoff(0.2, 3.0, self.world.engine.chance.random))
        self.checked = False
        self.ended = False
        self._check: _Check | None = None
        self._comparing: Task | None = None
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
            yield from complete_intents(self.process)
        except FullError:
            self.close()
            return
        if self.rules.sync_first:
            for repo in list(self.process.disk.repos.values()):
                yield
                self.process.disk.sync(repo)
        if self.leader.leading is None or self.leader.leading.closed or self.connection.leader.broken:
            self.close()
            return
        self.leader.leading.connect(self.connection, self.process.node.member)
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

    def _listen(self) -> Steps:
        while not self.ended:
            message = yield from self.connection.receive(self.connection.standby, SILENCE_S)
            if message.term != self.term and self.rules.check_term_of_leader:
                self.world.cover("a leader speaks of another term")
                raise BrokenError
            match message:
                case List():
                    if self._comparing is not None:
                        self.world.engine.end(self._comparing)
                    self._comparing = self.mirror.start("compare", self._compare(message))
                case Changed() | Compare():
                    self.work.add(message, self.world.engine.now)
                    if not self.rules.apply_before_applied:
                        self.say(Applied(self.term, message.seq, message.name))
                    self._wake()
                case Heartbeat():
                    self._told = max(self._told, message.seq)
                    self._see_whether_level()
                    self.process.forget_replicated(self.term, message.replicated)
                    self.say(Alive(self.term, self._position))
            yield

    def _compare(self, complete: List) -> Steps:
        busy = self.work.tickets() if self.rules.busy_is_different else {}
        yield
        here = dict(self.process.disk.repos)
        listed = {one.name: one for one in complete.repositories}
        different = [name for name in here if name not in listed]
        for one in complete.repositories:
            yield
            repo = self.process.disk.repos.get(one.name)
            if repo is None or repo.id != one.id or frozenset(repo.refs.items()) != one.digest:
                different.append(one.name)
            else:
                self.world.ledger.equal(self.process.disk, one.name, self.leader_disk)
        for name in dict.fromkeys([*different, *busy]):
            self.work.add(Compare(self.term, 0, name), self.world.engine.now)
        tickets = self.work.tickets() if self.rules.work_before_checked else {}
        self._check = _Check(complete.check, complete.seq, tickets)
        self._see_whether_checked()
        self._wake()

    def _see_whether_checked(self) -> None:
        check = self._check
        if check is None or check.tickets:
            return
        self._check = None
        self.checked = True
        self._told = max(self._told, check.seq)
        self._position = max(self._position, check.seq)
        self.process.level(self.term, self._position)
        self.process.settle(self.term, check.seq)
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
            self.say(Applied(self.term, job.news.seq, job.name))
        check = self._check
        if check is not None and job.ticket >= check.tickets.get(job.name, job.ticket + 1):
            del check.tickets[job.name]
            self._see_whether_checked()
        self._see_whether_level()
        self._wake()

    def _apply(self, job: Job) -> Steps:
        if isinstance(job.news, Changed):
            if (yield from self._change(job.news)):
                self.world.cover("a change is applied")
                return
            self.world.cover("a change does not fit")
        yield from self._make_equal(job.name, job.news.seq)

    # -- replication/apply.py -------------------------------------------------------------------------

    def _require_current(self) -> None:
        if not self.is_current() and not (
            self.process.taking_over and not self.rules.end_mirror_before_claim
        ):
            raise TermOverError

    def _change(self, change: Changed) -> Steps:
        repo = self.process.disk.repos.get(change.name)
        if repo is None or repo.id != change.id:
            return False
        before, after = before_and_after(change.delta)
        yield from self._fetch(after.values())
        yield from self._mark(repo, change.seq, (one.ref for one in change.delta))
        if not (yield from self._change_refs(repo, self.rules.plan(before, after))):
            return False
        yield from self._finish(repo)
        return True

    def _make_equal(self, name: str, seq: int) -> Steps:
        wanted = yield from self._ask(name)
        if wanted is None:
            yield from self._trash(name)
            return
        identity, refs, covering = wanted
        repo = self.process.disk.repos.get(name)
        if repo is None or repo.id != identity:
            yield from self._trash(name)
            self._require_current()
            self.process.disk.write()
            repo = self.process.disk.repos[name] = Repo(name, identity)
            self.world.cover("a repository is created by the mirror")
        for _ in range(ATTEMPTS):
            yield
            local = dict(repo.refs)
            if local == refs:
                self.world.ledger.equal(self.process.disk, name, self.leader_disk)
                yield from self._finish(repo)
                return
            yield from self._fetch(set(refs.values()) - set(local.values()))
            changed = [ref for ref in sorted({*local, *refs}) if local.get(ref) != refs.get(ref)]
            if self.rules.rescue == "before":
                yield from self._rescue(repo, local, changed)
            yield from self._mark(repo, max(seq, covering), changed)
            yield from self._change_refs(repo, self.rules.plan(local, refs))
            if self.rules.rescue == "after":
                yield from self._rescue(repo, local, changed)
            self.world.cover("a repository is compared")
        raise UnfitError

    def _ask(self, name: str) -> Steps:
        """stargate-refs: the repository as the leader told it last, told anew if it has changed.

        So the number that comes with it covers all that it shows. None: the leader has none.
        """
        yield
        leading = self.leader.leading
        if not self._leader_answers() or leading is None or leading.number != self.term or leading.closed:
            raise BrokenError
        before = leading.position
        repo = self.leader_disk.repos.get(name)
        found = None if repo is None else (repo.id, dict(repo.refs), before)
        if repo is not None:
            leading.shown(repo)
        if found is not None and self.rules.snapshots_are_numbered:
            try:
                covering = yield from leading.pushed(name)
            except FullError as error:
                raise UnfitError from error
            found = (found[0], found[1], covering)
        yield
        if not self._leader_answers():
            raise BrokenError
        return found

    def _leader_answers(self) -> bool:
        leader = self.leader
        return (
            leader.node.process is leader
            and not leader.frozen
            and not self.connection.standby.broken
            and self.world.network.reachable(self.process, leader)
        )

    def _fetch(self, values: Any) -> Steps:
        disk = self.process.disk
        for value in sorted(values):
            if value in disk.objects:
                continue
            yield
            if not self._leader_answers():
                raise BrokenError
            disk.write()
            if value not in self.leader_disk.objects:
                raise UnfitError
            (disk.objects if self.rules.sync_objects else disk.unsynced_objects).add(value)

    def _mark(self, repo: Repo, seq: int, refs: Any) -> Steps:
        yield
        self.process.disk.write()
        self.process.disk.journal.apply(Mark(self.term, seq, repo.id, repo.name, tuple(refs)))

    def _rescue(self, repo: Repo, local: dict[str, str], changed: list[str]) -> Steps:
        """Each value that is not known replicated and not reachable on the leader, once in a term."""
        process = self.process
        if process.settled_term == self.term:
            return
        there = self.leader_disk.repos.get(repo.name)
        tips = tuple(there.refs.values()) if there is not None else ()
        kept = process.disk.journal.kept(repo.id, self.term)
        for ref in sorted(changed):
            value = local.get(ref)
            if value is None or kept.term_of(ref) is None:
                continue
            if any(self.world.ledger.contains(tip, value) for tip in tips):
                continue
            yield
            process.disk.write()
            process.disk.kept.add(value)
            self.world.cover("a value is rescued")
            self.world.say(process.node, f"rescues {value} of {repo.name} {ref}")

    def _change_refs(self, repo: Repo, transactions: list[list[RefChange]]) -> Steps:
        disk = self.process.disk
        if self.rules.intent and needed(transactions, head_moves=False):
            yield
            disk.write()
            disk.intents[repo.id] = Intent(repo.id, repo.name, tuple(map(tuple, transactions)), "")
        for transaction in transactions:
            self._require_current()
            yield
            disk.write()
            if disk.repos.get(repo.name) is not repo:
                return False
            if not fits(repo.refs, transaction) and self.rules.check_old_values:
                return False
            for change in transaction:
                self.world.ledger.mirrors(self.process.node, repo, change.ref, change.new, self.leader_disk)
                disk.put(repo, change)
                if change.new is None:
                    self.world.ledger.removed(disk, repo, change.ref)
                yield
        return True

    def _finish(self, repo: Repo) -> Steps:
        yield
        if self.rules.sync_before_applied:
            self.process.disk.sync(repo)
        yield
        self.process.disk.intents.pop(repo.id, None)

    def _trash(self, name: str) -> Steps:
        repo = self.process.disk.repos.get(name)
        if repo is None:
            return
        self._require_current()
        yield
        self.process.disk.write()
        self.world.ledger.trashes(self.process.node, repo)
        self.process.disk.repos.pop(name, None)
        self.world.cover("a repository goes to the trash")


def complete_intents(process: "Process") -> Steps:
    """What was begun is finished: Writer.complete. Raises FullError."""
    disk, world = process.disk, process.world
    for identity, intent in sorted(disk.intents.items()):
        repo = disk.repos.get(intent.name)
        if repo is not None and repo.id == identity:
            world.cover("an intent is completed")
            for change in (one for changes in remaining(intent, repo.refs).transactions for one in changes):
                yield
                disk.write()
                disk.put(repo, change)
                if change.new is None:
                    world.ledger.removed(disk, repo, change.ref)
                world.ledger.dirty = True
            yield
            disk.sync(repo)
        yield
        disk.intents.pop(identity, None)
