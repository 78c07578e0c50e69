"""One episode: a cluster in trouble for a number of steps, then left in peace until it has recovered."""

import contextlib
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, get_args

from stargate_gate.replication.leader import backlog
from stargate_gate.replication.leader.sync_rules import Mode
from stargate_gate.repos import register
from tests.simulation import faults
from tests.simulation.engine import Steps
from tests.simulation.events import REPOS, Event
from tests.simulation.faults import Taste, make_events, perform
from tests.simulation.invariants import ViolationError
from tests.simulation.pushing import OK
from tests.simulation.rules import Rules
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.simulation.node import Node

MODES: tuple[Mode, ...] = get_args(Mode)
RECOVERY_S = 240.0  # simulated; the longest backoff, a lease, a handover and a full check are far below
RECOVERY_STEPS = 150_000
PROBE_S = 2.0


@dataclass(frozen=True)
class Plan:
    """All that decides what happens in an episode. `few`: so many repositories a backlog may hold."""

    seed: int
    nodes: int
    mode: Mode
    steps: int
    events: tuple[Event, ...]
    visible_at_sync: bool
    few: int


def make_plan(
    seed: int,
    *,
    steps: int = 6000,
    nodes: int | None = None,
    mode: Mode | None = None,
    taste: Taste | None = None,
    few: int | None = None,
) -> Plan:
    """The plan that this seed stands for."""
    chance = Random(seed)
    some = nodes or chance.choice((2, 3, 3, 3, 4, 5))
    chosen = mode or chance.choice(("sync", "sync", "strict", "async"))
    visible_at_sync = chance.random() < 0.5
    bound = few or chance.choice((1, 100, 100))
    return Plan(
        seed, some, chosen, steps, make_events(chance, some, steps, taste or Taste()), visible_at_sync, bound
    )


@dataclass
class Outcome:
    """What came of it. `violation`: what did not hold, after so many steps."""

    steps: int
    terms: int
    acknowledgements: int
    violation: ViolationError | None
    trace: list[str]


def run_episode(
    plan: Plan, rules: Rules, coverage: Counter[str], *, tracing: bool = False, recover: bool = True
) -> Outcome:
    """Run it to its end, or to the first violation."""
    world = World(plan, rules, coverage, tracing=tracing)
    violation = None
    with _fit_for_simulation(world):
        try:
            _trouble(world)
            if recover:
                _recover(world)
        except ViolationError as error:
            violation = error
            world.say(None, str(error))
    ledger = world.ledger
    return Outcome(
        world.engine.taken, len(ledger.opened), ledger.acknowledgements, violation, world.trace or []
    )


class _Quiet:
    """In the place of a logger."""

    def __getattr__(self, _: str) -> "Callable[..., None]":
        return lambda *_, **__: None


@contextlib.contextmanager
def _fit_for_simulation(world: World) -> "Iterator[None]":
    """In the body the product's modules log nothing, and new ids are not random."""

    def fresh_id() -> str:
        return world.new_id("c")

    places: list[tuple[Any, str, object]] = [
        (backlog, "MAX_REPOSITORIES", world.plan.few),
        (register, "log", _Quiet()),
        (register, "new_id", fresh_id),
    ]
    usual = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, instead in places:
        setattr(module, name, instead)
    try:
        yield
    finally:
        for module, name, before in usual:
            setattr(module, name, before)


def _trouble(world: World) -> None:
    engine, ledger, steps = world.engine, world.ledger, world.plan.steps
    events: Iterator[Event] = iter(world.plan.events)
    event = next(events, None)
    while engine.taken < steps:
        while event is not None and engine.taken >= event.at:
            perform(world, event)
            event = next(events, None)
        engine.step()
        if ledger.dirty:
            ledger.check()


def _recover(world: World) -> None:
    """I5: without faults somebody leads, takes a push, and all nodes end equal."""
    _heal(world)
    engine, ledger = world.engine, world.ledger
    probe = engine.start("probe", _probe(world))
    limit_s, limit = engine.now + RECOVERY_S, engine.taken + RECOVERY_STEPS
    while probe.alive:
        engine.step()
        if ledger.dirty:
            ledger.check()
        if engine.now > limit_s or engine.taken > limit:
            raise ViolationError("I5", f"{world.stuck} {RECOVERY_S:g} s after the faults have stopped")


def _heal(world: World) -> None:
    world.say(None, "the faults stop")
    world.healing = True
    network, volume = world.network, world.volume
    network.cuts.clear()
    network.slow.clear()
    faults.wake_network(world)
    volume.armed.clear()
    volume.unreachable.clear()
    world.engine.wake(volume.reachable_again)
    while volume.late:
        volume.land(lost=False)
    volume.put_back()
    for client in world.clients:
        client.wishes.clear()
    for node in world.nodes:
        node.disk.full = False
        if node.process is None or node.process.stopping:
            if node.process is not None:
                faults.crash(world, node.process, power=False)
            world.boot(node)
        else:
            world.engine.thaw(node.process)


def _probe(world: World) -> Steps:
    client = world.clients[0]
    world.stuck = "no push is acknowledged"
    while True:
        client.told = None
        yield from client.fulfil("forward", REPOS[0], world.engine.chance)
        if client.told == OK:
            break
        yield None, PROBE_S
    world.stuck = "the nodes are not equal"
    while not _are_equal(world.nodes):
        yield None, PROBE_S
    world.cover("recovered")


def _are_equal(nodes: "Iterable[Node]") -> bool:
    """One leads, and the others have what it has; what it has lost they may have besides."""
    leaders = [node for node in nodes if node.process is not None and node.process.leading is not None]
    if len(leaders) != 1:
        return False
    wanted = {repo.name: (repo.id, repo.refs) for repo in leaders[0].disk.repos.values()}
    ids = {identity for identity, _ in wanted.values()}
    for node in nodes:
        if node is leaders[0]:
            continue
        if any(
            identity in ids and not leaders[0].disk.by_id(identity).rotten for identity in node.disk.unsound
        ):
            return False
        here = {repo.name: (repo.id, repo.stable) for repo in node.disk.repos.values()}
        more = here.keys() - wanted.keys()
        if any(here[name][0] in ids or here[name][0] in leaders[0].disk.deleted for name in more):
            return False
        if any(here.get(name) != there for name, there in wanted.items()):
            return False
    return len(ids) == len(wanted) and "" not in ids
