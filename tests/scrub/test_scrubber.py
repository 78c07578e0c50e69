"""The scrub of a node: in order, over restarts, and nobody waits for it."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.errors import NoSuchRepositoryError
from stargate_gate.repos.names import RepositoryName
from stargate_gate.scrub.checker import Checker
from stargate_gate.scrub.findings import Report
from stargate_gate.scrub.progress import FILE_NAME, Progress
from stargate_gate.scrub.scrubber import Scrubber, ScrubSettings
from tests.support.room import Room

LIMIT_S = 60.0
WEEK_S = 7 * 86_400.0
NAMES = [f"org/{letter}" for letter in "abcd"]


class Heard:
    """Whoever is told of results."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.came = asyncio.Event()

    async def __call__(self, report: Report) -> None:
        self.reports.append(report)
        self.came.set()

    async def until(self, count: int) -> list[str]:
        """Wait for so many reports; the names."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.reports) < count:
                self.came.clear()
                await self.came.wait()
        return [report.name for report in self.reports]


def scrubber(room: Room, *, rate: float = 1e9, interval_s: float = WEEK_S) -> tuple[Scrubber, Heard]:
    """As a node makes it."""
    heard = Heard()
    made = Scrubber(
        room.store.root,
        Checker(room.store, room.processes, again_s=0.01),
        Progress.open(room.datadir.state / FILE_NAME),
        ScrubSettings(interval_s, rate),
        mark=None,
        pause_s=0.0,
    )
    made.report_to(heard)
    return made, heard


@contextlib.asynccontextmanager
async def running(made: Scrubber) -> AsyncIterator[None]:
    """In the background."""
    task = asyncio.create_task(made.run())
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.fixture
async def filled(room: Room) -> Room:
    """Four repositories."""
    for name in NAMES:
        await room.store.create(RepositoryName(name))
    return room


def head(room: Room, name: str) -> Path:
    return room.store.root / f"{name}.git" / "HEAD"


async def test_all_are_checked_and_a_restart_goes_on_where_it_was(filled: Room) -> None:
    """After half of them the node is stopped: the next one checks the others only."""
    made, heard = scrubber(filled)
    async with running(made):
        first = (await heard.until(2))[:2]
    first = [report.name for report in heard.reports]
    made, heard = scrubber(filled)
    async with running(made):
        await heard.until(len(NAMES) - len(first))
        async with asyncio.timeout(LIMIT_S):
            while made.status().verified != len(NAMES):
                await asyncio.sleep(0.01)
    assert sorted(first + [report.name for report in heard.reports]) == NAMES
    status = made.status()
    assert (status.on, status.total, status.unverified, status.damaged) == (True, 4, 0, ())
    assert status.oldest_check_s is not None
    assert status.read_bytes > 0


async def test_damage_is_told_logged_and_shown_until_it_is_repaired(filled: Room) -> None:
    """Also of a copy that no request finds any more; the others are checked all the same."""
    before = head(filled, "org/b").read_bytes()
    head(filled, "org/b").write_bytes(b"")
    made, heard = scrubber(filled)
    with capture_logs() as logs:
        async with running(made):
            assert sorted(await heard.until(4)) == NAMES
        (bad,) = [report for report in heard.reports if report.verdict.result != "sound"]
        assert (bad.name, bad.verdict.result) == ("org/b", "damaged")
        assert bad.key == (head(filled, "org/b").parent / "stargate-id").read_text().strip()
        status = made.status()
        assert [(one.name, one.why) for one in status.damaged] == [("org/b", "HEAD: its HEAD is empty")]
        assert (status.verified, status.unverified) == (3, 0)
        made, heard = scrubber(filled)
        async with running(made):
            async with asyncio.timeout(LIMIT_S):
                while not made.status().total:
                    await asyncio.sleep(0.01)
            assert [one.name for one in made.status().damaged] == ["org/b"], "it is known after a restart"
            head(filled, "org/b").write_bytes(before)
            assert (await made.verify(RepositoryName("org/b"))).verdict.result == "sound"
            assert made.status().damaged == ()
    events = [one["event"] for one in logs if one["event"].startswith("copy_")]
    assert events == ["copy_found_damaged", "copy_found_sound_again"]


async def test_what_was_written_at_an_unclean_end_is_checked_first(filled: Room) -> None:
    """All were checked a moment ago; only the suspect is checked again."""
    made, heard = scrubber(filled)
    async with running(made):
        await heard.until(4)
    suspect = filled.store.root / "org/c.git"
    progress = Progress.open(filled.datadir.state / FILE_NAME)
    known = {entry.name: entry for entry in progress.entries.values()}["org/c"]
    assert known.key == (suspect / "stargate-id").read_text().strip()
    progress.ended_uncleanly(suspect.stat().st_mtime + 3600)  # nothing was written since
    made, heard = scrubber(filled)
    async with running(made):
        async with asyncio.timeout(LIMIT_S):
            while Progress.open(filled.datadir.state / FILE_NAME).unclean is not None:
                await asyncio.sleep(0.01)
        (suspect / "refs/heads/new.lock").write_bytes(b"")
        assert heard.reports == []
    progress = Progress.open(filled.datadir.state / FILE_NAME)
    progress.ended_uncleanly(0.0)
    made, heard = scrubber(filled)
    async with running(made):
        names = await heard.until(4)
    assert sorted(names) == NAMES
    assert names[0] == "org/c", "the one that was written last comes first"


async def test_a_copy_that_was_replaced_is_checked_at_once(filled: Room, tmp_path: Path) -> None:
    """Whoever has fetched it anew says so; nobody waits for the next listing."""
    made, heard = scrubber(filled)
    head(filled, "org/b").write_bytes(b"")
    path = head(filled, "org/b").parent
    async with running(made):
        await heard.until(4)
        assert [one.name for one in made.status().damaged] == ["org/b"]
        path.rename(tmp_path / "old.git")
        shutil.copytree(tmp_path / "old.git", path)
        head(filled, "org/b").write_bytes(head(filled, "org/a").read_bytes())
        made.look_again()
        await heard.until(5)
        assert heard.reports[-1].verdict.result == "sound"
        assert (made.status().verified, made.status().damaged) == (4, ())


async def test_off_checks_nothing_and_verify_works(filled: Room) -> None:
    """Whichever of the two keys is 0."""
    for off in ({"rate": 0.0}, {"interval_s": 0.0}):
        made, heard = scrubber(filled, **off)
        async with running(made):
            async with asyncio.timeout(LIMIT_S):
                while not made.status().total:
                    await asyncio.sleep(0.01)
            report = await made.verify(RepositoryName("org/a"))
            assert report.verdict.result == "sound"
            assert [one.name for one in heard.reports] == ["org/a"]
            assert not made.status().on
            with pytest.raises(NoSuchRepositoryError):
                await made.verify(RepositoryName("org/none"))
            assert await made.names() == NAMES


async def test_a_bug_in_a_check_ends_nothing(filled: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged with a traceback, and the scrub goes on after a pause."""
    made, heard = scrubber(filled)
    check, failed = made._checker.check, asyncio.Event()

    async def broken(*args: object) -> object:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a bug")
        return await check(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(made._checker, "check", broken)
    monkeypatch.setattr("stargate_gate.scrub.scrubber.AFTER_A_BUG_S", 0.01)
    with capture_logs() as logs:
        async with running(made):
            assert sorted(await heard.until(4)) == NAMES
    assert [one["event"] for one in logs if one["log_level"] == "error"] == ["scrub_failed"]
