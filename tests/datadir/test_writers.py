"""A starting node makes sure that nothing of the one before it still writes."""

import asyncio
import fcntl
import os
import signal
import subprocess  # noqa: TC003 - an alias names it
from collections.abc import Callable
from pathlib import Path

import pytest

from stargate_gate.datadir.layout import DataDir
from stargate_gate.datadir.locks import open_lock_file, try_lock
from stargate_gate.datadir.procs import ProcessId, process_id
from stargate_gate.datadir.writers import WriterRecord, WriterRecords, WritersLock
from stargate_gate.errors import UnavailableError

Start = Callable[..., "subprocess.Popen[str]"]

WAIT = "print('ready', flush=True); input()"
IGNORE_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + WAIT
WITH_CHILD = "import subprocess, sys; c = subprocess.Popen(['sleep', '60'], close_fds=False);" + WAIT
Swept = list[frozenset[Path] | None]


class Dead:
    """A node that died: its share of the writers lock is closed here and lives on in its children."""

    def __init__(self, datadir: DataDir) -> None:
        self.fd = open_lock_file(datadir.writers_lock)
        assert try_lock(self.fd, fcntl.LOCK_SH)

    def die(self) -> None:
        os.close(self.fd)


async def start_node(
    datadir: DataDir, *, wait_s: float = 0.05, term_s: float = 1, kill_s: float = 10
) -> Swept:
    """What a node does first; returns what it swept."""
    swept: Swept = []

    async def sweep(paths: frozenset[Path] | None) -> None:
        fd = open_lock_file(datadir.writers_lock)
        assert not try_lock(fd, fcntl.LOCK_SH), "swept without the exclusive lock"
        os.close(fd)
        swept.append(paths)

    lock = await WritersLock.open_exclusively_then_share(
        datadir, sweep, wait_s=wait_s, term_s=term_s, kill_s=kill_s
    )
    fd = open_lock_file(datadir.writers_lock)
    assert not try_lock(fd, fcntl.LOCK_EX)
    assert try_lock(fd, fcntl.LOCK_SH)
    os.close(fd)
    lock.close()
    return swept


@pytest.fixture
async def booted(datadir: DataDir) -> DataDir:
    """A data_dir whose node has run since the machine was booted."""
    assert await start_node(datadir) == [None]
    return datadir


async def test_after_a_boot_everything_is_swept_and_then_only_what_was_written(datadir: DataDir) -> None:
    """The first start of a boot looks at all; the next at what the records name; then at nothing."""
    assert await start_node(datadir) == [None]
    records = WriterRecords(datadir.writers)
    records.announce(Path("/r/a.git"))
    records.announce(Path("/r/\udcff.git"))
    assert await start_node(datadir) == [frozenset({Path("/r/a.git"), Path("/r/\udcff.git")})]
    assert await start_node(datadir) == [frozenset()]
    (datadir.run / "boot_id").write_text("another\n")
    assert await start_node(datadir) == [None]


async def test_a_half_written_record_means_that_all_is_swept(booted: DataDir) -> None:
    """Records are not synced; what cannot be read may be about any repository."""
    (booted.writers / "0123").write_bytes(b'{"repos')
    assert await start_node(booted) == [None]
    assert list(booted.writers.iterdir()) == []


async def test_a_writer_that_ends_by_itself_is_waited_for(booted: DataDir, other_process: Start) -> None:
    """Its input ended with its node, so most need no signal."""
    dead = Dead(booted)
    child = other_process(WAIT, pass_fds=[dead.fd])
    dead.die()
    starting = asyncio.create_task(start_node(booted, wait_s=20))
    done, _ = await asyncio.wait({starting}, timeout=0.1)
    assert not done
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    assert await starting == [frozenset()]
    assert child.wait() == 0


async def test_a_writer_that_stays_is_asked_and_then_killed(booted: DataDir, other_process: Start) -> None:
    """SIGTERM, then SIGKILL, to recorded ones and to those that only have the lock."""
    dead = Dead(booted)
    records = WriterRecords(booted.writers)
    polite = other_process(WAIT, pass_fds=[dead.fd])
    stubborn = other_process(IGNORE_TERM, pass_fds=[dead.fd])
    records.complete(records.announce(Path("/r/a.git")), Path("/r/a.git"), stubborn.pid)
    dead.die()
    assert await start_node(booted, term_s=0.3) == [frozenset({Path("/r/a.git")})]
    assert polite.wait() == -signal.SIGTERM
    assert stubborn.wait() == -signal.SIGKILL


async def test_a_writers_children_are_ended_with_it(booted: DataDir, other_process: Start) -> None:
    """Also when their parent is gone already: the lock they inherited gives them away."""
    dead = Dead(booted)
    parent = other_process(WITH_CHILD, pass_fds=[dead.fd])
    dead.die()
    parent.kill()
    parent.wait()
    assert await start_node(booted) == [frozenset()]


async def test_a_process_that_got_a_writers_number_later_is_left_alone(
    booted: DataDir, other_process: Start
) -> None:
    """A record names its process by start time and boot, too."""
    dead = Dead(booted)
    writer = other_process(WAIT, pass_fds=[dead.fd])
    bystander = other_process(WAIT)
    who = process_id(bystander.pid)
    assert who is not None
    former = [
        ProcessId(who.pid, who.start - 1, who.boot),
        ProcessId(who.pid, who.start, "another boot"),
    ]
    for number, process in enumerate(former):
        record = WriterRecord(Path("/r/a.git"), process)
        (booted.writers / str(number)).write_bytes(record.encode())
        assert WriterRecord.decode(record.encode()) == record
    dead.die()
    await start_node(booted)
    assert writer.wait() == -signal.SIGTERM
    assert bystander.poll() is None


async def test_a_writer_that_cannot_be_ended_keeps_the_node_from_starting(booted: DataDir) -> None:
    """Said with the numbers; nothing is swept."""
    fd = open_lock_file(booted.writers_lock)  # held by this process, which is never signalled
    assert try_lock(fd, fcntl.LOCK_SH)
    with pytest.raises(UnavailableError, match="still write"):
        await start_node(booted, term_s=0.05, kill_s=0.05)
    os.close(fd)
    assert await start_node(booted) == [frozenset()]


async def test_a_failed_sweep_keeps_the_records(booted: DataDir) -> None:
    """The next start sweeps again."""
    WriterRecords(booted.writers).announce(Path("/r/a.git"))

    async def fail(_paths: frozenset[Path] | None) -> None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await WritersLock.open_exclusively_then_share(booted, fail)
    assert await start_node(booted) == [frozenset({Path("/r/a.git")})]


async def test_a_closed_lock_starts_nothing(booted: DataDir) -> None:
    """A stopping node passes nothing on."""

    async def nothing(_paths: frozenset[Path] | None) -> None: ...

    lock = await WritersLock.open_exclusively_then_share(booted, nothing)
    lock.close()
    lock.close()
    with pytest.raises(UnavailableError, match="stopping"):
        _ = lock.fd
