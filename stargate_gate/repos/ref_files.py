"""The files in which git keeps refs, read without starting git: gitrepository-layout(5), the files backend.

Two readers. `stat_refs` says by stat(2) whether any ref may have changed since the last time, and
`changed_loose_values` reads the loose refs that have: the cache of `refs.py` rests on these. `read_values`
reads a few refs by name, in about a millisecond, where starting a process could take too long.

Whatever these cannot say for certain is left to git (UncertainError): symbolic and broken refs, odd names,
another backend; and for the cache also packed refs, HEAD and the configuration when they have changed.
All of it blocks for the disk.
"""

import errno
import hashlib
import os
import re
import stat
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.aio.foreign_files import kind_of, read_file
from stargate_gate.repos.names import MAX_REF_BYTES, is_reserved

# File systems use the kernel's clock tick (10 ms at most) for time stamps. If a time stamp was this fresh
# when it was read, the file may have changed once more within the same tick, and its stat says nothing of
# that.
RACY_NS = 50_000_000
MAX_FILES = 5_000  # whose stats are kept one by one, some 300 bytes each; beyond it git reads all refs again
MAX_LINE_BYTES = 1024  # a loose ref's file; a longer file is no ref
MAX_PACKED_BYTES = 64 * 1024 * 1024  # some 800,000 refs

_STAT = struct.Struct("<QQqqI")
_NOT_REFS = (b"HEAD", b"config", b"packed-refs")
# A subset of what git allows.
_ORDINARY_NAME = re.compile(rb"refs(?:/[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*)+")
_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MAX_OID_LINE_BYTES = 70


class UncertainError(Exception):
    """Only git can tell."""


@dataclass(frozen=True)
class RefStat:
    """The stat of every file and folder that refs are read from.

    digest    of all of it: equal if no stat has changed
    racy      files that may have changed later without a change of their stat; see RACY_NS
    files     files that may hold the value of a ref → their stat; None if there are too many
    """

    digest: bytes
    racy: frozenset[bytes]
    files: Mapping[bytes, bytes] | None

    @property
    def settled(self) -> bool:
        """Whether an equal digest later proves that nothing has changed."""
        return not self.racy

    @property
    def loose(self) -> Iterator[bytes]:
        """The files that may hold the value of one ref each."""
        return (name for name in self.files or () if name not in _NOT_REFS)

    @property
    def size(self) -> int:
        """Roughly the bytes that it takes in memory."""
        return 200 + 300 * len(self.files or ())


def stat_refs(path: Path, now_ns: int) -> RefStat:
    """The stat of HEAD, config, packed-refs and everything below refs/ of the repository at `path`.

    Folders count by the names in them, files by their stat. Anything else is an error: git would wait
    for ever at a FIFO, and follow a link to any place. One exception: a link from one ref to another, as old
    versions of git made them, is left to git.

    Raises:
        OSError: the repository is gone, or cannot be read.
    """
    sha = hashlib.sha256()
    files: dict[bytes, bytes] = {}
    racy = set()
    for name, info in _files(path):
        packed = b""
        if info is not None:
            packed = _STAT.pack(info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode)
            if max(info.st_mtime_ns, info.st_ctime_ns) + RACY_NS >= now_ns:
                racy.add(name)
        sha.update(name + b"\0" + packed)
        if _may_hold_a_value(name, info) and len(files) <= MAX_FILES:
            files[name] = packed
    return RefStat(sha.digest(), frozenset(racy), files if len(files) <= MAX_FILES else None)


def changed_loose_values(path: Path, before: RefStat, after: RefStat) -> dict[bytes, bytes]:
    """The values of loose refs that may have changed between the two stats: ref → oid.

    They are read now, so they are at least as new as `after`. Refs that are not in the answer have not
    changed.

    Raises:
        UncertainError: more may have changed than loose refs.
    """
    if before.files is None or after.files is None or before.files.keys() - after.files.keys():
        raise UncertainError
    values = {}
    for name, packed in after.files.items():
        if before.files.get(name) != packed or name in before.racy:
            values[name] = _read_changed(path, name)
    return values


def read_values(repository: Path, refs: Collection[bytes]) -> dict[bytes, bytes | None]:
    """The value of each ref, in hex; None for a ref that does not exist.

    The loose file is read first and wins over packed-refs, as in git. git packs a ref by writing packed-refs
    before it removes the loose file, so a ref that is packed meanwhile is found in one of the two.

    Raises:
        UncertainError: a symbolic ref, another backend, a ref that is half written, an invalid name.
        OSError: the disk cannot be read.
    """
    if (repository / "reftable").exists():
        raise UncertainError
    found: dict[bytes, bytes | None] = {}
    missing: set[bytes] = set()
    for ref in refs:
        value = _read_loose(repository, ref)
        if value is None:
            missing.add(ref)
        found[ref] = value
    return {**found, **_read_packed(repository, missing)} if missing else found


def _read_loose(repository: Path, ref: bytes) -> bytes | None:
    name = ref.decode("utf-8", "surrogateescape")
    if not name.startswith("refs/") or "\0" in name or ".." in name.split("/"):
        raise UncertainError
    try:
        with (repository / name).open("rb") as file:
            line = file.read(MAX_LINE_BYTES).rstrip(b"\n")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    if not _OID.fullmatch(line):
        raise UncertainError
    return line


def _read_packed(repository: Path, refs: Collection[bytes]) -> dict[bytes, bytes]:
    try:
        with (repository / "packed-refs").open("rb") as file:
            content = file.read(MAX_PACKED_BYTES + 1)
    except FileNotFoundError:
        return {}
    if len(content) > MAX_PACKED_BYTES:
        raise UncertainError
    lines = (line.split(b" ", 1) for line in content.split(b"\n") if line[:1] not in {b"#", b"^", b""})
    return {name: oid for oid, name in lines if name in refs}


def _read_changed(path: Path, name: bytes) -> bytes:
    """The object id in a loose ref's file that has changed. Stricter than `_read_loose`: it must exist."""
    if name in _NOT_REFS or not _ORDINARY_NAME.fullmatch(name):
        raise UncertainError
    try:
        content = read_file(os.fsencode(path) + b"/" + name, _MAX_OID_LINE_BYTES)
    except OSError as error:
        raise UncertainError from error
    oid = content.removesuffix(b"\n")
    if content == oid or not _OID.fullmatch(oid) or not oid.strip(b"0"):
        raise UncertainError
    return oid


def _may_hold_a_value(name: bytes, info: os.stat_result | None) -> bool:
    """False for folders, for lock files, which git ignores, and for reserved refs, which no snapshot has."""
    if info is not None and stat.S_ISDIR(info.st_mode):
        return False
    return not name.endswith(b".lock") and not is_reserved(name)


def _files(path: Path) -> Iterator[tuple[bytes, os.stat_result | None]]:
    top = os.fsencode(path)
    for name in (b"HEAD", b"config"):
        yield name, _checked(name, os.lstat(top + b"/" + name))
    try:
        yield b"packed-refs", _checked(b"packed-refs", os.lstat(top + b"/packed-refs"))
    except FileNotFoundError:
        yield b"packed-refs", None
    yield b"refs", _checked(b"refs", os.lstat(top + b"/refs"))
    yield from _below(top + b"/refs", b"refs")


def _below(folder: bytes, name: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return  # git removes empty folders; the folder above has changed then, too
    for entry in found:
        below = name + b"/" + entry.name
        try:
            yield below, _checked(below, entry.stat(follow_symlinks=False), entry.path)
            # No ref can be deeper than that. Folders can: a push that git refused may leave folders up to
            # the longest path that exists, and deeper than this process can name.
            if len(below) < MAX_REF_BYTES and entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, below)
        except FileNotFoundError:
            continue


def _checked(name: bytes, info: os.stat_result, path: bytes | None = None) -> os.stat_result:
    """`info`, if it is of a file or a folder, or of a link at `path` that leads to a file or to nothing."""
    mode = info.st_mode
    if path is not None and stat.S_ISLNK(mode):
        try:
            target = os.stat(path).st_mode  # noqa: PTH116 - bytes
        except (FileNotFoundError, NotADirectoryError):
            return info
        mode = target if stat.S_ISREG(target) else mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, f"{os.fsdecode(name)!r} is {kind_of(mode)}: remove it")
    return info
