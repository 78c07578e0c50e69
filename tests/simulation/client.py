"""Clients: each does one thing after the other, on whichever node takes it, and knows what it was told."""

from collections import deque
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from stargate_gate.repos.plan import RefChange
from tests.simulation.engine import Event, Steps
from tests.simulation.events import REPOS
from tests.simulation.pushing import OK, REFUSED, UNKNOWN, Push, Request

if TYPE_CHECKING:
    from tests.simulation.world import World

REFS = ("main", "a", "a/b", "dev")
KINDS = ("forward", "forward", "force", "delete", "swap", "several", "again", "remove repository")
OTHERS = 0.4  # how often it is a repository that an operator has put under another name, if there is one
PATIENCE_S = 25.0
TRIES = 6
PACKS_S = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 8.0)  # what sending a pack takes


class Client:
    """`wishes` are done in their order."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.wishes: deque[tuple[str, str, int]] = deque()
        self.more = Event()
        self.told: str | None = None
        self._node = 0
        self._uncertain: tuple[str, list[RefChange]] | None = None

    def wish(self, kind: str, repo: str, seed: int) -> None:
        self.wishes.append((kind, repo, seed))
        self.world.engine.wake(self.more)

    def run(self) -> Steps:
        while True:
            while not self.wishes:
                yield self.more, None
            kind, repo, seed = self.wishes.popleft()
            yield from self.fulfil(kind, repo, Random(seed))

    def fulfil(self, kind: str, repo: str, chance: Random) -> Steps:
        """Until it was taken, or the outcome is unknown, or nobody takes it."""
        world = self.world
        for _ in range(TRIES):
            process = world.nodes[self._node].process
            if process is None or process.frozen:
                self._node = (self._node + 1) % len(world.nodes)
                yield None, 0.3
                continue
            if kind == "again" and self._uncertain is not None:
                repo = self._uncertain[0]
            more = sorted(process.disk.repos.keys() - {*REPOS})
            if more and chance.random() < OTHERS:
                repo = chance.choice(more)
            request = Request(
                repo,
                partial(self._choose, kind, repo, chance),
                delete=kind == "remove repository",
                slow_s=chance.choice(PACKS_S),
            )
            process.start("gate", Push(process, request).run())
            yield request.event, PATIENCE_S
            self.told = request.result or UNKNOWN
            if self.told == OK:
                self._uncertain = None
            if self.told != REFUSED:
                return
            self._node = (self._node + 1) % len(world.nodes)
            yield None, 0.3

    def _choose(self, kind: str, repo: str, chance: Random, refs: Mapping[str, str]) -> list[RefChange]:
        if kind == "again":
            return self._again(repo, refs)
        commands = self._commands(kind, refs, chance)
        self._uncertain = (repo, commands)
        self.world.pushed_last[repo] = commands
        return commands

    def _again(self, repo: str, refs: Mapping[str, str]) -> list[RefChange]:
        """The same push once more, or somebody else's: what has moved already is up to date."""
        before = self._uncertain[1] if self._uncertain else self.world.pushed_last.get(repo, [])
        return [c for c in before if refs.get(c.ref) != c.new and refs.get(c.ref) == c.old]

    def _commands(self, kind: str, refs: Mapping[str, str], chance: Random) -> list[RefChange]:
        there = sorted(refs)
        match kind:
            case "delete" if there:
                ref = chance.choice(there)
                return [RefChange(ref, refs[ref], None)]
            case "swap":
                old, new = ("a/b", "a") if "a/b" in refs else ("a", "a/b")
                if old in refs:
                    return [RefChange(old, refs[old], None), RefChange(new, None, self._value(refs[old]))]
                return [RefChange(old, None, self._value(None))]
            case "several":
                some = [ref for ref in ("main", "dev") if ref in refs] or ["main", "dev"]
                return [RefChange(ref, refs.get(ref), self._value(refs.get(ref))) for ref in some]
            case "force" if there:
                ref = chance.choice(there)
                return [RefChange(ref, refs[ref], self._value(self.world.ledger.parents.get(refs[ref])))]
        free = [ref for ref in REFS if ref in refs or {"a": "a/b", "a/b": "a"}.get(ref, "") not in refs]
        ref = chance.choice(free)
        return [RefChange(ref, refs.get(ref), self._value(refs.get(ref)))]

    def _value(self, parent: str | None) -> str:
        value = self.world.new_id("v")
        self.world.ledger.parents[value] = parent
        return value
