"""Writes many new refs at once, in git's file packed-refs.

git writes each new ref as a file, syncs it, and renames it to its place. That is right for a push. For a copy
of a repository with 100,000 refs it takes minutes, and git has no command that writes one file, as its own
clone does. The format is git's (refs/packed-backend.c, seen with 2.39.5):

    # pack-refs with: peeled fully-peeled sorted        a space at the end; "sorted" is by the names' bytes
    <object id> <ref>
    ^<object id>                                        what the annotated tag above leads to

It is changed as git does: under packed-refs.lock, written as packed-refs.new, synced, renamed. A loose ref
wins over a packed one of the same name, so only refs that do not exist yet may be added.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.datadir.files import fsync_dir
from stargate_gate.errors import UnavailableError

PACKED_REFS = "packed-refs"
_HEADER = b"# pack-refs with:"
_FULLY_PEELED = b"# pack-refs with: peeled fully-peeled sorted \n"
_SORTED = b"# pack-refs with: sorted \n"
_MODE = 0o666  # and the umask, as with git


class PackedRefsError(UnavailableError):
    """packed-refs is damaged, in use, or a ref is in the way. It was not changed."""


@dataclass(frozen=True)
class PackedRef:
    """The value of a packed ref. `peeled`: for an annotated tag, the object that it finally points to."""

    oid: str
    peeled: str | None = None


def add_packed_refs(repository: Path, refs: Mapping[bytes, PackedRef]) -> None:
    """Add `refs`, none of which may exist, to the bare repository. They are on disk when this returns.

    Either all are added or none. Blocks for the disk.

    Raises:
        PackedRefsError
        OSError: it could not be written, and was not changed.
    """
    lock, beside = repository / f"{PACKED_REFS}.lock", repository / f"{PACKED_REFS}.new"
    try:
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE))
    except FileExistsError as error:
        raise PackedRefsError("packed-refs is being changed by somebody else") from error
    try:
        # git itself holds this lock whenever it deletes or packs refs, so nothing changes between check and
        # rename. Loose refs are not under this lock: only a standby calls this, and nobody else writes refs
        # there.
        lines, peeled = _read(repository / PACKED_REFS)
        _check(refs, lines, _loose(repository))
        for ref, value in refs.items():
            lines[ref] = b"%b %b\n" % (value.oid.encode("ascii"), ref)
            if value.peeled is not None:
                lines[ref] += b"^%b\n" % value.peeled.encode("ascii")
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        with os.fdopen(fd, "wb") as file:
            file.write(_FULLY_PEELED if peeled else _SORTED)
            file.writelines(lines[ref] for ref in sorted(lines))
            file.flush()
            os.fsync(file.fileno())
        beside.rename(repository / PACKED_REFS)
        fsync_dir(repository)
    finally:
        for left in (beside, lock):
            with contextlib.suppress(FileNotFoundError):
                left.unlink()


def _read(path: Path) -> tuple[dict[bytes, bytes], bool]:
    """The lines of each ref, and whether every annotated tag has its peeled line."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}, True
    with os.fdopen(fd, "rb") as file:
        content = file.read().splitlines(keepends=True)
    traits = content.pop(0).split() if content and content[0].startswith(_HEADER) else []
    lines: dict[bytes, bytes] = {}
    last = b""
    for line in content:
        if line.startswith(b"^") and last:
            lines[last] += line
            continue
        oid, space, last = line.rstrip(b"\n").partition(b" ")
        if not space or not line.endswith(b"\n") or len(oid) not in {40, 64} or not last.startswith(b"refs/"):
            raise PackedRefsError(f"packed-refs is damaged: {line[:80]!r}")
        lines[last] = line
    return lines, not lines or b"fully-peeled" in traits


def _loose(repository: Path) -> Iterator[bytes]:
    """Every file below refs/ that git reads as a ref."""
    for folder, _, files in os.walk(os.fsencode(repository / "refs")):
        below = os.path.relpath(folder, os.fsencode(repository))
        yield from (below + b"/" + name for name in files if not name.endswith(b".lock"))


def _check(refs: Iterable[bytes], packed: Iterable[bytes], loose: Iterable[bytes]) -> None:
    """Check that no wanted ref exists, and that no name is needed for a ref and for a folder."""
    wanted, there = {*refs}, {*packed, *loose}
    names = wanted | there
    for ref in names:
        taken = ref in wanted and ref in there
        above = next((folder for folder in _folders(ref) if folder in names), None)
        if taken or (above is not None and (ref in wanted or above in wanted)):
            raise PackedRefsError(f"{ref!r} cannot be made: {above or ref!r} is in the way")


def _folders(ref: bytes) -> Iterator[bytes]:
    """The names that must be folders if `ref` is a file."""
    end = ref.find(b"/")
    while end >= 0:
        yield ref[:end]
        end = ref.find(b"/", end + 1)
