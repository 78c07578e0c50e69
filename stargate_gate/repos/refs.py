"""The refs of a repository as one value, its digest, and a cache that sees every change, whoever made it."""

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
from stargate_gate.repos.plan import decode_ref, encode_ref
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.ref_stat import Stamp, UncertainError, is_reserved, loose_values, take_stamp
from stargate_gate.repos.repository import Repository, read_head, read_object_format
from stargate_gate.repos.snapshot import RefSnapshot

log = structlog.get_logger()

READ_LIMIT_S = 120.0  # a million refs take seconds; a sleeping disk takes its time
READS_AT_ONCE = 4
ATTEMPTS = 3  # while somebody pushes all the time, the answer is one that was true in between
MAX_CACHED_BYTES = 64 * 1024 * 1024
MAX_CACHED_ENTRIES = 100_000  # digests: some 300 bytes each

_OID_LENGTHS = {"sha1": 40, "sha256": 64}
_DETACHED = re.compile(r"[0-9a-fA-F]{40}(?:[0-9a-fA-F]{24})?")
_TOLD_HEAD = re.compile(r"ref: refs/[^\x00-\x20\x7f]{1,4096}|[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LOST = re.compile(rb"ignoring (?:broken ref|ref with broken name) ")
_BROKEN = re.compile(rb"ignoring (?:broken ref|ref with broken name|dangling symref) (.+)")


@dataclass(frozen=True)
class _Cached:
    stamp: Stamp
    digest: str
    snapshot: RefSnapshot | None
    whole: bool

    @property
    def size(self) -> int:
        """About the bytes that its refs take in memory."""
        return 0 if self.snapshot is None else self.snapshot.size + self.stamp.size

    def without_refs(self) -> "_Cached":
        """The digest alone."""
        return _Cached(replace(self.stamp, files=None), self.digest, None, self.whole)


class RefReader:
    """Snapshots and digests, from memory where the repository's files have not changed since.

    Loose refs that have changed are read here; git reads all refs where more has (see ref_stat.py). The
    very same snapshot again means the very same files. One per node; safe for many tasks at once.
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
        return (await self.digest_and_whole(repository))[0]

    async def digest_and_whole(self, repository: Repository) -> tuple[str, bool]:
        """The digest, and whether no ref has lost its value; as `digest`."""
        cached = await self._valid(repository)
        if cached is not None:
            return cached.digest, cached.whole
        read = await self._read(repository)
        return await asyncio.to_thread(lambda: read.digest), read.whole

    def invalidate(self, repository: Repository) -> None:
        """Forget what is known of it."""
        self._forget(repository.path)

    async def _valid(self, repository: Repository) -> _Cached | None:
        """What is known of it, if that is true now, brought up to date if that takes no process."""
        cached = self._cache.get(repository.path)
        if cached is None:
            return None
        stamp = await self._stamp(repository)
        if stamp.digest == cached.stamp.digest and cached.stamp.settled:
            fresh = cached
        elif (refreshed := await asyncio.to_thread(_refreshed, repository.path, cached, stamp)) is not None:
            fresh = refreshed
        else:
            return None
        newest = self._cache.get(repository.path)
        if newest is cached:
            self._remember(repository, fresh)
        return fresh if newest is not None else None

    async def _read(self, repository: Repository) -> RefSnapshot:
        async with self._slots:
            before = await self._stamp(repository)
            for _ in range(ATTEMPTS):
                snapshot = await self._read_once(repository)
                after = await self._stamp(repository)
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
        return RefSnapshot(object_format, told_head(head), refs, broken, symbolic, whole)

    async def _stamp(self, repository: Repository) -> Stamp:
        try:
            return await asyncio.to_thread(take_stamp, repository.path, self._clock_ns())
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
        """Keep the digests of the least used repositories without their refs, and at last forget them."""
        if self._cached_bytes > self._max_cached_bytes:
            for path, cached in list(self._cache.items()):
                if cached.snapshot is not None:
                    self._cached_bytes -= cached.size
                    self._cache[path] = cached.without_refs()
                    if self._cached_bytes <= self._max_cached_bytes:
                        break
        while len(self._cache) > MAX_CACHED_ENTRIES:
            self._forget(next(iter(self._cache)))


def told_head(head: str) -> str:
    """`head` as `read_head` gives it, if another node can be told of it; else "".

    A file that was copied in may name anything. A HEAD that names a reserved ref is nobody's business.
    """
    told = head.lower() if _DETACHED.fullmatch(head) else head
    ref = encode_ref(told.removeprefix("ref: "))
    return told if _TOLD_HEAD.fullmatch(told) and not is_reserved(ref) else ""


def _refreshed(path: Path, cached: _Cached, now: Stamp) -> _Cached | None:
    """What is known, with what has changed in loose refs since; None if only git can tell. For a thread."""
    before = cached.snapshot
    if before is None:
        return None
    try:
        values = {decode_ref(ref): oid.decode() for ref, oid in loose_values(path, cached.stamp, now).items()}
    except UncertainError:
        return None
    changes = {ref: oid for ref, oid in values.items() if before.refs.get(ref) != oid}
    if not changes and now.digest == cached.stamp.digest:
        return _Cached(now, cached.digest, before, cached.whole)
    length = _OID_LENGTHS[before.object_format]
    if any(len(oid) != length for oid in changes.values()):
        return None
    return _cached(now, replace(before, refs={**before.refs, **changes}))


def _as_read_by_git(stamp: Stamp, snapshot: RefSnapshot) -> _Cached:
    """To be brought up to date only if each file there is the value of one ref. For a thread.

    A symbolic ref changes with another one's file; one that leads nowhere is not even listed.
    """
    listed = {encode_ref(ref) for ref in snapshot.refs}
    if snapshot.broken or snapshot.symbolic or not listed.issuperset(stamp.loose):
        stamp = replace(stamp, files=None)
    return _cached(stamp, snapshot)


def _cached(stamp: Stamp, snapshot: RefSnapshot) -> _Cached:
    """With the digest, which takes a while for many refs. For a thread."""
    return _Cached(stamp, snapshot.digest, snapshot, snapshot.whole)


def _parse(output: bytes) -> tuple[dict[str, str], frozenset[str]]:
    """The refs with their values, and which of them are symbolic. For a thread: there may be very many."""
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
