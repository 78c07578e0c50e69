"""Repositories on this node's disk: what makes a folder one, and finding them below data_dir/repositories.

Reads a few small files and otherwise calls stat(2) only. Links are never followed out of data_dir. All of it
blocks for the disk.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.aio.foreign_files import kind_of, read_file
from stargate_gate.errors import BrokenRepositoryError, UnavailableError, UsageError
from stargate_gate.repos.names import MAX_COMPONENTS, SUFFIX, RepositoryName, component_problem

ID_FILE = "stargate-id"
HOME_FILE = "stargate-folder"  # the inode of the folder that got the id: see identities.py
MAX_CONFIG_BYTES = 1024 * 1024
_ID = re.compile(rb"[0-9a-f]{32}\n?")
_ID_BYTES = 64
_HEAD_BYTES = 4096

_PARTS = (("HEAD", stat.S_ISREG), ("objects", stat.S_ISDIR), ("refs", stat.S_ISDIR), ("config", stat.S_ISREG))
_ENOUGH_PARTS = 2  # a folder with this many of the parts was meant to be a repository
_OBJECT_FORMAT = re.compile(
    rb'^[ \t]*objectformat[ \t]*=[ \t]*"?(sha1|sha256)\b', re.IGNORECASE | re.MULTILINE
)


# Files of git's that lead to another place, relative to the repository; gitrepository-layout(5).
LEADS_AWAY = {
    b"commondir": "git would take everything from the folder that it names: remove it, or copy that folder",
    b"gitdir": "it belongs to a linked working copy: copy the repository itself instead",
    b"objects/info/alternates": "it takes objects from another repository: run `git repack -a -d` in it, then"
    " remove the file",
    b"objects/info/http-alternates": "it takes objects from another repository: remove the file",
}


@dataclass(frozen=True)
class Repository:
    """A repository's name and its folder: an absolute path below data_dir/repositories."""

    name: RepositoryName
    path: Path

    def id(self) -> str:
        """The random id, 32 hex digits. It distinguishes this repository from others of the same name.

        Raises:
            OSError: the repository is gone, or has no id yet.
            ValueError: the id file is damaged.
        """
        identity = read_id(self.path)
        if identity is None:
            raise ValueError(f"the id of repository {self.name} is damaged")
        return identity


# -- one folder ----------------------------------------------------------------------------------------


def read_id(path: Path) -> str | None:
    """The id of the repository at `path`; None if the id file is damaged.

    Raises:
        OSError: it has no id file.
    """
    content = read_file(path / ID_FILE, _ID_BYTES)
    return content.strip().decode("ascii") if _ID.fullmatch(content) else None


def readable_id(path: Path) -> str | None:
    """As `read_id`; None also if it has no id file, or one that cannot be read."""
    try:
        return read_id(path)
    except OSError:
        return None


def is_id(text: str) -> bool:
    """Whether `text` has the form of a repository's id."""
    return _ID.fullmatch(text.encode()) is not None and not text.endswith("\n")


def is_repository(path: Path) -> bool:
    """Whether a complete bare repository is at `path`. A link or a half-copied repository is not one.

    Raises:
        OSError: it cannot be looked at, for any reason but that nothing is there.
    """
    return what_is_wrong(path) is None


def what_is_wrong(path: Path) -> str | None:
    """Why the folder at `path` is no bare repository, as text for people; None if it is one.

    Raises:
        OSError: as `is_repository`.
    """
    for part, is_right in _PARTS:
        try:
            info = (path / part).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return f"it has no {part}"
        if not is_right(info.st_mode):
            return f"its {part} is {kind_of(info.st_mode)}"
        if part == "HEAD" and info.st_size == 0:
            return "its HEAD is empty"
    # git would serve the .git inside instead (git-receive-pack(1) looks there first)
    if is_there(path / ".git"):
        return "it has a .git inside, so git would serve that: copy only what is in that one"
    return None


def looks_like_one(path: Path) -> bool:
    """Whether the folder at `path`, which is no complete repository, was meant to be one.

    If so, no repositories are searched for below it. Its name (.git) or its files decide. Folders inside
    decide nothing, because there can be repositories called refs/a and objects/b.
    """
    if path.name.endswith(SUFFIX):
        return any(path.iterdir())
    if is_there(path / ".git"):
        return True
    has_file = any(is_there(path / part) and not (path / part).is_dir() for part in ("HEAD", "config"))
    return has_file and sum(is_there(path / part) for part, _ in _PARTS) >= _ENOUGH_PARTS


def is_remains(path: Path) -> bool:
    """Whether the folder at `path` was a repository and is not complete any more.

    Raises:
        OSError: it cannot be looked at, for any reason but that nothing is there.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode) or is_repository(path):
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    return is_there(path / ID_FILE) or (is_there(path / "objects") and is_there(path / "config"))


def is_in_the_way(path: Path) -> bool:
    """Whether something else is where a repository should be: a file, or a folder with anything in it.

    Not a link, which an operator may have put there on purpose.

    Raises:
        OSError: it cannot be looked at, for any reason but that nothing is there.
    """
    try:
        before = path.lstat()
        if stat.S_ISDIR(before.st_mode):
            other = any(path.iterdir()) and not is_repository(path)
        else:
            other = not stat.S_ISLNK(before.st_mode)
        # Between two looks a repository may be moved away: then this was not about what is there now.
        return other and path.lstat().st_ino == before.st_ino
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_there(path: Path) -> bool:
    """Whether anything is at `path`, including a link to nothing."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def leads_away(path: Path) -> bool:
    """Whether a file makes git use another place for parts of this repository. A few stat calls."""
    return any(is_there(path / os.fsdecode(name)) for name in LEADS_AWAY)


def read_head(path: Path) -> str:
    """HEAD as it is written: "ref: refs/heads/x" (bytes that are not UTF-8 as surrogates) or an object id.

    Raises:
        OSError: the repository is gone.
    """
    content = read_file(path / "HEAD", _HEAD_BYTES).strip()
    if content.startswith(b"ref:"):
        content = b"ref: " + content.removeprefix(b"ref:").strip()
    return content.decode("utf-8", "surrogateescape")


def read_object_format(path: Path) -> str:
    """The config's extensions.objectFormat: "sha1" or "sha256".

    Raises:
        OSError: the repository is gone.
    """
    found = _OBJECT_FORMAT.search(read_file(path / "config", MAX_CONFIG_BYTES))
    return found[1].decode("ascii").lower() if found else "sha1"


# -- finding them --------------------------------------------------------------------------------------


def locate(root: Path, name: RepositoryName) -> Repository | None:
    """The repository of that name: the folder org/app.git, else a bare repository in a folder org/app.

    Raises:
        UsageError: one of the folders above it is a repository itself.
        UnavailableError: something of that name is there that must not be served, such as a link.
        BrokenRepositoryError: a folder of that name is there, but no complete repository.
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


def remains(root: Path, name: RepositoryName) -> Repository | None:
    """What is left of a repository of that name that cannot be served any more; see `Store.remains`.

    Raises:
        OSError: it cannot be looked at.
    """
    place, other = candidates(root, name)
    for path in (place, other):
        if is_remains(path) or _has_damaged_id(path):
            return Repository(name, path)
    return Repository(name, place) if is_in_the_way(place) else None


def _has_damaged_id(path: Path) -> bool:
    """Whether the folder has a file for its id, and that does not contain one."""
    try:
        return is_there(path / ID_FILE) and read_id(path) is None
    except OSError:
        return False


def candidates(root: Path, name: RepositoryName) -> tuple[Path, Path]:
    """The two folders in which a repository of that name can be; the first one is preferred."""
    return root / f"{name}{SUFFIX}", root / str(name)


def check_folders(root: Path, name: RepositoryName) -> bool:
    """Whether all folders above a repository of that name exist.

    Raises:
        UsageError: one of them is a file or a repository, so nothing can be below it.
        UnavailableError: one of them is a link.
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


def find_all(root: Path, skipped: Callable[[str, str], None]) -> Iterator[Repository]:
    """Every repository below `root`. `skipped` gets the relative path of what is not served, and why."""
    yield from _find_below(root, (), skipped)


def _find_below(
    folder: Path, above: tuple[str, ...], skipped: Callable[[str, str], None]
) -> Iterator[Repository]:
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
            yield from _find_below(path, (*above, component), skipped)


def _has_repository(folder: Path, name: str, names: set[str]) -> bool:
    return name in names and is_repository(folder / name)


def _entries(
    folder: Path, above: tuple[str, ...], skipped: Callable[[str, str], None]
) -> list["os.DirEntry[str]"]:
    """What is in `folder`, sorted, without hidden files: temporary folders are hidden."""
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
