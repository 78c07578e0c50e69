"""Reads all refs of a repository, with a cache that is never older than the call.

Refs are changed by the git processes of pushes, and by operators who use git here. So nobody reports changes
to the cache. Each call compares the stat of the files that refs are read from (ref_files.py) with the stat
from before the last reading, and reads again what has changed.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from stargate_gate.errors import GitFailedError, NoSuchRepositoryError
from stargate_gate.repos.git import repository_argv
from stargate_gate.repos.names import decode_ref, encode_ref, is_reserved
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.ref_files import RefStat, UncertainError, changed_loose_values, stat_refs
from stargate_gate.repos.repository import Repository, read_head, read_object_format
from stargate_gate.repos.snapshot import RefSnapshot, sendable_head

log = structlog.get_logger()

READ_LIMIT_S = 120.0  # a million refs take seconds; a disk that was asleep takes longer
READS_AT_ONCE = 4
ATTEMPTS = 3  # if somebody pushes all the time, the last answer counts, and is not cached
MAX_CACHED_BYTES = 64 * 1024 * 1024
MAX_CACHED_ENTRIES = 100_000  # digests: some 300 bytes each

_OID_LENGTHS = {"sha1": 40, "sha256": 64}
_LOST = re.compile(rb"ignoring (?:broken ref|ref with broken name) ")
_BROKEN = re.compile(rb"ignoring (?:broken ref|ref with broken name|dangling symref) (.+)")


@dataclass(frozen=True)
class _Cached:
    stat: RefStat
    digest: str
    snapshot: RefSnapshot | None
    whole: bool

    @property
    def size(self) -> int:
        """Roughly the bytes that its refs take in memory."""
        return 0 if self.snapshot is None else self.snapshot.size + self.stat.size

    def without_refs(self) -> "_Cached":
        """Only the digest; the refs are dropped."""
        return _Cached(replace(self.stat, files=None), self.digest, None, self.whole)


class RefReader:
    """Snapshots and digests of repositories, from the cache where the files have not changed.

    Loose refs that have changed are read here. Where more has changed, git reads all refs. If two calls
    return the same object, no file has changed in between. There is one per node; many tasks may use it at
    once.
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
        """All refs as they are now: every change that was complete before the call is included.

        Raises:
            NoSuchRepositoryError: it is gone.
            GitFailedError, OSError: it cannot be read.
        """
        cached = await self._valid(repository)
        if cached is not None and cached.snapshot is not None:
            return cached.snapshot
        return await self._read(repository)

    async def digest(self, repository: Repository) -> str:
        """The digest of `snapshot`. Starts no process while nothing changes.

        Raises:
            NoSuchRepositoryError, GitFailedError, OSError: as `snapshot`.
        """
        return (await self.digest_and_whole(repository))[0]

    async def digest_and_whole(self, repository: Repository) -> tuple[str, bool]:
        """The digest, and whether every ref has its value (RefSnapshot.whole); otherwise as `digest`."""
        cached = await self._valid(repository)
        if cached is not None:
            return cached.digest, cached.whole
        read = await self._read(repository)
        return await asyncio.to_thread(lambda: read.digest), read.whole

    def invalidate(self, repository: Repository) -> None:
        """Drop the repository from the cache: its folder was moved, so other files are at its path now."""
        self._forget(repository.path)

    async def _valid(self, repository: Repository) -> _Cached | None:
        """The cached value if it is true now, or can be brought up to date without a process; else None."""
        cached = self._cache.get(repository.path)
        if cached is None:
            return None
        stat = await self._stat(repository)
        if stat.digest == cached.stat.digest and cached.stat.settled:
            fresh = cached
        elif (refreshed := await asyncio.to_thread(_refreshed, repository.path, cached, stat)) is not None:
            fresh = refreshed
        else:
            return None
        newest = self._cache.get(repository.path)
        if newest is cached:
            self._remember(repository, fresh)
        return fresh if newest is not None else None

    async def _read(self, repository: Repository) -> RefSnapshot:
        async with self._slots:
            # The stat is taken before git reads. If something changes while git reads, the next stat differs,
            # so the change is not missed.
            before = await self._stat(repository)
            for _ in range(ATTEMPTS):
                snapshot = await self._read_once(repository)
                after = await self._stat(repository)
                if after.digest == before.digest:
                    self._remember(repository, await asyncio.to_thread(_as_read_by_git, before, snapshot))
                    break
                before = after
            else:
                self._forget(repository.path)
        return snapshot

    async def _read_once(self, repository: Repository) -> RefSnapshot:
        argv = repository_argv(repository, "for-each-ref", "--format=%(objectname) %(refname) %(symref)")
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
        refs, symbolic = await asyncio.to_thread(_parse, done.stdout)
        whole = not _LOST.search(done.stderr)
        return RefSnapshot(object_format, sendable_head(head), refs, broken, symbolic, whole)

    async def _stat(self, repository: Repository) -> RefStat:
        try:
            return await asyncio.to_thread(stat_refs, repository.path, self._clock_ns())
        except FileNotFoundError as error:
            raise _gone(repository) from error

    def _remember(self, repository: Repository, cached: _Cached) -> None:
        self._forget(repository.path)
        self._cache[repository.path] = cached
        self._cached_bytes += cached.size
        self._shrink()

    def _forget(self, path: Path) -> None:
        if (cached := self._cache.pop(path, None)) is not None:
            self._cached_bytes -= cached.size

    def _shrink(self) -> None:
        """Drop the refs of the repositories that were used longest ago, and then their digests as well."""
        if self._cached_bytes > self._max_cached_bytes:
            for path, cached in list(self._cache.items()):
                if cached.snapshot is not None:
                    self._cached_bytes -= cached.size
                    self._cache[path] = cached.without_refs()
                    if self._cached_bytes <= self._max_cached_bytes:
                        break
        while len(self._cache) > MAX_CACHED_ENTRIES:
            self._forget(next(iter(self._cache)))


def _refreshed(path: Path, cached: _Cached, now: RefStat) -> _Cached | None:
    """The cached value with the loose refs that have changed since; None if only git can tell. Blocks."""
    before = cached.snapshot
    if before is None:
        return None
    try:
        changed = changed_loose_values(path, cached.stat, now)
        values = {decode_ref(ref): oid.decode() for ref, oid in changed.items()}
    except UncertainError:
        return None
    changes = {ref: oid for ref, oid in values.items() if before.refs.get(ref) != oid}
    if not changes and now.digest == cached.stat.digest:
        return _Cached(now, cached.digest, before, cached.whole)
    length = _OID_LENGTHS[before.object_format]
    if any(len(oid) != length for oid in changes.values()):
        return None
    return _cached(now, replace(before, refs={**before.refs, **changes}))


def _as_read_by_git(stat: RefStat, snapshot: RefSnapshot) -> _Cached:
    """The value to cache after git has read all refs. Blocks.

    `_refreshed` may bring it up to date later only if each file holds the value of exactly one ref. That is
    not so with symbolic refs: they change with the file of another ref, and git does not list one that
    points to nothing. Then the stat is kept without its files.
    """
    listed = {encode_ref(ref) for ref in snapshot.refs}
    if snapshot.broken or snapshot.symbolic or not listed.issuperset(stat.loose):
        stat = replace(stat, files=None)
    return _cached(stat, snapshot)


def _cached(stat: RefStat, snapshot: RefSnapshot) -> _Cached:
    """The value to cache, with its digest. Blocks: many refs take a while."""
    return _Cached(stat, snapshot.digest, snapshot, snapshot.whole)


def _parse(output: bytes) -> tuple[dict[str, str], frozenset[str]]:
    """The refs with their values, and which of them are symbolic. Blocks: there may be very many."""
    refs, symbolic = {}, []
    for line in output.splitlines():
        oid, ref, target = line.split(b" ")
        if not is_reserved(ref):
            refs[decode_ref(ref)] = oid.decode("ascii")
            symbolic += [decode_ref(ref)] if target else []
    return refs, frozenset(symbolic)


def _lines(stderr: bytes) -> list[str]:
    return stderr.decode("utf-8", "replace").splitlines()[:5]


def _gone(repository: Repository) -> NoSuchRepositoryError:
    return NoSuchRepositoryError(f"no repository {repository.name} on this node")
