"""Who belongs into the record, whose confirmation counts, and what becomes of a push that waits."""

import pytest

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.sync_rules import (
    Limits,
    Mode,
    Presence,
    Stage,
    Waiting,
    carried,
    judge,
    required,
    wanted,
)

A, B, C = (Member(f"node-{letter}", f"id-{letter}") for letter in "abc")
LIMITS = Limits(ack_timeout_s=5.0, ack_max_s=60.0)
NOBODY: frozenset[Member] = frozenset()


def waiting(
    now: float,
    *,
    lacking: dict[Member, float] | None = None,
    required: tuple[Member, ...] = (B,),
    in_force: tuple[Member, ...] = (B,),
) -> Waiting:
    """A push that began to wait at 100."""
    return Waiting(100.0, now, frozenset(required), frozenset(in_force), lacking or {})


@pytest.mark.parametrize(
    ("stage", "is_carried", "recorded"),
    [
        (Stage.ABSENT, False, False),
        (Stage.ABSENT, True, True),
        (Stage.CHECKING, False, False),
        (Stage.CHECKING, True, True),
        (Stage.CATCHING_UP, False, False),
        (Stage.LEVEL, False, True),
    ],
)
def test_the_record_gets_who_is_level_and_keeps_who_was_carried_over(
    stage: Stage,
    is_carried: bool,  # noqa: FBT001
    recorded: bool,  # noqa: FBT001
) -> None:
    """Nobody gets into the record before everything told earlier is confirmed."""
    assert (B in wanted([Presence(B, stage, is_carried)], NOBODY, "sync")) is recorded


def test_a_standby_is_required_before_it_is_recorded() -> None:
    """Acknowledgements required again → caught up → record: in that order."""
    present = [Presence(B, Stage.CATCHING_UP), Presence(C, Stage.CHECKING)]
    assert required(present, NOBODY) == {B}
    assert wanted(present, NOBODY, "sync") == NOBODY


def test_whoever_the_record_may_name_stays_required_whatever_their_stage() -> None:
    """Nobody leaves but by a record that was written."""
    assert required([Presence(B, Stage.CHECKING)], frozenset({B, C})) == {B, C}


def test_mode_strict_keeps_its_last_members_however_late() -> None:
    """Nothing is acknowledged without one of them, so they hold everything that was."""
    present = [Presence(B, Stage.CHECKING)]
    assert wanted(present, frozenset({B}), "strict") == {B}
    assert wanted(present, frozenset({B}), "sync") == NOBODY
    assert wanted([*present, Presence(C, Stage.LEVEL)], frozenset({B}), "strict") == {C}


@pytest.mark.parametrize(("mode", "stays"), [("sync", {C}), ("strict", {A, C}), ("async", set())])
def test_a_new_term_waits_for_the_former_leader_in_mode_strict_only(mode: Mode, stays: set[Member]) -> None:
    """Its lock was free, so it is gone; strict acknowledges nothing alone and can keep it eligible."""
    assert carried(mode, frozenset({A, C}), A) == stays


def test_a_push_that_everybody_has_is_acknowledged() -> None:
    """In each mode."""
    for mode in ("sync", "strict", "async"):
        assert judge(waiting(100.0), mode, LIMITS).acknowledge


def test_async_never_waits() -> None:
    """Not even for somebody who lacks it."""
    assert judge(waiting(100.0, lacking={B: 100.0}), "async", LIMITS).acknowledge


def test_sync_goes_on_alone_with_an_empty_sync_set() -> None:
    """An alarm, and no outage."""
    assert judge(waiting(100.0, required=(), in_force=()), "sync", LIMITS).acknowledge


def test_a_push_waits_until_the_standby_is_late() -> None:
    """ack_timeout_s counts from its last sign of progress on that change."""
    before = judge(waiting(104.9, lacking={B: 100.0}), "sync", LIMITS)
    assert (before.acknowledge, before.late, before.refused) == (False, NOBODY, None)
    assert before.look_again == 105.0
    assert judge(waiting(105.0, lacking={B: 100.0}), "sync", LIMITS).late == {B}
    assert judge(waiting(150.0, lacking={B: 149.0}), "sync", LIMITS).late == NOBODY


def test_progress_does_not_help_beyond_the_longest_wait() -> None:
    """ack_max_s caps the whole."""
    assert judge(waiting(160.0, lacking={B: 159.9}), "sync", LIMITS).late == {B}


def test_a_late_standby_is_still_needed_until_the_record_is_without_it() -> None:
    """By the record, before any acknowledgement without it; at last the push is refused."""
    assert not judge(waiting(120.0, lacking={B: 100.0}), "sync", LIMITS).acknowledge
    assert judge(waiting(165.0, lacking={B: 100.0}), "sync", LIMITS).refused is not None


def test_strict_refuses_when_no_member_confirms_in_time() -> None:
    """At least one member at every acknowledgement, else 75."""
    assert judge(waiting(104.0, lacking={B: 100.0}), "strict", LIMITS).refused is None
    assert judge(waiting(105.0, lacking={B: 100.0}), "strict", LIMITS).refused is not None


def test_strict_refuses_at_once_when_its_members_are_long_gone() -> None:
    """Nobody waits five seconds for a standby that has been dead for an hour."""
    assert judge(waiting(100.0, lacking={B: 10.0}), "strict", LIMITS).refused is not None


def test_strict_waits_a_while_for_a_first_member_and_then_refuses() -> None:
    """A standby that restarts gets its chance."""
    early = judge(waiting(101.0, required=(), in_force=()), "strict", LIMITS)
    assert (early.acknowledge, early.refused, early.look_again) == (False, None, 105.0)
    assert judge(waiting(105.0, required=(), in_force=()), "strict", LIMITS).refused is not None


def test_strict_goes_on_with_the_member_that_has_it_once_the_late_one_has_left() -> None:
    """Two members, one of them dead: the push needs the record without it, and then the other one."""
    both = judge(waiting(105.0, lacking={C: 100.0}, required=(B, C), in_force=(B, C)), "strict", LIMITS)
    assert (both.acknowledge, both.refused, both.late) == (False, None, {C})
    assert judge(waiting(105.1), "strict", LIMITS).acknowledge


def test_who_is_required_and_not_recorded_yet_is_waited_for_too() -> None:
    """It may be in the record at the next moment."""
    assert not judge(waiting(100.0, lacking={C: 100.0}, required=(B, C)), "sync", LIMITS).acknowledge
