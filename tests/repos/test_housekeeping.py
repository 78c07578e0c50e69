"""Housekeeping keeps repositories quick, loses nothing, and is never in the way."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.repos import housekeeping as housekeeping_module
from stargate_gate.repos.durable import sync_changed_folders
from stargate_gate.repos.hooks import install_hooks
from stargate_gate.repos.housekeeping import MAX_WAITING, Housekeeping
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from tests.support.git import children, git, make_work
from tests.support.room import Room

LIMIT_S = 20.0
A = RepositoryName("a")


@pytest.fixture
async def repository(room: Room) -> Repository:
    return await room.store.create(A)


@pytest.fixture
def housekeeping(room: Room) -> Housekeeping:
    return Housekeeping(room.store, room.processes, quiet_s=0.02)


@pytest.fixture
async def running(housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Housekeeping]:
    monkeypatch.setattr(housekeeping_module, "PAUSE_S", 0.01)
    task = asyncio.create_task(housekeeping.run())
    yield housekeeping
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(condition: object, limit_s: float = LIMIT_S) -> None:
    assert callable(condition)
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_loose_objects_are_packed_and_nothing_is_lost(
    room: Room, housekeeping: Housekeeping, repository: Repository, tmp_path: Path
) -> None:
    """Unreachable objects and rescued refs included; refs are packed; nobody else may see a change."""
    work = make_work(tmp_path / "work", commits=5)
    git(
        "push",
        "-q",
        "--receive-pack=git -c core.hooksPath=/dev/null receive-pack",
        repository.path,
        "HEAD:refs/heads/main",
        cwd=work,
    )
    unreachable = git("hash-object", "-w", "--stdin", cwd=repository.path, given=b"unreachable")
    git("update-ref", "refs/stargate/rescued/1/x", "main~2", cwd=repository.path)
    git("update-ref", "refs/heads/gone", "main", cwd=repository.path)
    before = await room.refs.snapshot(repository)
    for _ in range(2):
        await housekeeping.look_after(repository)
    assert git("cat-file", "-p", unreachable, cwd=repository.path) == "unreachable"
    assert git("rev-parse", "refs/stargate/rescued/1/x", cwd=repository.path)
    assert list((repository.path / "objects/pack").glob("*.pack"))
    assert git("count-objects", cwd=repository.path).startswith("0 objects")
    assert (await room.refs.snapshot(repository)).digest == before.digest
    git("fsck", "--full", cwd=repository.path)


async def test_what_was_touched_is_looked_after_once(running: Housekeeping, repository: Repository) -> None:
    """After it has been quiet."""
    git("hash-object", "-w", "--stdin", cwd=repository.path, given=b"x")
    for _ in range(5):
        await running.touched(repository)
    assert len(running) == 1
    await until(lambda: len(running) == 0)
    await until(lambda: list((repository.path / "objects/pack").glob("*.pack")))


async def test_a_failure_or_a_vanished_repository_does_not_end_it(
    room: Room, running: Housekeeping, repository: Repository
) -> None:
    """It is logged, and the next one's turn comes."""
    broken = await room.store.create(RepositoryName("0-broken"))
    gone = await room.store.create(RepositoryName("0-gone"))
    (broken.path / "HEAD").write_text("junk\n")
    git("hash-object", "-w", "--stdin", cwd=repository.path, given=b"x")
    with capture_logs() as logs:
        for each in (broken, gone, repository):
            await running.touched(each)
        await room.store.delete(gone.name)
        await until(lambda: list((repository.path / "objects/pack").glob("*.pack")))
    assert {entry["repository"] for entry in logs if entry["event"] == "maintenance_failed"} == {"0-broken"}


async def test_stopping_it_ends_git_at_once(
    room: Room,
    housekeeping: Housekeeping,
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step-down does not wait for a repack."""
    slow = tmp_path / "bin"
    slow.mkdir()
    (slow / "git").write_text("#!/bin/sh\nsleep 60\n")
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    task = asyncio.create_task(housekeeping.run())
    await housekeeping.touched(repository)
    await until(lambda: len(room.processes) == 1)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 5
    assert not children()


async def test_the_queue_is_bounded(housekeeping: Housekeeping, repository: Repository) -> None:
    """Ten thousand repositories may wait, no more."""
    for number in range(MAX_WAITING + 5):
        await housekeeping.touched(Repository(RepositoryName(f"r{number}"), repository.path))
    assert len(housekeeping) == MAX_WAITING


async def test_the_trash_is_emptied(room: Room, repository: Repository) -> None:
    """By the clock that it is given."""
    await room.store.delete(A)
    later = Housekeeping(room.store, room.processes, now=lambda: datetime.now(UTC) + timedelta(days=8))
    task = asyncio.create_task(later.run())
    await until(lambda: not list(room.datadir.trash.iterdir()))
    task.cancel()
    await asyncio.wait({task})


async def test_changed_folders_are_synced_and_others_are_not(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders of what a command wrote, and only these."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    for folder in [repository.path, *repository.path.rglob("*")]:
        os.utime(folder, (1, 1))
    await asyncio.sleep(0.1)
    since = time.time_ns()
    assert sync_changed_folders(repository.path, since) == 0
    oid = git("hash-object", "-w", "--stdin", cwd=repository.path, given=b"x")
    git("update-ref", "refs/tags/deep/x", oid, cwd=repository.path)
    sync_changed_folders(repository.path, since)
    expected = ["objects", f"objects/{oid[:2]}", "refs/tags", "refs/tags/deep"]
    assert set(synced) == {str(repository.path / folder) for folder in expected}


def test_hooks_are_installed_executable_and_strangers_removed(room: Room) -> None:
    """What stands in that folder runs at each push; a damaged one is replaced."""
    hook = room.datadir.hooks / "pre-receive"
    good = hook.read_bytes()
    hook.chmod(0o600)
    hook.write_text("exit 0\n")
    (room.datadir.hooks / "post-receive").write_text("#!/bin/sh\n")
    install_hooks(room.datadir)
    assert [path.name for path in room.datadir.hooks.iterdir()] == ["pre-receive"]
    assert hook.read_bytes() == good
    assert hook.stat().st_mode & 0o777 == 0o755
    hook.unlink()
    hook.symlink_to("/bin/true")
    install_hooks(room.datadir)
    assert not hook.is_symlink()
