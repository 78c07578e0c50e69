"""Reading files that somebody else may have put there: never waits for a FIFO or a device.

Opening a FIFO waits until somebody writes to it, opening a device may already do something, and a file on a
network volume may take very long. A repository may come from anywhere, and a user who may write
below data_dir can replace a file by a link to another place. So every file that a running node reads and did
not write itself is read by these functions:

    read_file             a file inside a repository: a link is refused
    read_regular          a file that the configuration names: links are followed

Both block for the disk: call them in a thread, and with a time limit where the file may be on a network
volume.
"""

import errno
import os
import stat
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CHUNK_BYTES = 64 * 1024
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def kind_of(mode: int) -> str:
    """What has this st_mode, for messages: "a file", "a directory", "a link" and so on."""
    return next((word for is_kind, word in _KINDS if is_kind(mode)), "of an unknown kind")


def reason_of(error: OSError) -> str:
    """What went wrong, as part of a sentence, without the path."""
    reason = error.strerror or str(error)
    return reason if reason[1:2].isupper() else reason[:1].lower() + reason[1:]


def open_file(path: Path | bytes | str) -> int:
    """A descriptor of the regular file at `path`, which the caller closes. A link is refused.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it is a link, a FIFO, a device or anything else but a file (EINVAL), or cannot be read.
    """
    _require_file(os.lstat(path), path)  # before opening: opening a device or a FIFO may do something
    fd = os.open(path, _FLAGS | os.O_NOFOLLOW)
    try:
        _require_file(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_file(path: Path | bytes | str, max_bytes: int) -> bytes:
    """The first `max_bytes` of the regular file at `path`. A link is refused.

    Raises:
        OSError: as `open_file`.
    """
    fd = open_file(path)
    try:
        parts, left = [], max_bytes
        while left and (part := os.read(fd, min(left, _CHUNK_BYTES))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def _require_file(info: os.stat_result, path: Path | bytes | str) -> None:
    if not stat.S_ISREG(info.st_mode):
        name = Path(os.fsdecode(path)).name
        raise OSError(errno.EINVAL, f"{name} is {kind_of(info.st_mode)}, not a file", os.fsdecode(path))


def read_regular(path: Path, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """The content of the regular file at `path`, links followed, and its status from before it was read.

    Raises:
        OSError: it cannot be read, is no regular file (EINVAL) or is larger than `max_bytes` (EFBIG);
            `strerror` says so.
    """
    _require_regular(path, path.stat())  # before opening: opening a device may do something
    fd = os.open(path, _FLAGS)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        _require_regular(path, info)
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes} bytes", str(path))
    return content, info


def _require_regular(path: Path, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise OSError(errno.EINVAL, f"it is {kind_of(info.st_mode)}, not a regular file", str(path))
