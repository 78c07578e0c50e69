"""Searches a repository that was copied in for anything that must not be served. Done once, at adoption.

git follows links and reads some files that lead to another place: it would send what is there to clients, or
write there. It opens FIFOs, and waits for ever. And every node must be able to store every ref. So this
reports what has to be removed first. It opens no file but packed-refs, and never waits: see
aio/foreign_files.py.
"""

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from stargate_gate.aio.foreign_files import kind_of, open_file
from stargate_gate.printable import printable
from stargate_gate.repos.gitconfig import PARTIAL_CLONE
from stargate_gate.repos.names import RESERVED, ref_problem
from stargate_gate.repos.repository import LEADS_AWAY, is_there

MAX_PROBLEMS = 3  # named in the message; "and there is more" stands for the others

_REFS = b"refs"
_PROMISOR = b".promisor"
_RESERVED = RESERVED.encode()
_UNSEEN = (b"objects", b"refs")  # nothing below these counts as a repository
_LINE_BYTES = 70_000  # of packed-refs at a time: longer than any ref that git takes


def inspect(path: Path) -> str | None:
    """Why the repository at `path` must not be served, and what to do; None if it may. Blocks for the disk.

    Raises:
        OSError: a part of it cannot be read.
    """
    found = list(islice(_problems(os.fsencode(path)), MAX_PROBLEMS + 1))
    if len(found) > MAX_PROBLEMS:
        found[MAX_PROBLEMS] = "and there is more"
    return "; ".join(found) or None


def _problems(top: bytes) -> Iterator[str]:
    folders = [b""]
    while folders:
        folder = folders.pop()
        for entry in _entries(top + b"/" + folder if folder else top):
            name = folder + b"/" + entry.name if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                problem, enter = _look_at_folder(name, entry)
                if enter:
                    folders.append(name)
            else:
                problem = _look_at_file(name, entry)
            if problem is not None:
                yield problem
    yield from _packed(top + b"/packed-refs")


def _entries(folder: bytes) -> list["os.DirEntry[bytes]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # left by a push of a ref that was too long: no ref is in it
            return []
        raise


def _look_at_folder(name: bytes, entry: "os.DirEntry[bytes]") -> tuple[str | None, bool]:
    """What is wrong with the folder, and whether to look below it."""
    if name in LEADS_AWAY:
        return f"{printable(name)} is a folder: remove it", False
    if name.partition(b"/")[0] not in _UNSEEN and _is_repository_like(entry.path):
        return f"{printable(name)} is a repository inside this one: move it out", False
    return None, True


def _look_at_file(name: bytes, entry: "os.DirEntry[bytes]") -> str | None:
    if not entry.is_file(follow_symlinks=False):
        kind = kind_of(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode))
        return f"{printable(name)} is {kind}: remove it, or put a file in its place"
    if (why := LEADS_AWAY.get(name)) is not None:
        return f"it has a file {printable(name)}: {why}"
    if name.endswith(_PROMISOR) and name.startswith(b"objects/pack/"):
        return f"{printable(name)}: {PARTIAL_CLONE}"
    return _ref(name) if name.startswith(_REFS + b"/") and not name.endswith(b".lock") else None


def _ref(name: bytes) -> str | None:
    """What is wrong with the name of a ref."""
    if name == _RESERVED:
        return (
            f"it has a ref {RESERVED}, where nodes keep refs of their own: give it another name"
            f" (git update-ref refs/heads/NAME {RESERVED}; git update-ref -d {RESERVED})"
        )
    problem = ref_problem(name)
    return None if problem is None else f"{problem}; not every node could hold it: rename it, or delete it"


def _packed(path: bytes) -> Iterator[str]:
    """What is wrong with names in packed-refs. A line is `<oid> <ref>`; other lines contain no names.

    Damage is not checked here: git reports it when it reads the file.
    """
    try:
        fd = open_file(path)
    except FileNotFoundError:
        return
    except OSError:
        return  # it is not a file, which was reported already
    with os.fdopen(fd, "rb") as file:
        while line := file.readline(_LINE_BYTES):
            if line[:1] not in {b"#", b"^"}:
                ref = line.rstrip(b"\n").partition(b" ")[2]
                if ref and (problem := _ref(ref)) is not None:
                    yield problem


def _is_repository_like(path: bytes) -> bool:
    folder = Path(os.fsdecode(path))
    return is_there(folder / "HEAD") and is_there(folder / "objects") and is_there(folder / "refs")
