"""Durable means on disk: what git leaves to the operating system.

With core.fsync=all git syncs the content of every file before it renames it to its place; the
renames themselves it does not sync (seen with strace, 2.39.5). Those are in the folders.
"""

import asyncio
import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from stargate_gate.datadir.files import fsync_dir

MAX_REMEMBERED = 10_000  # repositories; one that was forgotten is synced as a whole
CLOCK_TICK_NS = 20_000_000  # a folder's stamp may be that much older than what changed it


class FolderSyncs:
    """`sync_changed_folders`, of what has changed since it was done last; the first time, of everything.

    What an earlier process left unsynced may be acknowledged by this one ("everything up-to-date").
    """

    def __init__(self) -> None:
        self._synced_ns: OrderedDict[Path, int] = OrderedDict()

    async def sync(self, path: Path) -> None:
        """Put on disk all that was complete in the repository at `path` before the call.

        Raises:
            OSError: not all is on disk; nothing may be acknowledged.
        """
        began_ns = time.time_ns()
        await asyncio.to_thread(sync_changed_folders, path, self._synced_ns.get(path, 0))
        self._synced_ns[path] = began_ns
        self._synced_ns.move_to_end(path)
        if len(self._synced_ns) > MAX_REMEMBERED:
            self._synced_ns.popitem(last=False)


def sync_changed_folders(path: Path, since_ns: int) -> int:
    """Put on disk the names in every folder of the repository at `path` that changed since `since_ns`.

    `since_ns` is time.time_ns() from before the change began. Blocks for the disk: not for the event
    loop. Returns the number of folders.

    Raises:
        OSError: not all is on disk; nothing may be acknowledged.
    """
    count = 0
    for folder in _folders(path):
        with contextlib.suppress(FileNotFoundError):  # git removes folders that are empty
            info = folder.stat()
            if max(info.st_mtime_ns, info.st_ctime_ns) >= since_ns - CLOCK_TICK_NS:
                fsync_dir(folder)
                count += 1
    return count


def _folders(path: Path) -> Iterator[Path]:
    """Bottom up: objects before the refs that name them."""
    for part in ("objects", "refs"):
        for folder, _, _ in os.walk(path / part, topdown=False):
            yield Path(folder)
    yield path
