"""Connections between nodes: in order while they last; cut, slowed and broken at will."""

from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from stargate_gate.replication.wire.about import About, Reached
from stargate_gate.replication.wire.messages import Welcome
from tests.simulation.engine import Event

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World


RECENT = 6  # messages of a connection that may turn up elsewhere: a whole list, and some more
INTRODUCTIONS = (Welcome, About, Reached)  # they say nothing of repositories: elsewhere they could do no harm
STRAY_S = 0.3  # how long a message of another connection stays out at most, after the new one began


class BrokenError(Exception):
    """The connection is gone, or nothing was heard on it for too long."""


class End:
    """One side of a connection."""

    __slots__ = ("broken", "event", "inbox", "last", "process", "recent")

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.inbox: deque[tuple[float, Any]] = deque()
        self.event = Event()
        self.broken = False
        self.last = 0.0
        self.recent: deque[Any] = deque(maxlen=RECENT)


class Connection:
    """Of one standby to the leader of `term`, as it is called by whoever opened it."""

    def __init__(self, world: "World", standby: "Process", leader: "Process", term: int) -> None:
        self.world = world
        self.term = term
        self.standby = End(standby)
        self.leader = End(leader)
        self.lines: dict[tuple[int, str], frozenset[str]] = {}  # by check and id: for the ledger
        standby.connections[self] = None
        leader.connections[self] = None

    def other(self, end: End) -> End:
        return self.leader if end is self.standby else self.standby

    def send(self, end: End, message: Any) -> None:
        """Put it on its way. Raises BrokenError."""
        if end.broken:
            raise BrokenError
        to = self.other(end)
        delay = self.world.network.delay(end.process, to.process)
        to.last = max(to.last, self.world.engine.now + delay)
        to.inbox.append((to.last, message))
        if not isinstance(message, INTRODUCTIONS):
            to.recent.append(message)
        self.world.engine.wake(to.event)

    def receive(self, end: End, limit_s: float) -> Generator[Any, None, Any]:
        """The next message. Raises BrokenError, also after `limit_s` seconds of silence."""
        engine = self.world.engine
        deadline = engine.now + limit_s
        while True:
            other = self.other(end)
            ahead = deadline - engine.now
            if end.inbox and self.world.network.reachable(end.process, other.process):
                wait = end.inbox[0][0] - engine.now
                if wait <= 0:
                    return end.inbox.popleft()[1]
                ahead = min(ahead, wait)
            elif end.broken:
                raise BrokenError
            if engine.now >= deadline:
                raise BrokenError
            yield end.event, ahead

    def cut(self, end: End, *, lost: bool) -> None:
        """That side sees the connection end; `lost`: what is under way to it does not arrive."""
        if end.recent:
            self.world.network.strays.append((end.process.node, list(end.recent)))
        if lost:
            end.inbox.clear()
        end.broken = True
        self.world.engine.wake(end.event)

    def close(self, end: End) -> None:
        """That side goes; the other sees it, if the network lets it."""
        end.broken = True
        end.process.connections.pop(self, None)
        other = self.other(end)
        if self.world.network.reachable(end.process, other.process):
            other.broken = True
            self.world.engine.wake(other.event)


class Network:
    """Who can reach whom, and how slowly; and what was sent last, which may turn up elsewhere."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.cuts: set[frozenset[int]] = set()
        self.slow: dict[frozenset[int], float] = {}
        self.strays: deque[tuple[Any, list[Any]]] = deque(maxlen=6)

    def reachable(self, one: "Process", other: "Process") -> bool:
        return not self.cuts or frozenset((one.node.number, other.node.number)) not in self.cuts

    def delay(self, one: "Process", other: "Process") -> float:
        if not self.slow:
            return 0.0
        return self.slow.get(frozenset((one.node.number, other.node.number)), 0.0)

    def stray(self, connection: Connection, end: End) -> None:
        """What was sent to that node turns up on this connection (again), if it is of another term."""
        for stray in list(self.strays):
            node, messages = stray
            foreign = [one for one in messages if one.term != connection.term]
            if node is end.process.node and foreign:
                self.strays.remove(stray)
                self.world.cover("a message of another term turns up")
                self.world.engine.start("stray", self._turn_up(end, foreign))

    def _turn_up(self, end: End, messages: list[Any]) -> Generator[Any, None, None]:
        """After the introductions, as a rule."""
        yield None, self.world.engine.chance.random() * STRAY_S
        end.inbox.extend((self.world.engine.now, one) for one in messages)
        self.world.engine.wake(end.event)
