"""Kinds of damage of a bare repository on disk, as power cuts, broken disks and hands leave them."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.support.git import git

MAIN = "refs/heads/main"
NULS = b"\0" * 300

Damage = Callable[[Path], object]


def _write(path: Path, content: bytes) -> None:
    """Over whatever is there, as a fault does it: the same file, also if it may only be read."""
    if path.exists():
        path.chmod(0o600)
    path.write_bytes(content)


def _flip(path: Path) -> None:
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    _write(path, bytes(content))


def _loose(path: Path) -> Path:
    """The file of the commit that main names, as a loose object."""
    oid = git("rev-parse", MAIN, cwd=path).strip()
    return path / "objects" / oid[:2] / oid[2:]


def _packed(path: Path, suffix: str) -> Path:
    """All objects in one pack: its file with that suffix."""
    git("repack", "-q", "-a", "-d", cwd=path)
    (found,) = (path / "objects" / "pack").glob(f"*{suffix}")
    return found


def _packed_refs(path: Path) -> Path:
    git("pack-refs", "--all", cwd=path)
    return path / "packed-refs"


def _directory_for_ref(path: Path) -> None:
    (path / MAIN).unlink()
    (path / MAIN / "below").mkdir(parents=True)


def _cut(path: Path) -> None:
    content = path.read_bytes()
    _write(path, content[: len(content) * 2 // 3])


def _file_for_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


def _lose_refs(path: Path) -> None:
    _packed_refs(path)
    shutil.rmtree(path / "refs")


# What shows in refs, or in the folder itself: a comparison with the leader finds it.
SEEN_BY_COMPARISON: Mapping[str, Damage] = {
    "ref-empty": lambda path: _write(path / MAIN, b""),
    "ref-nul": lambda path: _write(path / MAIN, b"\0" * 41),
    "ref-garbage": lambda path: _write(path / MAIN, b"no object id\n"),
    "ref-folder": _directory_for_ref,
    "packed-refs-cut": lambda path: _cut(_packed_refs(path)),
    "packed-refs-nul": lambda path: _write(_packed_refs(path), NULS),
    "head-missing": lambda path: (path / "HEAD").unlink(),
    "head-empty": lambda path: _write(path / "HEAD", b""),
    "head-nul": lambda path: _write(path / "HEAD", b"\0" * 21),
    "refs-missing": _lose_refs,
    "objects-missing": lambda path: shutil.rmtree(path / "objects"),
    "config-missing": lambda path: (path / "config").unlink(),
    "config-empty": lambda path: _write(path / "config", b""),
    "config-nul": lambda path: _write(path / "config", NULS),
    "config-syntax": lambda path: _write(path / "config", b"[core\nbare = perhaps\n"),
    "id-missing": lambda path: (path / "stargate-id").unlink(),
    "id-empty": lambda path: _write(path / "stargate-id", b""),
    "id-nul": lambda path: _write(path / "stargate-id", b"\0" * 33),
    "folder-is-file": _file_for_folder,
    "folder-empty": lambda path: (shutil.rmtree(path), path.mkdir()),
}

# What only a look at the objects finds, or a change that needs them.
SEEN_BY_A_LOOK: Mapping[str, Damage] = {
    "loose-missing": lambda path: _loose(path).unlink(),
    "loose-empty": lambda path: _write(_loose(path), b""),
    "loose-flipped": lambda path: _flip(_loose(path)),
    "pack-missing": lambda path: _packed(path, ".pack").unlink(),
    "pack-cut": lambda path: _cut(_packed(path, ".pack")),
    "pack-flipped": lambda path: _flip(_packed(path, ".pack")),
    "idx-missing": lambda path: _packed(path, ".idx").unlink(),
    "idx-nul": lambda path: _write(_packed(path, ".idx"), NULS),
}

DAMAGES: Mapping[str, Damage] = {**SEEN_BY_COMPARISON, **SEEN_BY_A_LOOK}
