"""The trash: keeps repositories for some days, in trash/<UTC time>-<id>/<name>.git.

Beside each, about.json has its name, id and time, and whether a user has deleted it ("deleted"). It is on
disk before the repository is moved there. As long as a deleted repository is here, the deletion is known: a
node that was away moves its own copy to its trash, too. Repositories that a mirror replaces are also here;
these were not deleted.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from stargate_gate.datadir.files import fsync_dir, read_json, remove_tree, write_json_durably
from stargate_gate.errors import NewerFormatError, UsageError
from stargate_gate.formats import TRASH
from stargate_gate.repos.names import SUFFIX, parse_repository_name
from stargate_gate.repos.repository import Repository, is_repository

log = structlog.get_logger()

ABOUT = "about.json"
_STAMP = "%Y%m%dT%H%M%S.%fZ"


def move_to_trash(
    trash: Path, repository: Repository, identity: str, now: datetime, *, deleted: bool
) -> Path:
    """Move the repository into the trash, durably; returns the new path.

    deleted  a user has deleted it, so every node removes it

    Raises:
        OSError: it was not moved.
    """
    entry = trash / f"{now.astimezone(UTC).strftime(_STAMP)}-{identity}"
    target = entry / f"{repository.name}{SUFFIX}"
    target.parent.mkdir(parents=True)
    about = {
        "name": str(repository.name),
        "id": identity,
        "deleted_at": now.astimezone(UTC).isoformat(),
        "deleted": deleted,
    }
    try:
        # Durable before the rename: a repository in the trash without it would not be known to be deleted,
        # and the leader would send it again.
        write_json_durably(entry / ABOUT, about, TRASH)
        for folder in _up_to(target.parent, trash):
            fsync_dir(folder)
        repository.path.rename(target)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(entry)
        raise
    fsync_dir(target.parent)
    fsync_dir(repository.path.parent)
    return target


def empty_trash(
    trash: Path, keep: timedelta, now: datetime, must_stay: Callable[[str], bool] = lambda _: False
) -> list[str]:
    """Delete from disk what is here for longer than `keep`; returns the names of the repositories.

    must_stay  called with a repository's id: whether it must be kept, whatever its age
    """
    removed = []
    for entry in sorted(trash.iterdir()):
        try:
            name, deleted_at = _about(entry)
            if now - deleted_at < keep or must_stay(_id(entry)):
                continue
            remove_tree(entry)
        except OSError as error:
            log.warning("trash_not_emptied", entry=entry.name, error=str(error))
            continue
        except NewerFormatError as error:
            log.warning("trash_not_emptied", entry=entry.name, error=error.message)
            continue
        log.info("repository_removed_from_trash", repository=name, deleted_at=deleted_at.isoformat())
        removed.append(name)
    return removed


def in_trash(trash: Path, identity: str) -> Repository | None:
    """The repository of that id in the trash; if there are several, the one that was moved here last.

    Raises:
        NewerFormatError: a newer version has put it there.
        OSError: the trash cannot be read.
    """
    for entry in sorted(trash.iterdir(), reverse=True):
        if _id(entry) != identity:
            continue
        with contextlib.suppress(ValueError, KeyError, UsageError):
            name = parse_repository_name(str((read_json(entry / ABOUT, TRASH) or {})["name"]))
            if is_repository(path := entry / f"{name}{SUFFIX}"):
                return Repository(name, path)
    return None


def was_deleted(trash: Path, identity: str) -> bool:
    """Whether a user has deleted the repository of that id, and it is still in the trash.

    Raises:
        OSError: the trash cannot be read.
    """
    return any(True for _ in _deletions(trash, identity))


def forget_deletion(trash: Path, identity: str) -> None:
    """The repository of that id exists again, because the leader does not know of its deletion.

    Raises:
        OSError: it may still count as deleted.
    """
    for entry, about in list(_deletions(trash, identity)):
        write_json_durably(entry / ABOUT, {**about, "deleted": False}, TRASH)


def _deletions(trash: Path, identity: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The entries of that id that a user has deleted and whose repository is still there.

    An entry that a newer version has written is left out, because this version cannot read it.
    """
    for entry in trash.iterdir():
        if _id(entry) != identity:
            continue
        with contextlib.suppress(ValueError, KeyError, UsageError, NewerFormatError):
            about = read_json(entry / ABOUT, TRASH) or {}
            name = parse_repository_name(str(about["name"]))
            if about.get("deleted") is True and is_repository(entry / f"{name}{SUFFIX}"):
                yield entry, about


def _id(entry: Path) -> str:
    """The id, from the end of the entry's name."""
    return entry.name.rpartition("-")[2]


def _about(entry: Path) -> tuple[str, datetime]:
    """Name and time. Without a readable about.json, the entry's own name and age.

    Raises NewerFormatError.
    """
    with contextlib.suppress(ValueError, KeyError, TypeError, NotADirectoryError):
        about = read_json(entry / ABOUT, TRASH)
        if about is not None:
            deleted_at = datetime.fromisoformat(about["deleted_at"])
            if deleted_at.tzinfo is not None:
                return str(about["name"]), deleted_at
    return entry.name, datetime.fromtimestamp(os.lstat(entry).st_mtime, UTC)


def _up_to(folder: Path, top: Path) -> list[Path]:
    """`folder` and its parents, up to and including `top`."""
    folders = [folder]
    while folders[-1] != top:
        folders.append(folders[-1].parent)
    return folders
