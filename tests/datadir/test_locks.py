"""One node per data_dir, and who leads here."""

import asyncio
import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stargate_gate.datadir.layout import DataDir
from stargate_gate.datadir.locks import LeadingLock, NodeLock, open_lock_file, try_lock
from stargate_gate.errors import UnavailableError
from tests.support.git import children, open_descriptors

Start = Callable[..., "subprocess.Popen[str]"]
HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, {"ex": fcntl.LOCK_EX, "sh": fcntl.LOCK_SH}[sys.argv[2]])
print("ready", flush=True)
input()
"""


def is_free(path: Path) -> bool:
    fd = open_lock_file(path)
    try:
        return try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def test_a_second_node_on_a_data_dir_is_refused_by_number(datadir: DataDir) -> None:
    """The message names who is there; afterwards the place is free."""
    with NodeLock.acquire(datadir), pytest.raises(UnavailableError, match=rf"another.*pid {os.getpid()}"):
        NodeLock.acquire(datadir)
    NodeLock.acquire(datadir).close()


def test_a_killed_node_leaves_the_data_dir_free(datadir: DataDir, other_process: Start) -> None:
    """The lock goes with the process, whatever is written in the file."""
    holder = other_process(HOLD, datadir.node_lock, "ex")
    with pytest.raises(UnavailableError, match="another stargate serve"):
        NodeLock.acquire(datadir)
    holder.kill()
    holder.wait()
    NodeLock.acquire(datadir).close()


def test_a_lock_file_that_is_a_link_is_refused(datadir: DataDir, tmp_path: Path) -> None:
    """Nothing else gets truncated."""
    precious = tmp_path / "precious"
    precious.write_text("x")
    datadir.node_lock.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        NodeLock.acquire(datadir)
    assert precious.read_text() == "x"


async def test_leading_writes_a_fresh_token_that_only_the_owner_reads(datadir: DataDir) -> None:
    """Each leadership has its own; afterwards there is none."""
    lock = LeadingLock(datadir)
    datadir.leading_lock.touch(mode=0o644)
    first = await lock.acquire(5)
    assert lock.token == first
    assert datadir.leading_lock.read_text() == first + "\n"
    assert datadir.leading_lock.stat().st_mode & 0o777 == 0o600
    assert not is_free(datadir.leading_lock)
    lock.release()
    assert lock.token == ""
    assert datadir.leading_lock.read_bytes() == b""
    assert is_free(datadir.leading_lock)
    lock.release()
    assert await lock.acquire(5) != first
    lock.release()


async def test_leading_waits_in_the_kernels_queue_for_a_probe_to_end(
    datadir: DataDir, other_process: Start
) -> None:
    """A shared hold delays the leader no longer than it lasts."""
    holder = other_process(HOLD, datadir.leading_lock, "sh")
    lock = LeadingLock(datadir)
    acquiring = asyncio.create_task(lock.acquire(20))
    done, _ = await asyncio.wait({acquiring}, timeout=0.1)
    assert not done
    holder.kill()
    assert len(await acquiring) == 64
    assert not is_free(datadir.leading_lock)
    lock.release()
    assert is_free(datadir.leading_lock)


async def test_a_leading_lock_that_stays_taken_is_given_up_at_the_limit(
    datadir: DataDir, other_process: Start
) -> None:
    """Nothing waits for ever, and nothing is left of the attempt."""
    other_process(HOLD, datadir.leading_lock, "ex")
    before = open_descriptors()
    with pytest.raises(UnavailableError, match="within"):
        await LeadingLock(datadir).acquire(0.1)
    assert open_descriptors() == before


async def test_a_cancelled_attempt_leaves_neither_child_nor_descriptor(
    datadir: DataDir, other_process: Start
) -> None:
    """Giving up the wait reaps flock(1)."""
    holder = other_process(HOLD, datadir.leading_lock, "ex")
    before = open_descriptors()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await LeadingLock(datadir).acquire(20)
    assert open_descriptors() == before
    assert children() == {holder.pid}
    holder.kill()
    holder.wait()
    assert is_free(datadir.leading_lock)


async def test_a_missing_flock_program_is_said(
    datadir: DataDir, other_process: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The operator learns what to install."""
    other_process(HOLD, datadir.leading_lock, "sh")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="util-linux"):
        await LeadingLock(datadir).acquire(1)


async def test_no_child_inherits_leadership(datadir: DataDir) -> None:
    """After a `kill -9` of the leader nobody may still hold its lock."""
    lock = LeadingLock(datadir)
    await lock.acquire(5)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    lock.release()
    assert is_free(datadir.leading_lock)
    child.send_signal(signal.SIGKILL)
    child.communicate()
