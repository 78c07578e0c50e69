"""One repository on this node's disk, and what tells a repository's folder from any other."""

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.repos.names import RepositoryName

ID_FILE = "stargate-id"
_ID = re.compile(rb"[0-9a-f]{32}\n?")
_HEAD_BYTES = 4096

_PARTS = (("HEAD", stat.S_ISREG), ("objects", stat.S_ISDIR), ("refs", stat.S_ISDIR), ("config", stat.S_ISREG))


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
    content = (path / ID_FILE).read_bytes()
    return content.strip().decode("ascii") if _ID.fullmatch(content) else None


def is_id(text: str) -> bool:
    """Whether that is how an id looks."""
    return _ID.fullmatch(text.encode()) is not None and not text.endswith("\n")


def is_repository(path: Path) -> bool:
    """Whether a whole bare repository is at `path`. Half-copied ones and links are none; a few stat calls.

    Raises:
        OSError: for any other reason than that something is not there.
    """
    try:
        if not all(kind((path / part).lstat().st_mode) for part, kind in _PARTS):
            return False
        if (path / "HEAD").lstat().st_size == 0:
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    # git would take a .git inside for the repository (git-receive-pack(1) looks there first)
    return not is_there(path / ".git")


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
    with (path / "HEAD").open("rb") as file:
        content = file.read(_HEAD_BYTES).strip()
    if content.startswith(b"ref:"):
        content = b"ref: " + content.removeprefix(b"ref:").strip()
    return content.decode("utf-8", "surrogateescape")


def read_object_format(path: Path) -> str:
    """The config's extensions.objectFormat: "sha1" or "sha256".

    Raises:
        OSError: the repository is gone.
    """
    found = _OBJECT_FORMAT.search((path / "config").read_bytes())
    return found[1].decode("ascii").lower() if found else "sha1"


_OBJECT_FORMAT = re.compile(
    rb'^[ \t]*objectformat[ \t]*=[ \t]*"?(sha1|sha256)\b', re.IGNORECASE | re.MULTILINE
)
