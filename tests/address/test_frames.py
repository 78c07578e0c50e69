"""The announcements, byte for byte as the standards have them, and as another implementation reads them."""

import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.address.frames import announcements, checksum

MAC = bytes.fromhex("02aabbccddee")


def test_an_ipv4_address_is_announced_as_request_and_reply() -> None:
    """RFC 5227, section 2.3, and RFC 826: sender and target are the address itself, to everybody."""
    request, reply = announcements(MAC, ipaddress.IPv4Address("10.0.0.100"))
    head = bytes.fromhex("ffffffffffff 02aabbccddee 0806 0001 0800 06 04")
    assert request == head + bytes.fromhex("0001 02aabbccddee 0a000064 000000000000 0a000064")
    assert reply == head + bytes.fromhex("0002 02aabbccddee 0a000064 ffffffffffff 0a000064")


def test_an_ipv6_address_is_announced_to_all_nodes_and_overrides() -> None:
    """RFC 4861, sections 4.4 and 7.2.6."""
    (frame,) = announcements(MAC, ipaddress.IPv6Address("fd00::100"))
    assert frame[:14] == bytes.fromhex("333300000001 02aabbccddee 86dd")
    assert frame[14:22] == bytes.fromhex("60000000 0020 3a ff")
    assert frame[22:38] == ipaddress.IPv6Address("fd00::100").packed
    assert frame[38:54] == ipaddress.IPv6Address("ff02::1").packed
    assert frame[54:56] == bytes.fromhex("88 00")
    assert frame[58:62] == bytes.fromhex("20000000")
    assert frame[62:] == ipaddress.IPv6Address("fd00::100").packed + bytes.fromhex("0201 02aabbccddee")


@given(st.binary(min_size=6, max_size=6), st.ip_addresses(v=6))
def test_the_checksum_of_every_advertisement_is_right(mac: bytes, address: ipaddress.IPv6Address) -> None:
    """RFC 8200, section 8.1: with its own checksum in place, the sum is zero."""
    (frame,) = announcements(mac, address)
    message = frame[54:]
    pseudo = frame[22:54] + struct.pack("!II", len(message), 58)
    assert checksum(pseudo + message) == 0
