"""Whether the files that refs are read from have changed, and what has: by their stat, and little reading.

What cannot be said for certain this way is git's to read: packed refs, HEAD and the configuration when
they have changed, refs that are gone, symbolic, broken, or of an odd name.
"""

import errno
import hashlib
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.repos.git import RESERVED
from stargate_gate.repos.reading import kind_of, read_file
from stargate_gate.repos.refnames import MAX_REF_BYTES

# File systems stamp with the kernel's clock tick (10 ms at most). A stamp that was this fresh when it was
# read could belong to a state before a further change in the same tick.
RACY_NS = 50_000_000
MAX_FILES = 5_000  # that are kept one by one, some 300 bytes each; beyond it git reads all refs anew

_STAT = struct.Struct("<QQqqI")
_OTHERS = (b"HEAD", b"config", b"packed-refs")
_RESERVED = RESERVED.encode()
_PLAIN = re.compile(rb"refs(?:/[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*)+")  # of what git allows
_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MOST_BYTES = 70


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

    Folders count by the names in them, files by their stat. What is neither is an error: git would wait
    at a FIFO for ever, and follow a link to wherever it leads. Links from one ref to another are git's
    own; they are old, and left to it.

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
    return not name.endswith(b".lock") and not is_reserved(name)


def is_reserved(ref: bytes) -> bool:
    """Whether that ref, or folder of refs, is this node's own: shown to nobody, the same on no two nodes."""
    return ref == _RESERVED or ref.startswith(_RESERVED + b"/")


def _read_loose(path: Path, name: bytes) -> bytes:
    if name in _OTHERS or not _PLAIN.fullmatch(name):
        raise UncertainError
    try:
        content = read_file(os.fsencode(path) + b"/" + name, _MOST_BYTES)
    except OSError as error:
        raise UncertainError from error
    oid = content.removesuffix(b"\n")
    if content == oid or not _OID.fullmatch(oid) or not oid.strip(b"0"):
        raise UncertainError
    return oid


def _files(path: Path) -> Iterator[tuple[bytes, os.stat_result | None]]:
    top = os.fsencode(path)
    for name in (b"HEAD", b"config"):
        yield name, _plain(name, os.lstat(top + b"/" + name))
    try:
        yield b"packed-refs", _plain(b"packed-refs", os.lstat(top + b"/packed-refs"))
    except FileNotFoundError:
        yield b"packed-refs", None
    yield b"refs", _plain(b"refs", os.lstat(top + b"/refs"))
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
            yield below, _plain(below, entry.stat(follow_symlinks=False), entry.path)
            # Deeper there can be no ref. Folders can: those of a push that git refused, up to the longest
            # path there is and beyond what this process can name.
            if len(below) < MAX_REF_BYTES and entry.is_dir(follow_symlinks=False):
                yield from _below(entry.path, below)
        except FileNotFoundError:
            continue


def _plain(name: bytes, info: os.stat_result, path: bytes | None = None) -> os.stat_result:
    """`info` of a file or a folder; or of a link, if `path` is given and leads to a file or nowhere."""
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
