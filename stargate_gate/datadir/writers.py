"""Who writes to the repositories of this data_dir: a lock, a record of each writer, and who runs now.

Theory of operation. The node holds `writers.lock` shared, and every git process that writes inherits the
descriptor, and so do its children. After a `kill -9` of the node, the kernel therefore still knows whether
any of them lives. The next node asks for the lock exclusively: it waits a little, then ends the processes
that are left, and only then touches the files that they may have left behind. Which processes to end, it
knows from the records and from who has the lock file open; which repositories to clean up, from the records.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import structlog

from stargate_gate.datadir.files import write_durably
from stargate_gate.datadir.layout import DataDir
from stargate_gate.datadir.locks import open_lock_file, try_lock
from stargate_gate.datadir.procs import ProcessId, boot_id, holders_of, process_id
from stargate_gate.errors import UnavailableError
from stargate_gate.formats import WRITER

log = structlog.get_logger()

WAIT_S = 2.0  # for processes that end by themselves, because their input ended with the node
TERM_S = 3.0  # git removes its lock files when it is asked to end
KILL_S = 10.0  # only a process in uninterruptible I/O takes longer
ALONE_LIMIT_S = 600.0  # for running writers to end: housekeeping of a large repository takes minutes
POLL_S = 0.02  # flock(2) has no time limit, and a child process for the wait costs more

Sweep: TypeAlias = Callable[[frozenset[Path] | None], Awaitable[None]]


@dataclass(frozen=True)
class WriterRecord:
    """One git process that writes. `process` is None until it has a process id."""

    repository: Path
    process: ProcessId | None

    def encode(self) -> bytes:
        """As one JSON object."""
        who = self.process
        value: dict[str, str | int] = {
            "repository": os.fsencode(self.repository).decode("utf-8", "surrogateescape")
        }
        if who is not None:
            value.update(pid=who.pid, start=who.start, boot=who.boot)
        return json.dumps(WRITER.stamped(value)).encode() + b"\n"

    @classmethod
    def decode(cls, content: bytes, place: object = "a writer record") -> Self:
        """The reverse of `encode`, for what was read from `place`.

        Raises:
            NewerFormatError: a newer version has written it.
            ValueError: half written, or no record.
        """
        value = json.loads(content)
        try:
            value = WRITER.unstamped(value, place)
            path = Path(os.fsdecode(value["repository"].encode("utf-8", "surrogateescape")))
            if "pid" not in value:
                return cls(path, None)
            return cls(path, ProcessId(int(value["pid"]), int(value["start"]), str(value["boot"])))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no writer record: {content[:80]!r}") from error


class WriterRecords:
    """The records in run/writers/. They are not durable: after a reboot every repository is cleaned up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def announce(self, repository: Path) -> Path:
        """Record a process that is about to be started to write to `repository`; returns the record's path.

        Raises:
            OSError: it cannot be written, and so the process must not be started.
        """
        path = self._folder / secrets.token_hex(8)
        path.write_bytes(WriterRecord(repository, None).encode())
        return path

    def complete(self, path: Path, repository: Path, pid: int) -> None:
        """Add its process id. If this fails, a later node still finds the process by the inherited lock."""
        who = process_id(pid)
        if who is None:
            return
        beside = path.with_name(f".{path.name}")
        try:
            beside.write_bytes(WriterRecord(repository, who).encode())
            beside.rename(path)
        except OSError as error:
            log.warning("writer_record_incomplete", pid=pid, error=str(error))

    def remove(self, path: Path) -> None:
        """The process is reaped and its repository clean: remove its record."""
        with contextlib.suppress(OSError):
            path.unlink()

    def read(self) -> list[WriterRecord | None]:
        """All records; None for one that cannot be read. Raises NewerFormatError."""
        found: list[WriterRecord | None] = []
        for path in self._folder.iterdir():
            try:
                found.append(WriterRecord.decode(path.read_bytes(), path))
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                found.append(None)
        return found

    def clear(self) -> None:
        """Remove all, after their repositories were swept."""
        for path in list(self._folder.iterdir()):
            self.remove(path)


class _Busy:
    """One repository that is written to, or that somebody waits for."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()  # held during a sweep, when nobody may start to write
        self.records: Counter[Path] = Counter()  # of running writers
        self.dirty: set[Path] = set()  # records of writers that ended badly since the last sweep
        self.interested = 0  # calls that use this object
        self.idle = asyncio.Event()  # set whenever the last writer has left


class ActiveWriters:
    """Which writers of this node run now: `enter` before one is started, `leave` after it was reaped.

    sweep  removes what killed git processes left in a repository, and returns what it removed; in a thread.
           It is called when a writer ended badly and no other writes to the repository
    """

    def __init__(self, records: WriterRecords, sweep: Callable[[Path], Sequence[str]]) -> None:
        self._records = records
        self._sweep = sweep
        self._busy: dict[Path, _Busy] = {}

    async def enter(self, repository: Path) -> Path:
        """Wait until no sweep runs there, and record a writer that is about to start; returns the record.

        Raises:
            OSError: the record cannot be written.
        """
        busy = self._busy.setdefault(repository, _Busy())
        busy.interested += 1
        try:
            async with busy.turn:
                record = self._records.announce(repository)
                busy.records[record] += 1
        finally:
            self._forget(repository, busy)
        return record

    async def leave(self, repository: Path, record: Path, *, clean: bool) -> None:
        """The writer is reaped. If any ended badly and none is left, sweep and then remove the records."""
        busy = self._busy[repository]
        busy.interested += 1
        try:
            del busy.records[record]
            if not busy.records:
                busy.idle.set()
            if not clean:
                busy.dirty.add(record)
            else:
                self._records.remove(record)
            if busy.dirty and not busy.records:
                async with busy.turn:
                    # Look again: while this waited for the lock, another writer may have entered. It sweeps
                    # then.
                    if not busy.records:
                        await self._clean(repository, busy)
        finally:
            self._forget(repository, busy)

    @contextlib.asynccontextmanager
    async def alone(self, repository: Path) -> AsyncIterator[None]:
        """A scope in which nobody writes to the repository, and nobody starts to.

        Raises:
            UnavailableError: somebody still writes after ALONE_LIMIT_S.
        """
        busy = self._busy.setdefault(repository, _Busy())
        busy.interested += 1
        try:
            async with busy.turn:
                try:
                    async with asyncio.timeout(ALONE_LIMIT_S):
                        while busy.records:
                            busy.idle.clear()
                            await busy.idle.wait()
                except TimeoutError as error:
                    raise UnavailableError("another git process writes there for too long") from error
                yield
        finally:
            self._forget(repository, busy)

    async def _clean(self, repository: Path, busy: _Busy) -> None:
        try:
            removed = await asyncio.to_thread(self._sweep, repository)
        except OSError as error:
            # The records stay: the next bad end, or the next start of the node, sweeps again.
            log.warning("repository_not_swept", path=str(repository), error=str(error))
            return
        if removed:
            log.info("repository_swept", path=str(repository), removed=removed[:10], count=len(removed))
        for record in busy.dirty:
            self._records.remove(record)
        busy.dirty.clear()

    def _forget(self, repository: Path, busy: _Busy) -> None:
        busy.interested -= 1
        if not busy.interested and not busy.records and not busy.dirty:
            self._busy.pop(repository, None)


class WritersLock:
    """The writers lock, held shared by a running node. Git processes that write inherit `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The descriptor to pass on.

        Raises:
            UnavailableError: the lock was closed; nothing may be started any more.
        """
        if self._fd < 0:
            raise UnavailableError("this node is stopping")
        return self._fd

    def close(self) -> None:
        """Release this node's share of the lock. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @classmethod
    async def open_exclusively_then_share(
        cls,
        datadir: DataDir,
        sweep: Sweep,
        *,
        wait_s: float = WAIT_S,
        term_s: float = TERM_S,
        kill_s: float = KILL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Make sure that nobody writes here, clean up, and hold the lock shared from then on.

        Called once by a starting node, which holds the node lock. `sweep` is awaited while nobody writes,
        with the repositories that were written to when the node before this one died; None means all of
        them: after a reboot, or if the records cannot be read.

        Raises:
            UnavailableError: somebody still writes after SIGKILL and `kill_s` seconds.
        """
        fd = open_lock_file(datadir.writers_lock)
        records = WriterRecords(datadir.writers)
        try:
            await _end_all_writers(fd, datadir, records, (wait_s, term_s, kill_s), clock)
            await sweep(_to_sweep(datadir, records))
            records.clear()
            _note_boot(datadir)
            # flock(2) converts the lock; in between it may be free for a moment. Only a starting node takes
            # it exclusively, and the node lock keeps every other node out.
            fcntl.flock(fd, fcntl.LOCK_SH)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)


async def _end_all_writers(
    fd: int,
    datadir: DataDir,
    records: WriterRecords,
    limits_s: tuple[float, float, float],
    clock: Callable[[], float],
) -> None:
    """Take the lock on `fd` exclusively: wait, then SIGTERM to the holders, then SIGKILL."""
    for number, limit_s in zip((None, signal.SIGTERM, signal.SIGKILL), limits_s, strict=True):
        until = clock() + limit_s
        signalled: set[ProcessId] = set()
        while not try_lock(fd, fcntl.LOCK_EX):
            if clock() >= until:
                break
            if number is not None:
                for who in await asyncio.to_thread(_living_writers, datadir, records):
                    if who not in signalled:
                        signalled.add(who)
                        _signal(who, number)
            await asyncio.sleep(POLL_S)
        else:
            return
    holders = ", ".join(str(who.pid) for who in holders_of(datadir.writers_lock))
    raise UnavailableError(
        f"processes of an earlier node still write to this data_dir and do not end "
        f"(pid {holders or 'unknown'}): end them, then start again"
    )


def _living_writers(datadir: DataDir, records: WriterRecords) -> set[ProcessId]:
    """The processes known to write here: by their records, and by having the lock file open."""
    recorded = {
        entry.process for entry in records.read() if entry and entry.process and entry.process.alive()
    }
    return recorded.union(holders_of(datadir.writers_lock))


def _signal(who: ProcessId, number: signal.Signals) -> None:
    log.warning("ending_writer_of_an_earlier_node", pid=who.pid, signal=number.name)
    try:
        if not who.send_group(number):
            who.send(number)
    except PermissionError as error:
        log.error("cannot_end_writer", pid=who.pid, error=str(error))  # noqa: TRY400 - the reason is enough


def _to_sweep(datadir: DataDir, records: WriterRecords) -> frozenset[Path] | None:
    """Which repositories may contain what killed processes left; None: all may."""
    try:
        same_boot = (datadir.run / "boot_id").read_text("ascii").strip() == boot_id()
    except (OSError, ValueError):
        same_boot = False
    found = records.read()
    if not same_boot or any(entry is None for entry in found):
        return None
    return frozenset(entry.repository for entry in found if entry is not None)


def _note_boot(datadir: DataDir) -> None:
    path = datadir.run / "boot_id"
    if not path.exists() or path.read_text("ascii", "replace").strip() != boot_id():
        write_durably(path, boot_id().encode() + b"\n")
