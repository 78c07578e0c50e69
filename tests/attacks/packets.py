"""A stranger sends the smallest packets as fast as they are taken. 20 connections used to end a node."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from threading import Event, Thread
from typing import TYPE_CHECKING

from tests.attacks.target import Target
from tests.support.rawssh import IGNORE, RawClient, connect, packet, string

if TYPE_CHECKING:
    from socket import socket

PIECE_BYTES = 512 * 1024  # more than one read of a connection
ADDRESSES = 5
WATCHED_S = 8.0  # longer than election.watchdog_s and lease_s
SSH = b"SSH-2.0-attack\r\n", packet(bytes([IGNORE]) + string(b""))
CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"
LINES = b"GET /healthz HTTP/1.1\r\n", b"a:b\r\n"


def attack(target: Target) -> None:
    """Before a login, after one, and over HTTP."""
    for what, port, (first, piece) in (
        ("SSH packets", target.leader.ssh_port, SSH),
        ("HTTP chunks", target.leader.http_port, CHUNKS),
        ("HTTP header lines", target.leader.http_port, LINES),
    ):
        with _flood(port, first, piece, 50):
            _watch(target, f"the smallest {what} over 50 connections")
    with ExitStack() as stack:
        for _ in range(target.scaled(40, 20)):
            client = stack.enter_context(RawClient(target.leader.ssh_port).login(target.reader))
            stack.enter_context(
                _thread(Event(), partial(client.send, *[bytes([IGNORE]) + string(b"")] * 2000))
            )
        _watch(target, "the smallest packets of a read key")
    target.in_sync("after all packets")


def _watch(target: Target, what: str) -> None:
    until = time.monotonic() + WATCHED_S
    while time.monotonic() < until:
        target.check(what)


@contextmanager
def _flood(port: int, first: bytes, piece: bytes, count: int) -> Iterator[None]:
    """That many connections, each of which is opened again when it is closed."""
    data = piece * (PIECE_BYTES // len(piece))
    sources = cycle(f"127.0.0.{3 + number}" for number in range(ADDRESSES))
    open_ones: dict[int, tuple[socket, memoryview]] = {}
    over = Event()

    def send() -> None:
        for index in range(count):
            try:
                if index not in open_ones:
                    sock = connect(port, next(sources), limit_s=2)
                    sock.setblocking(False)
                    open_ones[index] = sock, memoryview(first + data)
                sock, left = open_ones[index]
                taken = sock.send(left)
                open_ones[index] = sock, left[taken:] if taken < len(left) else memoryview(data)
            except BlockingIOError:
                continue
            except OSError:
                if index in open_ones:
                    open_ones.pop(index)[0].close()

    try:
        with _thread(over, send):
            yield
    finally:
        for sock, _ in open_ones.values():
            sock.close()


@contextmanager
def _thread(over: Event, work: Callable[[], None]) -> Iterator[None]:
    def repeat() -> None:
        while not over.wait(0.005):
            try:
                work()
            except OSError:
                return

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
