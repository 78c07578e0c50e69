"""A term, as the leader lives it: the record, the feed, the sync set, and pushes that wait.

Follows election/term.py, replication/feed.py, keeper.py and campaign.py (`_carry_over`, `_step_down`).
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
from stargate_gate.replication.backlog import FIRST_POSITION
from stargate_gate.replication.messages import Changed, Compare, News
from stargate_gate.replication.retry import Backoff
from stargate_gate.replication.syncset import Limits, Presence, Stage, Verdict, Waiting
from stargate_gate.repos.refs import RefSnapshot
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.feeding import Feeding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.simulation.disk import Repo
    from tests.simulation.network import Connection
    from tests.simulation.process import Process, Tenure

SYNCS_S = (0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 2.0)  # what syncing the folders takes at most
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
        self.pushes: list[Task] = []
        self.published: dict[str, tuple[str, RefSnapshot, int]] = {}
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

    def update(self, *, sync_set: "frozenset[Member] | None" = None, **changes: Any) -> Steps:
        """The next version of the record. Raises as Term.update."""
        while self._writing:
            yield self.turn, None
        self._writing = True
        try:
            before = self.attempted or self.record
            members = self.record.sync_set
            if sync_set is not None:
                members = tuple(sorted(sync_set - {self.record.leader}))
            changed = replace(
                self.record,
                version=before.version + 1,
                sync_set=members,
                **{"successor": None, **changes},
            )
            if not self.valid():
                if self.rules.lost_once_seen_lost:
                    self.tenure.lose("no proof in time")
                raise LeadershipLostError("the lease has run out")
            self.attempted = changed if self.attempted is None else self.rules.either(self.attempted, changed)
            yield from self._write(changed)
            self.record, self.attempted = changed, None
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

    # -- campaign.py ----------------------------------------------------------------------------------

    def carry_over(self, former: Member | None) -> Steps:
        members = self.rules.carried(self.world.mode, self.in_force, former)
        if members != self.in_force:
            yield from self.update(sync_set=members)
        self._carried = set(self.needed)
        self._gone_at = dict.fromkeys(self.needed, self.world.engine.now)
        if self._carried:
            self.world.cover("a sync set is carried over")
            self._tasks.append(self.process.start("grace", self._end_grace()))

    def open(self) -> None:
        self.is_open = True
        self.world.cover("a term opens")
        self.world.say(self.process.node, f"opens term {self.number}, sync set {_names(self.in_force)}")
        self.world.ledger.opens(self.process, self.number)

    def step_down(self, drain_s: float) -> Steps:
        """No new pushes, the running ones finish, a standby is caught up, the record is clean."""
        engine = self.world.engine
        self.is_open = False
        deadline = engine.now + drain_s
        while any(task.alive for task in self.pushes) and engine.now < deadline:
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
        for task in self.pushes:
            if task.alive and self.rules.reap_pushes:
                yield
                self.world.engine.end(task)

    # -- replication/feed.py --------------------------------------------------------------------------

    def pushed(self, name: str) -> Steps:
        """Read, put on disk, tell what has changed; the sequence number that covers it.

        In that order: what was read after the syncing might be told, confirmed by all, and lost here.
        """
        while name in self._turns:
            yield self.turn, None
        self._turns.add(name)
        try:
            yield
            repo = self.process.disk.repos.get(name)
            if repo is None:
                self.published.pop(name, None)
                self._tell(Compare(self.number, self.position + 1, name))
                return self.position
            snapshot = RefSnapshot("sha1", "", dict(repo.refs))
            if self.rules.sync_before_telling:
                chance = self.world.engine.chance
                yield None, chance.random() * chance.choice(SYNCS_S)
                self.process.disk.write()
                self.process.disk.sync(repo)
            if not self.rules.read_before_syncing:
                snapshot = RefSnapshot("sha1", "", dict(repo.refs))
            before = self.published.get(name)
            if before is not None and before[:2] == (repo.id, snapshot):
                return before[2]
            seq = self.position + 1
            self.published[name] = (repo.id, snapshot, seq)
            self._tell(self._news(name, before, (repo.id, snapshot, seq)))
            return seq
        finally:
            self._turns.discard(name)
            self.world.engine.wake(self.turn)

    def shown(self, repo: "Repo") -> None:
        """A standby is shown what may not have been told: whatever is told next has a new number.

        Else a ref that goes away and comes back, seen in between, would count as never gone.
        """
        told = self.published.get(repo.name)
        if told is not None and told[1].refs != repo.refs and self.rules.shown_is_told_anew:
            del self.published[repo.name]
            self.world.cover("a standby is shown what was not told")

    def _news(self, name: str, before: Any, after: tuple[str, RefSnapshot, int]) -> News:
        identity, snapshot, seq = after
        same = before is not None and before[0] == identity
        delta = self.rules.difference(before[1], snapshot) if same else None
        if delta is None:
            return Compare(self.number, seq, name)
        return Changed(self.number, seq, name, identity, "", delta)

    def _tell(self, news: News) -> None:
        self.position = news.seq
        for feeding in self.feedings.values():
            feeding.tell(news)

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

    # -- replication/keeper.py ------------------------------------------------------------------------

    @property
    def replicated_through(self) -> int:
        members = self.rules.required(self._presences(), self.needed)
        if self.in_force and members:
            through = min(self._held_through(member) for member in members)
            self._replicated = max(self._replicated, through)
        return self._replicated

    def replicated(self, name: str, seq: int) -> Steps:
        """Wait for it: "ok", "not in time" or "lost"."""
        engine = self.world.engine
        began = engine.now
        while True:
            verdict = self._judge(name, seq, began)
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

    def _presences(self) -> "Iterator[Presence]":
        for member, feeding in self.feedings.items():
            yield Presence(member, feeding.stage, member in self._carried)
        for member in sorted(self._carried - self.feedings.keys()):
            yield Presence(member, Stage.ABSENT, carried=True)

    def _judge(self, name: str, seq: int, began: float) -> Verdict:
        members = self.rules.required(self._presences(), self.needed)
        lacking = {}
        for member in sorted(members):
            moved = self._lacks(member, name, seq, began)
            if moved is not None:
                lacking[member] = moved
        push = Waiting(began, self.world.engine.now, members, self.in_force, lacking)
        verdict = self.rules.judge(push, self.world.mode, LIMITS)
        if verdict.acknowledge and self.world.mode != "async":
            self.world.cover(f"a push is acknowledged with {min(len(members), 2)} standbys")
        return verdict

    def _lacks(self, member: Member, name: str, seq: int, began: float) -> float | None:
        feeding = self.feedings.get(member)
        if feeding is None:
            return self._gone_at.get(member, began)
        return None if feeding.backlog.holds(name, seq) else feeding.moved_at(name, began)

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

    def _wanted(self) -> frozenset[Member]:
        return self.rules.wanted(self._presences(), self.in_force, self.world.mode)

    def _unlike(self) -> bool:
        return self._uncertain or self._wanted() != self.in_force

    def _see_to_record(self) -> None:
        running = self._recorder is not None and self._recorder.alive
        if not running and not self.closed and self._unlike():
            self._recorder = self.process.start("recorder", self._record())

    def _record(self) -> Steps:
        failures = 0
        while self._unlike():
            members = self._wanted()
            try:
                self._uncertain = True
                yield from self.update(sync_set=members, position=self.position)
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
