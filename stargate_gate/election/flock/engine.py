"""The embedded engine: flock(2) on a file of a shared volume, and the record inside that file.

The file is opened with os.open and never created here; the lock is released by closing, never by
LOCK_UN, which would free it under a descriptor that is still shared. Every call that touches the
volume runs in the engine's own daemonic thread. This is the only module that knows portalocker.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import portalocker
import structlog

from stargate_gate.aio.worker import Worker
from stargate_gate.election.flock.lockfile import (
    FileId,
    check_mount,
    file_id,
    open_existing,
    opened,
    read_slots,
    record_of,
    unavailable,
    write_all,
)
from stargate_gate.election.flock.slots import SLOT_BYTES, STAMP_BYTES, STAMP_OFFSET, Slots, encode
from stargate_gate.election.flock.steps import Read, Reserve, Step, Steps, Sync, Write, claim, keep, write
from stargate_gate.election.lease import boottime
from stargate_gate.election.port import ClusterRecord
from stargate_gate.election.state import ElectionState
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError

log = structlog.get_logger()
_T = TypeVar("_T")

RELEASE_LIMIT_S = 2.0  # how long release() waits for the close; a hung volume closes when it can
LOST_ERRNOS = frozenset({errno.EIO, errno.EBADF, errno.ESTALE})  # how NFSv4 says that a lock is gone
FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


def lock_exclusively(fd: int) -> bool:
    """Take the leader lock on an open file, without waiting; False if somebody else holds it.

    Raises:
        OSError: it is not known, or the file system has no locks.
    """
    try:
        portalocker.lock(fd, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise OSError(errno.ENOLCK, str(error)) from error
    return True


class FlockEngine:
    """`port.Engine` on the lock file at `path`.

    A file that replaced the one this node tried last is not tried before it has been the only one seen
    for `lease_s` seconds: a leader that lives on the old one notices within that time, and stops.
    """

    def __init__(
        self, path: Path, state: ElectionState, *, lease_s: float, clock: Callable[[], float] = boottime
    ) -> None:
        self.place = f"the leader lock {path}"
        self._path = path
        self._state = state
        self._lease_s = lease_s
        self._clock = clock
        self._worker = Worker("leader-lock")
        self._durable_term = -1  # what was read of smaller terms is known to be on disk
        self._replacement: tuple[FileId, float] | None = (
            None  # the file that is there instead of ours, and since when
        )
        self._checked_device: int | None = None

    async def read(self) -> ClusterRecord:
        """See `port.Engine.read`."""
        return await self._worker.call(self._read)

    async def try_acquire(self) -> "FlockHandle | None":
        """See `port.Engine.try_acquire`."""
        taken: list[int] = []
        try:
            got = await self._worker.call(self._try_acquire, taken)
        except BaseException:
            self._worker.submit(_close_all, taken)  # the lock may come after we have gone
            raise
        return FlockHandle(self._path, taken[0], self._state, self._worker) if got else None

    async def close(self) -> None:
        """See `port.Engine.close`."""
        self._worker.close()

    def _read(self) -> ClusterRecord:
        with opened(self._path, os.O_RDONLY) as fd:
            try:
                record = record_of(self._path, read_slots(self._path, fd))
                if record.term > self._durable_term:
                    os.fsync(fd)  # what is noted as seen must not vanish in a crash of the volume
                    self._durable_term = record.term
                self._check_same_file(file_id(fd))
            except OSError as error:
                raise unavailable(self._path, error) from error
        return record

    def _try_acquire(self, taken: list[int]) -> bool:
        fd = open_existing(self._path, os.O_RDWR)
        try:
            if not self._may_try(file_id(fd)) or not lock_exclusively(fd):
                return False
            _require_same_file(fd, self._path)  # replaced between open and lock
            taken.append(fd)
        except OSError as error:
            raise unavailable(self._path, error) from error
        finally:
            if not taken:
                os.close(fd)
        return True

    def _check_same_file(self, found: FileId) -> None:
        """Remember the first lock file, and note when another one takes its place.

        Any other file seen in between starts the wait anew: a leader may have proved its lease on that
        one meanwhile.
        """
        if self._state.known.lock_file is None:
            self._state.note_lock_file(found)
        elif found == self._state.known.lock_file:
            self._replacement = None
        elif self._replacement is None or found != self._replacement[0]:
            self._replacement = (found, self._clock())
            if found[1] == self._state.known.lock_file[1]:
                log.warning("lock_volume_mounted_anew", path=str(self._path), wait_s=self._lease_s)
            else:
                log.error("lock_file_replaced", path=str(self._path), wait_s=self._lease_s)

    def _may_try(self, found: FileId) -> bool:
        if found[0] != self._checked_device:
            check_mount(self._path)
            self._checked_device = found[0]
        self._check_same_file(found)
        if self._replacement is None:
            return True
        if self._clock() - self._replacement[1] < self._lease_s:
            raise ElectionUnavailableError(
                f"the leader lock {self._path} was replaced by another file: this node waits "
                f"{self._lease_s:g} s for a leader on the old one to notice"
            )
        self._state.note_lock_file(found)
        self._replacement = None
        return True


class FlockHandle:
    """`port.LeaseHandle`: an open, locked descriptor of the lock file.

    Methods whose names end in _now run in the worker.
    """

    def __init__(self, path: Path, fd: int, state: ElectionState, worker: Worker) -> None:
        self._path = path
        self._fds = [fd]
        self._state = state
        self._worker = worker
        self._mine: ClusterRecord | None = None  # the newest record of ours that may be on disk
        self._settled = False  # it is, in both copies
        self._let_go = False
        self._beats = 0

    async def read(self) -> ClusterRecord:
        """See `port.LeaseHandle.read`."""
        return await self._worker.call(self._guarded, lambda: record_of(self._path, self._slots_now()))

    async def claim(self, record: ClusterRecord, *, former: ClusterRecord) -> ClusterRecord:
        """See `port.LeaseHandle.claim`."""
        return await self._worker.call(self._guarded, lambda: self._claim_now(record, former))

    async def write(self, record: ClusterRecord) -> None:
        """See `port.LeaseHandle.write`."""
        await self._worker.call(self._guarded, lambda: self._write_now(record))

    async def prove(self) -> None:
        """See `port.LeaseHandle.prove`."""
        await self._worker.call(self._guarded, self._prove_now)

    async def release(self) -> None:
        """See `port.LeaseHandle.release`. While another call hangs in the kernel, the close waits for it."""
        self._let_go = True  # whatever runs in the worker stops at its next step
        closed = self._worker.submit(_close_all, self._fds)
        done, _ = await asyncio.wait({closed}, timeout=RELEASE_LIMIT_S)
        if not done:
            log.warning("lock_file_close_hangs", path=str(self._path), waited_s=RELEASE_LIMIT_S)

    def _guarded(self, call: Callable[[], _T]) -> _T:
        if self._let_go:
            raise LeadershipLostError("the leader lock was let go")
        try:
            return call()
        except OSError as error:
            raise unavailable(self._path, error) from error

    def _claim_now(self, record: ClusterRecord, former: ClusterRecord) -> ClusterRecord:
        self._mine = self._drive(claim(record, former))
        self._settled = True
        return self._mine

    def _write_now(self, record: ClusterRecord) -> None:
        self._mine, self._settled = record, False
        self._drive(write(record))
        self._settled = True

    def _prove_now(self) -> None:
        self._stamp_now()
        if self._mine is None:
            self._slots_now()  # not claimed yet: the claim itself looks for others
        else:
            self._drive(keep(self._mine, mend=self._settled))

    def _stamp_now(self) -> None:
        """Write through the held descriptor: on NFS a lost lock shows only then."""
        self._beats += 1
        stamp = f"heartbeat {self._beats} of pid {os.getpid()}\n".encode().ljust(STAMP_BYTES, b"\0")
        try:
            write_all(self._fds[0], stamp, STAMP_OFFSET)
            os.fsync(self._fds[0])
        except OSError as error:
            if error.errno in LOST_ERRNOS:
                raise LeadershipLostError(
                    f"the leader lock does not take a heartbeat: {error.strerror}"
                ) from error
            if error.errno not in FULL_ERRNOS:  # a full volume is trouble, but the lock is held
                raise
            log.warning("lock_volume_full", path=str(self._path))

    def _slots_now(self) -> Slots:
        """Opened afresh for each reading (NFS: close-to-open), and still the file that is locked."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise LeadershipLostError("the lock file was deleted, or its volume unmounted") from error
        try:
            if file_id(fd) != file_id(self._fds[0]):
                raise LeadershipLostError("the lock file was replaced")
            return read_slots(self._path, fd)
        finally:
            os.close(fd)

    def _drive(self, steps: Steps[_T]) -> _T:
        answer: Slots | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                result: _T = done.value
                return result
            if self._let_go:
                raise LeadershipLostError("the leader lock was let go")
            answer = self._perform(step)

    def _perform(self, step: Step) -> Slots | None:
        match step:
            case Read():
                return self._slots_now()
            case Write(slot, record):
                write_all(self._fds[0], encode(record), slot * SLOT_BYTES)
            case Sync():
                os.fsync(self._fds[0])
            case Reserve(term):
                self._state.reserve(term)
        return None


def _require_same_file(fd: int, path: Path) -> None:
    info = path.stat()
    if (info.st_dev, info.st_ino) != file_id(fd):
        raise ElectionUnavailableError(f"the leader lock {path} was replaced while it was taken")


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
