"""A stranger opens connections and does not log in: silent, in mid-exchange, slow, opened again and again."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from socket import socket
from threading import Event, Thread

from tests.attacks.target import Target
from tests.support.cluster import make_key
from tests.support.rawssh import ClosedError, RawClient, UserKey, connect, kexinit, packet

SPOKEN = b"SSH-2.0-attack\r\n"
HALF_WAY = SPOKEN + packet(kexinit("curve25519-sha256"))
EVERY_S = 0.05  # between two connections of the attacker: 20 a second
GOOD_PUSHES = 4


def attack(target: Target) -> None:
    """All from one address, which is the standby's as well."""
    for count in target.scaled(1000, 200), 50:
        with _held(target, count, b""):
            target.check(f"{count} silent connections")
    with _held(target, 60, HALF_WAY):
        target.check("60 connections in the middle of a key exchange")
    with (
        _held(target, 60, SPOKEN[:-2]),
        closing(connect(target.leader.ssh_port)) as sock,
        _repeating(_drip(sock)),
    ):
        target.check("60 connections whose first line does not end")
    for name, first in (("silent", b""), ("half-way", HALF_WAY)):
        with _held(target, 60, first) as held, _repeating(_refill(target, held, first)):
            target.restart_standby(f"{name} connections, refilled")
            for _ in range(GOOD_PUSHES):
                target.check(f"{name} connections, refilled")
    with _repeating(_bad_logins(target)):
        target.check("logins with a wrong key")
    target.in_sync("after the strangers")


@contextmanager
def _held(target: Target, count: int, first: bytes) -> Iterator[ExitStack]:
    """That many connections that have sent only `first`, until the end."""
    with ExitStack() as stack:
        for _ in range(count):
            _one_more(target, stack, first)
        yield stack


def _one_more(target: Target, stack: ExitStack, first: bytes) -> None:
    with suppress(OSError):
        sock = connect(target.leader.ssh_port)
        stack.callback(sock.close)
        sock.sendall(first)


@contextmanager
def _repeating(work: Callable[[], None]) -> Iterator[None]:
    """Does `work` every EVERY_S in a thread of its own."""
    over = Event()

    def repeat() -> None:
        while not over.wait(EVERY_S):
            work()

    thread = Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _refill(target: Target, held: ExitStack, first: bytes) -> Callable[[], None]:
    return lambda: _one_more(target, held, first)


def _drip(sock: socket) -> Callable[[], None]:
    """Sends a first line byte by byte, without an end."""

    def drip() -> None:
        with suppress(OSError):
            sock.sendall(b"a")

    return drip


def _bad_logins(target: Target) -> Callable[[], None]:
    stranger = UserKey.load(make_key(target.cluster.root / "keys" / "stranger"))

    def login() -> None:
        with suppress(OSError, ClosedError), RawClient(target.leader.ssh_port, limit_s=5) as client:
            client.request_service()
            until = time.monotonic() + 1
            while time.monotonic() < until:
                client.sign_in(stranger)

    return login
