"""IP addresses of clients: one form for each, and the network that counts as one client. Pure."""

import ipaddress
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV6_CLIENT_BITS = 64  # a client that has one IPv6 address has its whole /64


def normal_address(text: str) -> Address:
    """`text` as an address, without a zone. An IPv4 client of an IPv6 socket gets its IPv4 address.

    Raises:
        ValueError: it is not an address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def client_address(text: str) -> str:
    """`text` as logs and messages show a client's address: normal, or unchanged if it is not an address."""
    try:
        return str(normal_address(text))
    except ValueError:
        return text


def network_of(text: str) -> str | None:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address; None if it is neither."""
    try:
        address = normal_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, IPV6_CLIENT_BITS), strict=False))
