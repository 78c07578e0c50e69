"""The `from=` option of an authorized_keys line: the addresses from which a key may be used. Pure.

As in sshd(8), AUTHORIZED_KEYS FILE FORMAT, and ssh_config(5), PATTERNS: addresses, address/length, wildcards
`*` and `?`, and `!` before an item that is excluded. Names are never looked up, so a pattern that is a host
name matches no client.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias

from stargate_gate.net.addresses import Address, normal_address

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_ADDRESS_LIKE = re.compile(r"[0-9a-f:.*?]+")  # a wildcard that some address can match


@dataclass(frozen=True)
class SourcePattern:
    """One comma-separated item.

    network, regex  one of them is None: an address or network, or a pattern with wildcards
    text            the item without "!", for sshd
    """

    excludes: bool
    network: Network | None
    regex: re.Pattern[str] | None
    text: str

    def matches(self, address: Address) -> bool:
        """Whether `address` is one of this item's, excluded or not."""
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return self.regex is not None and self.regex.fullmatch(str(address)) is not None


@dataclass(frozen=True)
class Sources:
    """The whole value of `from=`."""

    patterns: tuple[SourcePattern, ...]

    def allow(self, source: str) -> bool:
        """Whether a client at the address `source` may use the key. An excluding item wins."""
        try:
            address = normal_address(source)
        except ValueError:
            return False
        hits = [pattern.excludes for pattern in self.patterns if pattern.matches(address)]
        return bool(hits) and not any(hits)

    def for_sshd(self) -> str | None:
        """A value of `from=` for which sshd decides as `allow` does; None if no client may use the key.

        sshd may be configured to look up names (UseDNS). Items that can only be names match no client here,
        so they are left out.
        """
        addresses = [p for p in self.patterns if p.network is not None or _ADDRESS_LIKE.fullmatch(p.text)]
        if all(pattern.excludes for pattern in addresses):
            return None
        return ",".join(f"{'!' if pattern.excludes else ''}{pattern.text}" for pattern in addresses)


def parse_sources(text: str) -> Sources:
    """The value of `from=`.

    Raises:
        ValueError: an item is empty or a network that does not exist; the message says which.
    """
    return Sources(tuple(_parse_item(item.strip()) for item in text.split(",")))


def _parse_item(item: str) -> SourcePattern:
    excludes = item.startswith("!")
    pattern = item[1:] if excludes else item
    if not pattern:
        raise ValueError("from= has an empty item")
    if "/" in pattern:
        try:
            network = ipaddress.ip_network(pattern)
        except ValueError as error:
            raise ValueError(f"from= has the network {pattern!r}, but {error}") from error
        return SourcePattern(excludes, network, None, str(network))
    try:
        network = ipaddress.ip_network(normal_address(pattern))
        return SourcePattern(excludes, network, None, str(network))
    except ValueError:
        return SourcePattern(excludes, None, re.compile(_glob(pattern), re.IGNORECASE), pattern.lower())


def _glob(pattern: str) -> str:
    """`pattern` as a regular expression for `fullmatch` that never takes long.

    With ".*" for each star, `re` tries all ways to divide the text among the stars: "********z" took
    seconds. But the first place where the piece after a star fits is always good enough, since it leaves the
    most text for the rest. So each star but the last is in an atomic group "(?>...)", in which `re` tries
    only the first place. The end of the text decides where the last star ends.
    """
    first, *pieces = [_literal(piece) for piece in pattern.split("*")]
    if not pieces:
        return first
    *middle, last = pieces
    return first + "".join(f"(?>.*?{piece})" for piece in middle if piece) + ".*" + last


def _literal(text: str) -> str:
    return "".join("." if character == "?" else re.escape(character) for character in text)
