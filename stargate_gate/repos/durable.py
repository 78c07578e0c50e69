"""Durable means on disk: what git leaves to the operating system.

With core.fsync=all git syncs the content of every file before it renames it to its place; the
renames themselves it does not sync (seen with strace, 2.39.5). Those are in the folders.
"""

import asyncio
import contextlib
import errno
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.datadir.files import fsync_dir
from stargate_gate.datadir.filesystem import sync_file_system
from stargate_gate.repos.names import MAX_REF_BYTES

MAX_REMEMBERED = 10_000  # repositories; of one that was forgotten more is synced than has changed
CLOCK_TICK_NS = 20_000_000  # a folder's stamp may be that much older than what changed it
_INCOMING = re.compile("tmp_objdir-|incoming-")  # the quarantine of a push: git's own names


@dataclass(frozen=True)
class _Moment:
    """A time of the clock that stamps folders, and how far it was ahead of one that nobody can set."""

    wall_ns: int
    ahead_ns: int

    @classmethod
    def now(cls) -> "_Moment":
        wall_ns = time.time_ns()
        return cls(wall_ns, wall_ns - time.monotonic_ns())

    def as_of(self, now: "_Moment") -> int:
        """The same moment on the clock of `now`; 0 if that was set back, and stamps can be anything."""
        return self.wall_ns if now.ahead_ns >= self.ahead_ns - CLOCK_TICK_NS else 0


class FolderSyncs:
    """`sync_changed_folders`, of what has changed since it was done last; the first time, of everything.

    What an earlier process left unsynced may be acknowledged by this one ("everything up-to-date"). Who
    looks at many repositories before it changes any calls `settle` instead, and `changing` from then on.
    """

    def __init__(self) -> None:
        self._settled = False
        self._settled_at: _Moment | None = None
        self._synced_at: OrderedDict[tuple[Path, int], _Moment] = OrderedDict()  # by place and inode
        self._changing: set[Path] = set()

    def changing(self, path: Path) -> None:
        """The repository at `path` is written to, or was moved there; until `sync`, it may be not on disk.

        Whoever calls sees to it that one task at a time writes to a repository, and then calls `sync`.
        """
        self._changing.add(path)

    async def sync(self, path: Path) -> None:
        """Put on disk all that was complete in the repository at `path` before the call.

        Raises:
            OSError: not all is on disk; nothing may be acknowledged.
        """
        began = _Moment.now()
        key = (path, _inode(path))  # what has come to that place since was not synced there
        before = self._synced_at.get(key, self._settled_at)
        await asyncio.to_thread(sync_changed_folders, path, before.as_of(began) if before is not None else 0)
        self._changing.discard(path)
        self._synced_at[key] = began
        self._synced_at.move_to_end(key)
        if len(self._synced_at) > MAX_REMEMBERED:
            self._synced_at.popitem(last=False)

    async def settle(self, top: Path) -> None:
        """Put on disk whatever was written so far to the repositories below `top`, by whomever.

        Costs that the first time, and after `distrust`. Later only those are left whose `changing` had
        no `sync`, as when it was cancelled. Nothing is `changing` during the call.

        Raises:
            OSError: not all is on disk; nothing may count as being here.
        """
        if self._settled:
            for path in list(self._changing):
                await self.sync(path)
            return
        began = _Moment.now()
        await asyncio.to_thread(sync_everything, top)
        self._settled, self._settled_at = True, began
        self._changing.clear()
        self._synced_at.clear()

    def distrust(self) -> None:
        """Others, who do not tell of it by `changing`, write to the repositories from now on."""
        self._settled = False


def _inode(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0


def sync_everything(top: Path) -> None:
    """Put on disk the names in every folder below `top`. Blocks for the disk.

    One syncfs(2) where it reaches all: 0.3 ms on an idle ext4, whatever there is. Folder by folder it
    takes 5 ms for each clean repository of 37 folders, a minute for ten thousand.

    Raises:
        OSError: not all is on disk.
    """
    if sync_file_system(top):
        return
    for folder in _below(top):
        try:
            fsync_dir(folder)
        except OSError as error:  # removed meanwhile, or too deep for any ref
            if error.errno not in {errno.ENOENT, errno.ENAMETOOLONG}:
                raise


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
    """Bottom up: objects before the refs that name them.

    Below objects/ only its own folders: deeper ones hold no objects. A quarantine is not complete.
    """
    objects = path / "objects"
    with contextlib.suppress(FileNotFoundError), os.scandir(objects) as found:
        folders = [Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False)]
        yield from (folder for folder in folders if not _INCOMING.match(folder.name))
    yield objects
    yield from _below(path / "refs", MAX_REF_BYTES)
    yield path


def _below(top: Path, max_bytes: int | None = None) -> Iterator[Path]:
    """`top` and every folder below it, bottom up.

    max_bytes  of a path that begins with the name of `top`: what is deeper is left out. No ref is there,
               but folders can be, deeper than this process can name (see ref_stat.py)
    """
    longest = None if max_bytes is None else len(os.fsencode(top.parent)) + 1 + max_bytes
    found = [str(top)]
    for folder in found:  # grows meanwhile
        try:
            with os.scandir(folder) as entries:
                below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            # A folder that cannot be listed may hide some that are not on disk.
            if error.errno not in {errno.ENOENT, errno.ENAMETOOLONG}:
                raise
        else:
            found += [path for path in below if longest is None or len(os.fsencode(path)) <= longest]
    yield from map(Path, reversed(found))
