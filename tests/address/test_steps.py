"""What is done next about an address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.address.port import Turn
from stargate_gate.address.steps import RETRY, next_step, retry_s

LEADER, LATER = (Turn("node-a", "leader", term, "c", "takeover") for term in (3, 4))
STANDBY = Turn("node-a", "standby", 3, "c", "step-down")
START = Turn("node-a", "standby", 0, "", "start")


@pytest.mark.parametrize(
    ("wanted", "done", "proved", "step"),
    [
        (LEADER, None, True, "claim"),
        (LEADER, START, True, "claim"),
        (LATER, LEADER, True, "claim"),
        (LEADER, LEADER, True, "keep"),
        (LEADER, LEADER, False, "release"),
        (LEADER, None, False, "release"),
        (LEADER, STANDBY, False, "rest"),
        (STANDBY, LEADER, True, "release"),
        (STANDBY, LEADER, False, "release"),
        (STANDBY, None, False, "release"),
        (STANDBY, STANDBY, False, "rest"),
        (STANDBY, START, False, "rest"),
    ],
)
def test_the_table(wanted: Turn, done: Turn | None, *, proved: bool, step: str) -> None:
    """Each row of it."""
    assert next_step(wanted, done, proved=proved) == step


@given(
    st.sampled_from([LEADER, LATER, STANDBY, START]), st.sampled_from([None, LEADER, LATER, STANDBY, START])
)
def test_nothing_is_claimed_without_proof(wanted: Turn, done: Turn | None) -> None:
    """A leader that was frozen, and wakes up, gives the address back before anything else."""
    assert next_step(wanted, done, proved=False) in {"release", "rest"}


def test_retries_back_off_and_never_stop() -> None:
    """From half a second to a bound."""
    pauses = [retry_s(failures) for failures in range(1, 5000)]
    assert pauses[0] == RETRY.first_s
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRY.most_s
