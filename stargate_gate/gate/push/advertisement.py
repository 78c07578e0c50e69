"""Git's advertisement (its list of refs), kept until it may be sent: what it shows counts as acknowledged.

It is everything up to the first flush-pkt, in protocols 0 and 1 (gitprotocol-pack(5); for a push git answers
a client that asks for protocol 2 with 0). All of it is kept here. To leave a part of it in git's pipe would
be wrong: git reads refs while it writes, so a later part could show newer values than those that were waited
for.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from stargate_gate.repos.pktline import HEADER_BYTES, packet_length

# Of one advertisement; a ref takes about 80 bytes. A longer one goes to an unnamed file, so that two hundred
# pushes to repositories with a million refs take space on disk and not in memory.
MEMORY_BYTES = 1024 * 1024
# Ten million refs.
MAX_ADVERTISEMENT_BYTES = 1024 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


class AdvertisementTooLongError(Exception):
    """More than MAX_ADVERTISEMENT_BYTES."""


class FlushFinder:
    """Finds the end of a list of pkt-lines in a stream that is cut anywhere. Pure."""

    def __init__(self) -> None:
        self._header = b""
        self._skip = 0  # bytes of the current packet that are still to come

    def feed(self, data: bytes) -> int | None:
        """How many bytes of `data` belong to the list, with its flush-pkt; None: all, and more follow.

        Raises:
            PktLineError: these are not pkt-lines.
        """
        at = 0
        while at < len(data):
            step = min(self._skip, len(data) - at)
            self._skip -= step
            at += step
            missing = data[at : at + HEADER_BYTES - len(self._header)]
            self._header += missing
            at += len(missing)
            if len(self._header) == HEADER_BYTES:
                length = packet_length(self._header)
                self._header = b""
                if length == 0:
                    return at
                self._skip = max(0, length - HEADER_BYTES)
        return None


class Advertisement:
    """One advertisement. `feed` it until it is complete, then read `chunks` once; `close` it in any case.

    folder        for the file of a long advertisement; all work on it is done in threads
    memory_bytes  a longer one goes to the file
    max_bytes     a longer one is refused
    """

    def __init__(
        self, folder: Path, *, memory_bytes: int = MEMORY_BYTES, max_bytes: int = MAX_ADVERTISEMENT_BYTES
    ) -> None:
        self._finder = FlushFinder()
        self._folder = folder
        self._memory_bytes = memory_bytes
        self._max_bytes = max_bytes
        self._kept: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._bytes = 0
        self.complete = False

    async def feed(self, data: bytes) -> bytes:
        """Keep the bytes that belong to it, and return the others.

        Raises:
            PktLineError: these are not pkt-lines.
            AdvertisementTooLongError
            OSError: it cannot be written to the file.
        """
        end = self._finder.feed(data)
        mine = data if end is None else data[:end]
        self._bytes += len(mine)
        if self._bytes > self._max_bytes:
            raise AdvertisementTooLongError
        self._kept.append(mine)
        if self._file is not None or self._bytes > self._memory_bytes:
            kept, self._kept = b"".join(self._kept), []
            if self._file is None:
                self._file = await asyncio.to_thread(_open, self._folder)
            await asyncio.to_thread(_write, self._file, kept, flush=end is not None)
        self.complete = end is not None
        return data[len(mine) :]

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes that were kept.

        Raises:
            OSError: the file cannot be read.
        """
        if self._file is None:
            for chunk in self._kept:
                yield chunk
            return
        await asyncio.to_thread(self._file.seek, 0)
        while chunk := await asyncio.to_thread(self._file.read, CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        """Free it. Can be called twice."""
        self._kept.clear()
        if self._file is not None:
            with contextlib.suppress(OSError):  # bytes that were not written are not needed any more
                self._file.close()


def _open(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)


def _write(file: IO[bytes], data: bytes, *, flush: bool) -> None:
    file.write(data)
    if flush:
        file.flush()
