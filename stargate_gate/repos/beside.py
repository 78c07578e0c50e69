"""Repositories that are made beside the others, and come to their place as a whole.

    repositories/.new-<id>/app.git       hidden: neither a walk nor a name finds it
    repositories/.new-<id>/ready.json    it is complete, and this is its name; durable

A mirror fetches a repository there before whatever has its name goes. A node that was killed between the
two puts a complete one into its place at its start, and removes any other. All of it blocks.
"""

import contextlib
import os
import shutil
from pathlib import Path

from stargate_gate.datadir.files import fsync_dir, read_json, write_json_durably
from stargate_gate.errors import StargateError
from stargate_gate.repos.discovery import locate, walk
from stargate_gate.repos.names import SUFFIX, RepositoryName, parse_repository_name
from stargate_gate.repos.placing import move_in
from stargate_gate.repos.repository import is_repository, read_id

NEW_PREFIX = ".new-"
READY = "ready.json"


def place_beside(root: Path, identity: str, name: RepositoryName) -> Path:
    """Where to make the repository of that id. Of an earlier try, only what has the same place stays.

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
    """The repository at `path` lacks nothing but its place: durably.

    Raises:
        OSError: perhaps it counts as half-made.
    """
    fsync_dir(path)
    write_json_durably(path.parent / READY, {"name": str(name)})
    fsync_dir(path.parent.parent)


def remove_beside(folder: Path) -> None:
    """Remove what is left where a repository was made."""
    shutil.rmtree(folder, ignore_errors=True)


def recover(root: Path, folder: Path) -> RepositoryName | None:
    """What a starting node does with `folder`: its name, if a complete repository was put into its place.

    Not if there is one of that id or that name: then what was to go before it has not gone.
    """
    placed = None
    with contextlib.suppress(OSError, StargateError, ValueError, KeyError):
        name = parse_repository_name(str((read_json(folder / READY) or {})["name"]))
        path = next(folder / found for found in os.listdir(folder) if found.endswith(SUFFIX))  # noqa: PTH208
        identity = read_id(path)
        if is_repository(path) and identity is not None and not _is_there(root, name, identity):
            move_in(root, path, name)
            placed = name
    remove_beside(folder)
    return placed


def _is_there(root: Path, name: RepositoryName, identity: str) -> bool:
    if locate(root, name) is not None:
        return True
    for repository in walk(root, lambda _path, _reason: None):
        with contextlib.suppress(OSError):
            if read_id(repository.path) == identity:
                return True
    return False
