"""Which connections break with an address, and what the kernel does with new ones to it: real sockets."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from stargate_gate.gate.ssh.lost_address import (
    accept_connections,
    delay_connections,
    is_at,
    may_outlive_its_address,
)

NEVER_S = 0.3  # a connection on loopback is there at once, or never


@contextlib.contextmanager
def listening(family: socket.AddressFamily, host: str) -> Iterator[socket.socket]:
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        yield listener


def connects(listener: socket.socket, host: str) -> bool:
    """Whether a new connection to `host` gets through; a refused one would raise."""
    with socket.socket(listener.family) as client:
        client.settimeout(NEVER_S)
        try:
            client.connect((host, listener.getsockname()[1]))
        except TimeoutError:
            return False
        return True


@pytest.mark.parametrize(
    ("family", "host", "hosts"),
    [
        (socket.AF_INET, "127.0.0.1", {"127.0.0.1"}),
        (socket.AF_INET, "127.0.0.1", {"192.0.2.1", "::1", "127.0.0.1", "192.0.2.2"}),
        (socket.AF_INET6, "::1", {"127.0.0.1", "::1"}),
        (socket.AF_INET6, "::1", {"2001:db8::1", "::1", "::2"}),
    ],
)
def test_new_connections_to_a_floating_address_are_put_off(
    family: socket.AddressFamily, host: str, hosts: set[str]
) -> None:
    """They are neither accepted nor refused. Existing connections go on. It can be undone."""
    with listening(family, host) as listener, socket.create_connection(listener.getsockname()[:2]) as before:
        server, _ = listener.accept()
        with server:
            assert delay_connections(listener, hosts)
            assert not connects(listener, host)
            before.sendall(b"on")
            assert server.recv(2) == b"on"
        accept_connections(listener)
        assert connects(listener, host)


@pytest.mark.parametrize("hosts", [{"127.0.0.1"}, {"192.0.2.1"}, {"::1"}, set()])
def test_other_addresses_of_the_same_listener_are_not(hosts: set[str]) -> None:
    """A standby that reconnects, and users of the node's own name, are served."""
    with listening(socket.AF_INET, "0.0.0.0") as listener:
        assert delay_connections(listener, hosts) == any("." in host for host in hosts)
        assert connects(listener, "127.0.0.2")
        assert connects(listener, "127.0.0.1") == ("127.0.0.1" not in hosts)


def test_which_connections_break_with_the_address() -> None:
    """Those to the address, in any notation; all connections, if the addresses are not known."""
    floating = frozenset({"10.0.0.100", "fd00::64"})
    assert is_at("10.0.0.100", floating)
    assert is_at("::ffff:10.0.0.100", floating)
    assert is_at("fd00::64%eth0", floating)
    assert not is_at("10.0.0.1", floating)
    assert not is_at("unknown", floating)
    assert not is_at("10.0.0.100", frozenset())
    assert is_at("10.0.0.1", None)


def test_a_socket_that_may_not_outlive_its_address_is_left_as_it_is() -> None:
    """Without the capability the call fails and has no other effect. The same for a closed socket."""
    closed = socket.socket(socket.AF_INET)
    closed.close()
    assert not may_outlive_its_address(closed)
