"""One standby's connection on the leader. Follows replication/leader/standby_link.py."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.port import Member
from stargate_gate.replication.leader.sync_rules import Stage
from stargate_gate.replication.wire.messages import (
    Alive,
    Applied,
    Changed,
    Checked,
    Compare,
    Enroll,
    Enrolled,
    Heartbeat,
    Listed,
    News,
    Progress,
)
from tests.simulation.disk import Line
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.network import BrokenError

if TYPE_CHECKING:
    from tests.simulation.leading import Leading
    from tests.simulation.network import Connection

HEARTBEAT_S = 1.0
SILENCE_S = 3 * HEARTBEAT_S
FULL_CHECK_S = 12.0


class Feeding:
    """Made when a standby has introduced itself."""

    def __init__(self, term: "Leading", connection: "Connection", member: Member) -> None:
        self.member = member
        self.stage = Stage.CHECKING
        self.backlog = term.rules.backlog()
        self.beat = Event()
        self._term = term
        self._engine = term.world.engine
        self._connection = connection
        self._began = self._engine.now
        self._position = 0
        self._level_from = 0
        self._offered: str | None = None
        self._offer_sent = False
        self.incarnation: str | None = None
        self._times_late = 0
        self._check = 0
        self._confirmed_check = 0
        self._list_seq = 0
        self._list_due = 0.0
        self._uncovered = False
        self._backoff = Backoff(1.0, 8.0, self._engine.chance.random)
        self._wake = Event()
        self._tasks: list[Task] = []
        self._reached = term.is_carried(member)

    def run(self) -> None:
        for name, steps in (("listen", self._listen()), ("send", self._send()), ("beat", self._beat())):
            self._tasks.append(self._term.process.start(f"feed {name}", steps))

    def end(self) -> None:
        self._ended = True
        self._connection.close(self._connection.leader)

    _ended = False

    def tell(self, news: News) -> None:
        if not self.backlog.covered and isinstance(news, Changed):
            news = Compare(news.term, news.seq, news.name, news.id)
        if not self.backlog.add(news, self._engine.now):
            self._term.world.cover("a standby is far behind")
            self.backlog.clear()
            self._uncovered = True
            self._list_due = 0.0
            self._fall_behind()
        self._engine.wake(self._wake)

    def holds(self, position: int) -> bool:
        return self.stage is Stage.LEVEL and self._position >= position and not len(self.backlog)

    def held_through(self, position: int) -> int:
        return self.backlog.held_through(position)

    def moved_at(self, identity: str, since: float) -> float:
        return max(self._began, self.backlog.moved_at(identity) or since)

    def late(self) -> None:
        if self.stage is not Stage.CHECKING:
            self._times_late += 1
            self._list_due = self._engine.now + self._backoff.delay_s(self._times_late)
            self._fall_behind()
            self._engine.wake(self._wake)

    def check_now(self) -> None:
        """The next full list is due."""
        self._list_due = self._engine.now
        self._engine.wake(self._wake)

    # -- what the standby says ------------------------------------------------------------------------

    def _listen(self) -> Steps:
        term, connection = self._term, self._connection
        try:
            while not self._ended:
                message = yield from connection.receive(connection.leader, SILENCE_S)
                if self._ended:
                    return
                if message.term != term.number and term.rules.check_term_of_standby:
                    term.world.cover("a standby speaks of another term")
                    break
                self._hear(message)
                yield
        except BrokenError:
            term.world.cover("a standby's connection ends")
        if not self._ended:
            term.disconnect(self)

    def _hear(self, message: Applied | Checked | Enrolled | Alive | Progress) -> None:
        match message:
            case Applied():
                self.backlog.applied(message.id, message.seq, self._engine.now)
            case Progress():
                self.backlog.progress(message.id, self._engine.now)
            case Checked():
                self._confirm(message.check)
            case Enrolled():
                if message.incarnation == self._offered:
                    self.incarnation = message.incarnation
            case Alive():
                self._position = message.position
        self._rise()
        self._term.moved()

    def _confirm(self, check: int) -> None:
        if check != self._check or self._uncovered:
            self._term.world.cover("an older list is confirmed")
            return
        self.backlog.checked(self._list_seq)
        self._confirmed_check = check

    def _rise(self) -> None:
        rules = self._term.rules
        if not self._reached:
            self._look_for_it()
        confirmed = self.backlog.covered and self._confirmed_check == self._check
        stage = rules.next_stage(self.stage, confirmed=confirmed, reached=self._reached, holds=False)
        if stage is not self.stage:
            self._level_from = self._term.position if rules.level_from_where_required else self._list_seq
            for node in self._term.world.nodes:
                if node.member == self.member:
                    node.joins(self._engine.taken)
            if self._offered is None or rules.joins_anew:
                self._offered, self._offer_sent = self._term.world.new_id("i"), False
                self.incarnation = None
                self._engine.wake(self._wake)
            self._become(stage if rules.require_before_recording else Stage.LEVEL)
        holds = self.incarnation is not None and self.held_through(self._term.position) >= self._level_from
        stage = rules.next_stage(self.stage, confirmed=False, reached=self._reached, holds=holds)
        if stage is not self.stage:
            self._become(stage)

    def _look_for_it(self) -> None:
        """The leader dials the standby again and again; until it has found it, that does not join."""
        node = next((one for one in self._term.world.nodes if one.member == self.member), None)
        self._reached = node is not None and self._engine.now >= node.unreached_until
        if not self._reached:
            self._term.world.cover("a standby is not reached")

    def _become(self, stage: Stage) -> None:
        self._term.world.cover(f"{self.stage.value} → {stage.value}")
        self._term.world.say(self._term.process.node, f"takes {self.member.name} for {stage.value}")
        self.stage = stage

    def _fall_behind(self) -> None:
        if self.stage is not Stage.CHECKING:
            self._become(Stage.CHECKING)
            self._confirmed_check = 0
            self._term.moved()

    # -- what it is sent ------------------------------------------------------------------------------

    def _beat(self) -> Steps:
        term, connection = self._term, self._connection
        try:
            while not self._ended:
                yield self.beat, HEARTBEAT_S
                sent = 0 if self._uncovered else self.backlog.sent_through(term.position)
                through = term.note_replicated()
                connection.send(connection.leader, Heartbeat(term.number, sent, through))
        except BrokenError:
            return

    def _send(self) -> Steps:
        _term, connection = self._term, self._connection
        try:
            while not self._ended:
                if self._engine.now >= self._list_due:
                    self._list_due = self._engine.now + FULL_CHECK_S
                    yield from self._send_list()
                if self._offered is not None and not self._offer_sent:
                    self._offer_sent = True
                    connection.send(connection.leader, Enroll(_term.number, self._offered))
                news = self.backlog.next(self._engine.now)
                if news is not None:
                    connection.send(connection.leader, news)
                    yield
                else:
                    yield self._wake, self._list_due - self._engine.now
        except BrokenError:
            return

    def _send_list(self) -> Steps:
        """ListBegin to ListEnd as one message; each repository is looked up at a moment of its own."""
        term = self._term
        if self._confirmed_check != self._check:
            self._fall_behind()
        self._check += 1
        self._uncovered = False
        check, self._list_seq = self._check, term.position
        yield
        listed, lines = [], {}
        for name in sorted(term.process.disk.repos):
            found = yield from term.listed(name)
            if found is not None:
                one, lines[name] = found
                listed.append(one)
        self._connection.send(
            self._connection.leader, List(term.number, check, self._list_seq, listed, lines)
        )
        term.world.cover("a full list is sent")


@dataclass(frozen=True)
class List:
    """A whole list, from its beginning to its end."""

    term: int
    check: int
    seq: int
    repositories: list[Listed]
    lines: dict[str, Line]  # by name; for the ledger


class Shown:
    """The answer to stargate-refs. `complete` when `event` is set, or `failed`.

    id, refs  the repository; None: the leader has none
    deleted   because a user has deleted it
    seq       the number that covers it
    line      for the ledger
    """

    def __init__(self) -> None:
        self.event = Event()
        self.complete = self.failed = False
        self.id: str | None = None
        self.deleted = False
        self.refs: dict[str, str] = {}
        self.seq = 0
        self.line: Line = frozenset()
