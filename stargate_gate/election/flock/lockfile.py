"""Opens, reads and checks the lock file; describes what is wrong with it.

Everything here blocks, and may hang when the shared volume does: engine.py runs it in its worker.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from stargate_gate.datadir.filesystem import mount_of, read_mountinfo
from stargate_gate.datadir.users import user
from stargate_gate.election.flock.mounts import objection
from stargate_gate.election.flock.slots import STAMP_OFFSET, Slots, decode, in_force, newest_format
from stargate_gate.election.port import ClusterRecord
from stargate_gate.errors import ElectionUnavailableError, newer_format
from stargate_gate.formats import CLUSTER_RECORD

FileId = tuple[int, int]  # device, inode


@contextlib.contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """The file's descriptor, close-on-exec, never created; closed on leaving.

    Raises:
        ElectionUnavailableError: it cannot be opened, with what to do about it.
    """
    fd = open_existing(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def open_existing(path: Path, flags: int) -> int:
    """As `opened`, for a caller that closes."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise unavailable(path, error) from error


def file_id(fd: int) -> FileId:
    """Which file this is, whatever its name."""
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def read_slots(path: Path, fd: int) -> Slots:
    """All slots of the lock file at `path`, by one pread.

    Raises:
        OSError: they cannot be read.
        ElectionUnavailableError: a newer version has written one, perhaps with a larger term: nothing here
            may be believed, and nothing may be written.
    """
    content = os.pread(fd, STAMP_OFFSET, 0)
    if (found := newest_format(content)) > CLUSTER_RECORD.number:
        place = f"the leader lock {path}"
        raise ElectionUnavailableError(newer_format(place, found, CLUSTER_RECORD.number))
    return decode(content)


def write_all(fd: int, content: bytes, offset: int) -> None:
    """pwrite(2) until all of it is written. Raises OSError."""
    view = memoryview(content)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def record_of(path: Path, slots: Slots) -> ClusterRecord:
    """The record in force.

    Raises:
        ElectionUnavailableError: there is none.
    """
    record = in_force(slots)
    if record is not None:
        return record
    if slots.empty:
        raise ElectionUnavailableError(
            f"the leader lock {path} is empty: it was truncated, or this is another file; put the newest "
            f"copy back (see the runbook: lost lock volume)"
        )
    raise ElectionUnavailableError(
        f"the leader lock {path} holds no whole cluster record: it is damaged, or it is another file; put "
        f"the newest copy back (see the runbook: lost lock volume)"
    )


def check_mount(path: Path) -> None:
    """The file system under `path` keeps locks between machines, as far as is known.

    Raises:
        ElectionUnavailableError: it is known not to.
    """
    mountinfo = read_mountinfo()
    if mountinfo is None:
        return
    mount = mount_of(os.path.realpath(path), mountinfo)
    if mount is not None and (reason := objection(mount)) is not None:
        raise ElectionUnavailableError(
            f"the leader lock {path} is on a file system that cannot keep it: {reason}"
        )


def unavailable(path: Path, error: OSError) -> ElectionUnavailableError:
    """What went wrong with the lock file, and what to do about it."""
    if error.errno == errno.ENOENT:
        where = (
            "its directory is missing"
            if not path.parent.is_dir()
            else "its directory is there, the file is not"
        )
        remedy = (
            f"{where}: mount the shared volume; if the file was deleted, put the newest copy back; only for "
            f"a new cluster, run `stargate bootstrap` once"
        )
        return ElectionUnavailableError(f"the leader lock {path} does not exist: {remedy}")
    remedies = {
        errno.EROFS: "mount the shared volume writable",
        errno.ENOSPC: "make room on the shared volume",
        errno.EDQUOT: "raise the quota on the shared volume",
        errno.EISDIR: "correct election.flock.path",
        errno.ENOTDIR: "correct election.flock.path",
        errno.ESTALE: "mount the shared volume again",
        errno.EIO: "check the shared volume and its server",
        errno.ENOLCK: "start the lock service of the shared volume's server",
    }
    remedy = (
        _let_in(path)
        if error.errno in {errno.EACCES, errno.EPERM}
        else remedies.get(error.errno or 0, "check the shared volume")
    )
    return ElectionUnavailableError(f"the leader lock {path} cannot be used ({error.strerror}): {remedy}")


def _let_in(path: Path) -> str:
    """Who may use the file or its folder, and who wants to."""
    for one in (path, path.parent):
        with contextlib.suppress(OSError):
            owner = one.stat().st_uid
            if owner != os.geteuid():
                return f"{one} belongs to {user(owner)}, and this is {user()}: run stargate as the owner"
    return f"let {user()}, as who stargate runs, read and write it"
