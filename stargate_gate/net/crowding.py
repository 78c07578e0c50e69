"""Who goes when there are more connections than places. Pure; the SSH and the HTTP listener use it.

Places are shared by address: a newcomer from an address that has few gets one of the address that has most.
So nobody who has only a few addresses can keep others out. An IPv6 network of 64 bits counts as one address,
since whoever has one has all of them.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

IPV6_BLOCK_BITS = 64

T = TypeVar("T")


@dataclass(frozen=True)
class Standing(Generic[T]):
    """One connection that has a place.

    block     as `block_of` its client's address
    since_s   when it came, on a monotonic clock
    progress  how far it has come; less goes first
    """

    connection: T
    block: str
    since_s: float
    progress: int = 0


def block_of(address: str) -> str:
    """What `address` counts as: itself, or its IPv6 network. A text that is no address counts as itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_BLOCK_BITS), strict=False))


def heaviest(blocks: Iterable[str]) -> tuple[str, int]:
    """The block that is there most often, and how often; ("", 0) if there is none."""
    return next(iter(Counter(blocks).most_common(1)), ("", 0))


def first_to_go(standing: Sequence[Standing[T]], block: str, came_before_s: float) -> Standing[T] | None:
    """Of `block`, the one that has come least far, and of those the oldest; None if all came later."""
    old = [one for one in standing if one.block == block and one.since_s <= came_before_s]
    return min(old, key=lambda one: (one.progress, one.since_s), default=None)
