"""Addresses as the YAML file writes them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.config.endpoint import Endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:2222", "127.0.0.1", 2222),
        ("[::]:0", "::", 0),
        ("[2001:DB8::0:1]:22", "2001:db8::1", 22),
        ("[fe80::1%eth0]:22", "fe80::1%eth0", 22),
        ("stargate.local:65535", "stargate.local", 65535),
        ("my_host.example.:22", "my_host.example.", 22),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int) -> None:
    """Names, IPv4, and IPv6 in brackets."""
    assert Endpoint.parse(text) == Endpoint(host, port)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not host:port"),
        ("2222", "is not host:port"),
        ("host", "is not host:port"),
        ("host:", "is not host:port"),
        ("host:ssh", "is not host:port"),
        ("host:-1", "is not host:port"),
        ("host:٢٢", "is not host:port"),
        ("host: 22", "is not host:port"),
        ("host:022222", "is not host:port"),
        ("ssh://host:22", "is ambiguous"),
        ("::1:2222", "put an IPv6 address in brackets"),
        ("[::1]", "is not host:port"),
        ("[1.2.3.4]:1", "is no IPv6 address"),
        ("[host]:1", "is no IPv6 address"),
        (":2222", "the host is missing; write '127.0.0.1:2222'"),
        ("*:2222", "the host is missing; write '127.0.0.1:2222'"),
        ("host:65536", "port 65536 is too large"),
        ("1.2.3:22", "is no IPv4 address"),
        ("1.2.3.256:22", "is no IPv4 address"),
        ("-a:22", "is no host name"),
        ("a b:22", "is no host name"),
        ("git@host:22", "is no host name"),
        ("a..b:22", "is no host name"),
        ("a" * 64 + ":22", "is no host name"),
        ("host\n:22", "is no host name"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str, said: str) -> None:
    """The message quotes what was written, shortened."""
    with pytest.raises(ValueError, match=r".") as caught:
        Endpoint.parse(text)
    assert said in str(caught.value)


HOSTS = (
    st.ip_addresses().map(str)
    | st.from_regex(r"[a-z][a-z0-9-]{0,5}[a-z]", fullmatch=True)
)  # fmt: skip


@given(host=HOSTS, port=st.integers(0, 65535))
def test_what_is_shown_is_what_is_read(host: str, port: int) -> None:
    """str() and parse() are each other's opposites."""
    if ":" in host:
        host = str(ipaddress.IPv6Address(host))
    assert Endpoint.parse(str(Endpoint(host, port))) == Endpoint(host, port)


def test_wildcards_are_known() -> None:
    """In every way to write them."""
    assert Endpoint.parse("0.0.0.0:1").is_wildcard
    assert Endpoint.parse("[0:0::0]:1").is_wildcard
    assert not Endpoint.parse("127.0.0.1:1").is_wildcard
    assert not Endpoint.parse("localhost:1").is_wildcard
