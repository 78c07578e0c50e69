"""Which copies are on this node's disk, also those that are not complete any more. Blocks for the disk."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from stargate_gate.errors import NoSuchRepositoryError
from stargate_gate.repos.durable import newest_change_ns
from stargate_gate.repos.names import SUFFIX, RepositoryName
from stargate_gate.repos.repository import (
    Repository,
    candidates,
    find_all,
    is_remains,
    is_repository,
    readable_id,
)
from stargate_gate.scrub.schedule import Copy

WITHOUT_ID = "name:"


def find_copies(root: Path) -> dict[str, tuple[Copy, Repository]]:
    """All copies below `root`, by key. Of two folders with one id, the second has its name as key."""
    found: dict[str, tuple[Copy, Repository]] = {}
    for repository in sorted(_all(root), key=lambda one: str(one.name)):
        with contextlib.suppress(OSError):  # removed meanwhile
            copy = copy_of(repository.path, str(repository.name))
            if copy.key in found:
                copy = Copy(WITHOUT_ID + copy.name, copy.name, copy.folder)
            found[copy.key] = copy, repository
    return found


def find_copy(root: Path, name: RepositoryName) -> tuple[Copy, Repository]:
    """The copy of that name.

    Raises:
        NoSuchRepositoryError: there is none.
        OSError: it cannot be looked at.
    """
    for path in candidates(root, name):
        if not path.is_symlink() and (is_repository(path) or is_remains(path)):
            return copy_of(path, str(name)), Repository(name, path)
    raise NoSuchRepositoryError(f"no repository {name} on this node")


def copy_of(path: Path, name: str) -> Copy:
    """The copy in the folder at `path`.

    Raises:
        OSError: there is no such folder.
    """
    folder = path.lstat().st_ino
    return Copy(readable_id(path) or WITHOUT_ID + name, name, folder)


def changed_since(root: Path, since: float) -> list[tuple[str, str]]:
    """Key and name of copies written to after `since` (seconds since 1970), the newest first."""
    changed = []
    for copy, repository in find_copies(root).values():
        if (when_ns := newest_change_ns(repository.path)) >= since * 1e9:
            changed.append((when_ns, copy))
    changed.sort(key=lambda one: -one[0])
    return [(copy.key, copy.name) for _, copy in changed]


def _all(root: Path) -> Iterator[Repository]:
    skipped: list[str] = []
    yield from find_all(root, lambda path, _reason: skipped.append(path))
    for shown in skipped:
        path = root / shown
        with contextlib.suppress(OSError, ValueError):
            if is_remains(path):
                yield Repository(RepositoryName(shown.removesuffix(SUFFIX)), path)
