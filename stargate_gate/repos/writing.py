"""How many processes write to each repository, and the sweep after a bad end, when nobody does."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from stargate_gate.datadir.writers import WriterRecords
from stargate_gate.errors import UnavailableError
from stargate_gate.repos.sweep import sweep_repository

log = structlog.get_logger()

ALONE_LIMIT_S = 600.0  # for those who write there to end: housekeeping of a large repository takes minutes


class _Busy:
    """One repository that is written to."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()  # held by a sweep: nobody may start to write then
        self.records: Counter[Path] = Counter()  # of writers that run
        self.dirty: set[Path] = set()  # records of writers that ended badly since the last sweep
        self.interested = 0
        self.idle = asyncio.Event()  # set whenever the last writer has left


class Writings:
    """The bookkeeping of writers: `enter` before one is started, `leave` after it was reaped."""

    def __init__(self, records: WriterRecords) -> None:
        self._records = records
        self._busy: dict[Path, _Busy] = {}

    async def enter(self, repository: Path) -> Path:
        """Wait until no sweep runs there, and record a writer to come; returns the record.

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
        """The writer is reaped. Sweeps if one has ended badly and none is left; then forgets the records."""
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
                    if not busy.records:
                        await self._sweep(repository, busy)
        finally:
            self._forget(repository, busy)

    @contextlib.asynccontextmanager
    async def alone(self, repository: Path) -> AsyncIterator[None]:
        """Nobody writes to it, and nobody begins to, until this is left.

        Raises:
            UnavailableError: somebody does for ALONE_LIMIT_S.
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

    async def _sweep(self, repository: Path, busy: _Busy) -> None:
        try:
            removed = await asyncio.to_thread(sweep_repository, repository)
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
