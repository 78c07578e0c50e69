"""Putting repositories under names: renames that are on disk when they are done. All of it blocks.

One rename is there or is not. Two repositories that change places do so in one step where the file system
can (RENAME_EXCHANGE of renameat2(2): ext4, xfs, btrfs, tmpfs, zfs 2.2), so that at any moment every
repository has a name. Elsewhere it takes three renames, by way of a name that a walk finds: a crash in
between leaves one repository under that odd name, with its id, and the next comparison with the leader
moves it on.
"""

import ctypes
import errno
import os
import secrets
from pathlib import Path

from stargate_gate.datadir.files import fsync_dir
from stargate_gate.errors import UnavailableError, UsageError
from stargate_gate.repos.discovery import candidates, check_folders
from stargate_gate.repos.names import SUFFIX, RepositoryName
from stargate_gate.repos.repository import is_there

MOVE_ATTEMPTS = 5  # an operator may remove an empty folder just when something is moved into it

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_HERE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}  # what file systems say that cannot


def move_in(root: Path, path: Path, name: RepositoryName) -> Path:
    """Rename the repository at `path` to its place under a name that is free, durably; returns the place.

    Nobody else of this node moves folders meanwhile.

    Raises:
        UsageError: something is there, or there can be nothing of that name.
        UnavailableError, OSError: it is where it was.
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
    """`move_in`, of a repository that has a name; empty folders above it go.

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
        OSError: each is where it was; or, where it takes three renames, one may have an odd name.
    """
    if not _exchange_at_once(one, other):
        aside = other.with_name(f"{other.name.removesuffix(SUFFIX)}.moving-{secrets.token_hex(4)}{SUFFIX}")
        other.rename(aside)
        one.rename(other)
        aside.rename(one)
    fsync_dir(one.parent)
    fsync_dir(other.parent)


def remove_empty_folders(root: Path, folder: Path) -> None:
    """Remove `folder` and those above it, as far as they are empty."""
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
    """What to say when the name is taken."""
    return UsageError(f"there is already something called {name}: choose another name, or delete it first")


def _exchange_at_once(one: Path, other: Path) -> bool:
    """False, and nothing done, where that cannot be."""
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
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), str(one))
