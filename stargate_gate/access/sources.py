"""The `from=` option of an authorized_keys line: which addresses a key may be used from. Pure.

As in sshd(8), AUTHORIZED_KEYS FILE FORMAT, and PATTERNS in ssh_config(5): addresses, address/length,
wildcards `*` and `?`, and `!` in front of what is excluded. Names are never looked up: a pattern that
is a host name matches no client.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_ADDRESS_LIKE = re.compile(r"[0-9a-f:.*?]+")  # a wildcard that some address can match


@dataclass(frozen=True)
class SourcePattern:
    """One comma-separated item. `network` is None for a wildcard, which `regex` holds instead.

    `text` is the item without its "!", as sshd should read it.
    """

    excludes: bool
    network: Network | None
    regex: re.Pattern[str] | None
    text: str

    def matches(self, address: Address) -> bool:
        """Whether this item names `address`; says nothing of `excludes`."""
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return self.regex is not None and self.regex.fullmatch(str(address)) is not None


@dataclass(frozen=True)
class Sources:
    """A whole `from=` list."""

    patterns: tuple[SourcePattern, ...]

    def allow(self, source: str) -> bool:
        """Whether a client at `source` may use the key. An exclusion beats every inclusion."""
        try:
            address = normal_address(source)
        except ValueError:
            return False
        hits = [pattern.excludes for pattern in self.patterns if pattern.matches(address)]
        return bool(hits) and not any(hits)

    def for_sshd(self) -> str | None:
        """A `from=` value with which sshd allows what `allow` does; None: nobody.

        sshd may be told to look names up (UseDNS): what could only be a name, and so matches nobody
        here, is left out.
        """
        addresses = [p for p in self.patterns if p.network is not None or _ADDRESS_LIKE.fullmatch(p.text)]
        if all(pattern.excludes for pattern in addresses):
            return None
        return ",".join(f"{'!' if pattern.excludes else ''}{pattern.text}" for pattern in addresses)


def normal_address(text: str) -> Address:
    """`text` as an address; an IPv4 client of an IPv6 socket is an IPv4 client; no zone.

    Raises:
        ValueError: it is no address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def client_address(text: str) -> str:
    """`text` as logs and messages show a client's address: an IPv4 client of an IPv6 socket by its own."""
    try:
        return str(normal_address(text))
    except ValueError:
        return text


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
    """`pattern` as a regular expression for `fullmatch` that takes time in proportion to both texts at most.

    A plain ".*" for each star tries all ways to share the text out among the stars, which grows without
    bound: "********z" took seconds. But the first place where the piece after a star fits leaves the most
    text for the rest, so there is no need to try another one: an atomic group "(?>...)" never does.
    Only the last star is free, and the end of the text decides where it ends.
    """
    first, *pieces = [_literal(piece) for piece in pattern.split("*")]
    if not pieces:
        return first
    *middle, last = pieces
    return first + "".join(f"(?>.*?{piece})" for piece in middle if piece) + ".*" + last


def _literal(text: str) -> str:
    return "".join("." if character == "?" else re.escape(character) for character in text)
