"""The record's layout: what is read is what was written, or is known not to be a record."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.election.flock import slots as layout
from stargate_gate.election.flock.slots import (
    CLAIM,
    SLOT_BYTES,
    SLOT_COUNT,
    STAMP_BYTES,
    STAMP_OFFSET,
    Slots,
    Torn,
    decode,
    encode,
    in_force,
    largest_term,
    new_file,
    next_term,
    slots_of,
)
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.record import record_to_json

A, B, C = (Member(f"node-{name}", name * 32) for name in "abc")
FULL = ClusterRecord(
    "c" * 32, 7, 3, A, "a.example:2222", "a.example:8080", ("SHA256:x", "SHA256:y"), "sync", (B, C), 41,
    clean=True, successor=B,
)  # fmt: skip

members = st.builds(Member, st.text(max_size=40), st.text(max_size=40))
records = st.builds(
    ClusterRecord,
    cluster_id=st.text(max_size=40),
    term=st.integers(0, 2**63),
    version=st.integers(0, 2**63),
    leader=members,
    ssh=st.text(max_size=40),
    http=st.text(max_size=40),
    host_keys=st.lists(st.text(max_size=50), max_size=3).map(tuple),
    mode=st.sampled_from(["sync", "strict", "async"]),
    sync_set=st.lists(members, max_size=5).map(tuple),
    position=st.integers(0, 2**63),
    clean=st.booleans(),
    successor=st.none() | members,
    forced=st.integers(0, 2**63),
    incarnations=st.dictionaries(st.text(max_size=40), st.text(max_size=40), max_size=5).map(
        lambda one: tuple(sorted(one.items()))
    ),
)


def slots(*contents: ClusterRecord | Torn | None) -> Slots:
    return Slots((*contents, *[None] * (SLOT_COUNT - len(contents))))


def slot_with(**changes: object) -> bytes:
    """A slot with a right checksum, and `changes` in the JSON of FULL."""
    payload = json.dumps({**record_to_json(FULL), **changes}).encode()
    head = layout.MAGIC + f"sha256 {hashlib.sha256(payload).hexdigest()} bytes {len(payload)}\n".encode()
    return (head + payload).ljust(SLOT_BYTES, b"\0")


@given(records)
def test_what_is_encoded_is_decoded(record: ClusterRecord):
    """Any record that fits comes back as it was, from each of its slots."""
    found = decode(new_file(record))
    for index in range(SLOT_COUNT):
        assert found.contents[index] == (record if index in slots_of(record) else None)


@given(st.integers(0, SLOT_BYTES - 1), st.integers(1, 255))
def test_a_changed_byte_gives_no_other_record(offset: int, flip: int):
    """Damage anywhere in a slot leaves the record as it was or is seen as damage."""
    slot = bytearray(encode(FULL))
    slot[offset] ^= flip
    found = decode(bytes(slot)).contents[0]
    assert found == FULL or isinstance(found, Torn)


@given(st.integers(0, SLOT_BYTES))
def test_a_torn_write_gives_the_new_record_or_none(cut: int):
    """A slot that was overwritten up to some byte holds the new record whole, the old one, or damage."""
    old, new = encode(replace(FULL, version=2)), encode(FULL)
    found = decode(new[:cut] + old[cut:]).contents[0]
    assert found in {FULL, replace(FULL, version=2)} or isinstance(found, Torn)


def test_every_cut_inside_the_written_part_is_seen_as_damage():
    """A half-written slot over an empty one is not taken for an empty one, nor for a record."""
    whole = encode(FULL)
    written = len(whole.rstrip(b"\0"))
    for cut in range(1, written):
        assert isinstance(decode(whole[:cut].ljust(SLOT_BYTES, b"\0")).contents[0], Torn), cut


@given(st.binary(max_size=STAMP_OFFSET + STAMP_BYTES))
def test_no_content_of_a_file_is_taken_for_a_record(content: bytes):
    """Anything that is not ours decodes without an error, to nothing that could be in force."""
    assert in_force(decode(content)) is None


def test_an_empty_file_is_told_from_a_damaged_one():
    """Zeros and no bytes at all are "never written"; a stray byte is damage."""
    assert decode(b"").empty
    assert decode(bytes(STAMP_OFFSET + STAMP_BYTES)).empty
    assert not decode(b"x").empty


def test_damage_in_two_ways_is_told_apart():
    """A successor sees that the former half has changed even if both contents are damaged."""
    first, second = decode(b"x").contents[0], decode(b"y").contents[0]
    assert isinstance(first, Torn)
    assert first != second


def test_a_record_of_an_older_version_was_never_forced():
    """The key came later: a rolling upgrade reads records without it."""
    newer = {"forced", "incarnations"}
    payload = json.dumps({key: value for key, value in record_to_json(FULL).items() if key not in newer})
    head = f"sha256 {hashlib.sha256(payload.encode()).hexdigest()} bytes {len(payload)}\n"
    slot = (layout.MAGIC + (head + payload).encode()).ljust(SLOT_BYTES, b"\0")
    assert decode(slot).records == (replace(FULL, forced=0),)


def test_keys_of_a_newer_version_are_ignored():
    """A rolling upgrade: a newer node's record has a key this one does not know."""
    assert decode(slot_with(invented_later=[1, 2])).contents[0] == FULL


@pytest.mark.parametrize(
    "wrong", [{"term": "7"}, {"leader": "node-a"}, {"sync_set": [["a"]]}, {"clean": 1}, {"cluster_id": None}]
)
def test_a_whole_slot_with_wrong_types_is_damage(wrong: dict[str, object]):
    """The checksum is right and the content is not: never half a record."""
    assert isinstance(decode(slot_with(**wrong)).contents[0], Torn)


def test_twenty_members_with_the_longest_names_fit_and_too_many_are_refused():
    """A record that does not fit is an error before anything is written."""
    long = tuple(Member(f"{index:02}".ljust(253, "n"), f"{index:02}".ljust(32, "d")) for index in range(60))
    known = tuple((f"{index:02}".ljust(32, "d"), "e" * 32) for index in range(21))
    encode(replace(FULL, sync_set=long[:20], incarnations=known))
    with pytest.raises(ValueError, match="60 members"):
        encode(replace(FULL, sync_set=long))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (slots(), None),
        (slots(FULL), FULL),
        (slots(None, None, None, None, replace(FULL, version=CLAIM)), None),
        (slots(replace(FULL, term=6), None, FULL), FULL),
        (slots(None, None, FULL, replace(FULL, version=2)), FULL),
        (slots(replace(FULL, term=8), None, FULL, FULL), replace(FULL, term=8)),
        (slots(Torn("x"), None, FULL, Torn("y")), FULL),
        (slots(FULL, None, None, None, replace(FULL, term=9, version=CLAIM)), FULL),
    ],
    ids=["empty", "one", "a-claim-only", "larger-term", "larger-version", "term-before-version", "torn",
         "a-claim-beside"],
)  # fmt: skip
def test_the_newest_whole_record_that_is_no_claim_is_in_force(found: Slots, expected: ClusterRecord | None):
    """Ordered by term, then version; claims and damage do not count."""
    assert in_force(found) == expected


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 60))
def test_the_next_term_is_unused_large_enough_and_in_the_other_half(former: int, claimed: int, minimum: int):
    """A new leadership never writes over what the former left, nor takes a number twice."""
    by = replace(FULL, term=former)
    claim = replace(FULL, term=claimed, version=CLAIM)
    found = slots(*[by] * 2, None, None, claim)
    term = next_term(found, by, minimum)
    assert term > max(former, claimed, largest_term(found))
    assert term >= minimum
    assert set(slots_of(replace(FULL, term=term))).isdisjoint(slots_of(by))
    assert term <= max(former + 1, claimed + 1, minimum) + 1
