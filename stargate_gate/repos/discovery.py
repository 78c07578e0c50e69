"""Finding repositories below data_dir/repositories without leaving it. Stat calls only; links are refused."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from stargate_gate.errors import BrokenRepositoryError, UnavailableError, UsageError
from stargate_gate.repos.names import MAX_COMPONENTS, SUFFIX, RepositoryName, component_problem
from stargate_gate.repos.repository import (
    Repository,
    is_repository,
    is_there,
    looks_like_one,
    what_is_wrong,
)


def locate(root: Path, name: RepositoryName) -> Repository | None:
    """The repository of that name: org/app.git, else a bare repository in a folder org/app.

    Raises:
        UsageError: a folder on the way is a repository itself.
        UnavailableError: there is something of that name that must not be served, like a link.
        BrokenRepositoryError: there is a folder of that name that is no whole repository.
    """
    if not check_folders(root, name):
        return None
    for path in candidates(root, name):
        if path.is_symlink():
            raise UnavailableError(f"repository {name} is a link to another place, which is not served")
        problem = what_is_wrong(path)
        if problem is None:
            return Repository(name, path)
        if path.is_dir() and looks_like_one(path):
            raise BrokenRepositoryError(
                f"repository {name} cannot be served: {problem}; an operator has to repair or remove it"
            )
    return None


def candidates(root: Path, name: RepositoryName) -> tuple[Path, Path]:
    """Where a repository of that name can be, the first before the second."""
    return root / f"{name}{SUFFIX}", root / str(name)


def check_folders(root: Path, name: RepositoryName) -> bool:
    """Whether all folders on the way are there.

    Raises:
        UsageError: one is a file or a repository: nothing can be below it.
        UnavailableError: one is a link.
    """
    folder = root
    for component in name.components[:-1]:
        folder /= component
        try:
            mode = folder.lstat().st_mode
        except FileNotFoundError:
            return False
        if stat.S_ISLNK(mode):
            raise UnavailableError(
                f"folder {component!r} of {name} is a link to another place, which is not served"
            )
        if not stat.S_ISDIR(mode):
            raise UsageError(f"{component!r} of {name} is a file here, not a folder: choose another name")
        if is_there(folder / "HEAD") and is_repository(folder):
            raise UsageError(
                f"{component!r} of {name} is a repository, and holds no others: choose another name"
            )
    return True


def walk(root: Path, skipped: Callable[[str, str], None]) -> Iterator[Repository]:
    """Every repository below `root`. `skipped` is told what is passed over: relative path and reason."""
    yield from _walk(root, (), skipped)


def _walk(folder: Path, above: tuple[str, ...], skipped: Callable[[str, str], None]) -> Iterator[Repository]:
    entries = _entries(folder, above, skipped)
    names = {entry.name for entry in entries}
    for entry in entries:
        shown = "/".join((*above, entry.name))
        component = entry.name.removesuffix(SUFFIX)
        if entry.is_symlink():
            skipped(shown, "it is a link")
            continue
        if not entry.is_dir(follow_symlinks=False):
            continue
        problem = component_problem(component)
        if problem is not None:
            skipped(shown, problem)
            continue
        path = folder / entry.name
        wrong = what_is_wrong(path)
        if wrong is None:
            if entry.name == component and _has_repository(folder, component + SUFFIX, names):
                skipped(shown, f"{component + SUFFIX} stands beside it and has its name")
            else:
                yield Repository(RepositoryName("/".join((*above, component))), path)
        elif looks_like_one(path):
            skipped(shown, wrong)
        elif entry.name == component and len(above) + 1 < MAX_COMPONENTS:
            yield from _walk(path, (*above, component), skipped)


def _has_repository(folder: Path, name: str, names: set[str]) -> bool:
    return name in names and is_repository(folder / name)


def _entries(
    folder: Path, above: tuple[str, ...], skipped: Callable[[str, str], None]
) -> list["os.DirEntry[str]"]:
    """What is in `folder`, in order, without hidden files: temporary folders are hidden."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name
            )
    except (FileNotFoundError, NotADirectoryError):
        return []  # removed meanwhile
    except OSError as error:
        skipped("/".join(above), error.strerror or "it cannot be read")
        return []
