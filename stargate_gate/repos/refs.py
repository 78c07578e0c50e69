"""The refs of a repository as one value, its digest, and a cache that sees every change, whoever made it."""

import asyncio
import hashlib
import os
import re
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import structlog

from stargate_gate.errors import GitFailedError, NoSuchRepositoryError
from stargate_gate.repos.git import RESERVED, repository_argv
from stargate_gate.repos.plan import decode_ref, encode_ref
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.repository import Repository, read_head, read_object_format

log = structlog.get_logger()

READ_LIMIT_S = 120.0  # a million refs take seconds; a sleeping disk takes its time
READS_AT_ONCE = 4
ATTEMPTS = 3  # while somebody pushes all the time, the answer is one that was true in between
# File systems stamp with the kernel's clock tick (10 ms at most). A stamp that was this fresh when it was
# read could belong to a state before a further change in the same tick.
RACY_NS = 50_000_000
MAX_CACHED_BYTES = 64 * 1024 * 1024
MAX_CACHED_ENTRIES = 100_000  # digests: some 300 bytes each

_STAT = struct.Struct("<QQqqI")
_BROKEN = re.compile(rb"ignoring (?:broken ref|ref with broken name|dangling symref) (.+)")


@dataclass(frozen=True)
class RefSnapshot:
    """All refs of a repository at one moment, but for refs/stargate/*.

    object_format  "sha1" or "sha256"
    head           "ref: refs/heads/x", whether that branch is there or not, or an object id
    refs           ref → object id; odd bytes of a name as surrogates. A symbolic ref counts with the
                   value it leads to, as clients see it
    broken         refs that are there and have no value: they are no reason to remove a copy's
    """

    object_format: str
    head: str
    refs: Mapping[str, str]
    broken: frozenset[str] = field(default=frozenset(), compare=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of format, HEAD and refs: equal on two nodes exactly if these are."""
        sha = hashlib.sha256(b"%b\0%b\0" % (self.object_format.encode(), encode_ref(self.head)))
        for ref, oid in sorted((encode_ref(ref), oid.encode()) for ref, oid in self.refs.items()):
            sha.update(b"%b %b\0" % (oid, ref))
        return sha.hexdigest()

    @property
    def size(self) -> int:
        """About the bytes it takes in memory."""
        return 500 + sum(len(ref) + 250 for ref in self.refs)


@dataclass(frozen=True)
class Stamp:
    """The stat of everything that refs are read from, as a hash, and whether it may be trusted later."""

    digest: bytes
    settled: bool


@dataclass(frozen=True)
class _Cached:
    stamp: Stamp
    digest: str
    snapshot: RefSnapshot | None


class RefReader:
    """Snapshots and digests, from memory where the repository's files have not changed since.

    One per node; safe for many tasks at once.
    """

    def __init__(
        self,
        processes: GitProcesses,
        *,
        max_cached_bytes: int = MAX_CACHED_BYTES,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._processes = processes
        self._max_cached_bytes = max_cached_bytes
        self._clock_ns = clock_ns
        self._cache: OrderedDict[Path, _Cached] = OrderedDict()
        self._cached_bytes = 0
        self._slots = asyncio.Semaphore(READS_AT_ONCE)

    async def snapshot(self, repository: Repository) -> RefSnapshot:
        """All refs as of now: every change that was complete before the call is in it.

        Raises:
            NoSuchRepositoryError: it is gone.
            GitFailedError, OSError: it cannot be read.
        """
        cached = await self._valid(repository)
        if cached is not None and cached.snapshot is not None:
            return cached.snapshot
        return await self._read(repository)

    async def digest(self, repository: Repository) -> str:
        """The digest of `snapshot`; without any process while nothing changes.

        Raises:
            NoSuchRepositoryError, GitFailedError, OSError: as `snapshot`.
        """
        cached = await self._valid(repository)
        return cached.digest if cached is not None else (await self._read(repository)).digest

    def invalidate(self, repository: Repository) -> None:
        """Forget what is known of it."""
        self._forget(repository.path)

    async def _valid(self, repository: Repository) -> _Cached | None:
        cached = self._cache.get(repository.path)
        if cached is None or not cached.stamp.settled:
            return None
        stamp = await self._stamp(repository)
        if stamp.digest != cached.stamp.digest or self._cache.get(repository.path) is not cached:
            return None
        self._cache.move_to_end(repository.path)
        return cached

    async def _read(self, repository: Repository) -> RefSnapshot:
        async with self._slots:
            before = await self._stamp(repository)
            for _ in range(ATTEMPTS):
                snapshot = await self._read_once(repository)
                after = await self._stamp(repository)
                if after.digest == before.digest:
                    self._remember(repository, before, snapshot)
                    break
                before = after
            else:
                self._forget(repository.path)
        return snapshot

    async def _read_once(self, repository: Repository) -> RefSnapshot:
        argv = repository_argv(repository, "for-each-ref", "--format=%(objectname) %(refname)")
        try:
            head = await asyncio.to_thread(read_head, repository.path)
            object_format = await asyncio.to_thread(read_object_format, repository.path)
        except FileNotFoundError as error:
            raise _gone(repository) from error
        done = await self._processes.complete(argv, limit_s=READ_LIMIT_S)
        if done.status != 0:
            if not repository.path.exists():
                raise _gone(repository)
            raise GitFailedError(argv, done.status, done.stderr)
        if done.stderr:
            log.warning("refs_with_problems", repository=str(repository.name), problems=_lines(done.stderr))
        broken = frozenset(decode_ref(name) for name in _BROKEN.findall(done.stderr))
        return RefSnapshot(object_format, head, dict(_parse(done.stdout)), broken)

    async def _stamp(self, repository: Repository) -> Stamp:
        try:
            return await asyncio.to_thread(take_stamp, repository.path, self._clock_ns())
        except FileNotFoundError as error:
            raise _gone(repository) from error

    def _remember(self, repository: Repository, stamp: Stamp, snapshot: RefSnapshot) -> None:
        self._forget(repository.path)
        self._cache[repository.path] = _Cached(stamp, snapshot.digest, snapshot)
        self._cached_bytes += snapshot.size
        self._shrink()

    def _forget(self, path: Path) -> None:
        cached = self._cache.pop(path, None)
        if cached is not None and cached.snapshot is not None:
            self._cached_bytes -= cached.snapshot.size

    def _shrink(self) -> None:
        """Keep the digests of the least used repositories without their refs, and at last forget them."""
        if self._cached_bytes > self._max_cached_bytes:
            for path, cached in list(self._cache.items()):
                if cached.snapshot is not None:
                    self._cached_bytes -= cached.snapshot.size
                    self._cache[path] = _Cached(cached.stamp, cached.digest, None)
                    if self._cached_bytes <= self._max_cached_bytes:
                        break
        while len(self._cache) > MAX_CACHED_ENTRIES:
            self._forget(next(iter(self._cache)))


def take_stamp(path: Path, now_ns: int) -> Stamp:
    """The stat of HEAD, config, packed-refs and everything below refs/ of the repository at `path`.

    Raises:
        OSError: it is gone, or cannot be read.
    """
    sha = hashlib.sha256()
    newest = 0
    for name, info in _files(path):
        sha.update(name + b"\0")
        if info is not None:
            stamps = (info.st_mtime_ns, info.st_ctime_ns)
            sha.update(_STAT.pack(info.st_ino, info.st_size, *stamps, info.st_mode))
            newest = max(newest, *stamps)
    return Stamp(sha.digest(), newest + RACY_NS < now_ns)


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


def _parse(output: bytes) -> Iterator[tuple[str, str]]:
    reserved = RESERVED.encode() + b"/"
    for line in output.splitlines():
        oid, _, ref = line.partition(b" ")
        if not ref.startswith(reserved):
            yield decode_ref(ref), oid.decode("ascii")


def _lines(stderr: bytes) -> list[str]:
    return stderr.decode("utf-8", "replace").splitlines()[:5]


def _gone(repository: Repository) -> NoSuchRepositoryError:
    return NoSuchRepositoryError(f"no repository {repository.name} on this node")
