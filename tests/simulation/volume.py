"""The shared volume: the slots of the lock file, and the lock, which may be lost without a word."""

from typing import TYPE_CHECKING, Any

from stargate_gate.election.flock.slots import SLOT_COUNT, Slot, Slots, Torn, in_force, order
from stargate_gate.election.flock.steps import Read, Reserve, Sync, Write
from stargate_gate.election.port import ClusterRecord
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
from tests.simulation.engine import Event, Steps

if TYPE_CHECKING:
    from tests.simulation.process import Process
    from tests.simulation.world import World


class Hold:
    """A descriptor of the lock file that was locked. `unsynced`: written and not yet shown to others."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.unsynced: dict[int, Slot] = {}
        self.mine: ClusterRecord | None = None
        self.settled = False
        self.let_go = False


class Volume:
    """`visible_at_sync`: others see a write when its writer syncs (NFS), not at once (a local file).

    At most one copy is damaged at a time: a write tears or hangs only while no other copy is torn and no
    other write hangs. Two copies are no more than that: two frozen writers of older terms that wake up at
    once, or one and a write that tears or is cut off, between two heartbeats, take the record with them.
    """

    def __init__(self, world: "World", first: ClusterRecord, *, visible_at_sync: bool) -> None:
        self.world = world
        self.visible_at_sync = visible_at_sync
        blank: list[Slot] = [None] * SLOT_COUNT
        blank[0] = blank[1] = first
        self.slots = blank
        self.durable = list(blank)
        self.version = 0
        self.holder: Hold | None = None
        self.unreachable: set[int] = set()
        self.reachable_again = Event()
        self.armed: dict[int, str] = {}  # node -> what happens to its next write
        self.late: list[tuple[int, Slot]] = []  # writes that hang in some kernel, and may land
        self.landed = Event()
        self.history: list[tuple[int, list[Slot]]] = []  # what was in force once, one copy a term
        self.newest: list[Slot] | None = None  # while an old copy is in its place
        self._seen: tuple[int, ClusterRecord | None] = (-1, None)

    @property
    def in_force(self) -> ClusterRecord | None:
        """The record that anybody who reads now finds in force."""
        if self._seen[0] != self.version:
            self._seen = (self.version, in_force(Slots(tuple(self.slots))))
        return self._seen[1]

    def put(self, slot: int, content: Slot) -> None:
        self.slots[slot] = content
        self.version += 1
        self.world.ledger.dirty = True

    # -- what a node's worker does --------------------------------------------------------------------

    def reach(self, process: "Process") -> Steps:
        """Hangs while the volume does."""
        while process.node.number in self.unreachable:
            yield self.reachable_again, None

    def read(self, process: "Process") -> Steps:
        """What the engine's reading without the lock does: afresh, and known to be durable."""
        yield from self.reach(process)
        yield
        found = self.in_force
        if found is None:
            raise ElectionUnavailableError("the record is damaged")
        if found.term > process.durable_term:
            self.durable = list(self.slots)
            process.durable_term = found.term
        return found

    def acquire(self, hold: Hold) -> Steps:
        yield from self.reach(hold.process)
        yield
        if self.holder is not None or hold.let_go:
            return False
        self.holder = hold
        return True

    def release(self, hold: Hold) -> None:
        hold.let_go = True
        self.flush(hold)
        if self.holder is hold:
            self.holder = None

    def flush(self, hold: Hold) -> None:
        """The descriptor is closed: what was written and not synced lands sooner or later."""
        for slot, content in hold.unsynced.items():
            if self.damaged:
                self.put(slot, content)
            else:
                self.late.append((slot, content))
        hold.unsynced.clear()

    def only_copy(self, slot: int) -> bool:
        """Whether what is in force is there and nowhere else: a write was cut off after its first copy."""
        return [i for i, one in enumerate(self.slots) if one == self.in_force] == [slot]

    @property
    def damaged(self) -> bool:
        """One copy is torn, or is going to be overwritten by a write that hangs: no other may be then."""
        return bool(self.late) or any(isinstance(one, Torn) for one in self.slots)

    def slots_for(self, hold: Hold) -> Slots:
        if not hold.unsynced:
            return Slots(tuple(self.slots))
        return Slots(tuple(hold.unsynced.get(i, content) for i, content in enumerate(self.slots)))

    def drive(self, hold: Hold, steps: Any) -> Steps:
        """What FlockHandle._drive does, each step on its own."""
        answer: Slots | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                return done.value
            if hold.let_go:
                raise LeadershipLostError("the leader lock was let go")
            yield from self.reach(hold.process)
            yield
            answer = yield from self._perform(hold, step)

    def _perform(self, hold: Hold, step: Any) -> Steps:
        match step:
            case Read():
                return self.slots_for(hold)
            case Write(slot, record):
                yield from self._write(hold, slot, record)
            case Sync():
                for slot, content in hold.unsynced.items():
                    self.put(slot, content)
                hold.unsynced.clear()
                self.durable = list(self.slots)
                self._remember()
            case Reserve(term):
                yield from hold.process.note(reserved_term=term)
        return None

    def _write(self, hold: Hold, slot: int, record: ClusterRecord) -> Steps:
        fault = self.armed.pop(hold.process.node.number, None)
        if fault in {"tear", "hang"} and self.damaged:
            fault = "fail"
        if fault is None:
            if self.visible_at_sync:
                hold.unsynced[slot] = record
            else:
                self.put(slot, record)
            return
        self.world.cover(f"a record write {fault}s")
        self.world.say(hold.process.node, f"its write of {record.term}.{record.version} {fault}s")
        if fault == "fail":
            raise ElectionUnavailableError("the volume does not take the write")
        if fault == "tear":
            self.put(slot, Torn(f"{record.leader.name} {record.term}.{record.version}"))
            raise ElectionUnavailableError("the volume took half of the write")
        entry = (slot, record)
        self.late.append(entry)
        while entry in self.late:
            yield self.landed, None

    # -- faults ---------------------------------------------------------------------------------------

    def land(self, *, lost: bool) -> None:
        """One of the writes that hang comes through, or never will."""
        if not self.late:
            return
        slot, content = self.late.pop(self.world.engine.chance.randrange(len(self.late)))
        if not lost and not self.only_copy(slot):
            self.put(slot, content)
            self.world.cover("a record write lands late")
            self.world.say(None, f"a late write of {content.term}.{content.version} lands in slot {slot}")
        self.world.engine.wake(self.landed)

    @property
    def old_copy(self) -> bool:
        """An older copy was restored, and the newest is not back yet."""
        return self.newest is not None

    def _remember(self) -> None:
        now = self.in_force
        if now is not None and (not self.history or self.history[-1][0] < now.term):
            self.history.append((now.term, list(self.slots)))
        newest = in_force(Slots(tuple(self.newest))) if self.newest is not None else None
        if now is not None and newest is not None and order(now) >= order(newest):
            self.newest = None

    def restore(self, slots: list[Slot]) -> None:
        """Somebody puts an older copy of the file in its place."""
        self.newest, self.slots = self.slots, list(slots)
        self.version += 1

    def put_back(self) -> None:
        """The newest copy is back in its place, unless a leader has seen to it already."""
        if self.newest is not None:
            self.slots, self.newest = self.newest, None
            self.version += 1
            self.durable = list(self.slots)
            self.world.ledger.dirty = True

    def black_out(self) -> None:
        """The volume loses what was not synced, and every lock."""
        if self.newest is not None:
            self.durable = list(self.newest)
            self.newest = None
        self.slots = list(self.durable)
        self.version += 1
        self.late.clear()
        self.holder = None
        self.world.engine.wake(self.landed)
