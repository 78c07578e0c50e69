"""Git's advertisement, kept until it may be sent: what it shows counts as acknowledged.

Everything up to the first flush-pkt, in protocol 0 and in 1 (gitprotocol-pack(5); for pushes git answers
a client that asks for protocol 2 with 0). It has to be kept whole, and not just held back in git's pipe:
git reads refs while it writes, so what it would write later could be newer than what was waited for.
"""

import tempfile
from collections.abc import Iterator

from stargate_gate.repos.pktline import HEADER_BYTES, packet_length

# Of one advertisement; a ref takes about 80 bytes. The rest goes to an unnamed file in TMPDIR, so that
# two hundred pushes to repositories with a million refs cost the disk and not the memory.
MEMORY_BYTES = 1024 * 1024
# Ten million refs. Whatever is beyond it is no advertisement.
MAX_ADVERTISEMENT_BYTES = 1024 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


class AdvertisementTooLongError(Exception):
    """More than MAX_ADVERTISEMENT_BYTES."""


class FlushFinder:
    """Finds the end of a list of pkt-lines, however the bytes arrive. Pure."""

    def __init__(self) -> None:
        self._header = b""
        self._skip = 0  # bytes of the current packet that are still to come

    def feed(self, data: bytes) -> int | None:
        """How many bytes of `data` belong to the list, its flush-pkt included; None: all, and more to come.

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
    """One of them. `feed` until it is complete, then `chunks`, once; `close` in any case.

    `max_bytes` is a limit and `memory_bytes` a threshold, see the constants. Raises OSError when there
    is no room for the file.
    """

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES, max_bytes: int = MAX_ADVERTISEMENT_BYTES) -> None:
        self._finder = FlushFinder()
        self._kept = tempfile.SpooledTemporaryFile(max_size=memory_bytes)  # noqa: SIM115 - see `close`
        self._max_bytes = max_bytes
        self._bytes = 0
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        """Keep what belongs to it; what does not is returned.

        Raises:
            PktLineError: these are not pkt-lines.
            AdvertisementTooLongError
            OSError: it cannot be kept.
        """
        end = self._finder.feed(data)
        mine = data if end is None else data[:end]
        self._bytes += len(mine)
        if self._bytes > self._max_bytes:
            raise AdvertisementTooLongError
        self._kept.write(mine)
        self.complete = end is not None
        return data[len(mine) :]

    def chunks(self) -> Iterator[bytes]:
        """What was kept."""
        self._kept.seek(0)
        while chunk := self._kept.read(CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        """Forget it. Can be repeated."""
        self._kept.close()
