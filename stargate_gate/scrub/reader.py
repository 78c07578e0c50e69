"""Reads every file of one repository that has a checksum, and its refs. A process of its own.

    python -m stargate_gate.scrub.reader

In the node's own process, hashing would hold up the event loop; so this runs at the lowest priority. It reads
requests from stdin until its end, one JSON object a line, and answers with several lines each:

    {"folder": PATH, "rate": BYTES_PER_S, "only": [FILE, ...] or null}

    {"read": BYTES}                                    about once a second
    {"kind": ..., "where": ..., "why": ...}            a finding; see findings.py
    {"done": true, "read": BYTES, "folder": INODE}     the last line; or:
    {"done": false, "read": BYTES, "why": TEXT}        not everything could be looked at

It reads at most `rate` bytes a second (0: as fast as it can), and no file that is not a plain one. With
`only`, it reads of packs, objects and the like these files alone: the second look.

What is checked: packs, their indexes (also .rev, .bitmap, .mtimes), multi-pack-index and commit-graph by the
checksum at their end; loose objects by their ids; every loose ref and packed-refs by their form; that HEAD,
config, objects/ and refs/ are there. Whether the refs lead to objects is git's part (checker.py).

A file that vanishes meanwhile was replaced or packed. Memory: a few MiB, and the names in one folder.
"""

import errno
import hashlib
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stargate_gate.aio.foreign_files import open_file, read_file, reason_of
from stargate_gate.repos.names import MAX_REF_BYTES
from stargate_gate.repos.repository import (
    HOME_FILE,
    ID_FILE,
    is_there,
    read_id,
    read_object_format,
    what_is_wrong,
)

CHUNK_BYTES = 1024 * 1024
TELL_EVERY_S = 1.0
BURST_S = 0.25  # of the rate, that may be read at once
MAX_LINE_BYTES = 1024  # of a loose ref
MAX_PACKED_LINE_BYTES = 70_000
MAX_HEADER_BYTES = 64  # of a loose object: its type and its size
MAX_CONFIG_BYTES = 1024 * 1024

_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_HEADER = re.compile(rb"(?:blob|tree|commit|tag) (0|[1-9][0-9]*)")
_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_MAGIC = {".pack": b"PACK", ".idx": b"\xfftOc", ".rev": b"RIDX", ".bitmap": b"BITM", ".mtimes": b"MTME"}
_MIDX, _GRAPH = b"MIDX", b"CGPH"
_DIGEST_BYTES = {"sha1": 20, "sha256": 32}
_NO_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class NotSoundError(Exception):
    """The file is not what it should be; the text says why."""


class Budget:
    """Counts what was read, and waits so that it is never more than the rate allows."""

    def __init__(
        self,
        rate: float,
        tell: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.read = 0
        self._rate, self._tell, self._clock, self._sleep = rate, tell, clock, sleep
        self._free_at = self._told_at = clock()

    @property
    def chunk_bytes(self) -> int:
        """How much to read at a time: a slow rate must not mean long waits after much reading."""
        return CHUNK_BYTES if not self._rate else max(4096, min(CHUNK_BYTES, int(self._rate * BURST_S)))

    def spend(self, count: int) -> None:
        """`count` bytes were read."""
        self.read += count
        now = self._clock()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            self._tell(self.read)
        if self._rate:
            self._free_at = max(self._free_at, now - BURST_S) + count / self._rate
            if self._free_at > now:
                self._sleep(self._free_at - now)


class Reader:
    """Looks at the repository in the working directory. `found`: gets kind, where, why."""

    def __init__(
        self, budget: Budget, only: frozenset[str] | None, found: Callable[[str, str, str], None]
    ) -> None:
        self._budget = budget
        self._only = only
        self._found = found
        self._hash = "sha1"

    def look(self) -> None:
        """Everything. Layout first: without it the rest has no meaning."""
        here = Path()
        wrong = what_is_wrong(here)
        self._check("layout", "config", self._config)
        if wrong is not None:
            self._found("head" if "HEAD" in wrong else "layout", "HEAD" if "HEAD" in wrong else ".", wrong)
        else:
            self._check("head", "HEAD", self._head)
        self._check("id", ID_FILE, self._identity)
        self._hash = self._object_format()
        if not is_there(Path("reftable")):
            self._loose_refs()
            self._check("ref", "packed-refs", lambda: self._packed_refs("packed-refs"))
        self._packs()
        self._graphs()
        self._loose_objects()

    def _check(self, kind: str, where: str, look: Callable[[], None]) -> None:
        """Run one look; what it raises is a finding, but if the file has vanished."""
        try:
            look()
        except NotSoundError as error:
            self._found(kind, where, str(error))
        except OSError as error:
            if error.errno not in _NO_DAMAGE:
                self._found(kind, where, f"cannot be read: {reason_of(error)}")
            elif error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                raise

    def _wanted(self, where: str) -> bool:
        return self._only is None or where in self._only

    # -- small files -----------------------------------------------------------------------------------

    def _config(self) -> None:
        content = read_file("config", MAX_CONFIG_BYTES)
        self._budget.spend(len(content))
        if not content.strip(b"\0"):
            raise NotSoundError("is empty" if not content else "has only zero bytes")
        if b"\0" in content:
            raise NotSoundError("has zero bytes in it")

    def _object_format(self) -> str:
        try:
            return read_object_format(Path())
        except OSError:
            return "sha1"

    def _head(self) -> None:
        self._ref_content(read_file("HEAD", MAX_LINE_BYTES + 1))

    def _identity(self) -> None:
        try:
            identity = read_id(Path())
        except FileNotFoundError:
            if is_there(Path(HOME_FILE)):  # written together with the id
                raise NotSoundError("is missing") from None
            return
        if identity is None:
            raise NotSoundError("has no id in it")

    # -- refs ------------------------------------------------------------------------------------------

    def _loose_refs(self) -> None:
        folders = ["refs"]
        while folders:
            folder = folders.pop()
            for entry in _entries(folder):
                where = f"{folder}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if len(os.fsencode(where)) < MAX_REF_BYTES:
                        folders.append(where)
                elif entry.is_file(follow_symlinks=False) and not entry.name.endswith(".lock"):
                    self._check("ref", where, lambda where=where: self._loose_ref(where))  # type: ignore[misc]

    def _loose_ref(self, where: str) -> None:
        content = read_file(where, MAX_LINE_BYTES + 1)
        self._budget.spend(len(content))
        self._ref_content(content)

    def _ref_content(self, content: bytes) -> None:
        if len(content) > MAX_LINE_BYTES:
            raise NotSoundError("is too long for a ref")
        if not content.strip():
            raise NotSoundError("is empty")
        if not content.strip(b"\0"):
            raise NotSoundError("has only zero bytes")
        if content.startswith(b"ref:"):
            if b"\0" in content or not content[4:].strip():
                raise NotSoundError("names no ref")
            return
        oid = content.split(maxsplit=1)[0]
        if not _OID.fullmatch(oid.lower()) or not oid.strip(b"0"):
            raise NotSoundError("has no object id in it")

    def _packed_refs(self, where: str) -> None:
        fd = open_file(where)
        with os.fdopen(fd, "rb") as file:
            number = 0
            while line := file.readline(MAX_PACKED_LINE_BYTES):
                number += 1
                self._budget.spend(len(line))
                if not line.endswith(b"\n"):
                    raise NotSoundError(f"ends within line {number}")
                if line.startswith(b"#") and number == 1:
                    continue
                oid, blank, name = line[:-1].removeprefix(b"^").partition(b" ")
                peeled = line.startswith(b"^")
                if not _OID.fullmatch(oid) or peeled == bool(blank) or (not peeled and not name):
                    raise NotSoundError(f"line {number} is no ref")

    # -- files with a checksum at their end ------------------------------------------------------------

    def _packs(self) -> None:
        folder = "objects/pack"
        names = {entry.name for entry in _entries(folder) if entry.is_file(follow_symlinks=False)}
        stems = sorted({name.rpartition(".")[0] for name in names if name.endswith((".pack", ".idx"))})
        for stem in stems:
            if f"{stem}.idx" not in names:
                self._found("unpaired", f"{folder}/{stem}.idx", "is missing")
            elif f"{stem}.pack" not in names:
                self._found("unpaired", f"{folder}/{stem}.pack", "is missing")
            self._pair(f"{folder}/{stem}")
            for suffix in (".rev", ".bitmap", ".mtimes"):
                if f"{stem}{suffix}" in names:
                    self._checksummed("helper", f"{folder}/{stem}{suffix}", _MAGIC[suffix])
        for name in sorted(names):
            if name == "multi-pack-index":
                self._checksummed("helper", f"{folder}/{name}", _MIDX)
            elif name.startswith("multi-pack-index-") and (suffix := Path(name).suffix) in _MAGIC:
                self._checksummed("helper", f"{folder}/{name}", _MAGIC[suffix])

    def _pair(self, stem: str) -> None:
        """A pack and its index: each as a whole, and that they belong together."""
        ends: dict[str, bytes] = {}

        def check(suffix: str) -> None:
            ends[suffix] = self._trailer(f"{stem}{suffix}", _MAGIC[suffix])

        wanted = any(self._wanted(f"{stem}{suffix}") for suffix in (".pack", ".idx"))
        for suffix in (".pack", ".idx"):
            where = f"{stem}{suffix}"
            if wanted:
                self._check("pack", where, lambda suffix=suffix: check(suffix))  # type: ignore[misc]
        size = _DIGEST_BYTES[self._hash]
        if len(ends) == len((".pack", ".idx")) and ends[".pack"][-size:] != ends[".idx"][:size]:
            self._found("pack", f"{stem}.idx", "is not the index of the pack beside it")

    def _graphs(self) -> None:
        self._checksummed("helper", "objects/info/commit-graph", _GRAPH)
        folder = "objects/info/commit-graphs"
        for entry in _entries(folder):
            if entry.name.endswith(".graph"):
                self._checksummed("helper", f"{folder}/{entry.name}", _GRAPH)

    def _checksummed(self, kind: str, where: str, magic: bytes) -> None:
        if self._wanted(where):
            self._check(kind, where, lambda: self._whole(where, magic))

    def _whole(self, where: str, magic: bytes) -> None:
        self._trailer(where, magic)

    def _trailer(self, where: str, magic: bytes) -> bytes:
        """The last two checksums' worth of bytes of the file, whose checksum is right.

        In an index, the first of them is the checksum of its pack. Version 1 of it has no magic number.

        Raises:
            NotSoundError: it is not.
            OSError: it cannot be read.
        """
        size = _DIGEST_BYTES[self._hash]
        digest, tail = hashlib.new(self._hash, usedforsecurity=False), b""
        with os.fdopen(open_file(where), "rb", buffering=0) as file:
            first = True
            while chunk := file.read(self._budget.chunk_bytes):
                self._budget.spend(len(chunk))
                if first and not chunk.startswith(magic) and not where.endswith(".idx"):
                    raise NotSoundError("does not begin as a file of its kind")
                first = False
                tail += chunk
                if len(tail) > 2 * size:
                    digest.update(memoryview(tail)[: -2 * size])
                    tail = tail[-2 * size :]
        if len(tail) < 2 * size:
            raise NotSoundError("is empty" if not tail else "is cut off")
        digest.update(tail[:size])
        if digest.digest() != tail[size:]:
            raise NotSoundError("its checksum is wrong")
        return tail

    # -- loose objects ---------------------------------------------------------------------------------

    def _loose_objects(self) -> None:
        rest = 2 * _DIGEST_BYTES[self._hash] - 2
        for folder in sorted(entry.name for entry in _entries("objects") if _FAN_OUT.fullmatch(entry.name)):
            for entry in _entries(f"objects/{folder}"):
                where = f"objects/{folder}/{entry.name}"
                if len(entry.name) == rest and self._wanted(where):
                    self._check("object", where, lambda where=where: self._loose(where))  # type: ignore[misc]

    def _loose(self, where: str) -> None:
        digest = hashlib.new(self._hash, usedforsecurity=False)
        inflate = zlib.decompressobj()
        head, size, claimed = b"", 0, -1
        with os.fdopen(open_file(where), "rb", buffering=0) as file:
            for part in self._inflated(file, inflate):
                digest.update(part)
                size += len(part)
                if claimed < 0:
                    head = (head + part)[: MAX_HEADER_BYTES + 1]
                    claimed = _claimed_size(head)
        if not inflate.eof:
            raise NotSoundError("is empty" if not size else "is cut off")
        if inflate.unused_data:
            raise NotSoundError("has more in it than the object")
        if claimed < 0 or size != claimed:
            raise NotSoundError("has not the size that it says")
        if digest.hexdigest() != where.removeprefix("objects/").replace("/", ""):
            raise NotSoundError("its content is of another object")

    def _inflated(self, file: "os._FdReader", inflate: "zlib._Decompress") -> Iterator[bytes]:  # type: ignore[name-defined]
        try:
            while chunk := file.read(self._budget.chunk_bytes):
                self._budget.spend(len(chunk))
                while chunk and not inflate.eof:
                    yield inflate.decompress(chunk, CHUNK_BYTES)
                    chunk = inflate.unconsumed_tail
                if inflate.eof:
                    return
        except zlib.error as error:
            raise NotSoundError(f"cannot be unpacked ({error})") from error


def _claimed_size(head: bytes) -> int:
    """The size of the whole, by the header of a loose object; -1: not all of the header is there."""
    header, end, _ = head.partition(b"\0")
    if not end:
        if len(head) > MAX_HEADER_BYTES:
            raise NotSoundError("does not begin as an object")
        return -1
    if (found := _HEADER.fullmatch(header)) is None:
        raise NotSoundError("does not begin as an object")
    return len(header) + 1 + int(found[1])


def _entries(folder: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
            return []
        raise


def serve(request: Mapping[str, Any], say: Callable[..., None]) -> None:
    """Answer one request."""
    budget = Budget(request["rate"], lambda count: say(read=count))
    try:
        os.chdir(request["folder"])  # the same folder to the end, also if it gets another name
        folder = os.stat(".").st_ino  # noqa: PTH116 - the folder itself, whatever its name is now
        Reader(
            budget,
            None if request["only"] is None else frozenset(request["only"]),
            lambda kind, where, why: say(kind=kind, where=where, why=why),
        ).look()
    except OSError as error:
        say(done=False, read=budget.read, why=reason_of(error))
    else:
        say(done=True, read=budget.read, folder=folder)


def main() -> None:
    """The program."""

    def say(**value: object) -> None:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    for line in sys.stdin:
        serve(json.loads(line), say)


if __name__ == "__main__":
    main()
