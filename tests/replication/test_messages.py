"""What leader and standby say: every type survives the wire, and nothing else gets through it."""

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.election.port import Member
from stargate_gate.replication.wire import messages
from stargate_gate.replication.wire.about import Settings
from stargate_gate.replication.wire.messages import (
    MAX_LINE_BYTES,
    PART_CHARACTERS,
    PROTOCOL,
    Alive,
    Applied,
    Compare,
    Delta,
    Heartbeat,
    Join,
    Listed,
    Message,
    MessageError,
    Refused,
    Welcome,
    decode,
    encode,
    expect,
    parts,
)
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange

KINDS: dict[str, type[Any]] = {
    word: kind for word, kind in messages._TYPES.items() if kind in get_args(Message)
}


def hexadecimal(length: int) -> st.SearchStrategy[str]:
    return st.integers(0, 16**length - 1).map(lambda number: f"{number:0{length}x}")


names = st.sampled_from(["a", "org/app", "x+y/z_1/deep.er", "a" * 100]).map(RepositoryName)
oids = hexadecimal(40) | hexadecimal(64)
ids = hexadecimal(32)
# Any bytes but those that git forbids: text, odd bytes as lone surrogates, code points beyond 16 bits.
ref_parts = st.text(
    st.characters(exclude_categories=["Cs"], min_codepoint=0x21) | st.integers(0xDC80, 0xDCFF).map(chr),
    min_size=1,
    max_size=20,
).filter(lambda text: "\x7f" not in text)
refs = st.tuples(st.sampled_from(["refs/heads/", "refs/tags/", "refs/", "refs/notes/"]), ref_parts).map(
    "".join
)
unreserved = refs.filter(lambda ref: ref != "refs/stargate" and not ref.startswith("refs/stargate/"))
heads = unreserved.map("ref: {}".format) | oids | st.just("")
words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)

BY_TYPE: Mapping[Any, st.SearchStrategy[Any]] = {
    int: st.integers(0, 2**63),
    bool: st.booleans(),
    float: st.floats(0.001, 86399),
    Member: st.builds(Member, words, words),
    RepositoryName: names,
    tuple[Listed, ...]: st.lists(
        st.builds(Listed, names, ids, st.none() | hexadecimal(64), st.none() | st.text(max_size=60)),
        max_size=5,
    ).map(tuple),
    Delta: st.lists(st.builds(RefChange, unreserved, st.none() | oids, st.none() | oids), max_size=5).map(
        tuple
    ),
    Mapping[str, str]: st.dictionaries(unreserved, oids, max_size=5),
    tuple[str, ...]: st.lists(unreserved, max_size=5).map(tuple),
    Settings: st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40)), max_size=5).map(tuple),
    str | None: st.none() | hexadecimal(64),
}
BY_NAME = {"head": heads, "reason": st.text(max_size=60), "instance": words}


def values(name: str, of: Any) -> st.SearchStrategy[Any]:
    """For any field; a text that this file has never heard of is an id, which every reader of texts takes."""
    return BY_NAME.get(name, ids) if of is str else BY_TYPE[of]


def messages_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{name: values(name, of) for name, of in messages._FIELDS[kind]})


any_message = st.sampled_from(sorted(KINDS)).flatmap(lambda word: messages_of(KINDS[word]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def line_of(message: Message, **other: Any) -> bytes:
    """The line of `message` with some fields replaced."""
    return json.dumps({**json.loads(encode(message)), **other}).encode()


def test_every_type_of_message_has_a_word_of_its_own() -> None:
    """What may be said and what can be sent are the same set."""
    assert set(messages._TYPES.values()) == set(get_args(Message))
    assert len(set(messages._TYPES.values())) == len(messages._TYPES)


@pytest.mark.parametrize("word", sorted(KINDS))
@given(data=st.data())
def test_every_message_arrives_as_it_was_sent(word: str, data: st.DataObject) -> None:
    """A message is one line of ASCII, and reading it gives the same value."""
    message = data.draw(messages_of(KINDS[word]))
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert decode(line) == message
    assert decode(line[:-1]) == message
    assert expect(line, KINDS[word]) == message


@given(st.binary(max_size=200))
def test_garbage_is_a_message_error(line: bytes) -> None:
    """Bytes that are no message raise MessageError and nothing else."""
    with pytest.raises(MessageError):
        decode(line)


@given(json_values)
def test_json_that_is_no_message_is_a_message_error(value: Any) -> None:
    """Whatever JSON has to offer in place of a message raises MessageError and nothing else."""
    with pytest.raises(MessageError):
        decode(json.dumps(value).encode())


@given(message=any_message, data=st.data())
def test_a_field_of_any_other_shape_is_an_error_or_a_value_of_the_fields_type(
    message: Message, data: st.DataObject
) -> None:
    """One field replaced by any JSON: it is read as what it must be, or refused; nothing else is raised."""
    name = data.draw(st.sampled_from([name for name, _ in messages._FIELDS[type(message)]]))
    line = line_of(message, **{name: data.draw(json_values)})
    try:
        read = decode(line)
    except MessageError:
        return
    assert decode(encode(read)) == read


@given(message=any_message, data=st.data())
def test_a_message_that_lacks_a_field_is_an_error(message: Message, data: st.DataObject) -> None:
    """No field has a default: a message is whole or none."""
    value = json.loads(encode(message))
    del value[data.draw(st.sampled_from(sorted(value.keys() - {"v"})))]  # without it, it is of version 3
    with pytest.raises(MessageError):
        decode(json.dumps(value).encode())


@pytest.mark.parametrize(
    "bad", ["org/app.git", "/org/app", "../x", "a//b", "", "a/.b", "-x", 5, None, ["a"], {"a": 1}, True]
)
def test_a_name_that_is_not_written_as_nodes_write_it_is_refused(bad: Any) -> None:
    """A repository's name arrives checked: no path, no second spelling, no other type."""
    with pytest.raises(MessageError):
        decode(line_of(Compare(1, 2, RepositoryName("a"), "c" * 32), name=bad))


@pytest.mark.parametrize("bad", [-1, 1.0, "1", None, True, [], 1e300, 1 << 64, 10**400])
def test_a_number_is_a_whole_one_that_is_not_negative(bad: Any) -> None:
    """A term or a position of another type counts for nothing."""
    with pytest.raises(MessageError):
        decode(line_of(Applied(1, 2, "c" * 32), term=bad))


@pytest.mark.parametrize(
    "bad",
    [
        *("refs/stargate", "refs/stargate/rescued/1/x", "heads/x", "refs/", "HEAD", "", "refs/a b"),
        *("refs/a\nb", "refs/a\0b", "refs/heads/\x7f", "refs/" + "a" * 4097, 5, None),
    ],
)
@pytest.mark.parametrize("where", ["delta", "refs", "broken", "head"])
def test_reserved_and_impossible_refs_are_refused_wherever_a_ref_may_stand(where: str, bad: Any) -> None:
    """refs/stargate/* is each node's own: no peer can write it, list it or have it removed.

    HEAD is only a name there and writes nothing: a reserved one must not end the feed of all repositories.
    """
    oid = "a" * 40
    lines = {
        "delta": {"type": "changed", "term": 1, "seq": 1, "name": "a", "id": "b" * 32,
                  "head": "ref: refs/heads/main", "delta": [[bad, None, oid]]},
        "refs": {"type": "refs", "term": 1, "refs": {str(bad): oid}},
        "broken": {"type": "snapshot_end", "term": 1, "count": 0, "broken": [bad]},
        "head": {"type": "snapshot", "term": 1, "seq": 1, "name": "a", "id": "b" * 32,
                 "object_format": "sha1", "head": f"ref: {bad}"},
    }  # fmt: skip
    line = json.dumps(lines[where]).encode()
    if where == "head" and str(bad).startswith("refs/stargate"):
        assert decode(line).head == f"ref: {bad}"
        return
    with pytest.raises(MessageError):
        decode(line)


@pytest.mark.parametrize("bad", ["a" * 39, "A" * 40, "g" * 40, "a" * 41, "a" * 63, "", 5, [], {}])
def test_an_object_id_is_40_or_64_lower_hex_digits(bad: Any) -> None:
    """What goes to git as an object id can be nothing else."""
    with pytest.raises(MessageError):
        decode(json.dumps({"type": "refs", "term": 1, "refs": {"refs/heads/a": bad}}).encode())


@pytest.mark.parametrize("bad", [0, -1, 86400, float("inf"), float("nan"), "1", None])
def test_a_heartbeat_is_a_time_within_a_day(bad: Any) -> None:
    """A standby waits a multiple of it for the leader's next word: no leader can make it wait for ever."""
    welcome = messages.Welcome(messages.PROTOCOL, 1, Member("a", "b"), 1.0)
    with pytest.raises(MessageError):
        decode(line_of(welcome, heartbeat_s=bad))


def test_deep_nesting_and_huge_numbers_are_message_errors() -> None:
    """Lines made to exhaust the parser are refused like any garbage."""
    for line in (b"[" * 500_000, b'{"type":"alive","term":' + b"9" * 100_000 + b',"position":1}'):
        with pytest.raises(MessageError):
            decode(line)


def test_a_message_in_the_wrong_place_is_named() -> None:
    """`expect` says which word came instead."""
    line = encode(Compare(1, 2, RepositoryName("a"), "c" * 32))
    with pytest.raises(MessageError, match="'compare' is out of place"):
        expect(line, Heartbeat)


@given(st.dictionaries(unreserved, oids, max_size=30))
def test_parts_hold_every_ref_once_and_in_order(all_refs: dict[str, str]) -> None:
    """Cutting refs into pieces loses nothing and makes no empty piece."""
    pieces = list(parts(all_refs.items()))
    assert [item for piece in pieces for item in piece.items()] == list(all_refs.items())
    assert all(pieces)


def test_the_largest_part_fits_a_line() -> None:
    """Refs of the longest names, each character escaped six times, still make lines below the limit."""
    longest = {f"refs/{number:03}{chr(0xDC80) * 4093}": "a" * 64 for number in range(60)}
    pieces = list(parts(longest.items()))
    assert len(pieces) > 1
    for piece in pieces:
        assert sum(len(ref) + len(oid) for ref, oid in piece.items()) <= PART_CHARACTERS + 4098 + 64
        line = encode(messages.RefsPart(1, piece))
        assert len(line) <= MAX_LINE_BYTES
        assert decode(line) == messages.RefsPart(1, piece)


def test_the_largest_delta_fits_a_line() -> None:
    """What `difference` lets through as one message can be sent as one line, however it is escaped."""
    count = messages.MAX_DELTA_CHANGES
    length = messages.MAX_DELTA_CHARACTERS // count
    delta = tuple(
        RefChange(f"refs/{n:04}".ljust(length, chr(0xDC80)), "a" * 64, "b" * 64) for n in range(count)
    )
    changed = messages.Changed(1, 1, RepositoryName("a"), "c" * 32, "ref: refs/heads/main", delta)
    assert len(encode(changed)) <= MAX_LINE_BYTES


def test_a_line_of_a_newer_version_is_refused_with_words() -> None:
    """And one without a version is of version 3, as version 0.1 wrote it."""
    value = json.loads(encode(Alive(1, 2)))
    assert value.pop("v") == PROTOCOL == 3
    assert decode(json.dumps(value).encode()) == Alive(1, 2)
    with pytest.raises(MessageError, match=r"speaks version 4 of the feed.*update stargate on this node"):
        decode(json.dumps({**value, "v": 4}).encode())
    for odd in ("4", -1, None, True):
        with pytest.raises(MessageError):
            decode(json.dumps({**value, "v": odd}).encode())


@pytest.mark.parametrize(
    "message",
    [
        Join(4, Member("node-a", "1" * 32), "x"),
        Welcome(4, 1, Member("node-a", "1" * 32), 1.0),
        Refused("update this node"),
    ],
)
def test_what_opens_a_connection_is_read_whatever_its_version(message: Message) -> None:
    """So that the other side can answer, or show, the reason."""
    assert decode(encode(message).replace(b'"v":3', b'"v":4')) == message
