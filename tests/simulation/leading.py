"""A term, as the leader lives it: the record, the feed, the sync set, and pushes that wait.

Follows election/term.py, leader/feed.py, leader/sync_set.py and node/lifecycle.py.
"""

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.incarnation import kept, named
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
from stargate_gate.node.lifecycle import DRAIN_LAST_SHARE
from stargate_gate.replication.leader.sent_states import SentStates, State
from stargate_gate.replication.leader.sync_rules import Limits, Presence, Stage, Verdict, Waiting
from stargate_gate.replication.wire.messages import Changed, Compare, Deleted, Listed, News
from stargate_gate.replication.wire.numbers import FIRST_POSITION, UNNUMBERED
from tests.simulation.disk import FullError
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.feeding import Feeding, Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stargate_gate.repos.snapshot import RefSnapshot
    from tests.simulation.disk import Repo
    from tests.simulation.network import Connection
    from tests.simulation.process import Process, Tenure
    from tests.simulation.pushing import Push

LIMITS = Limits(ack_timeout_s=3.0, ack_max_s=12.0)


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
        self.closed = False
        self.position = FIRST_POSITION
        self.feedings: dict[Member, Feeding] = {}
        self.pushes: list[tuple[Task, Push]] = []
        self.published = SentStates()
        self.changed = Event()
        self.turn = Event()
        self._turns: set[str] = set()
        self._writing = False
        self._carried: set[Member] = set()
        self._gone_at: dict[Member, float] = {}
        self._replicated = 0
        self._uncertain = False
        self._recorder: Task | None = None
        self._tasks: list[Task] = []
        self._backoff = Backoff(0.2, 5.0, self.world.engine.chance.random)

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

    def valid(self) -> bool:
        return not self.closed and self.tenure.valid()

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
        self._carried = set(self.needed)
        self._gone_at = dict.fromkeys(self.needed, self.world.engine.now)
        if self._carried:
            self.world.cover("a sync set is carried over")
            self._tasks.append(self.process.start("grace", self._end_grace()))

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
        deadline = engine.now + drain_s
        successor = None
        while successor is None and engine.now < deadline:
            level = sorted(m for m, one in self.feedings.items() if one.holds(self.position))
            successor = next((member for member in level if member in self.in_force), None)
            for feeding in self.feedings.values():
                engine.wake(feeding.beat)
            yield None, 0.1
        try:
            yield from self.update(position=self.position, clean=True, successor=successor)
        except ElectionUnavailableError:
            self.world.cover("a clean record is not written")
        self.world.cover("a successor is named" if successor else "nobody is named")

    def close(self) -> Steps:
        """The term is over: pushes are ended and reaped, then connections."""
        yield from self._end_pushes()
        self.closed = True
        engine = self.world.engine
        for task in self._tasks:
            engine.end(task)
        for feeding in list(self.feedings.values()):
            yield
            self.disconnect(feeding)
        if self._recorder is not None:
            engine.end(self._recorder)
        engine.wake(self.changed)

    def _end_pushes(self) -> Steps:
        """Each git is reaped; what it has written by then is told to whoever still listens."""
        for task, push in self.pushes:
            if task.alive and self.rules.reap_pushes:
                yield
                self.world.engine.end(task)
                with contextlib.suppress(FullError):
                    yield from push.tell(self)

    # -- replication/leader/feed.py --------------------------------------------------------------------------

    def writing(self, repo: "Repo") -> Steps:
        """Any of its refs may get values from now on; followed by one `written`. Raises FullError."""
        disk = self.process.disk
        disk.journal.mark(self.number, UNNUMBERED, repo.id, repo.name, None)
        yield from self.process.sync_journal()

    def written(self, repo: "Repo") -> Steps:
        """As `pushed`, of what `writing` announced."""
        seq = yield from self._read_and_tell(repo)
        if seq is not None:
            self.process.disk.journal.refine(repo.id, self.number, seq)
        return seq

    def pushed(self, repo: "Repo") -> Steps:
        """Read, put on disk, tell what has changed; the sequence number that covers it.

        In that order: what was read after the syncing might be told, confirmed by all, and lost here.
        None: it was deleted meanwhile.
        """
        return (yield from self._read_and_tell(repo))

    def deleted(self, repo: "Repo") -> Steps:
        """A user has deleted it."""
        yield from self._take_turn(repo.id)
        self._end_turn(repo.id)
        self.published.forget(repo.id)
        self._tell(Deleted(self.number, self.position + 1, repo.name, repo.id))
        return self.position

    def listed(self, name: str) -> Steps:
        """Its entry in a full list, and its line for the ledger; None if it is gone."""
        found = self.process.disk.repos.get(name)
        if found is None:
            return None
        yield from self._take_turn(found.id)
        try:
            yield
            repo = self.process.disk.repos.get(name)
            if repo is not found:
                return None
            self._shown(repo)
            entry = Listed(name, repo.id, repo.snapshot().digest)
            return entry, self.process.disk.line(name)
        finally:
            self._end_turn(found.id)

    def show(self, identity: str, name: str, asked: "Shown") -> Steps:
        """Answer a standby that asks for a repository's refs; `name` is for the ledger."""
        try:
            yield from self._take_turn(identity)
            try:
                yield
                yield from self._show(identity, name, asked)
            finally:
                self._end_turn(identity)
            yield
            asked.failed = self.closed
        except FullError:
            asked.failed = True
        asked.complete = not asked.failed
        self.world.engine.wake(asked.event)

    def _show(self, identity: str, name: str, asked: "Shown") -> Steps:
        disk = self.process.disk
        repo, asked.line = disk.by_id(identity), disk.line(name)
        if repo is None:
            self.published.forget(identity)
            asked.seq, asked.deleted = self.position, identity in disk.deleted
            return
        asked.id, snapshot = repo.id, repo.snapshot()
        asked.refs, asked.seq = dict(snapshot.refs), self.position
        self._shown(repo)
        if self.rules.snapshots_are_numbered:
            asked.seq = yield from self._number(repo, snapshot)

    def _read_and_tell(self, repo: "Repo") -> Steps:
        """The number; None if it was deleted: what has its name now is another one."""
        yield from self._take_turn(repo.id)
        try:
            yield
            now = self.process.disk.repos.get(repo.name)
            if now is not repo and self.rules.ids:
                self.world.cover("a push's repository is gone")
                return None
            if now is None:
                self.published.forget(repo.id)
                self._tell(Compare(self.number, self.position + 1, repo.name, repo.id))  # type: ignore[arg-type]
                return self.position
            return (yield from self._number(now, now.snapshot()))
        finally:
            self._end_turn(repo.id)

    def _number(self, repo: "Repo", snapshot: "RefSnapshot") -> Steps:
        """The number of that state, which is put on disk and told if it was not. Raises FullError."""
        name, disk = repo.name, self.process.disk
        state = State(repo.id, name, snapshot)  # type: ignore[arg-type]
        if self.rules.sync_before_telling and not self.published.was_read_again(state):
            yield from self.process.wait_for_disk()
            disk.write()
            disk.sync(repo)
            self.published.is_on_disk(state)
        if not self.rules.read_before_syncing:
            state = State(repo.id, name, repo.snapshot())  # type: ignore[arg-type]
        seq = self.published.seq_of(state)
        if seq is None:
            seq = self.position + 1
            news = self.published.tell(state, self.number, seq)
            refs = [change.ref for change in news.delta] if isinstance(news, Changed) else None
            if self.rules.note_what_is_told:
                disk.journal.told(self.number, seq, repo.id, name, refs)
            self._tell(news)
        return seq

    def _shown(self, repo: "Repo") -> None:
        """A standby is about to see what may not have been told."""
        if self.rules.shown_is_told_anew:
            self.published.shown(repo.name, repo.id, repo.snapshot().digest)  # type: ignore[arg-type]

    def _tell(self, news: News) -> None:
        self.position = news.seq
        for feeding in self.feedings.values():
            feeding.tell(news)

    def _take_turn(self, identity: str) -> Steps:
        while identity in self._turns:
            yield self.turn, None
        self._turns.add(identity)

    def _end_turn(self, identity: str) -> None:
        self._turns.discard(identity)
        self.world.engine.wake(self.turn)

    def connect(self, connection: "Connection", member: Member) -> None:
        """A standby has introduced itself; a former connection of its ends first."""
        former = self.feedings.get(member)
        if former is not None:
            self.world.cover("a standby is connected twice")
            self.disconnect(former)
        feeding = Feeding(self, connection, member)
        self.feedings[member] = feeding
        feeding.run()

    def disconnect(self, feeding: Feeding) -> None:
        feeding.end()
        if self.feedings.get(feeding.member) is feeding:
            del self.feedings[feeding.member]
            self._carried.discard(feeding.member)
            self._gone_at[feeding.member] = self.world.engine.now
            self.moved()

    # -- replication/leader/sync_set.py ----------------------------------------------------------------

    @property
    def replicated_through(self) -> int:
        """In mode async others than members may lead next, so what members have says nothing."""
        members = self.rules.required(self._presences(), self.needed)
        if self.in_force and members and (self.world.mode != "async" or self.rules.forget_in_async):
            through = min(self._held_through(member) for member in members)
            self._replicated = max(self._replicated, through)
        return self._replicated

    def note_replicated(self) -> int:
        """The same, noted in the journal as well."""
        through = self.replicated_through
        self.process.note_replicated(self.number, through)
        return through

    def replicated(self, identity: str, seq: int) -> Steps:
        """Wait for it: "ok", "not in time" or "lost"."""
        engine = self.world.engine
        began = engine.now
        while True:
            verdict = self._judge(identity, seq, began)
            for member in sorted(verdict.late):
                self._dismiss(member)
            if not self.valid():
                return "lost"
            if verdict.acknowledge:
                return "ok"
            if verdict.refused is not None:
                self.world.cover(f"a push is not replicated: {verdict.refused}")
                return "not in time"
            yield self.changed, max(0.0, verdict.look_again - engine.now)

    def moved(self) -> None:
        """A standby has come, gone or caught up."""
        self.world.engine.wake(self.changed)
        self._see_to_record()

    def is_carried(self, member: Member) -> bool:
        return member in self._carried

    def _presences(self) -> "Iterator[Presence]":
        for member, feeding in self.feedings.items():
            yield Presence(member, feeding.stage, member in self._carried)
        for member in sorted(self._carried - self.feedings.keys()):
            yield Presence(member, Stage.ABSENT, carried=True)

    def _judge(self, identity: str, seq: int, began: float) -> Verdict:
        members = self.rules.required(self._presences(), self.needed)
        lacking = {}
        for member in sorted(members):
            moved = self._lacks(member, identity, seq, began)
            if moved is not None:
                lacking[member] = moved
        push = Waiting(began, self.world.engine.now, members, self.in_force, lacking)
        verdict = self.rules.judge(push, self.world.mode, LIMITS)
        if verdict.acknowledge and self.world.mode != "async":
            self.world.cover(f"a push is acknowledged with {min(len(members), 2)} standbys")
        return verdict

    def _lacks(self, member: Member, identity: str, seq: int, began: float) -> float | None:
        feeding = self.feedings.get(member)
        if feeding is None:
            return self._gone_at.get(member, began)
        return None if feeding.backlog.holds(identity, seq) else feeding.moved_at(identity, began)

    def _held_through(self, member: Member) -> int:
        feeding = self.feedings.get(member)
        return 0 if feeding is None else feeding.held_through(self.position)

    def _dismiss(self, member: Member) -> None:
        feeding = self.feedings.get(member)
        late = member in self._carried or (feeding is not None and feeding.stage is not Stage.CHECKING)
        self._carried.discard(member)
        if feeding is not None:
            feeding.late()
        if late:
            self.world.cover("a standby is late")
            self.moved()

    def _end_grace(self) -> Steps:
        yield None, LIMITS.ack_timeout_s
        for member in sorted(self._carried - self.feedings.keys()):
            self.world.cover("a carried standby does not come")
            self._carried.discard(member)
        self.moved()

    def _wanted(self) -> "dict[Member, str | None]":
        members = {}
        for member in self.rules.wanted(self._presences(), self.in_force, self.world.mode):
            feeding = self.feedings.get(member)
            joins = feeding is not None and feeding.stage is Stage.LEVEL
            members[member] = feeding.incarnation if feeding and joins else self.members.get(member)
        return members

    def _unlike(self) -> bool:
        return self._uncertain or self._wanted() != self.members

    def _see_to_record(self) -> None:
        running = self._recorder is not None and self._recorder.alive
        if not running and not self.closed and self._unlike():
            self._recorder = self.process.start("recorder", self._record())

    def _record(self) -> Steps:
        failures = 0
        while self._unlike():
            try:
                self._uncertain = True
                members = yield from self.update(choose=self._wanted, position=self.position)
            except LeadershipLostError:
                self.closed = True
                self.world.engine.wake(self.changed)
                return
            except ElectionUnavailableError:
                failures += 1
                self.world.cover("a record's outcome is unknown")
                yield None, self._backoff.delay_s(failures)
            else:
                failures = 0
                self._uncertain = False
                self.world.cover("the sync set is empty" if not members else "a sync set is recorded")
                self.world.say(self.process.node, f"records the sync set {_names(members)}")
                self.world.engine.wake(self.changed)


def _names(members: frozenset[Member]) -> str:
    return "{" + ", ".join(sorted(member.name for member in members)) + "}"
