"""The PROXY protocol, versions 1 and 2: a load balancer sends first which client it connects. Pure.

After "The PROXY protocol", versions 1 & 2, by HAProxy (doc/proxy-protocol.txt), sections 2.1 and 2.2.
"""

import ipaddress
import re
import struct
from dataclasses import dataclass

V1_START = b"PROXY "
V1_MAX_BYTES = 107  # section 2.1, with CR and LF
V2_START = b"\r\n\r\n\x00\r\nQUIT\n"
V2_HEAD_BYTES = 16
V2_MAX_BODY_BYTES = 2048  # addresses take 36 bytes; the rest is room for extensions
MAX_PORT = 0xFFFF
LOCAL, PROXY = 0x20, 0x21  # version 2 in the upper half
UNSPECIFIED, TCP4, TCP6 = 0x00, 0x11, 0x21

_V1 = re.compile(
    rb"PROXY (?P<family>TCP4|TCP6) (?P<source>[0-9a-fA-F:.]{2,39}) [0-9a-fA-F:.]{2,39} "
    rb"(?P<port>[0-9]{1,5}) [0-9]{1,5}\r\n"
)
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN( [^\r\n]*)?\r\n")


@dataclass(frozen=True)
class ProxyHeader:
    """A whole header.

    length  of the header in bytes; the client's own bytes follow
    source  address and port of the client; None if the connection is the load balancer's own (health check)
    """

    length: int
    source: tuple[str, int] | None


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header at the beginning of `data`; None if more bytes are needed.

    Raises:
        ValueError: `data` begins with something else. The message continues the words "the connection".
    """
    if data.startswith(V2_START):
        return _version_2(data)
    if data.startswith(V1_START):
        return _version_1(data)
    if V1_START.startswith(data) or V2_START.startswith(data):
        return None
    raise ValueError("does not begin with a PROXY header")


def _version_1(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:V1_MAX_BYTES].partition(b"\r\n")
    if not end:
        if len(data) >= V1_MAX_BYTES:
            raise ValueError("has a PROXY header that does not end")
        return None
    line += end
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader(len(line), None)
    source = _text_source(line)
    if source is None:
        raise ValueError("has a PROXY header of version 1 that makes no sense")
    return ProxyHeader(len(line), source)


def _text_source(line: bytes) -> tuple[str, int] | None:
    """Section 2.1: family, source, destination, source port, destination port."""
    found = _V1.fullmatch(line)
    if found is None or (port := int(found["port"])) > MAX_PORT:
        return None
    kind = ipaddress.IPv4Address if found["family"] == b"TCP4" else ipaddress.IPv6Address
    try:
        return str(kind(found["source"].decode("ascii"))), port
    except ValueError:
        return None


def _version_2(data: bytes) -> ProxyHeader | None:
    if len(data) < V2_HEAD_BYTES:
        return None
    command, family, body_bytes = struct.unpack_from("!BBH", data, len(V2_START))
    if command not in {LOCAL, PROXY}:
        raise ValueError(f"has a PROXY header of an unknown version or command (0x{command:02x})")
    if body_bytes > V2_MAX_BODY_BYTES:
        raise ValueError(f"has a PROXY header of {body_bytes} bytes, {V2_MAX_BODY_BYTES} are allowed")
    end = V2_HEAD_BYTES + body_bytes
    if len(data) < end:
        return None
    if command == LOCAL or family == UNSPECIFIED:
        return ProxyHeader(end, None)
    return ProxyHeader(end, _addresses(family, data[V2_HEAD_BYTES:end]))


def _addresses(family: int, body: bytes) -> tuple[str, int]:
    """Section 2.2: source, destination, source port, destination port; extensions after them."""
    size = {TCP4: 4, TCP6: 16}.get(family)
    if size is None:
        raise ValueError(f"has a PROXY header that is not about TCP (0x{family:02x})")
    if len(body) < 2 * size + 4:
        raise ValueError("has a PROXY header that is too short for its addresses")
    (port,) = struct.unpack_from("!H", body, 2 * size)
    return str(ipaddress.ip_address(body[:size])), port
