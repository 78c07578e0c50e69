"""Incarnations: which the disk knows, which the record names, and who may lead by them."""

from dataclasses import replace

import pytest

from stargate_gate.election.eligibility import Known, Standing, Try, Watch, decide
from stargate_gate.election.incarnation import (
    MAX_NOTED,
    kept,
    named,
    new_incarnation,
    noted,
    rolled_back,
    settled,
)
from stargate_gate.election.port import ClusterRecord, Member

A, B, C = (Member(f"node-{name}", name * 32) for name in "abc")
RECORD = ClusterRecord(
    "cluster", 5, 2, A, mode="sync", sync_set=(B,), incarnations=named({A: "led", B: "joined"})
)


def decided(me: Member, *incarnations: str, record: ClusterRecord = RECORD, override: bool = False):
    known = Known("cluster", highest_term=5, checked_term=5, position=99, incarnations=incarnations)
    standing = Standing(me, known, seen_s=0.0, override=override)
    return decide(record, standing, place="the lock", handover_wait_s=5.0)


@pytest.mark.parametrize(("me", "incarnation"), [(A, "led"), (B, "joined")])
def test_who_knows_its_membership_may_lead(me: Member, incarnation: str):
    """Also with older and newer ones beside it: a crash leaves them."""
    assert isinstance(decided(me, incarnation), Try)
    assert isinstance(decided(me, "older", incarnation, "newer"), Try)


@pytest.mark.parametrize("mode", ["sync", "strict", "async"])
@pytest.mark.parametrize("me", [A, B])
@pytest.mark.parametrize("incarnations", [(), ("older",)])
def test_a_data_dir_that_was_rolled_back_does_not_lead(me: Member, mode: str, incarnations: tuple[str, ...]):
    """The record names a membership that its disk does not know; in async, too. It says what to do."""
    decision = decided(me, *incarnations, record=replace(RECORD, mode=mode))
    assert isinstance(decision, Watch)
    assert f"the data_dir of {me.name} was rolled back" in decision.reason
    assert "promote --accept-data-loss" in decision.reason


def test_an_operator_may_have_it_lead_all_the_same():
    """That counts as forced: what was acknowledged may be missing."""
    decision = decided(B, "older", override=True)
    assert isinstance(decision, Try)
    assert decision.forced


def test_a_record_of_an_older_version_names_none_and_refuses_nobody():
    """The first leadership of this version writes them."""
    assert isinstance(decided(B, record=replace(RECORD, incarnations=())), Try)
    assert not rolled_back(RECORD, C, ())


def test_the_disk_keeps_what_the_record_names_and_what_was_noted_since():
    """Older ones go as soon as the record names a newer one."""
    known = noted(noted(noted((), "first"), "led"), "next")
    assert known == ("first", "led", "next")
    assert settled(known, RECORD) == ("led", "next")
    assert settled(known, replace(RECORD, incarnations=())) == known
    assert settled((), RECORD) == ()
    assert noted(known, "led") == known


def test_of_many_joinings_that_came_to_nothing_the_recorded_one_stays():
    """The list is bounded; the newest are kept, since they may come into the record yet."""
    known: tuple[str, ...] = ("recorded",)
    for number in range(100):
        known = noted(known, f"{number}")
    assert len(known) == MAX_NOTED
    assert known[0] == "recorded"
    assert known[-1] == "99"


def test_incarnations_are_kept_by_member():
    """Who leaves the record leaves it with its incarnation."""
    assert kept(RECORD, (A, C)) == {A: "led", C: None}
    assert named(kept(RECORD, (A, C))) == ((A.data_dir_id, "led"),)
    assert len({new_incarnation() for _ in range(100)}) == 100
