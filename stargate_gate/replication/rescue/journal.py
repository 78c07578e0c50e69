"""The journal of what is not known replicated, on disk: data_dir/state/unreplicated.log.

Lines are only appended, one for each fact (see unreplicated.py). When most of them are out of date, the file
is written anew. One task writes. What was asked for while it waited for the disk is written and synced
together. After a failed write the content of the file is unknown, so it is written anew first.
"""

import asyncio
import os
from collections.abc import Collection
from pathlib import Path

import structlog

from stargate_gate.aio.tasks import HeldTasks, finish
from stargate_gate.datadir.files import fsync_dir, write_durably
from stargate_gate.formats import JOURNAL
from stargate_gate.replication.rescue.unreplicated import (
    MAX_REFS,
    DamagedError,
    Fact,
    Forced,
    Kept,
    Mark,
    Refine,
    Replicated,
    Settled,
    Unknown,
    Unreplicated,
    decode,
    distrusted,
    encode,
)

log = structlog.get_logger()

FILE_NAME = "unreplicated.log"


class Journal:
    """One per node. Made by `open`; `close` it. All but `open` belongs to the event loop's thread."""

    def __init__(self, path: Path, known: Unreplicated) -> None:
        self._path = path
        self._known = known
        self._fd: int | None = None
        self._lines = 0
        self._stale = False  # the file is not the sum of what was written to it
        self._waiting: list[Fact] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._tasks = HeldTasks()
        self._writing = False  # a task writes now, and looks once more before it ends

    @classmethod
    def open(cls, path: Path, *, has_repositories: bool) -> "Journal":
        """Read `path`, and write it afresh. Blocks: for a starting node.

        Without the file, the values of a data_dir that has repositories already count as not known
        replicated, all of them; so they do if it is damaged.

        Raises:
            OSError: it cannot be read or written.
            NewerFormatError: a newer version has written it.
        """
        known = Unreplicated()
        try:
            for fact in decode(JOURNAL.body(path.read_bytes(), path)):
                known.apply(fact)
        except FileNotFoundError:
            if has_repositories:
                known.apply(Unknown())
                log.warning("journal_missing", path=str(path), taken_for="nothing is known replicated")
        except DamagedError as error:
            known = Unreplicated()
            known.apply(Unknown())
            log.error(  # noqa: TRY400 - no traceback helps an operator
                "journal_damaged",
                path=str(path),
                error=str(error),
                taken_for="nothing is known replicated",
            )
        journal = cls(path, known)
        journal._replace(encode(known.facts()))
        return journal

    def kept(self, repository_id: str, before: int) -> Kept:
        """What of the repository is not known replicated, of terms older than `before`."""
        return self._known.kept(repository_id, before)

    @property
    def known(self) -> Unreplicated:
        """What is not known replicated; to be looked at only."""
        return self._known

    async def mark(
        self, term: int, seq: int, repository_id: str, name: str, refs: Collection[str] | None
    ) -> None:
        """These refs are about to get values with that change; None: any of the repository's.

        seq  the change's number in the feed; UNNUMBERED on a leader, which does not know it yet. With
             `refs` None that is to be followed by one `refine`.

        On disk when this returns: call it before the refs change.

        Raises:
            OSError: it is not; the refs must stay as they are.
        """
        self._take(Mark(term, seq, repository_id, name, _bounded(refs)))
        await self._written()

    def told(self, term: int, seq: int, repository_id: str, name: str, refs: Collection[str] | None) -> None:
        """The feed has given that number to what a mark of any ref covers. On disk some time.

        That it may be any ref (None) is of interest only while there is such a mark.
        """
        if refs is not None or self._known.is_open(repository_id, term):
            self._add(Mark(term, seq, repository_id, name, _bounded(refs)))

    def refine(self, repository_id: str, term: int, seq: int, refs: Collection[str] | None) -> None:
        """An unnumbered mark of any ref was of these: receive-pack has ended. On disk some time."""
        self._add(Refine(term, seq, repository_id, _bounded(refs)))

    def replicated(self, term: int, seq: int) -> None:
        """Everything of that term up to `seq` is on every member of a sync set that is not empty.

        On disk some time. Says nothing of older terms: see `settle`.
        """
        self._add_news(Replicated(term, seq))

    def settle(self, term: int, seq: int, repository_id: str | None = None, name: str | None = None) -> None:
        """What older terms left is the leader's of `term` at `seq`, or rescued: there, or everywhere.

        A standby says so once it was compared with the leader; a leader, of itself, when its term
        begins. On disk some time.
        """
        self._add_news(Settled(term, seq, repository_id, name))

    async def distrust(self, forced_term: int) -> None:
        """A leader of that term was forced by an operator: it may lack what the sync set had.

        So every value here counts as not known replicated. Does nothing if that was taken account of.
        On disk when this returns.

        Raises:
            OSError: it is not; no ref may be overwritten.
        """
        if forced_term <= self._known.forced_term:
            return
        log.warning("leadership_was_forced", term=forced_term, taken_for="nothing is known replicated")
        for fact in distrusted(forced_term):
            self._take(fact)
        await self._written()

    def forced(self, forced_term: int) -> None:
        """This node leads that term, or one after it: what it has is what counts. On disk some time."""
        if forced_term > self._known.forced_term:
            self._add(Forced(forced_term))

    async def close(self) -> None:
        """Write what waits; no more facts after this."""
        while self._tasks:
            await finish(self._tasks.ended())
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    # -- inside ----------------------------------------------------------------------------------------

    def _take(self, fact: Fact) -> None:
        self._known.apply(fact)
        self._waiting.append(fact)

    async def _written(self) -> None:
        """All that was taken is on disk. Raises OSError: it is not."""
        written = asyncio.get_running_loop().create_future()
        self._waiters.append(written)
        self._see_to_writing()
        await written

    def _add(self, fact: Fact) -> None:
        self._take(fact)
        self._see_to_writing()

    def _add_news(self, fact: Replicated | Settled) -> None:
        if self._known.changes(fact):
            self._add(fact)

    def _see_to_writing(self) -> None:
        if not self._writing:
            self._writing = True
            self._tasks.start(self._write_all(), "journal")

    async def _write_all(self) -> None:
        waiters: list[asyncio.Future[None]] = []
        try:
            while self._waiting or self._waiters:
                facts, self._waiting = self._waiting, []
                waiters, self._waiters = self._waiters, []
                _tell(waiters, await self._write(facts, durably=bool(waiters)))
        except BaseException as error:  # a bug: nobody may wait for ever, and the whole file is written next
            self._stale = True
            _tell([*waiters, *self._waiters], error)
            self._waiters = []
            raise
        finally:
            self._writing = False

    async def _write(self, facts: list[Fact], *, durably: bool) -> OSError | None:
        try:
            if self._stale or self._known.worth_compacting(self._lines + len(facts)):
                await asyncio.to_thread(self._replace, encode(self._known.facts()))
            else:
                await asyncio.to_thread(self._append, encode(facts), durably)
                self._lines += len(facts)
        except OSError as error:
            self._stale = True
            log.error("journal_not_written", path=str(self._path), error=str(error))  # noqa: TRY400 - nor here
            return error
        return None

    def _append(self, lines: bytes, durably: bool) -> None:  # noqa: FBT001 - for a thread
        assert self._fd is not None  # noqa: S101 - the caller has opened it
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        if durably:
            os.fsync(self._fd)

    def _replace(self, lines: bytes) -> None:
        write_durably(self._path, JOURNAL.header + lines)
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._stale, self._lines = False, lines.count(b"\n")


def _tell(waiters: list[asyncio.Future[None]], problem: BaseException | None) -> None:
    """What they wait for is on disk, or not for that reason."""
    for waiter in waiters:
        if waiter.done():
            continue
        if problem is None:
            waiter.set_result(None)
        elif isinstance(problem, asyncio.CancelledError):
            waiter.cancel()
        else:
            waiter.set_exception(problem)


class NoJournal:
    """What a node without a cluster has: nobody may lead in its place, so nothing has to be noted."""

    async def mark(
        self, term: int, seq: int, repository_id: str, name: str, refs: Collection[str] | None
    ) -> None:
        """As `Journal.mark`."""

    def told(self, term: int, seq: int, repository_id: str, name: str, refs: Collection[str] | None) -> None:
        """As `Journal.told`."""

    def refine(self, repository_id: str, term: int, seq: int, refs: Collection[str] | None) -> None:
        """As `Journal.refine`."""

    def replicated(self, term: int, seq: int) -> None:
        """As `Journal.replicated`."""


def forget_journal(path: Path) -> None:
    """A node without a cluster keeps no journal; one left from earlier would not tell of what it does now.

    Raises:
        OSError: it cannot be removed.
    """
    if path.exists():
        path.unlink()
        fsync_dir(path.parent)


def _bounded(refs: Collection[str] | None) -> tuple[str, ...] | None:
    return None if refs is None or len(refs) > MAX_REFS else tuple(sorted(refs))
