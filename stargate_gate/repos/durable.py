"""Durable means on disk: what git leaves to the operating system.

With core.fsync=all git syncs the content of every file before it renames it to its place; the
renames themselves it does not sync (seen with strace, 2.39.5). Those are in the folders.
"""

import asyncio
import contextlib
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

from stargate_gate.datadir.files import fsync_dir

MAX_REMEMBERED = 10_000  # repositories; one that was forgotten is synced as a whole
CLOCK_TICK_NS = 20_000_000  # a folder's stamp may be that much older than what changed it
_INCOMING = re.compile("tmp_objdir-|incoming-")  # the quarantine of a push: git's own names


class FolderSyncs:
    """`sync_changed_folders`, of what has changed since it was done last; the first time, of everything.

    What an earlier process left unsynced may be acknowledged by this one ("everything up-to-date").
    The same goes for everything when the clock was set back: what has changed since looks old.
    """

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock_ns = clock_ns
        self._steady_ns = steady_ns
        self._ahead_ns = clock_ns() - steady_ns()
        self._synced_ns: OrderedDict[Path, int] = OrderedDict()

    async def sync(self, path: Path) -> None:
        """Put on disk all that was complete in the repository at `path` before the call.

        Raises:
            OSError: not all is on disk; nothing may be acknowledged.
        """
        began_ns = self._clock_ns()
        self._see_whether_set_back(began_ns)
        await asyncio.to_thread(sync_changed_folders, path, self._synced_ns.get(path, 0))
        self._synced_ns[path] = began_ns
        self._synced_ns.move_to_end(path)
        if len(self._synced_ns) > MAX_REMEMBERED:
            self._synced_ns.popitem(last=False)

    def _see_whether_set_back(self, now_ns: int) -> None:
        ahead_ns = now_ns - self._steady_ns()
        if ahead_ns < self._ahead_ns - CLOCK_TICK_NS // 2:
            self._synced_ns.clear()
            self._ahead_ns = ahead_ns
        self._ahead_ns = max(self._ahead_ns, ahead_ns)


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
            info = Path(folder).stat()
            if max(info.st_mtime_ns, info.st_ctime_ns) >= since_ns - CLOCK_TICK_NS:
                fsync_dir(Path(folder))
                count += 1
    return count


def _folders(path: Path) -> Iterator[str]:
    """Bottom up: objects before the refs that name them.

    Below objects/ only its own folders: deeper ones hold no objects. A quarantine is not complete.
    """
    objects = f"{path}/objects"
    with contextlib.suppress(FileNotFoundError), os.scandir(objects) as found:
        folders = [entry for entry in found if entry.is_dir(follow_symlinks=False)]
        yield from (folder.path for folder in folders if not _INCOMING.match(folder.name))
    yield objects
    for folder, _, _ in os.walk(path / "refs", topdown=False):
        yield folder
    yield str(path)
