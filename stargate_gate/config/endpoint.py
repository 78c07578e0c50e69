"""A host and a port, as the YAML file writes them: "127.0.0.1:2222", "[::]:2222", "git.example:2222"."""

import ipaddress
import re
from dataclasses import dataclass

MAX_PORT = 65535
MAX_NAME_LENGTH = 253  # RFC 1035, section 2.3.4, as text without the final dot

LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")
_SHAPE = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<plain>[^:\[\]]*)):(?P<port>[^:]*)")


@dataclass(frozen=True, order=True)
class Endpoint:
    """A host and a port. str() gives the text that `parse` reads.

    host  a name, an IPv4 address, or an IPv6 address without brackets
    port  0..65535; 0 lets the kernel choose
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether `host` means every address of this machine: one can listen on it, but not connect to it."""
        address = _address(self.host)
        return address is not None and address.is_unspecified

    def overlaps(self, other: "Endpoint") -> bool:
        """Whether one machine cannot listen on both. Port 0 never overlaps. Names are compared as text."""
        if self.port == 0 or self.port != other.port:
            return False
        if self.host == other.host:
            return True
        mine, theirs = _address(self.host), _address(other.host)
        if mine is None or theirs is None or mine.version != theirs.version:
            return False
        return mine == theirs or mine.is_unspecified or theirs.is_unspecified

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Read "host:port" or "[IPv6 address]:port".

        Raises:
            ValueError: anything else, with what to write instead.
        """
        shape = _SHAPE.fullmatch(text)
        if shape is None or not _PORT.fullmatch(shape["port"]):
            raise ValueError(_shape_problem(text))
        port = int(shape["port"])
        if port > MAX_PORT:
            raise ValueError(f"port {port} is too large; the largest is {MAX_PORT}")
        if shape["bracketed"] is not None:
            return cls(_ipv6(shape["bracketed"]), port)
        return cls(_name_or_ipv4(shape["plain"], port), port)


def _shape_problem(text: str) -> str:
    if text.count(":") > 1 and "[" not in text:
        return f"{text[:60]!r} is ambiguous; put an IPv6 address in brackets, as in '[::1]:2222'"
    return f"{text[:60]!r} is not host:port; write it as in '127.0.0.1:2222' or '[::1]:2222'"


def _ipv6(host: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise ValueError(f"{host[:60]!r} is no IPv6 address; only those go in brackets") from None


def _name_or_ipv4(host: str, port: int) -> str:
    if host in {"", "*"}:
        raise ValueError(
            f"the host is missing; write '127.0.0.1:{port}' for this machine only, "
            f"or '0.0.0.0:{port}' for every address"
        )
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError(f"{host[:60]!r} is no IPv4 address; write four numbers up to 255") from None
    labels = host.removesuffix(".").split(".")
    if len(host) > MAX_NAME_LENGTH or not all(LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{host[:60]!r} is no host name; write letters, digits, '-' and dots, or an address")
    return host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
