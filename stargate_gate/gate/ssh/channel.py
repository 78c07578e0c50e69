"""One SSH session channel as the gate's `Channel`: bounded in both directions, closed after the last byte.

asyncssh's own streams and redirects are not used: `redirect()` followed by `exit()` loses the last bytes.
"""

import asyncio
import collections

from asyncssh.channel import SSHServerChannel
from asyncssh.constants import EXTENDED_DATA_STDERR

from stargate_gate.gate.ssh.backpressure import WINDOW_BYTES, PacedChannel, PacedConnection

CHUNK_BYTES = 64 * 1024  # one write has that many bytes in flight
STALL_LIMIT_S = 300.0  # a client that takes no byte for that long counts as gone


class SshChannel:
    """Implements `ports.Channel`. `ExecSession` passes on what asyncssh delivers (feed…, pause…, resume…)."""

    def __init__(
        self,
        channel: SSHServerChannel[bytes],
        connection: PacedConnection,
        *,
        stall_limit_s: float = STALL_LIMIT_S,
    ) -> None:
        self._channel = channel
        self._connection = connection
        self._stall_limit_s = stall_limit_s
        self._received: collections.deque[bytes] = collections.deque()
        self._received_bytes = 0
        self._ended = False
        self._lost = False
        self._readable = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        # Paused whenever anything is buffered: a write has ended when all of it is in SSH packets.
        channel.set_write_buffer_limits(high=0)

    @property
    def lost(self) -> bool:
        """Whether the client is gone."""
        return self._lost

    def feed(self, data: bytes) -> None:
        """The client sent `data`."""
        self._received.append(data)
        self._received_bytes += len(data)
        if self._received_bytes > WINDOW_BYTES:  # only if asyncssh is not as checked, see backpressure.py
            self._channel.pause_reading()
        self._readable.set()

    def feed_eof(self) -> None:
        """The client will send no more; it may still read."""
        self._ended = True
        self._readable.set()

    def feed_lost(self) -> None:
        """The client is gone."""
        self._lost = True
        self._readable.set()
        self._drained.set()

    def pause_writing(self) -> None:
        """The client's window is full: writers wait."""
        self._drained.clear()

    def resume_writing(self) -> None:
        """All that was written has been sent."""
        self._drained.set()

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes; b"" at the end. Raises ConnectionError. The first call lets the client send."""
        if isinstance(self._channel, PacedChannel):
            self._channel.open_window()
        while not self._received and not self._ended and not self._lost:
            self._readable.clear()
            await self._readable.wait()
        if self._lost:
            raise ConnectionResetError("the client is gone")
        if not self._received:
            return b""
        data = self._take(n)
        self._received_bytes -= len(data)
        self._taken(len(data))
        return data

    def _take(self, n: int) -> bytes:
        """All that was received, up to `n` bytes: one SSH packet is less than a pipe takes at once."""
        taken: list[bytes] = []
        while self._received and n > 0:
            data = self._received.popleft()
            if len(data) > n:
                self._received.appendleft(data[n:])
                data = data[:n]
            taken.append(data)
            n -= len(data)
        return b"".join(taken)

    def _taken(self, n: int) -> None:
        if isinstance(self._channel, PacedChannel):
            self._channel.taken(n)
        elif self._received_bytes <= WINDOW_BYTES // 2:
            self._channel.resume_reading()

    async def write(self, data: bytes) -> None:
        """To the client's stdout. Raises ConnectionError, also after a stall."""
        await self._send(data, None)

    async def write_error(self, data: bytes) -> None:
        """To the client's stderr. Raises as `write`."""
        await self._send(data, EXTENDED_DATA_STDERR)

    async def _send(self, data: bytes, datatype: int | None) -> None:
        for start in range(0, len(data), CHUNK_BYTES):
            chunk = data[start : start + CHUNK_BYTES]
            await self._wait_sent()
            try:
                self._channel.write(chunk, datatype)
            except OSError as error:
                raise ConnectionResetError("the client is gone") from error
        await self._wait_sent()

    async def _wait_sent(self) -> None:
        """Wait until nothing is buffered. Raises if that makes no progress for the stall limit."""
        before = self._unsent_bytes()
        while not self._lost:
            try:
                async with asyncio.timeout(self._stall_limit_s):
                    await self._drained.wait()
                    await self._connection.wait_writable()
            except TimeoutError:
                now = self._unsent_bytes()
                if now >= before:
                    raise ConnectionAbortedError(
                        f"the client has read nothing for {self._stall_limit_s:g} s"
                    ) from None
                before = now
            else:
                break
        if self._lost:
            raise ConnectionResetError("the client is gone")

    def _unsent_bytes(self) -> int:
        return self._channel.get_write_buffer_size() + self._connection.unsent_bytes()

    async def exit(self, status: int) -> None:
        """Send end of file, exit status and close after the last byte. Raises ConnectionError."""
        await self._wait_sent()
        self._channel.write_eof()
        self._channel.exit(status)

    def abort(self) -> None:
        """Close at once; buffered bytes are lost."""
        self._channel.abort()
