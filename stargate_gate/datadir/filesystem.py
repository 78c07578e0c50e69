"""Which file system a path is on (proc_pid_mountinfo(5)), and writing a whole one to disk (syncfs(2))."""

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FUSE = "fuse"  # the kernel passes fsync on to every file system in user space, but syncfs only to few


@dataclass(frozen=True)
class Mount:
    """One mounted file system. `options` are those of the super block."""

    point: str
    type: str
    options: frozenset[str]


def read_mountinfo() -> str | None:
    """The mounts that this process sees; None if the system does not say: not Linux, or no /proc."""
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """The mount of an absolute path without symlinks. If several match, the last one counts."""
    found: Mount | None = None
    for mount in _mounts(mountinfo):
        if not PurePosixPath(path).is_relative_to(mount.point):
            continue
        if found is None or len(mount.point) >= len(found.point):
            found = mount
    return found


def mounts_below(path: str, mountinfo: str) -> list[Mount]:
    """The mounts somewhere below an absolute path without symlinks."""
    top = PurePosixPath(path)
    return [mount for mount in _mounts(mountinfo) if top in PurePosixPath(mount.point).parents]


def _mounts(mountinfo: str) -> Iterator[Mount]:
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        try:
            _id, _parent, _device, _root, point, *_ = left.split(" ")
            kind, _source, options = right.split(" ")
        except ValueError:
            continue
        if separator:
            yield Mount(_unescape(point), kind, frozenset(options.split(",")))


def _unescape(field: str) -> str:
    for escaped, plain in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        field = field.replace(escaped, plain)
    return field


def sync_file_system(top: Path) -> bool:
    """Write everything below the folder `top` to disk. Returns whether that was possible.

    False, and nothing was done, on systems other than Linux, on FUSE, and where another file system is
    mounted below `top`. Blocks for the disk: call it in a thread.

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
    """The C library's syncfs; Python has no function for it."""
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
