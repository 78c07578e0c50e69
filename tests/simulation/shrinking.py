"""From a plan that fails to a smaller one that fails in the same way, for people to read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tests.simulation.episode import Outcome, Plan, run_episode
from tests.simulation.events import Event
from tests.simulation.rules import Rules

MOST_RUNS = 400  # of the episode, some 30 s


class Shrinker:
    """Drops events while the same invariant still fails; a run that ends otherwise counts for nothing."""

    def __init__(
        self, rules: Rules, invariant: str, *, most_runs: int = MOST_RUNS, recover: bool = True
    ) -> None:
        self.runs = 0
        self._rules = rules
        self._invariant = invariant
        self._most = most_runs
        self._recover = recover

    def shrink(self, plan: Plan) -> Plan:
        """The smallest plan that was found. `plan` has to fail."""
        failed = self._run(plan)
        if failed is None:
            raise ValueError("this plan does not fail")
        plan = self._cut(plan, failed)
        size = max(1, len(plan.events) // 2)
        while self.runs < self._most:
            smaller = self._drop(plan, size)
            if len(smaller.events) == len(plan.events) and size == 1:
                return smaller
            plan, size = smaller, max(1, min(size // 2, len(smaller.events) // 2))
        return plan

    def _drop(self, plan: Plan, size: int) -> Plan:
        """Without as many groups of `size` events as possible, the last of them first."""
        start = len(plan.events)
        while start > 0 and self.runs < self._most:
            start = max(0, start - size)
            fewer = replace(plan, events=_without(plan.events, start, size))
            failed = self._run(fewer)
            if failed is not None:
                plan = self._cut(fewer, failed)
                start = min(start, len(plan.events))
        return plan

    def _cut(self, plan: Plan, failed: Outcome) -> Plan:
        """Without what comes after the failure."""
        events = tuple(event for event in plan.events if event.at <= failed.steps)
        return replace(plan, events=events, steps=min(plan.steps, failed.steps))

    def _run(self, plan: Plan) -> Outcome | None:
        self.runs += 1
        outcome = run_episode(plan, self._rules, Counter(), recover=self._recover)
        same = outcome.violation is not None and outcome.violation.invariant == self._invariant
        return outcome if same else None


def _without(events: Sequence[Event], start: int, count: int) -> tuple[Event, ...]:
    return (*events[:start], *events[start + count :])


def explain(plan: Plan, rules: Rules, outcome: Outcome, *, recover: bool = True) -> str:
    """A failing episode, shrunk, as text."""
    if outcome.violation is None:
        return "nothing failed"
    shrinker = Shrinker(rules, outcome.violation.invariant, recover=recover)
    small = shrinker.shrink(plan)
    again = run_episode(small, rules, Counter(), tracing=True, recover=recover)
    head = (
        f"seed {plan.seed}: {outcome.violation}\n"
        f"{plan.nodes} nodes, mode {plan.mode}, {outcome.steps} steps, {len(plan.events)} events; shrunk to "
        f"{again.steps} steps, {len(small.events)} events in {shrinker.runs} runs:\n"
    )
    events = "\n".join(f"  {event}" for event in small.events)
    return f"{head}{events}\n" + "\n".join(again.trace)
