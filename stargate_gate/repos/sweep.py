"""Sweeps a repository: removes the lock files and temporary files of killed git processes.

A lock file that was left would refuse pushes for ever. Only called while no git process writes to the
repository: then no lock file and no temporary file belongs to anybody.
"""

import contextlib
import fnmatch
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import structlog

from stargate_gate.aio.foreign_files import read_file
from stargate_gate.datadir.layout import DataDir
from stargate_gate.repos.folders import NEW_PREFIX, recover
from stargate_gate.repos.names import MAX_REF_BYTES
from stargate_gate.repos.repository import find_all

# Folder → patterns of names in it. git makes them with mkstemp beside the final file.
_FILES = {
    ".": ("*.lock", "packed-refs.new", "shallow_??????", "gc.pid"),
    "info": ("*.lock", "refs_??????"),
    "objects": ("*.lock", "tmp_obj_*", "tmp_pack_*", "tmp_idx_*"),
    "objects/info": ("*.lock", "packs_??????", "tmp_graph_*"),
    "objects/info/commit-graphs": ("*.lock", "tmp_graph_*"),
    "objects/pack": ("*.lock", "tmp_*", ".tmp-*"),
}
_FOLDERS = ("tmp_objdir-*", "incoming-*")  # in objects/: the quarantine of a push
_LOOSE = ("tmp_obj_*",)
_MARK_BYTES = 64
_KEPT_BY = (b"receive-pack ", b"fetch-pack ")  # a running push's mark on its pack; git removes it at the end

log = structlog.get_logger()


def sweep_data_dir(datadir: DataDir, paths: frozenset[Path] | None) -> None:
    """A starting node calls this while nobody writes. Sweeps the repositories at `paths`; None: all.

    Repositories that were being made are removed, or put into their place if they are complete. A problem
    with one is logged, and the node starts all the same.
    """
    for entry in sorted(datadir.repositories.glob(f"{NEW_PREFIX}*")):
        if (name := recover(datadir.repositories, entry)) is not None:
            log.info("repository_came_to_its_place", repository=str(name))
    if paths is None:
        paths = frozenset(repository.path for repository in find_all(datadir.repositories, _not_now))
    for path in sorted(paths):
        try:
            removed = sweep_repository(path)
        except OSError as error:
            log.warning("repository_not_swept", path=str(path), error=str(error))
            continue
        if removed:
            log.info("repository_swept", path=str(path), removed=removed[:10], count=len(removed))


def _not_now(_path: str, _reason: str) -> None:
    """Ignore it: what is not served is reported when repositories are listed."""


def sweep_repository(path: Path) -> list[str]:
    """Remove what killed git processes left in the repository at `path`; returns the relative paths.

    Raises:
        OSError: a file could not be removed; the files after it are left.
    """
    removed: list[str] = []
    for entry in _leftovers(path):
        with contextlib.suppress(FileNotFoundError):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108 - a DirEntry has no Path
            removed.append(os.path.relpath(entry.path, path))
    return removed


def _leftovers(path: Path) -> Iterator["os.DirEntry[str]"]:
    for folder, patterns in _FILES.items():
        for entry in _entries(path / folder):
            if _matches(entry, patterns) and not entry.is_dir(follow_symlinks=False):
                yield entry
    for entry in _entries(path / "objects"):
        if not entry.is_dir(follow_symlinks=False):
            continue
        if _matches(entry, _FOLDERS):
            yield entry
        elif len(entry.name) == 2:  # noqa: PLR2004 - the loose objects whose id begins with that
            yield from (loose for loose in _entries(entry.path) if _matches(loose, _LOOSE))
    yield from _stale_keeps(path / "objects/pack")
    yield from _ref_locks(path / "refs", MAX_REF_BYTES)


def _stale_keeps(packs: Path) -> Iterator["os.DirEntry[str]"]:
    """The .keep files that a push has made, so that its pack is not repacked; not those of operators."""
    for entry in _entries(packs):
        if entry.name.endswith(".keep") and entry.is_file(follow_symlinks=False):
            with contextlib.suppress(OSError):
                if read_file(entry.path, _MARK_BYTES).startswith(_KEPT_BY):
                    yield entry


def _ref_locks(folder: str | os.PathLike[str], room: int) -> Iterator["os.DirEntry[str]"]:
    """The lock files of refs below `folder`. A ref's name may have `room` more bytes there."""
    for entry in _entries(folder):
        left = room - len(os.fsencode(entry.name)) - 1
        if entry.is_dir(follow_symlinks=False):
            if left > 0:
                yield from _ref_locks(entry.path, left)
        elif entry.name.endswith(".lock"):
            yield entry


def _entries(folder: str | os.PathLike[str]) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _matches(entry: "os.DirEntry[str]", patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in patterns)
