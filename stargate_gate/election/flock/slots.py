"""The cluster record on disk: checksummed slots in one small file of fixed size. Pure.

    slot    0      1      2      3      4      5
            even terms    odd terms     claims        heartbeat stamp
            copy   copy   copy   copy   copy   copy

The first two slots belong to the leaderships with an even term, the next two to those with an odd
one. A record is written into *both* slots of its half, one after the other, so that

- a write that is cut off in the middle leaves the former record in the other slot;
- a new leadership does not touch what the former left (it is in the other half);
- a write of an older leader, frozen in the middle of its system call and woken much later, destroys
  one copy at most: the reading that follows each write stops that leader. (With one copy a write of
  term T that lands in term T+2 could bring back a sync set that T+2 had already shrunk: shown in
  tests/election/test_interleavings.py.)

A claim, version 0 of a term, says "this number is taken" and has slots of its own, so that a claim
that comes late destroys nothing. It is never in force: the newest record with a version of at least 1 says
who may take over. Only steps.py writes claims.
"""

import hashlib
import re
from dataclasses import dataclass

from stargate_gate.election.port import ClusterRecord
from stargate_gate.election.record import decode_record, encode_record
from stargate_gate.formats import CLUSTER_RECORD

COPIES = 2
SLOT_COUNT = 3 * COPIES
SLOT_BYTES = 8192  # 20 members with names of 253 bytes fit
STAMP_OFFSET = SLOT_COUNT * SLOT_BYTES
STAMP_BYTES = 4096
MAGIC = b"stargate %b, format %d; " % (CLUSTER_RECORD.name.encode("ascii"), CLUSTER_RECORD.number)
CLAIM = 0  # the version of a claim

_FORMAT = re.compile(rb"stargate cluster record, format ([0-9]{1,9})[;\n]")


@dataclass(frozen=True)
class Torn:
    """A slot with something in it that is no whole record: half written, overwritten or damaged."""

    digest: str


Slot = ClusterRecord | Torn | None  # None: never written


@dataclass(frozen=True)
class Slots:
    """What one reading of the file showed, slot by slot."""

    contents: tuple[Slot, ...]

    @property
    def records(self) -> tuple[ClusterRecord, ...]:
        """The whole records, claims among them."""
        return tuple(slot for slot in self.contents if isinstance(slot, ClusterRecord))

    @property
    def empty(self) -> bool:
        """Nothing was ever written: not the same as damaged."""
        return all(slot is None for slot in self.contents)

    def half(self, term: int) -> tuple[Slot, ...]:
        """What is in the slots for the records of `term`."""
        return tuple(self.contents[index] for index in _half(term))


def order(record: ClusterRecord) -> tuple[int, int]:
    """Larger is newer."""
    return record.term, record.version


def slots_of(record: ClusterRecord) -> range:
    """The indices of the slots that `record` is written to."""
    return range(2 * COPIES, 3 * COPIES) if record.version == CLAIM else _half(record.term)


def in_force(slots: Slots) -> ClusterRecord | None:
    """The newest record that is not a mere claim; None in an empty or a damaged file."""
    return max((record for record in slots.records if record.version > CLAIM), key=order, default=None)


def largest_term(slots: Slots) -> int:
    """The largest term that anybody has used or claimed, as far as the file shows; -1 if none."""
    return max((record.term for record in slots.records), default=-1)


def next_term(slots: Slots, former: ClusterRecord, minimum: int) -> int:
    """The number for the leadership after `former`: unused, and in the other half of the file."""
    term = max(largest_term(slots) + 1, former.term + 1, minimum)
    return term if term % 2 != former.term % 2 else term + 1


def encode(record: ClusterRecord) -> bytes:
    """The bytes of one slot, SLOT_BYTES long.

    Raises:
        ValueError: the record does not fit.
    """
    payload = encode_record(record)
    head = MAGIC + f"sha256 {hashlib.sha256(payload).hexdigest()} bytes {len(payload)}\n".encode()
    if len(head) + len(payload) > SLOT_BYTES:
        raise ValueError(
            f"the cluster record needs {len(head) + len(payload)} bytes, a slot has {SLOT_BYTES}: "
            f"{len(record.sync_set)} members with names that long do not fit"
        )
    return (head + payload).ljust(SLOT_BYTES, b"\0")


def decode(content: bytes) -> Slots:
    """All slots of a file's content, which may be too short or damaged anywhere."""
    return Slots(
        tuple(
            _decode_slot(content[index * SLOT_BYTES : (index + 1) * SLOT_BYTES])
            for index in range(SLOT_COUNT)
        )
    )


def newest_format(content: bytes) -> int:
    """The largest format number that a slot of a file's content names; 0 if none names any."""
    starts = (content[index * SLOT_BYTES :][:64] for index in range(SLOT_COUNT))
    return max((int(found[1]) for found in map(_FORMAT.match, starts) if found), default=0)


def new_file(record: ClusterRecord) -> bytes:
    """The content of a new lock file with `record` in force."""
    blank = bytes(SLOT_BYTES)
    mine = slots_of(record)
    slots = (encode(record) if index in mine else blank for index in range(SLOT_COUNT))
    return b"".join(slots) + bytes(STAMP_BYTES)


def _half(term: int) -> range:
    first = term % 2 * COPIES
    return range(first, first + COPIES)


def _decode_slot(slot: bytes) -> Slot:
    if not slot.strip(b"\0"):
        return None
    try:
        return decode_record(_payload(slot))
    except ValueError:
        return Torn(hashlib.sha256(slot).hexdigest())


def _payload(slot: bytes) -> bytes:
    """What the slot holds, if its head and its checksum are right. Raises ValueError."""
    head, _, rest = slot.partition(b"\n")
    _name, digest, _unit, length = head.removeprefix(MAGIC).split(b" ")
    payload = rest[: int(length)]
    if not head.startswith(MAGIC) or hashlib.sha256(payload).hexdigest().encode() != digest:
        raise ValueError("checksum")
    return payload
