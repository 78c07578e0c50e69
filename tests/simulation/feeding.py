"""What surrounds the term that is led: connections of standbys, readings, the clock.

The decisions are the product's own: `LeaderTerm` (stargate_gate/replication/leader/term.py). Here its
instructions become steps of the simulator, as feed.py and standby_connection.py make them tasks of asyncio.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.events import Event as TermEvent
from stargate_gate.replication.leader.events import Heard, LookedUp, ReachTried, RepositoriesListed, Sent
from stargate_gate.replication.leader.instructions import (
    EndLink,
    ListRepositories,
    LookUp,
    Reach,
    ReadDone,
    ReadRefs,
    Send,
    SyncRepository,
)
from stargate_gate.replication.wire.messages import Checked, ListBegin, Listed, ListEnd
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.network import BrokenError

if TYPE_CHECKING:
    from tests.simulation.disk import Line
    from tests.simulation.network import Connection
    from tests.simulation.term_shell import TermShell

HEARTBEAT_S = 1.0
SILENCE_S = 3 * HEARTBEAT_S
FULL_CHECK_S = 12.0
NEVER_S = 1e9


class StandbyConnection:
    """One standby's connection, on the leader."""

    def __init__(self, shell: "TermShell", number: int, connection: "Connection", member: Member) -> None:
        self.number = number
        self.member = member
        self.ended = False
        self._shell = shell
        self._engine = shell.world.engine
        self._connection = connection
        self._to_send: deque[Send] = deque()
        self._more = Event()
        self._tasks: list[Task] = []
        self._check = 0  # the list that is being sent

    def run(self) -> None:
        """The term has admitted it."""
        for name, steps in (("listen", self._listen()), ("send", self._send())):
            self._start(name, steps)

    def end(self, reason: str) -> None:
        """Nothing of it goes on; the term hears of that some steps later."""
        if not self.ended:
            self.ended = True
            self._connection.close(self._connection.leader)
            self._shell.process.start("end link", self._end(reason))

    def take(self, instruction: Send | ListRepositories | LookUp | Reach | EndLink) -> None:
        """Carry it out."""
        match instruction:
            case Send():
                self._to_send.append(instruction)
                self._engine.wake(self._more)
            case ListRepositories():
                self._start("list", self._list())
            case LookUp():
                self._start("look up", self._look_up(instruction.names))
            case Reach():
                self._start("reach", self._reach(instruction.member))
            case EndLink():
                if instruction.reason.startswith("it speaks of term"):
                    self._shell.world.cover("a standby speaks of another term")
                self.end(instruction.reason)

    def check_now(self) -> None:
        """The next full list is due."""
        self._shell.check_now(self.member)

    def _start(self, name: str, steps: Steps) -> None:
        self._tasks = [task for task in self._tasks if task.alive]
        self._tasks.append(self._shell.process.start(f"feed {name}", steps))

    def _handle(self, event: TermEvent) -> None:
        if not self.ended:
            self._shell.handle(event)

    def _end(self, reason: str) -> Steps:
        yield
        for task in self._tasks:
            self._engine.end(task)
        self._shell.connection_ended(self.number, reason)

    def _listen(self) -> Steps:
        try:
            while not self.ended:
                message = yield from self._connection.receive(self._connection.leader, NEVER_S)
                confirmed = self._shell.confirmed_list(self.member)
                self._handle(Heard(self._engine.now, self.number, message))
                if isinstance(message, Checked) and self._shell.confirmed_list(self.member) == confirmed:
                    self._shell.world.cover("an older list is confirmed")
                yield
        except BrokenError:
            self._shell.world.cover("a standby's connection ends")
        self.end("the connection has ended")

    def _send(self) -> Steps:
        connection = self._connection
        try:
            while not self.ended:
                while not self._to_send:
                    yield self._more, None
                for message in self._to_send.popleft().messages:
                    connection.send(connection.leader, message)
                    if isinstance(message, ListBegin):
                        self._check = message.check
                    elif isinstance(message, ListEnd):
                        self._shell.world.cover("a full list is sent")
                yield
                self._handle(Sent(self._engine.now, self.number))
        except BrokenError:
            return

    def _list(self) -> Steps:
        names = yield from self._shell.names()
        known = self._shell.process.store.all_known()
        self._handle(RepositoriesListed(self._engine.now, self.number, names, known))

    def _look_up(self, names: Iterable[Any]) -> Steps:
        """Each is looked up at a moment of its own; its line goes along, for the ledger."""
        listed: list[Listed] = []
        for name in names:
            found = yield from self._shell.listed(name)
            if found is not None:
                entry, line = found
                listed.append(entry)
                self._connection.lines[self._check, entry.id] = line
        self._handle(LookedUp(self._engine.now, self.number, tuple(listed)))

    def _reach(self, member: Member) -> Steps:
        """The leader dials the standby; until it has found it, that does not join."""
        yield
        world = self._shell.world
        node = next((one for one in world.nodes if one.member == member), None)
        problem = None
        if node is None or self._engine.now < node.unreached_until:
            world.cover("a standby is not reached")
            problem = "not reached"
        self._handle(ReachTried(self._engine.now, self.number, problem))


class Reading:
    """What the term wants of one reading, for the program that does it."""

    def __init__(self) -> None:
        self.todo: deque[ReadRefs | SyncRepository | ReadDone] = deque()
        self.event = Event()
        self.over = False


class Clock:
    """Wakes the term when it wants to be woken."""

    def __init__(self, shell: "TermShell", tick: Callable[[float], None]) -> None:
        self._engine = shell.world.engine
        self._tick = tick
        self._at: float | None = None
        self._moved = Event()

    def set(self, at: float | None) -> None:
        """The time of the next tick; None: none is needed."""
        self._at = at
        self._engine.wake(self._moved)

    def run(self) -> Steps:
        """For as long as the term."""
        while True:
            if self._at is not None and self._engine.now >= self._at:
                at, self._at = self._at, None
                self._tick(max(at, self._engine.now))
                yield
            else:
                yield self._moved, None if self._at is None else self._at - self._engine.now


class Shown:
    """The answer to stargate-refs. `complete` when `event` is set, or `failed`.

    id, name, refs  the repository; None: the leader has none
    deleted   because a user has deleted it
    seq       the number that covers it
    line      for the ledger
    """

    def __init__(self) -> None:
        self.event = Event()
        self.complete = self.failed = False
        self.id: str | None = None
        self.name = ""
        self.deleted = False
        self.refs: dict[str, str] = {}
        self.seq = 0
        self.line: Line = frozenset()
