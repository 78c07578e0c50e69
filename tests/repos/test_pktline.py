"""pkt-lines in and out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.repos import pktline
from stargate_gate.repos.pktline import (
    MAX_PAYLOAD_BYTES,
    Packet,
    Parser,
    PktLineError,
    Special,
    encode,
    error_line,
)

packets = st.lists(st.binary(max_size=300) | st.sampled_from(Special))


def encoded(packet: Packet) -> bytes:
    return packet.value if isinstance(packet, Special) else encode(packet)


@given(packets, st.data())
def test_however_the_bytes_arrive_the_packets_are_the_same(sent: list[Packet], data: st.DataObject) -> None:
    """What was encoded comes out, cut anywhere."""
    stream = b"".join(map(encoded, sent))
    parser = Parser()
    received: list[Packet] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        received += parser.feed(stream[:size])
        stream = stream[size:]
    assert received == sent
    assert parser.pending == b""


def test_the_largest_packet_is_taken_and_a_larger_one_is_not_made() -> None:
    """65516 bytes of payload is git's limit."""
    payload = bytes(MAX_PAYLOAD_BYTES)
    assert Parser().feed(encode(payload)) == [payload]
    with pytest.raises(ValueError, match="65516"):
        encode(payload + b"x")


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1", b"0003", b"fff1", b"+001", b"0x10", b"1_00", b" 010", b"zzzz"]
)
def test_garbage_is_refused_for_good(junk: bytes) -> None:
    """A length that is none ends the parsing, and says so again."""
    parser = Parser()
    with pytest.raises(PktLineError):
        parser.feed(junk)
    with pytest.raises(PktLineError):
        parser.feed(b"0000")


def test_a_header_waits_for_its_rest() -> None:
    """Nothing is held longer than a packet."""
    parser = Parser()
    assert parser.feed(b"00") == []
    assert parser.pending == b"00"
    assert parser.feed(b"05a" + pktline.FLUSH) == [b"a", Special.FLUSH]


def test_an_error_line_is_one_line_of_bounded_length() -> None:
    """What git shows as `fatal: remote error:` cannot be split or forged by a message."""
    assert error_line("not leader: x") == b"0015ERR not leader: x"
    assert error_line("a\nb\x1b[31m\0") == encode(b"ERR a b [31m ")
    assert len(error_line("ä" * 70000)) == pktline.MAX_PACKET_BYTES
