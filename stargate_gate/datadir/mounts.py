"""Which file system a path is on, told from /proc/self/mountinfo; see proc_pid_mountinfo(5)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Mount:
    """One mounted file system; `options` are those of the super block."""

    point: str
    type: str
    options: frozenset[str]


def read_mountinfo() -> str | None:
    """What this process has mounted; None where that cannot be told: not Linux, or no /proc."""
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """The mount that an absolute path without symlinks is on; the last one wins where several match."""
    found: Mount | None = None
    for mount in _mounts(mountinfo):
        if not PurePosixPath(path).is_relative_to(mount.point):
            continue
        if found is None or len(mount.point) >= len(found.point):
            found = mount
    return found


def mounts_below(path: str, mountinfo: str) -> list[Mount]:
    """What is mounted somewhere below that absolute path without symlinks."""
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
