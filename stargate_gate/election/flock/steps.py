"""How the record is written, step by step. Pure: the caller of the generators does the I/O.

Theory of operation
-------------------
The lock alone does not guarantee a single writer: a network file system may lose a lock without telling its
holder, and a leader may be frozen between reading and writing. So every writer *reads again after each
write*, and so does every node that takes over. If two write at the same time, at least one sees the other.

    leader of term T (`write`)              successor (`claim`), on the record of term T
    ---------------------------------       -----------------------------------------------
    read: nobody beyond me                  read: `former` is still in force
    each copy in the half of T:             each copy of the claim, version 0 of a new term:
        write, sync, read:                      write, sync, read: former's half is as it was,
        nobody beyond me                        nobody beyond me or beside me
    both copies are mine: in force          each copy in the other half, version 1:
                                                write, sync, read: nobody beyond or beside me
                                            both copies are mine: in force, may open

If T writes before the successor's last look at T's half, the successor sees it and withdraws: its
claim is never in force, and the next to try decides on what T wrote. If T writes after that, T sees
the claim and stops: it acknowledges nothing under what it wrote. A frozen writer that wakes up
destroys one copy at most, and its next look stops it. test_interleavings.py goes through all orders
of these very steps, as if there were no lock at all.

Each step is a value that says what to do; `Read` is answered with `Slots`, the others with None.
A generator that was given up in the middle leaves the outcome unknown.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeVar

from stargate_gate.election.flock.slots import CLAIM, Slots, in_force, next_term, order, slots_of
from stargate_gate.election.port import ClusterRecord
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError


@dataclass(frozen=True)
class Read:
    """Open the file afresh and read every slot. Answered with `Slots`."""


@dataclass(frozen=True)
class Write:
    """Write one slot. Visible to others at once or at the next `Sync`; durable after it."""

    slot: int
    record: ClusterRecord


@dataclass(frozen=True)
class Sync:
    """Put everything written on disk."""


@dataclass(frozen=True)
class Reserve:
    """Note durably, on this node's own disk, that it uses this term and never will again."""

    term: int


Step = Read | Write | Sync | Reserve
_T = TypeVar("_T")
Steps = Generator[Step, Slots | None, _T]
Check = Callable[[Slots], None]


def claim(wanted: ClusterRecord, former: ClusterRecord) -> Steps[ClusterRecord]:
    """Begin a new term after `former`; return its first record, which is then in force.

    `wanted.term` is the smallest term that will do; the one that is taken may be larger.

    Raises:
        LeadershipLostError: somebody else wrote. Nothing is opened; at most a claim is left behind.
        ElectionUnavailableError: the outcome is unknown.
    """
    before = yield from _read()
    if in_force(before) != former:
        raise LeadershipLostError("the cluster record changed before the claim")
    taken = replace(wanted, term=next_term(before, former, wanted.term), version=CLAIM)
    first = replace(taken, version=CLAIM + 1)
    yield Reserve(taken.term)

    def unchanged(now: Slots) -> None:
        fence(now, taken)
        if in_force(now) != former or now.half(former.term) != before.half(former.term):
            raise LeadershipLostError("the cluster record changed during the claim")

    yield from _write_copies(taken, before, unchanged)
    yield from _write_copies(first, before, lambda now: fence(now, first))
    return first


def write(record: ClusterRecord) -> Steps[None]:
    """Put the next version of this term's record in force.

    Raises:
        LeadershipLostError: another leadership is there.
        ElectionUnavailableError: the outcome is unknown.
    """
    before = yield from _read()
    fence(before, record)
    yield from _write_copies(record, before, lambda now: fence(now, record))


def keep(record: ClusterRecord, *, mend: bool) -> Steps[None]:
    """Look whether this node's leadership still stands; `mend` a destroyed copy of `record`, its last.

    While the outcome of a write is unknown there is nothing to mend: the next write settles it.

    Raises:
        LeadershipLostError: another leadership is there.
        ElectionUnavailableError: the copy could not be mended.
    """
    now = yield from _read()
    fence(now, record)
    if mend and any(slot != record for slot in now.half(record.term)):
        yield from _write_copies(record, now, lambda later: fence(later, record))


def fence(now: Slots, mine: ClusterRecord) -> None:
    """Nobody is beyond or beside the leadership that `mine` belongs to.

    Raises:
        LeadershipLostError: somebody is.
    """
    for record in now.records:
        if record.term > mine.term:
            raise LeadershipLostError(f"{record.leader.name} has taken term {record.term}")
        if record.term == mine.term and record.leader != mine.leader:
            raise LeadershipLostError(f"{record.leader.name} has taken the same term {record.term}")


def _write_copies(record: ClusterRecord, before: Slots, check: Check) -> Steps[None]:
    """Write both copies, the one that holds less first, looking again after each."""
    slots = sorted(slots_of(record), key=lambda slot: _worth(before, slot))
    now = before
    for slot in slots:
        yield Write(slot, record)
        yield Sync()
        now = yield from _read()
        check(now)
        if now.contents[slot] != record:
            raise ElectionUnavailableError(
                f"slot {slot} of the cluster record was overwritten while it was written"
            )
    if any(now.contents[slot] != record for slot in slots):
        raise ElectionUnavailableError(
            "a slot of the cluster record was overwritten while the other was written"
        )


def _worth(slots: Slots, slot: int) -> tuple[int, int]:
    """How much is lost if a write tears this slot: what is newest goes last."""
    content = slots.contents[slot]
    return order(content) if isinstance(content, ClusterRecord) else (-1, -1)


def _read() -> Steps[Slots]:
    answer = yield Read()
    if answer is None:
        raise TypeError("a Read is answered with Slots")
    return answer
