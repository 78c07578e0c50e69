"""One rule broken: what is broken, and where to look for what comes of it."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from stargate_gate.replication.leader.sync_rules import Mode
from tests.simulation.episode import Plan, make_plan, run_episode
from tests.simulation.faults import Taste
from tests.simulation.invariants import ViolationError
from tests.simulation.rules import Rules

BUDGET = 1_000_000
STEPS = 3000  # of an episode
EVERY = 30  # steps there is a wish of a client


@dataclass(frozen=True)
class Patch:
    """Puts `instead` in the place of `owner.name`, a function or a method of the product's own."""

    owner: Any
    name: str
    instead: Any


@dataclass(frozen=True)
class Mutation:
    """A broken rule, and where to look for what comes of it.

    rules     the rule, as the simulator passes it on to its nodes
    patches   or the product's own functions, each with another one in its place
    expected  the invariants of which one has to fail
    kinds     the faults that bring it to light, None: any; so many steps apart on average
    wishes    what clients do then, None: anything; once in `every` steps, None: the seed decides
    few       so many repositories a backlog may hold; None: as usual
    recover   whether it shows only once the faults have stopped
    seed      where to begin; one that is known to find it saves time
    budget    steps after which it counts as not found
    """

    name: str
    rules: Rules
    expected: str
    kinds: tuple[str, ...] | None = None
    mode: Mode = "sync"
    nodes: int = 3
    gap: int | None = None
    wishes: tuple[str, ...] | None = None
    every: int | None = EVERY
    few: int | None = None
    recover: bool = False
    seed: int = 0
    budget: int = BUDGET
    patches: tuple[Patch, ...] = ()

    @contextlib.contextmanager
    def broken(self) -> Iterator[Rules]:
        """In the body the product's functions are patched; the rules to run an episode with."""
        with contextlib.ExitStack() as stack:
            for patch in self.patches:
                stack.enter_context(mock.patch.object(patch.owner, patch.name, patch.instead))
            yield self.rules

    def find(self) -> tuple[int, ViolationError | None]:
        """The seed of the first episode in which an expected invariant fails, within the budget."""
        seed, taken = self.seed, 0
        while taken < self.budget:
            with self.broken() as rules:
                outcome = run_episode(self.plan(seed), rules, Counter(), recover=self.recover)
            taken += outcome.steps
            if outcome.violation is not None and outcome.violation.invariant in self.expected:
                return seed, outcome.violation
            seed += 1
        return seed, None

    def plan(self, seed: int) -> Plan:
        """An episode that may bring it to light."""
        taste = Taste(self.kinds, self.gap, self.wishes, self.every)
        return make_plan(
            seed, steps=STEPS, nodes=self.nodes, mode=self.mode, taste=taste, few=self.few or 100
        )
