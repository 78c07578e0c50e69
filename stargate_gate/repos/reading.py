"""Reading the small files of a repository: whatever stands in their place, nobody waits for it.

A repository may come from anywhere, and whoever may write below data_dir can replace a file by a FIFO (an
open of it waits for a writer, for ever), a device, or a link to a file outside. Every file of a
repository that this node itself reads is read here.
"""

import errno
import os
import stat
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CHUNK_BYTES = 64 * 1024


def open_file(path: Path | bytes | str) -> int:
    """A descriptor of the regular file at `path`, which the caller closes.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is a link, a FIFO, a device or whatever else is no file (EINVAL), or cannot be read.
    """
    # First by its name: opening a device or a FIFO can do something by itself.
    _require_file(os.lstat(path), path)
    fd = os.open(path, _FLAGS)
    try:
        _require_file(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def reason_of(error: OSError) -> str:
    """What went wrong, for the middle of a sentence, without the path."""
    reason = error.strerror or str(error)
    return reason if reason[1:2].isupper() else reason[:1].lower() + reason[1:]


def read_file(path: Path | bytes | str, max_bytes: int) -> bytes:
    """The content of the regular file at `path`, up to `max_bytes` of it.

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


def kind_of(mode: int) -> str:
    """What has that st_mode, for people: "a file", "a folder", "a link" and so on."""
    return next((word for is_kind, word in _KINDS if is_kind(mode)), "of an unknown kind")


_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _require_file(info: os.stat_result, path: Path | bytes | str) -> None:
    if not stat.S_ISREG(info.st_mode):
        name = Path(os.fsdecode(path)).name
        raise OSError(errno.EINVAL, f"{name} is {kind_of(info.st_mode)}, not a file", os.fsdecode(path))
