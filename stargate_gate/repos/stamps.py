"""Whether the files that refs are read from have changed, and what has: by their stat, and little reading.

What cannot be said for certain this way is git's to read: packed refs, HEAD and the configuration when
they have changed, refs that are gone, symbolic, broken, or of an odd name.
"""

import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# File systems stamp with the kernel's clock tick (10 ms at most). A stamp that was this fresh when it was
# read could belong to a state before a further change in the same tick.
RACY_NS = 50_000_000
MAX_FILES = 5_000  # that are kept one by one, some 300 bytes each; beyond it git reads all refs anew

_STAT = struct.Struct("<QQqqI")
_OTHERS = (b"HEAD", b"config", b"packed-refs")
_RESERVED = b"refs/stargate/"
_PLAIN = re.compile(rb"refs(?:/[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*)+")  # of what git allows
_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MOST_BYTES = 70
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Stamp:
    """The stat of everything that refs are read from.

    digest    of all of it: equal if no stat has changed
    settled   no later change can have the same stat
    racy      the files for which that does not hold
    files     what may hold the value of a ref → its stat; None if there are too many
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
        return (name for name in self.files or () if name not in _OTHERS)

    @property
    def size(self) -> int:
        """About the bytes it takes in memory."""
        return 200 + 300 * len(self.files or ())


class UncertainError(Exception):
    """Only git can tell."""


def take_stamp(path: Path, now_ns: int) -> Stamp:
    """The stat of HEAD, config, packed-refs and everything below refs/ of the repository at `path`.

    Folders count by the names in them, files by their stat.

    Raises:
        OSError: it is gone, or cannot be read.
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
    return Stamp(sha.digest(), frozenset(racy), files if len(files) <= MAX_FILES else None)


def loose_values(path: Path, before: Stamp, after: Stamp) -> dict[bytes, bytes]:
    """The values of loose refs that may have changed between the two stamps: ref → oid.

    They are read now, so they are those of `after`, or newer. Whatever is not in it is as it was.

    Raises:
        UncertainError: more may have changed than that.
    """
    if before.files is None or after.files is None or before.files.keys() - after.files.keys():
        raise UncertainError
    values = {}
    for name, packed in after.files.items():
        if before.files.get(name) != packed or name in before.racy:
            values[name] = _read_loose(path, name)
    return values


def _may_hold_a_value(name: bytes, info: os.stat_result | None) -> bool:
    """Not folders, nor what git ignores there, nor what a snapshot leaves out."""
    if info is not None and stat.S_ISDIR(info.st_mode):
        return False
    return not name.endswith(b".lock") and not name.startswith(_RESERVED)


def _read_loose(path: Path, name: bytes) -> bytes:
    if name in _OTHERS or not _PLAIN.fullmatch(name):
        raise UncertainError
    try:
        fd = os.open(os.fsencode(path) + b"/" + name, _FLAGS)
        try:
            content = os.read(fd, _MOST_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        raise UncertainError from error
    oid = content.removesuffix(b"\n")
    if content == oid or not _OID.fullmatch(oid) or not oid.strip(b"0"):
        raise UncertainError
    return oid


def _files(path: Path) -> Iterator[tuple[bytes, os.stat_result | None]]:
    top = os.fsencode(path)
    for name in (b"HEAD", b"config"):
        yield name, os.lstat(top + b"/" + name)
    try:
        yield b"packed-refs", os.lstat(top + b"/packed-refs")
    except FileNotFoundError:
        yield b"packed-refs", None
    yield b"refs", os.lstat(top + b"/refs")
    yield from _below(top + b"/refs", b"refs")


def _below(folder: bytes, name: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return  # git removes empty folders; the one above shows it
    for entry in found:
        below = name + b"/" + entry.name
        try:
            yield below, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, below)
        except FileNotFoundError:
            continue
