"""The PROXY protocol's headers: whatever comes, in whatever pieces."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.gate.ssh.proxy_header import (
    V1_MAX_BYTES,
    V2_HEAD_BYTES,
    V2_MAX_BODY_BYTES,
    V2_START,
    ProxyHeader,
    parse_proxy_header,
)

PORTS = st.integers(0, 65535)
REST = st.binary(max_size=40)
MORE = st.binary(max_size=60)  # extensions

# As in the specification's own examples, and as HAProxy 2.6 sends them.
V1 = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
V2 = V2_START + bytes.fromhex("21 11 000c 7f000005 7f000001 dc04 08ae")


def addresses(version: int) -> st.SearchStrategy[tuple[str, str]]:
    """Source and destination of one family."""
    one = st.ip_addresses(v=version).map(str)  # type: ignore[arg-type]
    return st.tuples(one, one)


def text_header(source: str, target: str, port: int) -> bytes:
    """Version 1."""
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {target} {port} 2222\r\n".encode()


def binary_header(source: str, target: str, port: int, more: bytes) -> bytes:
    """Version 2."""
    body = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    body += struct.pack("!HH", port, 2222) + more
    return V2_START + struct.pack("!BBH", 0x21, 0x21 if ":" in source else 0x11, len(body)) + body


HEADERS = st.one_of(
    *(
        st.builds(lambda pair, port: ((pair[0], port), text_header(*pair, port)), addresses(version), PORTS)
        for version in (4, 6)
    ),
    *(
        st.builds(
            lambda pair, port, more: ((pair[0], port), binary_header(*pair, port, more)),
            addresses(version),
            PORTS,
            MORE,
        )
        for version in (4, 6)
    ),
)


@given(HEADERS, REST)
def test_every_header_is_read_and_what_follows_is_the_clients(
    header: tuple[tuple[str, int], bytes], rest: bytes
) -> None:
    """However the bytes are split, it takes exactly the bytes of the header."""
    (source, port), data = header
    for cut in range(len(data)):
        assert parse_proxy_header(data[:cut]) is None
    found = parse_proxy_header(data + rest)
    assert found is not None
    assert found.length == len(data)
    assert found.source is not None
    assert ipaddress.ip_address(found.source[0]) == ipaddress.ip_address(source)
    assert found.source[1] == port


@given(
    st.one_of(st.binary(max_size=200), MORE.map(lambda more: b"PROXY " + more), MORE.map(V2_START.__add__))
)
def test_garbage_is_refused_or_waited_for_and_nothing_else(data: bytes) -> None:
    """No other error, and the bytes that are waited for are bounded."""
    try:
        found = parse_proxy_header(data)
    except ValueError:
        return
    if found is None:
        assert len(data) < V2_HEAD_BYTES + V2_MAX_BODY_BYTES
        assert not data.startswith(b"PROXY") or len(data) < V1_MAX_BYTES
    else:
        assert found.length <= len(data)


def test_known_headers() -> None:
    """From the specification, and from the wire."""
    assert parse_proxy_header(V1) == ProxyHeader(len(V1), ("192.168.0.1", 56324))
    assert parse_proxy_header(V2) == ProxyHeader(28, ("127.0.0.5", 56324))


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        V2_START + bytes.fromhex("20 00 0000"),
        V2_START + bytes.fromhex("20 11 000c 7f000005 7f000001 dc04 08ae"),
        V2_START + bytes.fromhex("21 00 0003 aabbcc"),
    ],
)
def test_a_load_balancer_that_speaks_for_itself_names_no_client(data: bytes) -> None:
    """Its own health checks, and families that it does not know."""
    assert parse_proxy_header(data + b"SSH-2.0-x\r\n") == ProxyHeader(len(data), None)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not begin with a PROXY header"),
        (b"G", "does not begin"),
        (b"PROXY " + b"x" * 101, "does not end"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", "makes no sense"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 1\r\n", "makes no sense"),
        (b"PROXY TCP4 1.2.3.256 5.6.7.8 1 1\r\n", "makes no sense"),
        (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 1\r\n", "makes no sense"),
        (b"PROXY TCP4 ::1 ::1 1 1\r\n", "makes no sense"),
        (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 1\r\n", "makes no sense"),
        (V2_START + bytes.fromhex("11 11 000c"), r"unknown version or command \(0x11\)"),
        (V2_START + bytes.fromhex("22 11 000c"), r"unknown version or command \(0x22\)"),
        (V2_START + bytes.fromhex("21 11 0801"), "of 2049 bytes, 2048 are allowed"),
        (V2_START + bytes.fromhex("21 11 0004 7f000001"), "too short for its addresses"),
        (V2_START + bytes.fromhex("21 12 000c 7f000005 7f000001 dc04 08ae"), r"not about TCP \(0x12\)"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(data: bytes, problem: str) -> None:
    """With the problem, for the log."""
    with pytest.raises(ValueError, match=problem):
        parse_proxy_header(data)
