"""Puts on disk what git does not: the names in folders.

With core.fsync=all, git syncs the content of every file before it renames the file to its place. It does not
sync the rename itself (seen with strace, git 2.39.5). For that, the folder has to be synced, which is done
here before a push is acknowledged.
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

MAX_REMEMBERED = 10_000  # repositories; for one that was forgotten, more is synced than needed
CLOCK_TICK_NS = 20_000_000  # a folder's time stamp may be this much older than its last change
_INCOMING = re.compile("tmp_objdir-|incoming-")  # the quarantine of a push: git's own names


@dataclass(frozen=True)
class _Moment:
    """A time of the clock that gives folders their time stamps, and its lead over the monotonic clock."""

    wall_ns: int
    ahead_ns: int

    @classmethod
    def now(cls) -> "_Moment":
        wall_ns = time.time_ns()
        return cls(wall_ns, wall_ns - time.monotonic_ns())

    # Folders have time stamps of the wall clock, which can be set back. Then a folder that changes now seems
    # to be older than the last sync, and would be left out. The monotonic clock shows such a step: the wall
    # clock's lead over it has become smaller.
    def as_of(self, now: "_Moment") -> int:
        """This moment in nanoseconds; 0 if the clock was set back since: then time stamps say nothing."""
        return self.wall_ns if now.ahead_ns >= self.ahead_ns - CLOCK_TICK_NS else 0


class FolderSyncs:
    """Syncs the folders of repositories that have changed since the last sync; the first time, all of them.

    The first time counts because this process may acknowledge what an earlier process left unsynced
    ("everything up-to-date"). A caller that compares many repositories before it changes any (a standby)
    calls `settle` once instead, and `changing` before each change from then on.
    """

    def __init__(self) -> None:
        self._settled = False
        self._settled_at: _Moment | None = None
        self._synced_at: OrderedDict[tuple[Path, int], _Moment] = OrderedDict()  # by place and inode
        self._changing: set[Path] = set()

    def changing(self, path: Path) -> None:
        """Call before the repository at `path` is written to, or after it was moved there; then call `sync`.

        Only one task at a time may do this for one repository.
        """
        self._changing.add(path)

    async def sync(self, path: Path) -> None:
        """Put on disk every change of the repository at `path` that was complete before the call.

        Raises:
            OSError: not all is on disk; nothing may be acknowledged.
        """
        began = _Moment.now()  # before the sync: what changes during it is synced the next time
        key = (path, _inode(path))  # a folder that was moved there since has another inode
        before = self._synced_at.get(key, self._settled_at)
        await asyncio.to_thread(sync_changed_folders, path, before.as_of(began) if before is not None else 0)
        self._changing.discard(path)
        self._synced_at[key] = began
        self._synced_at.move_to_end(key)
        if len(self._synced_at) > MAX_REMEMBERED:
            self._synced_at.popitem(last=False)

    async def settle(self, top: Path) -> None:
        """Put on disk everything that any process has written so far to the repositories below `top`.

        The first call, and the first one after `distrust`, does that for all of them. Later calls do it only
        for those with a `changing` but no `sync`, for example because of a cancellation. No repository may be
        between `changing` and `sync` during the call.

        Raises:
            OSError: not everything is on disk, so nothing may be confirmed.
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
        """From now on, others write to the repositories without calling `changing`."""
        self._settled = False


def _inode(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0


def sync_everything(top: Path) -> None:
    """Put on disk the names in every folder below `top`. Blocks for the disk.

    One syncfs(2) where that reaches everything: 0.3 ms on an idle ext4, whatever there is. One folder at a
    time takes 5 ms for each clean repository of 37 folders: a minute for ten thousand.

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

    `since_ns` is time.time_ns() from before the change began. Blocks for the disk: call it in a thread.
    Returns the number of synced folders.

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


def newest_change_ns(path: Path) -> int:
    """When a file of the repository at `path` last came to its place; 0 if it is gone. Blocks for the disk.

    git renames every file to its place, which changes the time of the folder.
    """
    newest = 0
    with contextlib.suppress(OSError):
        for folder in _folders(path):
            with contextlib.suppress(FileNotFoundError):
                newest = max(newest, folder.stat().st_mtime_ns)
    return newest


def _folders(path: Path) -> Iterator[Path]:
    """The folders to sync, bottom up: objects before the refs that name them.

    Below objects/ only its own folders, because deeper ones contain no objects. Quarantine folders of running
    pushes are left out.
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

    max_bytes  of a path relative to the parent of `top`; longer ones are left out. No ref can be there, but
               folders can, deeper than this process can name (see ref_files.py)
    """
    longest = None if max_bytes is None else len(os.fsencode(top.parent)) + 1 + max_bytes
    found = [str(top)]
    for folder in found:  # the list grows in the loop
        try:
            with os.scandir(folder) as entries:
                below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            # A folder that cannot be listed may contain folders that are not on disk.
            if error.errno not in {errno.ENOENT, errno.ENAMETOOLONG}:
                raise
        else:
            found += [path for path in below if longest is None or len(os.fsencode(path)) <= longest]
    yield from map(Path, reversed(found))
