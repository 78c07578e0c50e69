"""A million steps of simulated clusters in trouble, and what must hold after each; see invariants.py."""

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from tests.simulation.campaigns import Report, run_many
from tests.simulation.episode import make_plan, run_episode
from tests.simulation.mutations import MUTATIONS
from tests.simulation.rules import Rules
from tests.simulation.shrinking import Shrinker

STEPS = 1_200_000  # of each of two processes; `make simulate` runs 10^8
SEEDS = (1, 1_000_001)
LIMIT_S = 600  # on a machine that is slow or busy; half a minute else


def _share(seed: int) -> Report:
    return run_many(seed, STEPS)


@pytest.mark.timeout(LIMIT_S)
def test_every_promise_holds_after_every_step_of_a_million():
    """One writer, nothing acknowledged lost or set back, nothing vanished, somebody leads again.

    Prints seeds, steps and how often each kind of transition happened; each has to happen.
    """
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        reports = list(pool.map(_share, SEEDS))
    for report in reports:
        print(report)  # noqa: T201 - shown when it fails, and with -s
        assert report.failure is None, report.failure
    assert sum(report.steps for report in reports) >= 1_000_000
    coverage = sum((report.coverage for report in reports), Counter())
    assert not replace(reports[0], coverage=coverage).missing()


@pytest.mark.parametrize("seed", [5, 77])
def test_a_seed_stands_for_one_course_of_events(seed: int):
    """Whoever runs a seed again sees the same, line by line."""
    first, second = (run_episode(make_plan(seed), Rules(), Counter(), tracing=True) for _ in range(2))
    assert first.trace == second.trace
    assert len(first.trace) > 10


@pytest.mark.parametrize("seed", [3337, 10545])
def test_a_seed_that_has_found_a_fault_finds_none_any_more(seed: int):
    """3337: a folder is renamed while the list for a standby that joins is made, and the leader dies.

    10545: a folder is removed by hand, and one that is copied in gets its inode number.
    """
    assert run_episode(make_plan(seed), Rules(), Counter()).violation is None


def test_a_failing_seed_is_shrunk_to_what_matters():
    """Of a hundred events few are left, and the same invariant fails."""
    mutation = next(one for one in MUTATIONS if one.name == "who was not checked holds")
    seed, found = mutation.find()
    assert found is not None
    plan = mutation.plan(seed)
    with mutation.broken() as rules:
        small = Shrinker(rules, "I2", most_runs=200, recover=False).shrink(plan)
        again = run_episode(small, rules, Counter(), recover=False)
    assert len(small.events) < len(plan.events) / 3
    assert again.violation is not None
    assert again.violation.invariant == "I2"
