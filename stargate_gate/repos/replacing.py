"""A new copy of a repository, made beside the one that is there, and put in its place as a whole.

    repositories/.replace-<random>/about.json    whose place it takes: name and id
                                  /copy.git      the new copy; after the exchange the old one

Nothing goes to the trash before what replaces it is in its place: the two folders are exchanged by one
renameat2(2), so that at every moment a whole folder has the name. A crash before the exchange leaves a new
copy that nobody has seen, which is removed; a crash after it leaves the old one, which still goes to the
trash. A file in the folder of the new copy, which moves with it, tells the two apart (NEW).
"""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import structlog

from stargate_gate.datadir.files import fsync_dir, read_json, write_durably, write_json_durably
from stargate_gate.errors import UsageError
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.trash import move_to_trash

log = structlog.get_logger()

PREFIX = ".replace-"  # hidden: neither a walk nor a name finds it
COPY = "copy.git"
ABOUT = "about.json"
NEW = "stargate-new"

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_libc = ctypes.CDLL(None, use_errno=True)


def make_place(root: Path, name: RepositoryName, identity: str) -> Repository:
    """An empty folder for a new copy, marked as one. `identity`: of the copy that is there now. Durable.

    Raises:
        OSError: there is no room for it.
    """
    folder = root / f"{PREFIX}{secrets.token_hex(8)}"
    folder.mkdir()
    write_json_durably(folder / ABOUT, {"name": str(name), "id": identity})
    fsync_dir(root)
    (folder / COPY).mkdir()
    write_durably(folder / COPY / NEW, b"")
    return Repository(name, folder / COPY)


def put_in_place(copy: Repository, target: Path, trash: Path, now: datetime) -> None:
    """Exchange the new copy, complete and on disk, with what is at `target`; that goes to the trash.

    Nobody writes to either.

    Raises:
        OSError: before the exchange; all is as it was. What fails after it is done by the next start.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # of an earlier one, cut at its end
        (target / NEW).unlink()
        fsync_dir(target)
    try:
        _exchange(copy.path, target)
    except OSError as error:
        if error.errno not in _NO_EXCHANGE:
            raise
        _to_trash(copy.path.parent, trash, now, old=target)  # an old file system: two steps
        copy.path.rename(target)
    fsync_dir(copy.path.parent)
    fsync_dir(target.parent)
    try:
        finish_replacement(copy.path.parent, trash, now)
        (target / NEW).unlink()
        fsync_dir(target)
    except OSError as error:
        log.warning("old_copy_not_in_trash", repository=str(copy.name), error=str(error))


def finish_replacement(folder: Path, trash: Path, now: datetime) -> None:
    """Whatever a crash has left in that place: the new copy is removed, an old one goes to the trash.

    Raises:
        OSError: some of it is left.
    """
    if (folder / COPY).is_dir() and not (folder / COPY / NEW).exists():
        _to_trash(folder, trash, now, old=folder / COPY)
    shutil.rmtree(folder)


def finish_replacements(root: Path, trash: Path, now: datetime) -> None:
    """`finish_replacement` of all; for a starting node, while nobody writes. Problems are logged."""
    for folder in root.glob(f"{PREFIX}*"):
        try:
            finish_replacement(folder, trash, now)
        except OSError as error:
            log.warning("replacement_not_finished", path=str(folder), error=str(error))


def _to_trash(folder: Path, trash: Path, now: datetime, *, old: Path) -> None:
    name, identity = _about(folder)
    where = move_to_trash(trash, Repository(name, old), identity, now)
    log.warning("replaced_copy_to_trash", repository=str(name), path=str(where))


def _about(folder: Path) -> tuple[RepositoryName, str]:
    with contextlib.suppress(ValueError, KeyError, UsageError):
        about = read_json(folder / ABOUT) or {}
        return parse_repository_name(str(about["name"])), str(about["id"])
    return RepositoryName("unknown"), "unknown"


def _exchange(one: Path, other: Path) -> None:
    """One renameat2(2): each has the other's name afterwards, and no moment in between."""
    with _quiet():
        done = _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A C library without renameat2 (glibc before 2.28)."""
    try:
        yield
    except AttributeError as error:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from error
