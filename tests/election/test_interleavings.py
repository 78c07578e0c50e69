"""The record's writes in every order: paused leaders, late writers, torn writes, and no lock at all.

Nodes A, B, C of one cluster; A leads term 4 (record 4.1: A with B and C in sync), and D led an older
term. Nothing is sampled: `Explorer.explore` visits every state that can be reached. Invariants, in
every state: at most one node leads a term; nobody acknowledges in an older term once a newer one has
opened; whoever opens a term, and whoever may take over by the record in force, holds everything that
was ever acknowledged; the record in force never goes back to a term before the newest that opened.
"""

from dataclasses import replace

import pytest

from stargate_gate.election.flock.slots import Slots
from stargate_gate.election.flock.steps import Read, Steps, Sync, Write, fence
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import LeadershipLostError
from tests.support.interleaving import Explorer, Process, Program, World, leader, successor

A, B, C, D = (Member(name, name * 8) for name in "ABCD")


def record(term: int, version: int, who: Member, *sync_set: Member) -> ClusterRecord:
    return ClusterRecord("cluster", term, version, who, sync_set=sync_set)


BY_A = record(4, 1, A, B, C)
BY_D = record(3, 1, D, A, B, C)
LONG_AGO = record(2, 3, D, A, B, C)
DISK = (BY_A, BY_A, BY_D, BY_D, None, None)


def world(explorer: Explorer, *names: Member, tears: int = 0, late: tuple[Process, ...] = ()) -> World:
    return World(DISK, (*(explorer.started(name) for name in names), *late), opened=4, tears=tears)


def shrinking() -> Program:
    """A, paused anywhere while it drops B, and then everybody, from the sync set."""
    return lambda: leader(BY_A, ((C,), ()))


def late_writer(explorer: Explorer) -> Process:
    """D, which led term 2 and froze right before one of its writes, two leaderships ago."""
    return explorer.frozen_before_write(D, (LONG_AGO, LONG_AGO, None, None, None, None))


@pytest.mark.parametrize("visible_at_sync", [False, True], ids=["visible-at-once", "visible-at-sync"])
@pytest.mark.parametrize("split_reads", [False, True], ids=["whole-reads", "split-reads"])
@pytest.mark.parametrize("tears", [0, 1], ids=["whole-writes", "a-torn-write"])
def test_a_paused_leader_and_its_successor_never_both_acknowledge(
    *, visible_at_sync: bool, split_reads: bool, tears: int
):
    """A is paused at every step of two record writes while B takes over, once or twice, and shrinks."""
    explorer = Explorer(
        {A: shrinking(), B: lambda: successor(B, attempts=2, sync_sets=((),))},
        visible_at_sync=visible_at_sync,
        split_reads=split_reads,
    )
    assert explorer.explore(world(explorer, A, B, tears=tears)) is None
    assert explorer.openings > 10, "the exploration got nowhere"


@pytest.mark.parametrize("visible_at_sync", [False, True], ids=["visible-at-once", "visible-at-sync"])
def test_two_successors_at_once_and_a_paused_leader_never_both_acknowledge(*, visible_at_sync: bool):
    """B and C both believe that they hold the lock: terms 5, 6, 7 and 8 get in each other's way."""
    explorer = Explorer(
        {
            A: lambda: leader(BY_A, ((C,),)),
            B: lambda: successor(B, sync_sets=((),)),
            C: lambda: successor(C, sync_sets=((),)),
        },
        visible_at_sync=visible_at_sync,
    )
    assert explorer.explore(world(explorer, A, B, C)) is None
    assert explorer.openings > 1000, "the exploration got nowhere"


@pytest.mark.parametrize("visible_at_sync", [False, True], ids=["visible-at-once", "visible-at-sync"])
def test_a_writer_from_two_terms_ago_brings_nothing_back(*, visible_at_sync: bool):
    """Terms 2, 4 and 6 share slots: D's write of term 2 lands at any moment in term 4, 5 or 6."""
    explorer = Explorer(
        {
            A: lambda: leader(BY_A, ((C,),)),
            B: lambda: successor(B, attempts=2, sync_sets=((),)),
            D: lambda: leader(LONG_AGO, ((A, B),)),
        },
        visible_at_sync=visible_at_sync,
    )
    assert explorer.explore(world(explorer, A, B, late=(late_writer(explorer),))) is None
    assert explorer.openings > 100, "the exploration got nowhere"


def test_a_successor_that_does_not_read_again_is_caught():
    """Weaker rule: B does not see what A wrote during its claim. An acknowledged push is lost."""

    def b_looks_once(who: Member, before: list[Slots], now: Slots) -> Slots:
        if who != B or len(before) < 2:
            return now
        return Slots((*before[1].contents[:2], *now.contents[2:]))

    explorer = Explorer({A: shrinking(), B: lambda: successor(B)}, blind=b_looks_once)
    trace = explorer.explore(world(explorer, A, B))
    assert trace is not None
    assert "acknowledged push" in trace[-1]


def test_a_leader_that_does_not_read_after_writing_is_caught():
    """Weaker rule: A does not notice larger terms. It drops B and acknowledges while B takes over."""

    def a_sees_only_itself(who: Member, before: list[Slots], now: Slots) -> Slots:
        return now if who != A else Slots((*now.contents[:2], None, None, None, None))

    explorer = Explorer({A: shrinking(), B: lambda: successor(B)}, blind=a_sees_only_itself)
    trace = explorer.explore(world(explorer, A, B))
    assert trace is not None
    assert "may take over without an acknowledged push" in trace[-1]


def test_two_slots_are_caught():
    """Weaker layout: one slot per parity of the term. A torn write takes the record with it."""
    explorer = Explorer({A: shrinking(), B: lambda: successor(B)}, slot_map=(0, 0, 1, 1, 1, 1))
    trace = explorer.explore(world(explorer, A, B, tears=1))
    assert trace is not None
    assert trace[-1] == "the record of term 4 is gone"


def test_claims_in_the_slots_of_records_are_caught():
    """Weaker layout: a claim that comes late, with a torn write, takes the successor's record with it."""
    explorer = Explorer(
        {A: lambda: leader(BY_A, ()), B: lambda: successor(B, sync_sets=((),)), C: lambda: successor(C)},
        slot_map=(0, 1, 2, 3, 2, 3),
    )
    trace = explorer.explore(world(explorer, A, B, C, tears=1))
    assert trace is not None


def test_one_copy_per_version_is_caught():
    """Weaker layout: slot (term mod 2) * 2 + (version mod 2). D's late write revives a larger sync set."""
    explorer = Explorer(
        {
            A: lambda: leader(BY_A, ((C,), ()), write=one_copy),
            D: lambda: leader(LONG_AGO, ((A, B),), write=one_copy),
        }
    )
    late = explorer.frozen_before_write(D, (LONG_AGO, replace(LONG_AGO, version=2), None, None, None, None))
    trace = explorer.explore(world(explorer, A, late=(late,)))
    assert trace is not None
    assert "acknowledged push" in trace[-1] or "gone" in trace[-1]


def one_copy(new: ClusterRecord) -> Steps[None]:
    """A write by the weaker rule: one slot, chosen by term and version, then the same look around."""
    yield Write(new.term % 2 * 2 + new.version % 2, new)
    yield Sync()
    now = yield Read()
    assert now is not None
    fence(now, new)
    if new not in now.records:
        raise LeadershipLostError("overwritten")
