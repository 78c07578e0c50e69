"""Who may try to lead: the decision as a table."""

from dataclasses import replace

import pytest

from stargate_gate.election.eligibility import (
    Known,
    Standing,
    Try,
    Unavailable,
    Watch,
    carried_over,
    decide,
    distrust,
    first_record,
    needed,
    why_standby,
)
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.status import Advertised

A, B, C = (Member(f"node-{name}", name * 32) for name in "abc")
NEW_B = Member("node-b", "n" * 32)  # an empty data_dir under an old name
RECORD = ClusterRecord("cluster", 5, 2, A, mode="sync", sync_set=(B,), position=10)
ASYNC = replace(RECORD, mode="async", sync_set=())
FRESH = ClusterRecord("cluster", 0, 1, A)
KNOWN = Known("cluster", highest_term=5)


def decided(record: ClusterRecord, me: Member, known: Known = KNOWN, **standing: object):
    return decide(
        record,
        Standing(me, known, **{"seen_s": 0.0, **standing}),  # type: ignore[arg-type]
        place="the lock",
        handover_wait_s=5.0,
    )


def checked(term: int, position: int) -> Known:
    return replace(KNOWN, checked_term=term, position=position)


@pytest.mark.parametrize(
    ("record", "me", "known", "outcome"),
    [
        (RECORD, A, KNOWN, Try),
        (RECORD, B, KNOWN, Try),
        (RECORD, C, KNOWN, Watch),
        (RECORD, NEW_B, KNOWN, Watch),
        (RECORD, replace(A, data_dir_id="n" * 32), KNOWN, Watch),
        (RECORD, replace(C, data_dir_id=B.data_dir_id), KNOWN, Watch),
        (RECORD, C, checked(5, 99), Watch),
        (replace(RECORD, mode="strict"), C, checked(5, 99), Watch),
        (ASYNC, C, checked(5, 10), Try),
        (ASYNC, C, checked(5, 11), Try),
        (ASYNC, C, checked(5, 9), Watch),
        (ASYNC, C, checked(4, 99), Watch),
        (ASYNC, C, KNOWN, Watch),
        (replace(ASYNC, sync_set=(B,)), B, checked(4, 0), Try),
        (FRESH, A, Known(), Try),
        (FRESH, B, Known(), Watch),
        (FRESH, B, Known("cluster", 0, checked_term=0), Watch),
        (replace(RECORD, cluster_id="other"), A, KNOWN, Unavailable),
        (replace(RECORD, term=4), A, KNOWN, Unavailable),
        (replace(RECORD, term=6), B, KNOWN, Try),
    ],
    ids=[
        "last-leader", "sync-set", "outsider", "a-name-without-its-data", "leader's-name-without-its-data",
        "an-id-under-another-name", "checked-but-sync", "checked-but-strict", "async-checked", "async-ahead",
        "async-behind-the-position", "async-checked-in-an-older-term", "async-never-checked",
        "async-in-the-sync-set", "bootstrapped-here", "bootstrapped-elsewhere", "term-0-is-no-check",
        "another-cluster", "an-older-term", "a-newer-term",
    ],
)  # fmt: skip
def test_who_may_try(record: ClusterRecord, me: Member, known: Known, outcome: type):
    """(name, data_dir id) in the sync set or the last leader; in async whoever was checked and is level."""
    assert isinstance(decided(record, me, known), outcome)


def test_a_standby_behind_the_recorded_position_may_not_lead_even_when_it_is_the_only_one_left():
    """Mode async gives up waiting, not knowing: what the record says was reached must be here."""
    decision = decided(ASYNC, B, checked(5, 9), seen_s=3600.0)
    assert decision == Watch("this node is not in the sync set of term 5")


def test_one_that_lacks_its_former_data_is_told_why():
    """The operator sees that the name is right and the data_dir is another."""
    decision = decided(RECORD, NEW_B)
    assert isinstance(decision, Watch)
    assert "another data_dir" in decision.reason


@pytest.mark.parametrize(
    ("me", "seen_s", "outcome"),
    [(A, 0.0, Watch), (A, 4.9, Watch), (A, 5.0, Try), (B, 0.0, Try)],
    ids=["not-me", "not-yet", "waited-long-enough", "me"],
)
def test_the_named_successor_goes_first(me: Member, seen_s: float, outcome: type):
    """The others wait `handover_wait_s` for it, and no longer."""
    record = replace(RECORD, clean=True, successor=B)
    assert isinstance(decided(record, me, seen_s=seen_s), outcome)


def test_a_node_that_stands_aside_does_not_try():
    """Its reason is what operators see."""
    assert decided(RECORD, A, aside="it stepped down") == Watch("it stepped down")


def test_an_override_makes_anybody_eligible_but_not_on_a_foreign_or_older_record():
    """`promote --accept-data-loss` accepts lost data, never a second cluster or a term used twice."""
    for standing in ({}, {"aside": "it stepped down"}):
        assert decided(RECORD, C, override=True, **standing) == Try(
            "an operator accepts data loss", forced=True
        )
    assert isinstance(decided(replace(RECORD, successor=B), C, override=True), Try)
    forced = decided(replace(RECORD, successor=C), B, override=True)
    assert isinstance(forced, Try)
    assert not forced.forced, "it might have led anyhow"
    assert isinstance(decided(replace(RECORD, cluster_id="other"), C, override=True), Unavailable)
    assert isinstance(decided(replace(RECORD, term=4), C, override=True), Unavailable)


def test_distrust_says_what_to_do():
    """Place, both ids or terms, and a remedy."""
    other = distrust(replace(RECORD, cluster_id="other"), KNOWN, "the leader lock /x")
    assert other is not None
    for words in ("/x belongs to cluster other", "joined cluster", "mount the right volume"):
        assert words in other.reason
    older = distrust(replace(RECORD, term=4), KNOWN, "the leader lock /x")
    assert older is not None
    for words in ("is at term 4", "has seen term 5", "put the newest copy back"):
        assert words in older.reason
    assert distrust(RECORD, Known(), "anywhere") is None


def test_the_new_sync_set_is_everybody_who_might_have_led_instead():
    """The former leader is in it, the new one is not; the order is fixed."""
    assert carried_over(replace(RECORD, sync_set=(C, B)), B) == (A, C)
    assert carried_over(RECORD, A) == (B,)
    assert carried_over(RECORD, C) == (A, B)
    assert carried_over(RECORD, NEW_B) == (A, B)


def test_a_push_needs_both_sync_sets_while_a_write_is_uncertain():
    """Either record may be what the next leader finds."""
    assert needed(RECORD, None) == {B}
    assert needed(RECORD, replace(RECORD, version=3, sync_set=(C,))) == {B, C}
    assert needed(RECORD, replace(RECORD, version=3, sync_set=())) == {B}


def test_a_standby_says_what_it_knows_and_what_to_do():
    """Of other nodes it knows what the record says, no more; before the first term it says whom to start."""
    fresh = FRESH
    assert why_standby(fresh, B, Watch("not in the sync set of term 0")) == (
        "nobody has led yet: start node-a, where bootstrap was run"
    )
    assert why_standby(fresh, A, Try("x")).startswith("nobody has led yet; this node leads as soon as")
    assert why_standby(RECORD, C, Watch("not in it")) == "node-a leads, says the record; not in it"
    assert why_standby(RECORD, A, Watch("it stepped down")) == "this node led last; it stepped down"


def test_the_first_record_of_a_term_takes_a_number_that_was_never_used_and_keeps_who_was_eligible():
    """Also a number that this node has only tried to take; and a forced term stays in the record."""
    former = replace(RECORD, incarnations=((B.data_dir_id, "b1"),), forced=3)
    known = replace(KNOWN, highest_term=7, reserved_term=9)
    about = Advertised(ssh="b.example:2222", mode="sync")
    members = carried_over(former, B)
    first = first_record(former, B, known, about, members=members, incarnation="b2", forced=False)
    assert (first.cluster_id, first.term, first.version) == (former.cluster_id, 10, 1)
    assert (first.leader, first.ssh, first.mode, first.sync_set) == (B, "b.example:2222", "sync", members)
    assert first.incarnation_of(B) == "b2"
    assert first.forced == 3
    assert not first.clean
    assert first.successor is None
    forced = first_record(former, B, known, about, members=members, incarnation="b2", forced=True)
    assert forced.forced == forced.term
