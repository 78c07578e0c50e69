"""What `stargate promote` says before it does it: what may be lost, as exactly as the node knows."""

from dataclasses import replace

from stargate_gate.control.promotion import Standing, risk
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.status import Equality, MirrorStatus

A, B, C = (Member(f"node-{letter}", letter * 32) for letter in "abc")
RECORD = ClusterRecord("cluster", 5, 2, A, mode="sync", sync_set=(B,), position=10)
NOON = 1_767_441_600  # 2026-01-03 12:00:00 UTC
NOW, STARTED = NOON + 200.0, NOON - 3600.0
MIRROR = MirrorStatus(False, "node-a", last_error="gone", in_step=Equality(5, 7, NOON))


def standing(
    me: Member,
    record: ClusterRecord | None,
    checked: tuple[int, int] | None,
    mirror: MirrorStatus | None,
    *,
    started: float = STARTED,
) -> Standing:
    return Standing(me, record, checked, mirror, NOW, started)


def said(one: Standing) -> list[str]:
    return risk(one).splitlines()


def test_a_member_of_the_sync_set_loses_nothing_and_needs_no_promotion() -> None:
    """It holds every acknowledged push; so does the last leader."""
    assert risk(standing(B, RECORD, (5, 9), None)) == (
        "nothing that was acknowledged: node-b is in the sync set of term 5, and leads without this as soon "
        "as it gets the leader lock"
    )
    assert "node-a led last" in said(standing(A, RECORD, None, None))[0]


def test_one_that_was_level_in_this_term_lacks_what_came_after() -> None:
    """With the number of changes that are missing for certain, and the repositories known to differ."""
    mirror = replace(MIRROR, behind=tuple(f"org/{number}" for number in range(7)))
    lines = said(standing(C, RECORD, (5, 7), mirror))
    assert lines[0] == (
        "node-c had everything of node-a's term 5 up to position 7, before 12:00:00 UTC (3 min 20 s ago): "
        "what was acknowledged after that may be missing"
    )
    assert lines[1] == "the record has position 10: at least 3 changes are missing"
    assert lines[2] == "known to differ: org/0, org/1, org/2, org/3, org/4 and 2 more"
    assert lines[3] == (
        "whatever was acknowledged is on node-a (led term 5) and node-b (in its sync set): if one of them "
        "can be started, start it instead"
    )
    assert "stargate rescued list" in lines[4]


def test_one_that_was_level_in_an_older_term_lacks_all_terms_since() -> None:
    """Its position says nothing of the terms that came later."""
    lines = said(standing(C, RECORD, (3, 7), None))
    assert lines[0] == (
        "node-c was last equal to a leader in term 3, at position 7, at a time that is not known: what was "
        "acknowledged after that, and in all terms up to 5, may be missing"
    )


def test_the_time_is_that_of_the_last_equality_and_not_of_the_last_start() -> None:
    """A node that was stopped for a day lacks a day, however short it has been up."""
    (first, *_) = said(standing(C, RECORD, (5, 3), MIRROR, started=NOW - 2))
    assert "up to position 7, before 12:00:00 UTC (3 min 20 s ago; node-c was stopped since): what" in first


def test_what_was_equal_later_than_the_time_that_is_known_has_no_time() -> None:
    """The file with the time may be older than the other, after a crash."""
    (first, *_) = said(standing(C, RECORD, (5, 9), MIRROR))
    assert "up to position 9, at a time that is not known: what" in first


def test_one_that_never_followed_anybody_may_lack_everything() -> None:
    """A new data_dir."""
    assert said(standing(C, RECORD, None, None))[0] == (
        "node-c was never equal to a leader: whole repositories may be missing"
    )


def test_without_a_record_nothing_is_claimed() -> None:
    """Better than a guess."""
    assert said(standing(C, None, (5, 7), None)) == [
        "the cluster record cannot be read, so nothing can be said of what may be lost"
    ]
