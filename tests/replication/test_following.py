"""Whom a node follows, and when it connects again."""

from dataclasses import replace

import pytest

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.replication.standby.following import Attempts, leadership_of, to_follow

ME, LEADER = Member("node-b", "dir-b"), Member("node-a", "dir-a")
RECORD = ClusterRecord("cluster", 3, 1, LEADER, "node-a:22")


@pytest.mark.parametrize(
    ("seen", "leads"),
    [
        (None, False),
        (replace(RECORD, term=0), False),
        (replace(RECORD, leader=ME), False),
        (RECORD, True),
    ],
)
def test_nobody_is_followed(seen: ClusterRecord | None, *, leads: bool) -> None:
    """Without a leader in the record, by the leader itself, and by who leads or is about to."""
    assert to_follow(seen, ME, leads=leads) is None


def test_only_term_leader_and_address_make_another_leadership() -> None:
    """The mirror does not begin anew because the sync set has changed."""
    assert to_follow(RECORD, ME, leads=False) == RECORD
    same = replace(RECORD, position=RECORD.position + 1)
    assert leadership_of(same) == leadership_of(RECORD)
    for other in (
        replace(RECORD, term=4),
        replace(RECORD, leader=replace(LEADER, data_dir_id="dir-c")),
        replace(RECORD, ssh="elsewhere:22"),
        None,
    ):
        assert leadership_of(other) != leadership_of(RECORD)


def test_each_connection_that_fails_makes_the_next_wait_longer_until_one_has_lasted() -> None:
    """And a connection that has lasted counts as none that failed."""
    attempts = Attempts(Backoff(1.0, 8.0, lambda: 0.0), steady_s=10.0)
    waits, now = [], 0.0
    for lasted_s in (0.0, 10.0, 0.0, 0.0, 0.0, 10.5, 0.0):
        attempts.begin(now)
        now += lasted_s
        waits.append(attempts.ended(now))
    assert waits == [1.0, 2.0, 4.0, 8.0, 8.0, 1.0, 2.0]
