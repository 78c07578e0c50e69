"""One repository on this node's disk, and what tells a repository's folder from any other."""

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.repos.names import SUFFIX, RepositoryName
from stargate_gate.repos.reading import kind_of, read_file

ID_FILE = "stargate-id"
MAX_CONFIG_BYTES = 1024 * 1024
_ID = re.compile(rb"[0-9a-f]{32}\n?")
_ID_BYTES = 64
_HEAD_BYTES = 4096

_PARTS = (("HEAD", stat.S_ISREG), ("objects", stat.S_ISDIR), ("refs", stat.S_ISDIR), ("config", stat.S_ISREG))
_ENOUGH_PARTS = 2  # of these, and a folder is meant to be a repository


@dataclass(frozen=True)
class Repository:
    """A name and where it lies: an absolute path below data_dir/repositories."""

    name: RepositoryName
    path: Path

    def id(self) -> str:
        """The random id, 32 hex digits, that tells it from another one of the same name, now or later.

        Raises:
            OSError: the repository is gone, or was not adopted yet.
            ValueError: the id file is damaged.
        """
        identity = read_id(self.path)
        if identity is None:
            raise ValueError(f"the id of repository {self.name} is damaged")
        return identity


def read_id(path: Path) -> str | None:
    """The id of the repository at `path`; None if its file is damaged.

    Raises:
        OSError: it has none.
    """
    content = read_file(path / ID_FILE, _ID_BYTES)
    return content.strip().decode("ascii") if _ID.fullmatch(content) else None


def is_id(text: str) -> bool:
    """Whether that is how an id looks."""
    return _ID.fullmatch(text.encode()) is not None and not text.endswith("\n")


def is_repository(path: Path) -> bool:
    """Whether a whole bare repository is at `path`. Half-copied ones and links are none; a few stat calls.

    Raises:
        OSError: for any other reason than that something is not there.
    """
    return what_is_wrong(path) is None


def what_is_wrong(path: Path) -> str | None:
    """Why the folder at `path` is no bare repository, for people; None if it is one. A few stat calls.

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
    # git would take a .git inside for the repository (git-receive-pack(1) looks there first)
    if is_there(path / ".git"):
        return "it has a .git inside, so git would serve that: copy only what is in that one"
    return None


def looks_like_one(path: Path) -> bool:
    """Whether the folder at `path`, which is no repository, is meant to be one.

    By its name, if anything is in it, or by what is in it. Then it is no folder of repositories. Folders
    inside say nothing: there can be repositories called refs/a and objects/b.
    """
    if path.name.endswith(SUFFIX):
        return any(path.iterdir())
    if is_there(path / ".git"):
        return True
    has_file = any(is_there(path / part) and not (path / part).is_dir() for part in ("HEAD", "config"))
    return has_file and sum(is_there(path / part) for part, _ in _PARTS) >= _ENOUGH_PARTS


def is_remains(path: Path) -> bool:
    """Whether a repository was at `path`, and is no whole one any more; a few stat calls.

    Raises:
        OSError: for any other reason than that something is not there.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode) or is_repository(path):
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    return is_there(path / ID_FILE) or (is_there(path / "objects") and is_there(path / "config"))


def is_there(path: Path) -> bool:
    """Whether anything is at `path`, a dangling link included."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_head(path: Path) -> str:
    """HEAD as it is written: "ref: refs/heads/x" (surrogates for odd bytes) or an object id.

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


_OBJECT_FORMAT = re.compile(
    rb'^[ \t]*objectformat[ \t]*=[ \t]*"?(sha1|sha256)\b', re.IGNORECASE | re.MULTILINE
)
