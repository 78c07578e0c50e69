"""What goes wrong: a plan of events, made from a seed before anything runs, so that it can be shrunk."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from stargate_gate.replication.standby.answers import Unsound
from stargate_gate.repos.names import RepositoryName
from tests.simulation.client import KINDS
from tests.simulation.engine import Steps
from tests.simulation.events import REPOS, Event
from tests.simulation.operators import BY_HAND

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.process import Process
    from tests.simulation.world import World


FAULTS = (
    "kill",
    "power loss",
    "step down",
    "pause",
    "partition",
    "isolation",
    "slow network",
    "broken connection",
    "half-broken connection",
    "volume out of reach",
    "volume gone",
    "lost lock",
    "write fails",
    "write tears",
    "write hangs",
    "late write lands",
    "late write is lost",
    "full disk",
    "reinstallation",
    "backup",
    "rollback",
    "blackout",
    "old copy of the record",
    "override",
    "override and crash",
    "lost journal",
    "crash in the journal",
    "full check",
)
# Chosen without a draw of the episode's chance: seeds that are known to find a mutation go on finding it.
LATER_FAULTS = ("not reached", "bit rot", "scrub")
OPERATORS_SHARE = 0.4  # of the episodes in which folders are moved by hand
OVERRIDE_S = 60.0
RARE = {
    "override",
    "override and crash",
    "lost journal",
    "blackout",
    "old copy of the record",
    "reinstallation",
    "rollback",
    "volume gone",
}


@dataclass(frozen=True)
class Taste:
    """What an episode is made of; None: its seed decides. `every` and `gap` are in steps.

    kinds   of faults, and `gap` between two of them on average
    wishes  of clients, and `every` how many steps there is one
    """

    kinds: tuple[str, ...] | None = None
    gap: int | None = None
    wishes: tuple[str, ...] | None = None
    every: int | None = None


def make_events(chance: Random, nodes: int, steps: int, taste: Taste) -> tuple[Event, ...]:
    """Wishes all the time, and faults of a few kinds; which kinds differs from episode to episode."""
    some = tuple(kind for kind in FAULTS if chance.random() < (0.2 if kind in RARE else 0.5))
    some += tuple(
        kind for kind in LATER_FAULTS if Random(f"{kind} {chance.getstate()[1][:3]}").random() < 0.5
    )
    if Random(f"by hand {chance.getstate()[1][:3]}").random() < OPERATORS_SHARE:
        some += tuple(kind for kind in BY_HAND if Random(f"{kind} {chance.getstate()[1][:3]}").random() < 0.5)
    chosen = some if taste.kinds is None else taste.kinds
    events = []
    every = taste.every or chance.choice((40, 80, 160))
    for at in range(chance.choice((50, 200, 600)), steps, every):
        wishes = taste.wishes or (KINDS[:-1] if chance.random() < 0.9 else KINDS)
        kind = f"wish:{chance.choice(wishes)}"
        events.append(_event(chance, at, kind, nodes))
    gap = taste.gap or chance.choice((150, 300, 800))
    at = chance.choice((50, 200, 600))
    while chosen and (at := at + chance.randint(1, 2 * gap)) < steps:
        events.append(_event(chance, at, chance.choice(chosen), nodes))
    return tuple(sorted(events, key=lambda event: event.at))


def _event(chance: Random, at: int, kind: str, nodes: int) -> Event:
    seconds = round(chance.choice((0.1, 1.0, 4.0, 7.0, 15.0)) * (0.75 + chance.random() / 2), 3)
    return Event(
        at, kind, chance.randrange(nodes), chance.randrange(nodes), seconds, chance.randrange(1 << 30)
    )


def perform(world: "World", event: Event) -> None:
    """Let it happen."""
    if event.kind.startswith("wish:"):
        client = world.clients[event.seed % len(world.clients)]
        client.wish(
            event.kind.removeprefix("wish:"), REPOS[event.seed // 7 % 3 % (1 + event.seed % 3)], event.seed
        )
        return
    if _PERFORM[event.kind](world, event):
        world.cover(f"fault: {event.kind}")
        world.say(world.nodes[event.node], f"FAULT {event.kind} ({event.seconds:g} s)")


def later(world: "World", seconds: float, action: Callable[[], None]) -> None:
    def steps() -> Steps:
        yield None, seconds
        action()

    world.engine.start("later", steps())


# -- processes ---------------------------------------------------------------------------------------


def crash(world: "World", process: "Process", *, power: bool, seed: int = 0) -> None:
    """All of it ends between two steps; what the system had to write is written, or with the power lost."""
    chance = Random(seed)
    node = process.node
    node.process = None
    process.parked.clear()
    for task in process.tasks:
        world.engine.end(task)
    process.tasks.clear()
    node.disk.journal.cut(chance)
    volume = world.volume
    if process.tenure is not None:
        _drop_hold(world, process, power=power, chance=chance)
    if volume.holder is not None and volume.holder.process is process:
        volume.holder = None
    for connection in list(process.connections):
        end = connection.standby if connection.standby.process is process else connection.leader
        other = connection.other(end)
        end.broken = True
        if not power and world.network.reachable(process, other.process):
            connection.cut(other, lost=chance.random() < 0.5)
    if power:
        for repo in node.disk.lose_power(chance):
            world.ledger.stands(repo)
    world.ledger.dirty = True


def _drop_hold(world: "World", process: "Process", *, power: bool, chance: Random) -> None:
    hold = process.tenure.hold if process.tenure else None
    if hold is None:
        return
    if power:
        for slot, content in hold.unsynced.items():
            if chance.random() < 0.5 and not world.volume.damaged:
                world.volume.late.append((slot, content))
        hold.unsynced.clear()
    world.volume.release(hold)


def _crash(world: "World", event: Event, *, power: bool) -> bool:
    process = world.nodes[event.node].process
    if process is None:
        return False
    crash(world, process, power=power, seed=event.seed)
    restart_later(world, world.nodes[event.node], event.seconds)
    return True


def restart_later(world: "World", node: "Node", seconds: float) -> None:
    def restart() -> None:
        if node.process is None:
            world.boot(node)
            world.say(node, "starts")

    later(world, seconds, restart)


def _step_down(world: "World", event: Event) -> bool:
    node = world.nodes[event.node]
    process = node.process
    if process is None or process.stopping:
        return False
    process.stopping = True

    def gone() -> Steps:
        for _ in range(20):
            if process.stopped or node.process is not process:
                break
            yield None, 1.0
        if node.process is process:
            crash(world, process, power=False)
            restart_later(world, node, event.seconds)

    world.engine.start("stop", gone())
    return True


def _pause(world: "World", event: Event) -> bool:
    process = world.nodes[event.node].process
    if process is None or process.frozen:
        return False
    process.frozen = True
    seconds = event.seconds
    if process.tenure is not None and event.seed % 3 == 0:  # until about when its lease runs out
        seconds = max(0.0, process.tenure.left_s()) + seconds / 20
    later(world, seconds, lambda: world.engine.thaw(process))
    return True


def _hide(world: "World", event: Event) -> bool:
    """Its advertised address is wrong, or a firewall stands before it; what it dials itself goes on."""
    node = world.nodes[event.node]
    node.unreached_until = max(node.unreached_until, world.engine.now + event.seconds)
    return True


def _reinstall(world: "World", event: Event) -> bool:
    """Not if nobody would be left to lead: that is a loss, and no election mends it."""
    node = world.nodes[event.node]
    if not _can_spare(world, node):
        return False
    if node.process is not None:
        crash(world, node.process, power=False)
    node.reinstall(world.engine.now)
    world.ledger.dirty = True
    restart_later(world, node, event.seconds)
    return True


def _can_spare(world: "World", node: "Node") -> bool:
    """Whether another node may lead, by a record that nothing on its way can change."""
    volume = world.volume
    busy = any(one.process is not None and one.process.busy for one in world.nodes)
    if volume.late or busy or volume.in_force is None or volume.old_copy:
        return False
    record = volume.in_force
    return any(world.ledger.may_lead(one, record) for one in world.nodes if one is not node)


def _back_up(world: "World", event: Event) -> bool:
    world.nodes[event.node].back_up(world.engine.taken)
    return True


def _roll_back(world: "World", event: Event) -> bool:
    """The data_dir is put back as it was before the node's present membership, if it has one."""
    node = world.nodes[event.node]
    if node.backup is None or node.backup[1] >= node.member_since or not _can_spare(world, node):
        return False
    if node.process is not None:
        crash(world, node.process, power=False)
    node.put_back(world.engine.now)
    node.disk.journal.cut(Random(event.seed))
    world.ledger.dirty = True
    restart_later(world, node, event.seconds)
    return True


def _override(world: "World", event: Event, *, crash_again: bool) -> bool:
    """All who may lead are gone; an operator has another node lead, and accepts that data may be lost.

    crash_again: once more they go, as soon as they have something to note.
    """
    record = world.volume.in_force
    if record is None or world.volume.old_copy:
        return False
    count = len(world.nodes)
    ordered = [world.nodes[(event.node + one) % count] for one in range(count)]
    others = [node for node in ordered if node.process is not None and node.member not in record.eligible]
    if not others:
        return False
    for node in ordered:
        if node.member in record.eligible and node.process is not None:
            crash(world, node.process, power=event.seed % 2 == 0, seed=event.seed)
            restart_later(world, node, 2 * event.seconds)
            if crash_again:
                _crash_in_journal(world, replace(event, node=node.number))
    others[0].process.override_until = world.engine.now + OVERRIDE_S
    return True


def _lose_journal(world: "World", event: Event) -> bool:
    """The node starts without its journal, or with one that is damaged."""
    if not _crash(world, event, power=False):
        return False
    world.nodes[event.node].disk.journal.lose()
    return True


def _crash_in_journal(world: "World", event: Event) -> bool:
    """At the next sync of the node's journal, before anybody is told that it is done."""
    disk = world.nodes[event.node].disk

    def crash_now() -> None:
        if world.nodes[event.node].disk is disk:
            _crash(world, event, power=event.seed % 2 == 0)

    disk.at_journal_sync = lambda: later(world, 0.0, crash_now)
    return True


def _check_now(world: "World", event: Event) -> bool:
    """No fault: a full list is due, as it is all the time."""
    process = world.nodes[event.node].process
    if process is None or process.leading is None:
        return False
    for feeding in process.leading.feedings.values():
        feeding.check_now()
    return True


# -- the network -------------------------------------------------------------------------------------


def _cut(world: "World", pairs: list[frozenset[int]], seconds: float) -> bool:
    pairs = [pair for pair in pairs if len(pair) == 2 and pair not in world.network.cuts]
    world.network.cuts.update(pairs)

    def heal() -> None:
        world.network.cuts.difference_update(pairs)
        wake_network(world)

    later(world, seconds, heal)
    return bool(pairs)


def wake_network(world: "World") -> None:
    for node in world.nodes:
        if node.process is not None:
            for connection in node.process.connections:
                world.engine.wake(connection.standby.event)
                world.engine.wake(connection.leader.event)


def _partition(world: "World", event: Event) -> bool:
    return _cut(world, [frozenset((event.node, event.other))], event.seconds)


def _isolate(world: "World", event: Event) -> bool:
    return _cut(world, [frozenset((event.node, one.number)) for one in world.nodes], event.seconds)


def _slow(world: "World", event: Event) -> bool:
    pair = frozenset((event.node, event.other))
    world.network.slow[pair] = event.seconds / 4
    later(world, 3 * event.seconds, lambda: world.network.slow.pop(pair, None))
    return len(pair) == 2


def _break(world: "World", event: Event, *, both: bool) -> bool:
    process = world.nodes[event.node].process
    if process is None or not process.connections:
        return False
    connections = sorted(process.connections, key=lambda one: (one.term, one.standby.process.node.number))
    connection = connections[event.seed % len(connections)]
    connection.cut(connection.standby, lost=event.seed % 2 == 0)
    if both:
        connection.cut(connection.leader, lost=event.seed % 3 == 0)
    return True


# -- the volume, the disks ---------------------------------------------------------------------------


def _volume_away(world: "World", numbers: set[int], seconds: float) -> bool:
    volume = world.volume
    volume.unreachable |= numbers

    def back() -> None:
        volume.unreachable -= numbers
        world.engine.wake(volume.reachable_again)

    later(world, seconds, back)
    return True


def _lose_lock(world: "World", event: Event) -> bool:
    if world.volume.holder is None:
        return False
    world.volume.holder = None
    return True


def _arm(fault: str) -> Callable[["World", Event], bool]:
    def arm(world: "World", event: Event) -> bool:
        holder = world.volume.holder
        number = holder.process.node.number if holder is not None and event.seed % 2 else event.node
        world.volume.armed[number] = fault
        return True

    return arm


def _rot(world: "World", event: Event) -> bool:
    """An object of some copy is damaged; nobody knows."""
    repos = [repo for _, repo in sorted(world.nodes[event.node].disk.repos.items()) if repo.id]
    if not repos:
        return False
    repos[event.seed % len(repos)].rotten = True
    return True


def _scrub(world: "World", event: Event) -> bool:
    """A node looks at all of its copies: each damaged one is noted on disk, and then told of."""
    node = world.nodes[event.node]
    process = node.process
    if process is None or process.frozen or node.disk.full:
        return False
    found = [repo for _, repo in sorted(node.disk.repos.items()) if repo.rotten and repo.original]
    for repo in found:
        if node.disk.by_id(repo.id) is repo:
            world.cover("a damaged copy is found")
            repo.noted = True
            node.disk.unsound.setdefault(repo.id, Unsound(RepositoryName(repo.name), "a bad object"))
            for session in list(process.mirror.sessions):
                session.found_unsound(repo, "a bad object")
    return bool(found)


def _land(world: "World", *, lost: bool) -> bool:
    found = bool(world.volume.late)
    world.volume.land(lost=lost)
    return found


def _fill(world: "World", event: Event) -> bool:
    disk = world.nodes[event.node].disk
    disk.full = True

    def empty() -> None:
        disk.full = False

    later(world, event.seconds, empty)
    return True


def _black_out(world: "World", event: Event) -> bool:
    for node in world.nodes:
        if node.process is not None:
            crash(world, node.process, power=True, seed=event.seed)
            restart_later(world, node, event.seconds)
    world.volume.black_out()
    return True


def _restore_old_copy(world: "World", event: Event) -> bool:
    """Only while every node has seen the newest term: whoever has not can tell nothing."""
    volume = world.volume
    now = volume.in_force
    if now is None or volume.old_copy or volume.late:
        return False
    older = [slots for term, slots in volume.history if term < now.term]
    if not older or any(node.disk.known.highest_term < now.term for node in world.nodes):
        return False
    volume.restore(older[event.seed % len(older)])
    later(world, event.seconds, volume.put_back)
    return True


_PERFORM: dict[str, Callable[["World", Event], bool]] = {
    "kill": lambda world, event: _crash(world, event, power=False),
    "power loss": lambda world, event: _crash(world, event, power=True),
    "step down": _step_down,
    "pause": _pause,
    "partition": _partition,
    "isolation": _isolate,
    "slow network": _slow,
    "broken connection": lambda world, event: _break(world, event, both=True),
    "half-broken connection": lambda world, event: _break(world, event, both=False),
    "volume out of reach": lambda world, event: _volume_away(world, {event.node}, event.seconds),
    "volume gone": lambda world, event: _volume_away(
        world, {node.number for node in world.nodes}, event.seconds
    ),
    "lost lock": _lose_lock,
    "write fails": _arm("fail"),
    "write tears": _arm("tear"),
    "write hangs": _arm("hang"),
    "late write lands": lambda world, _: _land(world, lost=False),
    "late write is lost": lambda world, _: _land(world, lost=True),
    "full disk": _fill,
    "reinstallation": _reinstall,
    "backup": _back_up,
    "rollback": _roll_back,
    "blackout": _black_out,
    "old copy of the record": _restore_old_copy,
    "override": lambda world, event: _override(world, event, crash_again=False),
    "override and crash": lambda world, event: _override(world, event, crash_again=True),
    "lost journal": _lose_journal,
    "crash in the journal": _crash_in_journal,
    "full check": _check_now,
    "not reached": _hide,
    "bit rot": _rot,
    "scrub": _scrub,
    **BY_HAND,
}
