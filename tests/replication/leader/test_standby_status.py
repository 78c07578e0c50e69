"""Which standbys are away, as the leader's status has it."""

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.standby_status import away_of
from stargate_gate.status import AwayStatus

B, B_ANEW, C = Member("node-b", "1"), Member("node-b", "2"), Member("node-c", "3")


def test_members_and_whoever_was_heard_are_away_if_they_are_not_connected() -> None:
    """With the age of what is known of them; a member that was never heard has none."""
    assert away_of((), (B, C), {B: 90.0}, 100.0) == (AwayStatus("node-b", 10.0), AwayStatus("node-c"))
    assert away_of((), (), {B: 90.0}, 100.0) == (AwayStatus("node-b", 10.0, member=False),)
    assert away_of((B, C), (B, C), {B: 90.0}, 100.0) == ()


def test_a_node_that_came_back_with_another_data_dir_is_not_away() -> None:
    """Unless its former data_dir is still a member: pushes wait for that."""
    assert away_of((B_ANEW,), (), {B: 90.0}, 100.0) == ()
    assert away_of((B_ANEW,), (B,), {B: 90.0}, 100.0) == (AwayStatus("node-b", 10.0),)
    assert away_of((), (), {B: 90.0, B_ANEW: 95.0}, 100.0) == (AwayStatus("node-b", 5.0, member=False),)
