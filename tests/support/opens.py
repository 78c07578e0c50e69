"""Who opens a file or a folder: counted by the kernel (inotify(7)), so that caches cannot hide it."""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

IN_OPEN = 0x20
_HEADER = struct.Struct("iIII")  # struct inotify_event without the name that follows
_BUFFER_BYTES = 1024 * 1024


class Opens:
    """Counts openings of the watched folders and of what lies directly in them."""

    def __init__(self, folders: Iterable[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, Path] = {}
        for folder in folders:
            watch = libc.inotify_add_watch(self._descriptor, os.fsencode(folder), IN_OPEN)
            if watch < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", str(folder))
            self._folders[watch] = folder

    def since_last_asked(self) -> list[Path]:
        """What was opened, in order; a folder itself, or something in it."""
        found: list[Path] = []
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, _BUFFER_BYTES):
                found += self._paths(data)
        return found

    def _paths(self, data: bytes) -> Iterator[Path]:
        place = 0
        while place < len(data):
            watch, _, _, length = _HEADER.unpack_from(data, place)
            place += _HEADER.size
            name = os.fsdecode(data[place : place + length].rstrip(b"\0"))
            place += length
            yield self._folders.get(watch, Path("overflow")) / name

    def close(self) -> None:
        """Watch no more."""
        os.close(self._descriptor)


@contextlib.contextmanager
def opens_of(folders: Iterable[Path]) -> Iterator[Opens]:
    """Watches that are gone afterwards."""
    opens = Opens(folders)
    try:
        yield opens
    finally:
        opens.close()
