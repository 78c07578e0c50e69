"""A stranger opens connections and does not log in: silent, half-way, slowly, again and again."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from socket import socket
from threading import Event, Thread

from tests.attacks.ground import Ground
from tests.support.cluster import make_key
from tests.support.rawssh import ClosedError, RawClient, UserKey, connect, kexinit, packet

SPOKEN = b"SSH-2.0-attack\r\n"
HALF_WAY = SPOKEN + packet(kexinit("curve25519-sha256"))
EVERY_S = 0.05  # between two connections of the attacker: 20 a second
GOOD_PUSHES = 4


def attack(ground: Ground) -> None:
    """Each from the attacker's one address, which is the standby's as well."""
    for count in ground.scaled(1000, 200), 50:
        with _held(ground, count, b""):
            ground.holds(f"{count} silent connections")
    with _held(ground, 60, HALF_WAY):
        ground.holds("60 connections in the middle of a key exchange")
    with (
        _held(ground, 60, SPOKEN[:-2]),
        closing(connect(ground.leader.ssh_port)) as sock,
        _repeating(_drip(sock)),
    ):
        ground.holds("60 connections whose first line does not end")
    for name, first in (("silent", b""), ("half-way", HALF_WAY)):
        with _held(ground, 60, first) as held, _repeating(_refill(ground, held, first)):
            ground.restart_standby(f"{name} connections, refilled")
            for _ in range(GOOD_PUSHES):
                ground.holds(f"{name} connections, refilled")
    with _repeating(_bad_logins(ground)):
        ground.holds("logins with a wrong key")
    ground.in_sync("after the strangers")


@contextmanager
def _held(ground: Ground, count: int, first: bytes) -> Iterator[ExitStack]:
    """That many connections that have said `first` and nothing else, until the end."""
    with ExitStack() as stack:
        for _ in range(count):
            _one_more(ground, stack, first)
        yield stack


def _one_more(ground: Ground, stack: ExitStack, first: bytes) -> None:
    with suppress(OSError):
        sock = connect(ground.leader.ssh_port)
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


def _refill(ground: Ground, held: ExitStack, first: bytes) -> Callable[[], None]:
    return lambda: _one_more(ground, held, first)


def _drip(sock: socket) -> Callable[[], None]:
    """A first line that grows by a byte at a time."""

    def drip() -> None:
        with suppress(OSError):
            sock.sendall(b"a")

    return drip


def _bad_logins(ground: Ground) -> Callable[[], None]:
    stranger = UserKey.load(make_key(ground.cluster.root / "keys" / "stranger"))

    def login() -> None:
        with suppress(OSError, ClosedError), RawClient(ground.leader.ssh_port, limit_s=5) as client:
            client.request_service()
            until = time.monotonic() + 1
            while time.monotonic() < until:
                client.sign_in(stranger)

    return login
