"""Each rule that keeps the promises is broken once, and the simulator finds what comes of it.

A rule whose loss nobody notices would be none, or the simulator would be blind to it.
"""

from collections import Counter

import pytest

from tests.simulation.episode import run_episode
from tests.simulation.mutation import Mutation
from tests.simulation.mutations import MUTATIONS
from tests.simulation.rules import Rules

LIMIT_S = 180  # on a machine that is slow or busy; seconds else


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.name.replace(" ", "-"))
def test_a_broken_rule_is_noticed(mutation: Mutation):
    """An invariant that the rule is for fails within the budget; with the rule in place nothing does."""
    seed, found = mutation.find()
    assert found is not None, f"nothing noticed within {mutation.budget} steps that {mutation.name}"
    control = run_episode(mutation.plan(seed), Rules(), Counter(), recover=mutation.recover)
    assert control.violation is None, str(control.violation)
