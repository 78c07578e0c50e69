"""Moving repositories' folders: made where nobody finds them, then renamed into place as a whole.

    repositories/.new-<id>/app.git       hidden: no search and no name finds it
    repositories/.new-<id>/ready.json    written when it is complete: its name; durable

A mirror fetches a repository there before it moves away what has the name now. A node that was killed between
the two puts a complete repository into its place when it starts again (`recover`), and removes any other.

Renames are on disk when a function returns. One rename is done or not done, never half. Two repositories
change places in one step where the file system can do that (RENAME_EXCHANGE of renameat2(2): ext4, xfs,
btrfs, tmpfs, zfs 2.2), so that each has a name at any moment. Other file systems need three renames and a
temporary name that a search finds: a crash in between leaves one repository under that name, with its id, and
the next comparison with the leader gives it the right one.

All of it blocks for the disk.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from stargate_gate.datadir.files import fsync_dir, read_json, write_json_durably
from stargate_gate.errors import StargateError, UnavailableError, UsageError
from stargate_gate.formats import READY as READY_FORMAT
from stargate_gate.repos.names import SUFFIX, RepositoryName, parse_repository_name
from stargate_gate.repos.repository import (
    candidates,
    check_folders,
    find_all,
    is_repository,
    is_there,
    locate,
    read_id,
    readable_id,
)

NEW_PREFIX = ".new-"
READY = "ready.json"
MOVE_ATTEMPTS = 5  # an operator may remove an empty folder while a repository is moved into it

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# How file systems say that they cannot exchange.
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}


# -- made out of sight ---------------------------------------------------------------------------------


def place_beside(root: Path, identity: str, name: RepositoryName) -> Path:
    """Where to make the repository of that id. What an earlier attempt left stays if it has the same path.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = root / f"{NEW_PREFIX}{identity}"
    path = folder / f"{name.components[-1]}{SUFFIX}"
    folder.mkdir(mode=0o750, exist_ok=True)
    for other in folder.iterdir():
        if other != path and other.is_dir():
            shutil.rmtree(other)
    (folder / READY).unlink(missing_ok=True)
    return path


def mark_complete(path: Path, name: RepositoryName) -> None:
    """Note durably that the repository at `path` is complete and waits only for its place.

    Raises:
        OSError: it may or may not be noted; without the note, `recover` removes the repository.
    """
    fsync_dir(path)
    write_json_durably(path.parent / READY, {"name": str(name)}, READY_FORMAT)
    fsync_dir(path.parent.parent)


def remove_beside(folder: Path) -> None:
    """Remove what is left in a folder where a repository was made."""
    shutil.rmtree(folder, ignore_errors=True)


def recover(root: Path, folder: Path) -> RepositoryName | None:
    """A starting node calls this for each `folder` where a repository was made; empties it.

    Returns the name if a complete repository was put into its place. It is not if another one has its id or
    its name: then the node was killed before the old one was moved away, and the fetch starts again.

    Raises:
        NewerFormatError: a newer version has written its ready.json; nothing was changed.
    """
    ready = _read_ready(folder)
    placed = None
    with contextlib.suppress(OSError, StargateError, ValueError, KeyError):
        name = parse_repository_name(str(ready["name"]))
        path = next(one for one in folder.iterdir() if one.name.endswith(SUFFIX))
        identity = read_id(path)
        if is_repository(path) and identity is not None and not _is_taken(root, name, identity):
            move_in(root, path, name)
            placed = name
    remove_beside(folder)
    return placed


def _read_ready(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return read_json(folder / READY, READY_FORMAT) or {}
    return {}


def _is_taken(root: Path, name: RepositoryName, identity: str) -> bool:
    if locate(root, name) is not None:
        return True
    for repository in find_all(root, lambda _path, _reason: None):
        if readable_id(repository.path) == identity:
            return True
    return False


# -- renamed into place --------------------------------------------------------------------------------


def move_in(root: Path, path: Path, name: RepositoryName) -> Path:
    """Rename the repository at `path` to its place under a free name, durably; returns the new path.

    The caller makes sure that no other task of this node moves folders meanwhile.

    Raises:
        UsageError: the name is taken, or nothing can have that name.
        UnavailableError, OSError: it was not moved.
    """
    target = candidates(root, name)[0]
    for _ in range(MOVE_ATTEMPTS):
        try:
            check_folders(root, name)
            for folder in reversed([folder for folder in above(root, target) if not is_there(folder)]):
                folder.mkdir()
                fsync_dir(folder.parent)
            path.rename(target)
        except FileNotFoundError:
            if not is_there(path):
                raise
            continue
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise exists(name) from error
            raise
        fsync_dir(target.parent)
        return target
    raise UnavailableError(f"the folders of {name} vanish while it is made: try again")


def move(root: Path, path: Path, name: RepositoryName) -> Path:
    """As `move_in`, for a repository that has a name already. Empty folders above its old place are removed.

    Raises:
        UsageError, UnavailableError, OSError: as `move_in`.
    """
    target = move_in(root, path, name)
    fsync_dir(path.parent)
    remove_empty_folders(root, path.parent)
    return target


def exchange(one: Path, other: Path) -> None:
    """Let two folders change places, durably.

    Raises:
        OSError: neither was moved; or, where three renames are needed, one may have a temporary name.
    """
    if not _exchange_at_once(one, other):
        aside = other.with_name(f"{other.name.removesuffix(SUFFIX)}.moving-{secrets.token_hex(4)}{SUFFIX}")
        other.rename(aside)
        one.rename(other)
        aside.rename(one)
    fsync_dir(one.parent)
    fsync_dir(other.parent)


def remove_empty_folders(root: Path, folder: Path) -> None:
    """Remove `folder` and the folders above it, up to the first that is not empty; never `root`."""
    for empty in (folder, *above(root, folder)):
        if empty == root:
            return
        try:
            empty.rmdir()
        except OSError:
            return  # not empty
        fsync_dir(empty.parent)


def above(root: Path, path: Path) -> list[Path]:
    """The folders between `root` and `path`, the nearest to `path` first."""
    return [folder for folder in path.parents if folder != root and folder.is_relative_to(root)]


def exists(name: RepositoryName) -> UsageError:
    """The error for a name that is taken."""
    return UsageError(f"there is already something called {name}: choose another name, or delete it first")


def _exchange_at_once(one: Path, other: Path) -> bool:
    """Whether it was done; False, and nothing changed, where the system or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    status = renameat2(
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(one)),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(other)),
        ctypes.c_uint(_RENAME_EXCHANGE),
    )
    if status == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one))
