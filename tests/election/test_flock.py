"""The flock engine on real files: what can happen to the lock file, and what each node then does."""

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stargate_gate.election.flock import engine, lockfile
from stargate_gate.election.flock.bootstrap import bootstrap
from stargate_gate.election.flock.engine import FlockEngine, FlockHandle
from stargate_gate.election.flock.slots import SLOT_BYTES
from stargate_gate.election.lease import boottime
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
from tests.support.elections import Clock, member, state_of

A, B = member("a"), member("b")
LEASE_S = 5.0


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "leader.lock"
    bootstrap(path, state_of(tmp_path, "a"), A)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def engines(tmp_path: Path, lock: Path, clock: Clock) -> AsyncIterator[Callable[[str], FlockEngine]]:
    """Makes one engine per node."""
    made: dict[str, FlockEngine] = {}

    def engine(name: str) -> FlockEngine:
        if name not in made:
            made[name] = FlockEngine(lock, state_of(tmp_path, name), lease_s=LEASE_S, clock=clock)
        return made[name]

    yield engine
    for one in made.values():
        await one.close()


async def lead(engine: FlockEngine, me: Member, *sync_set: Member) -> tuple[FlockHandle, ClusterRecord]:
    handle = await engine.try_acquire()
    assert handle is not None
    former = await handle.read()
    wanted = replace(former, term=former.term + 1, version=1, leader=me, sync_set=sync_set)
    return handle, await handle.claim(wanted, former=former)


def replace_file(lock: Path) -> None:
    """Another file with the same content takes the name."""
    copy = lock.with_name("copy")
    shutil.copyfile(lock, copy)
    copy.rename(lock)


async def test_a_leader_notices_that_its_file_was_replaced(engines: Callable[[str], FlockEngine], lock: Path):
    """Its next heartbeat and its next write fail for certain: the other file can be locked by another."""
    handle, record = await lead(engines("a"), A, B)
    await handle.prove()
    replace_file(lock)
    with pytest.raises(LeadershipLostError, match="was replaced"):
        await handle.prove()
    with pytest.raises(LeadershipLostError, match="was replaced"):
        await handle.write(replace(record, version=2))
    await handle.release()


async def test_a_leader_notices_that_its_file_was_deleted(engines: Callable[[str], FlockEngine], lock: Path):
    """Also when its whole folder is covered by something else: the name leads nowhere."""
    handle, _ = await lead(engines("a"), A, B)
    lock.unlink()
    with pytest.raises(LeadershipLostError, match="deleted, or its volume unmounted"):
        await handle.prove()
    with pytest.raises(ElectionUnavailableError, match="does not exist"):
        await engines("b").read()
    await handle.release()


async def test_a_replaced_file_is_not_tried_for_a_lease(
    engines: Callable[[str], FlockEngine], lock: Path, clock: Clock
):
    """A leader on the old file has stopped before another one leads on the new file."""
    await engines("b").read()
    replace_file(lock)
    await engines("b").read()
    for _ in range(2):
        with pytest.raises(ElectionUnavailableError, match="waits 5 s for a leader on the old one"):
            await engines("b").try_acquire()
        clock.ahead_s += LEASE_S * 0.4
    clock.ahead_s += LEASE_S * 0.3
    handle = await engines("b").try_acquire()
    assert handle is not None
    await handle.release()
    assert await engines("b").try_acquire() is not None, "the new file is known from now on"


async def test_the_wait_starts_anew_when_the_old_file_was_back_in_between(
    engines: Callable[[str], FlockEngine], lock: Path, clock: Clock
):
    """A leader may have proved its lease on the old file then: an earlier sight of the other is void."""
    await engines("b").read()
    aside, other = lock.with_name("aside"), lock.with_name("other")
    shutil.copyfile(lock, other)
    lock.rename(aside)
    other.rename(lock)
    await engines("b").read()
    lock.rename(other)
    aside.rename(lock)
    clock.ahead_s += LEASE_S
    handle, _ = await lead(engines("a"), A, B)
    await engines("b").read()
    lock.rename(aside)
    other.rename(lock)
    with pytest.raises(ElectionUnavailableError, match="was replaced"):
        await engines("b").try_acquire()
    await handle.release()


async def test_the_wait_starts_anew_when_a_third_file_was_there_in_between(
    engines: Callable[[str], FlockEngine], lock: Path, clock: Clock
):
    """Others may know that one as theirs, and one of them may have led on it until a moment ago."""
    await engines("b").read()
    aside, third = lock.with_name("aside"), lock.with_name("third")
    lock.with_name("original").hardlink_to(lock)  # or its number would be given to another
    replace_file(lock)
    await engines("b").read()
    shutil.copyfile(lock, third)
    lock.rename(aside)
    third.rename(lock)
    handle, _ = await lead(engines("a"), A, B)
    clock.ahead_s += LEASE_S
    await engines("b").read()
    lock.rename(third)
    aside.rename(lock)
    with pytest.raises(ElectionUnavailableError, match="was replaced"):
        await engines("b").try_acquire()
    clock.ahead_s += LEASE_S
    with pytest.raises(LeadershipLostError, match="was replaced"):
        await handle.prove()
    assert await engines("b").try_acquire() is not None
    await handle.release()


async def test_a_file_on_a_file_system_without_locks_is_never_tried(
    engines: Callable[[str], FlockEngine], lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The mount is looked at before the first try on a device."""
    sample = f"1 0 0:1 / {tmp_path} rw - cifs //filer/x rw\n"
    monkeypatch.setattr(lockfile.Path, "read_text", lambda self, *args: sample)
    with pytest.raises(ElectionUnavailableError, match="SMB does not keep locks"):
        await engines("b").try_acquire()


async def test_a_damaged_copy_is_mended_by_the_next_heartbeat(
    engines: Callable[[str], FlockEngine], lock: Path
):
    """A restored older copy under a living leader does not last either."""
    older = lock.read_bytes()
    handle, record = await lead(engines("a"), A, B)
    fd = os.open(lock, os.O_WRONLY)
    os.pwrite(fd, b"garbage", SLOT_BYTES * 2 + 100)
    os.close(fd)
    await handle.prove()
    assert lock.read_bytes().count(b"garbage") == 0
    lock.write_bytes(older)
    await handle.prove()
    assert await engines("b").read() == record
    await handle.release()


async def test_a_heartbeat_that_the_storage_refuses_is_a_lost_lock(
    engines: Callable[[str], FlockEngine], monkeypatch: pytest.MonkeyPatch
):
    """EIO on the held descriptor is how NFSv4 says that the lock is gone; a full volume is not that."""
    handle, _ = await lead(engines("a"), A, B)
    real = lockfile.write_all
    number = errno.ENOSPC

    def failing(fd: int, content: bytes, offset: int) -> None:
        if content.startswith(b"heartbeat"):
            raise OSError(number, os.strerror(number))
        real(fd, content, offset)

    monkeypatch.setattr(engine, "write_all", failing)
    await handle.prove()
    number = errno.EACCES
    with pytest.raises(ElectionUnavailableError):
        await handle.prove()
    number = errno.EIO
    with pytest.raises(LeadershipLostError, match="does not take a heartbeat"):
        await handle.prove()
    await handle.release()


async def test_no_number_is_used_twice_although_the_claim_failed(
    engines: Callable[[str], FlockEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is on this node's own disk before the shared volume sees it."""

    def failing(fd: int, content: bytes, offset: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_all", failing)
        with pytest.raises(ElectionUnavailableError, match="raise the quota"):
            await lead(engines("a"), A, B)
    assert state_of(tmp_path, "a").known.reserved_term == 1


async def test_release_stops_a_claim_at_its_next_step_and_returns_while_a_call_hangs(
    engines: Callable[[str], FlockEngine], monkeypatch: pytest.MonkeyPatch
):
    """A hung share holds up no shutdown, and whatever wakes up later writes nothing more."""
    loop = asyncio.get_running_loop()
    entered, go = asyncio.Event(), threading.Event()
    written: list[int] = []

    def hanging(fd: int, content: bytes, offset: int) -> None:
        written.append(offset)
        loop.call_soon_threadsafe(entered.set)
        assert go.wait(20)

    monkeypatch.setattr(engine, "RELEASE_LIMIT_S", 0.05)
    monkeypatch.setattr(engine, "write_all", hanging)
    handle = await engines("a").try_acquire()
    assert handle is not None
    former = await handle.read()
    claim = asyncio.create_task(handle.claim(replace(former, term=1, leader=A), former=former))
    await entered.wait()
    started = boottime()
    await handle.release()
    assert boottime() - started < 5
    assert await engines("b").try_acquire() is None, "the hung call still has the descriptor"
    go.set()
    with pytest.raises(LeadershipLostError, match="let go"):
        await claim
    assert len(written) == 1
    async with asyncio.timeout(20):
        while (after := await engines("b").try_acquire()) is None:
            await asyncio.sleep(0.01)
    assert await after.read() == former
    await after.release()


async def test_a_file_without_permission_says_who_must_have_it(
    engines: Callable[[str], FlockEngine], lock: Path, monkeypatch: pytest.MonkeyPatch
):
    """Unavailable, with the remedy, and the engine goes on when it is mended."""
    real = os.open

    def refusing(path: object, flags: int, *args: int) -> int:
        if path == lock:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refusing)
        with pytest.raises(ElectionUnavailableError, match="read and write it"):
            await engines("b").read()
    assert (await engines("b").read()).leader == A
