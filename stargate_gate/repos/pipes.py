"""The ends of a child's pipes as asyncio streams that say when they are really closed."""

import asyncio
from typing import IO

READ_LIMIT_BYTES = 128 * 1024  # a reader holds up to twice this before it stops taking from the pipe


class _PipeProtocol(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


class Pipe:
    """One end of a pipe; `close` is safe in any state and returns when the descriptor is closed."""

    def __init__(self, transport: asyncio.BaseTransport, protocol: _PipeProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    async def close(self) -> None:
        """Close it, dropping what was not written."""
        if isinstance(self._transport, asyncio.WriteTransport):
            # asyncio closes a second time if it is told so, and fails in that. Closing with something
            # left to write is the one state in which it would wait for the reader.
            if not self._transport.is_closing() or self._transport.get_write_buffer_size():
                self._transport.abort()
        else:
            self._transport.close()
        await self._protocol.lost.wait()


async def open_reader(pipe: IO[bytes]) -> tuple[Pipe, asyncio.StreamReader]:
    """Read from `pipe`, which belongs to the stream from now on."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES, loop=loop)
    transport, protocol = await loop.connect_read_pipe(lambda: _PipeProtocol(reader), pipe)
    return Pipe(transport, protocol), reader


async def open_writer(pipe: IO[bytes]) -> tuple[Pipe, asyncio.StreamWriter]:
    """Write to `pipe`, which belongs to the stream from now on."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    transport, protocol = await loop.connect_write_pipe(lambda: _PipeProtocol(reader), pipe)
    return Pipe(transport, protocol), asyncio.StreamWriter(transport, protocol, None, loop)
