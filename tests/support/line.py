"""A TCP line between two programs that a test can slow down, hold and cut.

Nodes reach each other through one when it is what `ssh.advertise` names; clients when their URL names
its port. It is a stand-in for the network, so nothing here knows what the bytes mean.
"""

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

Direction = Literal["up", "down"]  # up: from who connects; down: from who listens

BUFFER_BYTES = 32 * 1024  # of each socket: a slow line must not swallow a push before it is slow
CHUNK_BYTES = 8 * 1024


@dataclass(eq=False)
class _Link:
    """One connection through the line."""

    near: socket.socket  # whoever connected
    far: socket.socket
    cut: threading.Event = field(default_factory=threading.Event)

    def end(self) -> None:
        self.cut.set()
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Line:
    """Listens on `port` of loopback, and passes on to `target_port`. A context manager; starts at once.

    It does not know when a byte is of interest: `hold` takes effect on the next chunk.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._links: set[_Link] = set()
        self._guard = threading.Lock()
        self._open = {"up": threading.Event(), "down": threading.Event()}
        self._rate: dict[str, float | None] = {"up": None, "down": None}
        self._passed = {"up": 0, "down": 0}
        self._connects = True
        self.release()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def passed(self, direction: Direction) -> int:
        """How many bytes have gone that way."""
        return self._passed[direction]

    def hold(self, *directions: Direction) -> None:
        """What comes that way waits, until `release` or `cut`. Without an argument: both ways."""
        for direction in directions or ("up", "down"):
            self._open[direction].clear()

    def release(self) -> None:
        """Everything flows."""
        for gate in self._open.values():
            gate.set()

    def slow(self, bytes_per_s: float | None) -> None:
        """From now on so much goes each way in a second, over each connection; None: no limit."""
        self._rate = {"up": bytes_per_s, "down": bytes_per_s}

    def cut(self) -> None:
        """End every connection, and end new ones at once until `mend`. What was held is lost."""
        self._connects = False
        with self._guard:
            links = list(self._links)
        for link in links:
            link.end()

    def mend(self) -> None:
        """Connections are possible again, and nothing is held."""
        self.release()
        self._connects = True

    def close(self) -> None:
        """End everything."""
        self.cut()
        self._listener.close()
        self.release()
        for thread in self._threads:
            thread.join(5.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------------

    def _accept(self) -> None:
        self._listener.settimeout(0.2)  # closing a listener wakes nobody who accepts on it
        while True:
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            link = self._connect(near)
            if link is None:
                near.close()
                continue
            for thread in (
                threading.Thread(target=self._pump, args=(link, link.near, link.far, "up"), daemon=True),
                threading.Thread(target=self._pump, args=(link, link.far, link.near, "down"), daemon=True),
            ):
                self._threads.append(thread)
                thread.start()

    def _connect(self, near: socket.socket) -> _Link | None:
        if not self._connects:
            return None
        try:
            far = socket.create_connection(("127.0.0.1", self._target_port), 5.0)
        except OSError:
            return None
        for end in (near, far):
            end.settimeout(None)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                end.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        link = _Link(near, far)
        with self._guard:
            self._links.add(link)
        return link

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                while not (self._open[direction].wait(0.2) or link.cut.is_set()):
                    pass
                if link.cut.is_set():
                    return
                sink.sendall(data)
                self._passed[direction] += len(data)
                rate = self._rate[direction]
                if rate is not None:
                    link.cut.wait(len(data) / rate)  # this is the line being slow
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            link.end()
        finally:
            self._leave(link)

    def _leave(self, link: _Link) -> None:
        """The second of the two pumps closes."""
        with self._guard:
            if link in self._links:
                self._links.discard(link)
                return
        link.near.close()
        link.far.close()
