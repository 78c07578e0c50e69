"""The Ethernet frames that tell a network where an address is now. Pure."""

import ipaddress
import struct

BROADCAST = b"\xff" * 6
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
ARP_REQUEST, ARP_REPLY = 1, 2
ICMPV6 = 58
NEIGHBOUR_ADVERTISEMENT = 136  # RFC 4861, section 4.4
OVERRIDE = 0x20000000  # unsolicited, and replaces what neighbours have in their caches
TARGET_LINK_LAYER = 2  # option, RFC 4861, section 4.6.1
HOP_LIMIT = 255  # receivers ignore anything less
ALL_NODES = ipaddress.IPv6Address("ff02::1")
ALL_NODES_MAC = bytes.fromhex("333300000001")  # RFC 2464, section 7

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def announcements(mac: bytes, address: Address) -> tuple[bytes, ...]:
    """The complete frames that say "`address` is at `mac`" to everybody on the link."""
    if isinstance(address, ipaddress.IPv4Address):
        return gratuitous_arp(mac, address)
    return (unsolicited_advertisement(mac, address),)


def gratuitous_arp(mac: bytes, address: ipaddress.IPv4Address) -> tuple[bytes, bytes]:
    """The announcement of RFC 5227, section 2.3, as a request, and the same as a reply.

    A host that has the address in its cache should accept either (RFC 826), but some accept only one of them.
    """
    header = BROADCAST + mac + struct.pack("!H", ETHERTYPE_ARP)
    request, reply = (
        header
        + struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
        + mac
        + address.packed
        + target
        + address.packed
        for operation, target in ((ARP_REQUEST, bytes(6)), (ARP_REPLY, BROADCAST))
    )
    return request, reply


def unsolicited_advertisement(mac: bytes, address: ipaddress.IPv6Address) -> bytes:
    """RFC 4861, section 7.2.6: to all nodes, with the override flag, not as a router."""
    message = struct.pack("!BBHI", NEIGHBOUR_ADVERTISEMENT, 0, 0, OVERRIDE) + address.packed
    message += struct.pack("!BB", TARGET_LINK_LAYER, 1) + mac
    pseudo = address.packed + ALL_NODES.packed + struct.pack("!II", len(message), ICMPV6)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    packet = struct.pack("!IHBB", 6 << 28, len(message), ICMPV6, HOP_LIMIT)
    packet += address.packed + ALL_NODES.packed + message
    return ALL_NODES_MAC + mac + struct.pack("!H", ETHERTYPE_IPV6) + packet


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
