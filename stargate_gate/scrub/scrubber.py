"""The scrub of a node: checks its copies one after the other, in the background, or for an operator.

The order and the times are in schedule.py, what is kept on disk in progress.py, the check itself in
checker.py. An interrupted check begins anew with that copy. Another part of the node can hear each result
(`report_to`).
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import structlog

from stargate_gate.aio.tasks import TaskGroup
from stargate_gate.errors import StargateError
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from stargate_gate.scrub.checker import Checker, Reading
from stargate_gate.scrub.copies import changed_since, find_copies, find_copy
from stargate_gate.scrub.findings import Report, Verdict, texts
from stargate_gate.scrub.progress import ALIVE_EVERY_S, Progress, RunningMark
from stargate_gate.scrub.schedule import Copy, Entry, Schedule, Summary
from stargate_gate.status import DamagedCopy, ScrubStatus

log = structlog.get_logger()

DAY_S = 86_400.0
MEGABYTE = 1_000_000
REFRESH_S = 600.0  # how often the copies are listed; 10,000 take most of a second of processor time
PAUSE_S = 1.0  # between two copies: small ones cost more processor time than reading
SUSPECT_PAUSE_S = 0.05
SUMMARY_S = 10.0  # how old the counts in status may be while no check ends
CHECK_LIMIT_S = 7 * DAY_S  # of one copy: 12 TB at 20 MB/s
AFTER_A_BUG_S = 60.0

Told = Callable[[Report], Awaitable[None]]


async def nobody(_report: Report) -> None:
    """Does nothing with a result: nothing was given to `report_to`."""


@dataclass(frozen=True)
class ScrubSettings:
    """From the section `scrub` of the YAML file.

    interval_s  how old a check may become
    rate        bytes a second; if this or `interval_s` is 0, nothing is checked in the background
    """

    interval_s: float
    rate: float

    @property
    def on(self) -> bool:
        """Whether copies are checked in the background."""
        return self.interval_s > 0 and self.rate > 0


@dataclass(frozen=True)
class _Running:
    name: str
    began: float
    reading: Reading


class Scrubber:
    """One per node. `run` until cancelled; then its processes are ended.

    mark  noted now and then while this node runs; None: nothing is checked after an unclean end
    now   seconds since 1970
    """

    def __init__(
        self,
        root: Path,
        checker: Checker,
        progress: Progress,
        settings: ScrubSettings,
        *,
        mark: RunningMark | None,
        now: Callable[[], float] = time.time,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._root = root
        self._checker = checker
        self._progress = progress
        self._settings = settings
        self._mark = mark
        self._told: Told = nobody
        self._now = now
        self._pause_s = pause_s
        self._schedule = Schedule(settings.interval_s if settings.on else math.inf, progress.entries.values())
        self._repositories: dict[str, Repository] = {}
        self._background: _Running | None = None
        self._asked: _Running | None = None
        self._one_at_a_time = asyncio.Lock()  # of the checks that operators ask for
        self._replaced = asyncio.Event()
        self._read_bytes = 0  # by checks that have ended
        self._summary = Summary()
        self._summed_at = -math.inf

    def report_to(self, told: Told) -> None:
        """From now on, await `told` with the result of every check. It logs its own problems."""
        self._told = told

    def look_again(self) -> None:
        """Copies were replaced: list them now, and check those that have another folder."""
        self._replaced.set()

    async def run(self) -> NoReturn:
        """Check what is due, and note now and then that this node runs."""
        async with TaskGroup() as group:
            group.create_task(self._stay_noted(), name="running-mark")
            group.create_task(self._work(), name="scrub-copies")
        raise AssertionError("both run until cancelled")

    async def verify(self, name: RepositoryName) -> Report:
        """Check the copy of that name now, as fast as the disk allows; for an operator.

        Raises:
            NoSuchRepositoryError: there is none here.
            UnavailableError: no process can be started.
            OSError: it cannot be looked at.
        """
        async with self._one_at_a_time:
            copy, repository = await asyncio.to_thread(find_copy, self._root, name)
            self._asked = running = _Running(copy.name, self._now(), Reading())
            try:
                return await self._check(copy, repository, 0.0, running)
            finally:
                self._asked = None

    async def names(self) -> list[str]:
        """All copies that are here, also incomplete ones, sorted."""
        found = await asyncio.to_thread(find_copies, self._root)
        return sorted(copy.name for copy, _ in found.values())

    def status(self) -> ScrubStatus:
        """As of now, from memory; counts are up to SUMMARY_S old."""
        now = self._now()
        if abs(now - self._summed_at) > SUMMARY_S:
            self._sum(now)
        counts, running = self._summary, self._asked or self._background
        read = self._read_bytes + sum(
            one.reading.read_bytes for one in (self._asked, self._background) if one is not None
        )
        return ScrubStatus(
            on=self._settings.on,
            total=counts.total,
            verified=counts.verified,
            unverified=counts.total - counts.verified - len(counts.damaged),
            suspects=counts.suspects,
            damaged=tuple(_damaged(one) for one in counts.damaged),
            oldest_check_s=max(0.0, now - counts.oldest) if counts.oldest is not None else None,
            late=self._schedule.is_late(counts.oldest, now),
            running=running.name if running is not None else None,
            bytes_per_s=_speed(running, now) if running is not None else 0,
            read_bytes=read,
        )

    # -- inside ----------------------------------------------------------------------------------------

    async def _stay_noted(self) -> NoReturn:
        while True:
            await asyncio.sleep(ALIVE_EVERY_S)
            if self._mark is not None:
                await asyncio.to_thread(self._mark.set, self._now())

    async def _work(self) -> NoReturn:
        while True:
            try:
                await self._refresh()
                await self._check_due(asyncio.get_running_loop().time() + REFRESH_S)
            except Exception:  # a bug must not end the node
                log.exception("scrub_failed", pause_s=AFTER_A_BUG_S)
                await asyncio.sleep(AFTER_A_BUG_S)

    async def _refresh(self) -> None:
        """List the copies that are here, and what may have been written at an unclean end."""
        self._replaced.clear()
        found = await asyncio.to_thread(find_copies, self._root)
        self._repositories = {key: repository for key, (_, repository) in found.items()}
        changed, gone = self._schedule.refresh((copy for copy, _ in found.values()), self._now())
        await asyncio.to_thread(self._progress.put, changed)
        await asyncio.to_thread(self._progress.forget, gone)
        if self._progress.unclean is not None:
            written = await asyncio.to_thread(changed_since, self._root, self._progress.unclean)
            suspects = self._schedule.suspect(written, self._now())
            await asyncio.to_thread(self._progress.put, suspects, durably=True)
            await asyncio.to_thread(self._progress.listed)
        self._sum(self._now())
        if self._summary.suspects:
            log.info("scrub_after_unclean_end", repositories=self._summary.suspects)

    async def _check_due(self, until: float) -> None:
        """Check what is due, one after the other, until it is time to list the copies again."""
        if not self._settings.on:
            await self._sleep(REFRESH_S)
            return
        loop = asyncio.get_running_loop()
        while (left_s := until - loop.time()) > 0 and not self._replaced.is_set():
            copy, wait_s = self._schedule.next(self._now())
            if copy is None:
                await self._sleep(min(wait_s, left_s))
                continue
            suspect = self._is_suspect(copy)
            repository = self._repositories.get(copy.key)
            if repository is None:  # an operator has had it checked, and it is not listed yet
                return
            self._background = running = _Running(copy.name, self._now(), Reading())
            try:
                await self._check(copy, repository, self._settings.rate, running)
            finally:
                self._background = None
            await asyncio.sleep(SUSPECT_PAUSE_S if suspect else self._pause_s)

    async def _sleep(self, limit_s: float) -> None:
        """For so long, or until copies were replaced."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._replaced.wait()

    def _is_suspect(self, copy: Copy) -> bool:
        entry = self._schedule.get(copy.key)
        return entry is not None and entry.suspect > 0

    async def _check(self, copy: Copy, repository: Repository, rate: float, running: _Running) -> Report:
        folder, verdict = copy.folder, Verdict("unverified", why="the check was not finished")
        try:
            async with asyncio.timeout(CHECK_LIMIT_S):
                folder, verdict = await self._checker.check(repository, rate, running.reading)
        except TimeoutError:
            verdict = Verdict("unverified", why=f"it took longer than {CHECK_LIMIT_S:g} s")
        except (StargateError, OSError) as error:
            verdict = Verdict("unverified", why=str(error))
        finally:
            self._read_bytes += running.reading.read_bytes
        report = Report(copy.key, copy.name, folder, self._now(), verdict, running.reading.read_bytes)
        await self._take(report)
        return report

    async def _take(self, report: Report) -> None:
        before = self._schedule.get(report.key)
        entry = self._schedule.checked(report)
        await asyncio.to_thread(self._progress.put, [entry], durably=report.verdict.result == "damaged")
        self._summed_at = -math.inf  # counted anew when somebody asks: 10,000 copies take 6 ms
        _log(report, before)
        with contextlib.suppress(StargateError):  # the part that hears it logs its own problems
            await self._told(report)

    def _sum(self, now: float) -> None:
        self._summary, self._summed_at = self._schedule.summary(now), now


def _log(report: Report, before: Entry | None) -> None:
    verdict = report.verdict
    named = {"repository": report.name, "id": report.key}
    was = before.result if before is not None else "unverified"
    if verdict.result == "damaged":
        if before is None or before.findings != verdict.findings:
            remedy = verdict.findings[0].remedy
            log.error("copy_found_damaged", **named, findings=texts(verdict.findings), remedy=remedy)
    elif verdict.result == "unverified":
        if before is None or before.why != verdict.why:
            log.warning("copy_not_verified", **named, why=verdict.why)
    elif was == "damaged":
        log.info("copy_found_sound_again", **named)


def _damaged(entry: Entry) -> DamagedCopy:
    return DamagedCopy(entry.name, entry.why, entry.findings[0].remedy if entry.findings else "")


def _speed(running: _Running, now: float) -> int:
    return int(running.reading.read_bytes / max(1.0, now - running.began))
