"""A whole file system on disk by one call, where that call reaches everything; see syncfs(2)."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from stargate_gate.datadir.mounts import mount_of, mounts_below, read_mountinfo

FUSE = "fuse"  # the kernel hands syncfs on to few file systems of user space, and fsync to all


def sync_file_system(top: Path) -> bool:
    """Put everything below the folder `top` on disk; False, and nothing done, where syncfs(2) cannot.

    That is elsewhere than on Linux, on FUSE, and where another file system is mounted below `top`.
    Blocks for the disk: not for the event loop.

    Raises:
        OSError: not all is on disk.
    """
    syncfs = _syncfs()
    if syncfs is None or not _reaches_all(top):
        return False
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(top))
    finally:
        os.close(fd)
    return True


def _syncfs() -> Callable[[int], int] | None:
    """The C library's; Python has none of its own."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is None:
        return None
    function.argtypes, function.restype = [ctypes.c_int], ctypes.c_int

    def call(fd: int) -> int:
        status: int = function(fd)
        return status

    return call


def _reaches_all(top: Path) -> bool:
    path, mountinfo = os.path.realpath(top), read_mountinfo()
    if mountinfo is None or mounts_below(path, mountinfo):
        return False
    mount = mount_of(path, mountinfo)
    return mount is not None and not mount.type.startswith(FUSE)
