"""A line between two nodes that a test can cut, slow down and mend: a TCP proxy on loopback."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

CHUNK_BYTES = 16 * 1024
LOOK_S = 0.1  # how soon a pump that waits sees that the proxy ends
JOIN_LIMIT_S = 10.0


class Proxy:
    """Passes connections on to 127.0.0.1:`target`. While the line is dead it takes bytes and gives none.

    A dead line closes nothing: as with a pulled cable, either side only hears no more from the other.
    What was under way arrives once the line is mended.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._alive = threading.Event()
        self._alive.set()
        self._over = threading.Event()
        self._bytes_per_s: float | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LOOK_S)
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def die(self) -> None:
        """From now on nothing gets through, in either direction."""
        self._alive.clear()

    def mend(self) -> None:
        """Everything gets through again, at full speed."""
        self._bytes_per_s = None
        self._alive.set()

    def slow(self, bytes_per_s: float) -> None:
        """Each direction of each connection passes that much and no more."""
        self._bytes_per_s = bytes_per_s

    def close(self) -> None:
        """End all connections and threads."""
        self._over.set()
        for thread in self._threads:
            thread.join(JOIN_LIMIT_S)
        self._listener.close()

    def _run(self, work, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:  # nobody listens there, and the caller learns it as without a proxy
                near.close()
                continue
            ends = threading.Semaphore(1)  # whoever ends last closes both
            self._run(self._pump, near, far, ends)
            self._run(self._pump, far, near, ends)

    def _pump(self, source: socket.socket, sink: socket.socket, ends: threading.Semaphore) -> None:
        source.settimeout(LOOK_S)
        with contextlib.suppress(OSError):
            for data in self._received(source):
                self._send(sink, data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not ends.acquire(blocking=False):
            source.close()
            sink.close()

    def _received(self, source: socket.socket) -> Iterator[bytes]:
        while not self._over.is_set():
            if not self._alive.wait(LOOK_S):
                continue
            try:
                data = source.recv(CHUNK_BYTES)
            except TimeoutError:
                continue
            if not data:
                return
            yield data

    def _send(self, sink: socket.socket, data: bytes) -> None:
        while data and not self._over.is_set():
            if not self._alive.wait(LOOK_S):
                continue
            try:
                sent = sink.send(data)
            except TimeoutError:
                continue
            data = data[sent:]
            if self._bytes_per_s is not None:
                time.sleep(sent / self._bytes_per_s)


@contextlib.contextmanager
def proxy_to(target: int) -> Iterator[Proxy]:
    """A proxy that is gone afterwards."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
