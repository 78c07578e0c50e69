"""The record's writes step by step, where the enumeration in test_interleavings.py has no eye on them."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from stargate_gate.election.flock.slots import CLAIM, Slot, Slots, Torn, in_force
from stargate_gate.election.flock.steps import (
    Read,
    Reserve,
    Step,
    Steps,
    Sync,
    Write,
    claim,
    fence,
    keep,
    write,
)
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError

A, B = (Member(f"node-{name}", name * 32) for name in "ab")
BY_A = ClusterRecord("cluster", 4, 1, A, sync_set=(B,))
OLD = ClusterRecord("cluster", 3, 1, B, sync_set=(A,))
WANTED = ClusterRecord("cluster", 5, 1, B, sync_set=(A,))
DISK: list[Slot] = [BY_A, BY_A, OLD, OLD, None, None]

Between = Callable[[int, list[Slot]], None]  # (number of the step, the disk), before the step is done


def drive(steps: Steps[ClusterRecord] | Steps[None], disk: list[Slot], between: Between | None = None):
    """Perform every step on `disk`; the steps, and what came of them."""
    done: list[Step] = []
    answer: Slots | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            return done, stop.value
        if between is not None:
            between(len(done), disk)
        done.append(step)
        answer = Slots(tuple(disk)) if isinstance(step, Read) else None
        if isinstance(step, Write):
            disk[step.slot] = step.record


def test_a_claim_reserves_its_number_before_it_writes_and_reads_after_each_write():
    """The order is the rule: look, reserve, then per copy write, sync, look; claims first."""
    disk = DISK.copy()
    done, first = drive(claim(WANTED, BY_A), disk)
    taken = replace(WANTED, version=CLAIM)
    assert first == WANTED
    assert done == [
        Read(), Reserve(5),
        Write(4, taken), Sync(), Read(),
        Write(5, taken), Sync(), Read(),
        Write(2, first), Sync(), Read(),
        Write(3, first), Sync(), Read(),
    ]  # fmt: skip
    assert disk == [BY_A, BY_A, first, first, taken, taken]


def test_a_claim_takes_a_number_beyond_those_that_others_claimed():
    """A claim that was given up by somebody is no term of ours, and parity keeps the halves apart."""
    disk = DISK.copy()
    disk[4] = replace(BY_A, term=6, version=CLAIM)
    _, first = drive(claim(WANTED, BY_A), disk)
    assert first.term == 7


def test_a_claim_on_another_record_writes_nothing():
    """`former` is not in force any more: no number is used up."""
    disk = DISK.copy()
    with pytest.raises(LeadershipLostError, match="changed before the claim"):
        drive(claim(WANTED, OLD), disk)
    assert disk == DISK


def test_a_former_leader_that_writes_during_the_claim_makes_it_withdraw():
    """Only a claim is left behind; the record that A wrote stays in force."""
    disk = DISK.copy()
    dropped = replace(BY_A, version=2, sync_set=())

    def a_writes(step: int, disk: list[Slot]) -> None:
        if step == 4:
            disk[0] = dropped

    with pytest.raises(LeadershipLostError, match="changed during the claim"):
        drive(claim(WANTED, BY_A), disk, a_writes)
    assert in_force(Slots(tuple(disk))) == dropped


def test_damage_to_the_former_half_during_the_claim_counts_as_a_change():
    """A torn write of the former leader is a sign of life as well."""

    def a_tears(step: int, disk: list[Slot]) -> None:
        if step == 4:
            disk[1] = Torn("x")

    with pytest.raises(LeadershipLostError, match="changed during the claim"):
        drive(claim(WANTED, BY_A), DISK.copy(), a_tears)


def test_a_write_overwrites_the_older_copy_first():
    """A write that tears leaves the newest record in the other slot."""
    disk: list[Slot] = [replace(BY_A, version=2), BY_A, OLD, OLD, None, None]
    done, _ = drive(write(replace(BY_A, version=3)), disk)
    assert [step.slot for step in done if isinstance(step, Write)] == [1, 0]
    disk = [BY_A, Torn("x"), OLD, OLD, None, None]
    done, _ = drive(write(replace(BY_A, version=2)), disk)
    assert [step.slot for step in done if isinstance(step, Write)] == [1, 0]


@pytest.mark.parametrize("step", [3, 6], ids=["the-first-copy", "the-second-copy"])
def test_an_overwritten_copy_leaves_the_outcome_unknown(step: int):
    """A late writer got in between: not lost for certain, and not a success."""

    def somebody_writes(number: int, disk: list[Slot]) -> None:
        if number == step:
            disk[0] = disk[1] = Torn("x")

    with pytest.raises(ElectionUnavailableError, match="overwritten"):
        drive(write(replace(BY_A, version=2)), DISK.copy(), somebody_writes)


def test_a_write_beside_a_larger_term_loses_the_leadership_before_writing():
    """Claims count: the successor may be about to open."""
    disk = DISK.copy()
    disk[4] = replace(WANTED, version=CLAIM)
    with pytest.raises(LeadershipLostError, match="node-b has taken term 5"):
        drive(write(replace(BY_A, version=2)), disk)
    assert disk[:4] == DISK[:4]


def test_the_same_term_of_another_node_is_fenced():
    """It cannot come about; if it does, both stop."""
    with pytest.raises(LeadershipLostError, match="the same term 4"):
        fence(Slots(tuple(DISK)), replace(BY_A, leader=B))


def test_keeping_reads_only_and_mends_what_is_damaged():
    """One read per heartbeat; both copies are written again when one is not the last record."""
    disk = DISK.copy()
    assert drive(keep(BY_A, mend=True), disk)[0] == [Read()]
    for damage in (Torn("x"), None, replace(BY_A, version=0)):
        disk[1] = damage
        drive(keep(BY_A, mend=True), disk)
        assert disk == DISK


def test_nothing_is_mended_while_the_outcome_of_a_write_is_unknown():
    """Mending could bring the older of the two back."""
    disk = DISK.copy()
    disk[1] = Torn("x")
    assert drive(keep(BY_A, mend=False), disk)[0] == [Read()]
    assert disk[1] == Torn("x")


def test_keeping_beside_a_larger_term_loses_the_leadership():
    """Also when nothing of ours was touched."""
    disk = DISK.copy()
    disk[2] = WANTED
    with pytest.raises(LeadershipLostError):
        drive(keep(BY_A, mend=True), disk)


def test_a_read_that_is_not_answered_is_a_mistake_of_the_driver():
    """None in place of slots is never taken for an empty file."""
    steps = write(BY_A)
    next(steps)
    with pytest.raises(TypeError):
        steps.send(None)
