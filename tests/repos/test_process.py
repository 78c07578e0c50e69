"""Git processes end, are reaped and leave nothing, however their callers end."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from stargate_gate.aio.tasks import HeldTasks
from stargate_gate.datadir.locks import open_lock_file, try_lock
from stargate_gate.datadir.procs import process_id
from stargate_gate.errors import GitFailedError, UnavailableError
from stargate_gate.repos import process as process_module
from stargate_gate.repos.process import DEVNULL, GitProcess
from tests.support.git import children, open_descriptors
from tests.support.room import Room

LIMIT_S = 10.0
STAGES = 40  # turns of the loop; more than a start and a run have


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def is_clean(room: Room) -> bool:
    return not children() and not list(room.datadir.writers.iterdir()) and not len(room.processes)


@pytest.fixture
def repository(room: Room) -> Path:
    path = room.datadir.repositories / "r.git"
    (path / "refs").mkdir(parents=True)
    return path


async def gone(pid: int) -> None:
    """Wait until a process that is not our child is gone."""
    async with asyncio.timeout(LIMIT_S):
        while process_id(pid) is not None:
            await asyncio.sleep(0.005)


async def test_streams_and_status_are_those_of_the_process(room: Room) -> None:
    """What it wrote can be read after it was reaped, and the status is its own."""
    git = await room.processes.start(shell("cat; echo err >&2; exit 3"), writes=None)
    git.stdin.write(b"in" * 10)
    git.stdin.close()
    assert await git.wait() == 3
    assert await git.stdout.read() == b"in" * 10
    assert await git.stderr.read() == b"err\n"
    assert await git.end() == 3
    assert git.returncode == 3
    assert is_clean(room)


async def test_a_session_and_a_directory_of_its_own_and_little_environment(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the node's environment gets in but the allow-list."""
    monkeypatch.setenv("GIT_DIR", "/elsewhere")
    monkeypatch.setenv("SECRET", "x")
    out = await room.processes.run(
        shell("pwd; cut -d' ' -f1,5,6 /proc/self/stat; echo; env"), limit_s=LIMIT_S
    )
    lines = out.decode().splitlines()
    assert lines[0] == "/"
    _, group, session = map(int, lines[1].split())
    assert group == session != os.getpgid(0)
    names = {line.split("=")[0] for line in lines[3:]}
    assert not names & {"GIT_DIR", "SECRET", "SSH_AUTH_SOCK", "XDG_CONFIG_HOME"}
    assert {"PATH", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_GLOBAL", "GIT_ALLOW_PROTOCOL"} <= names


async def test_end_asks_first_and_kills_then(room: Room) -> None:
    """SIGTERM lets git remove its files; what does not heed it is killed."""
    polite = await room.processes.start(shell("trap 'exit 5' TERM; echo up; read x"), writes=None)
    assert await polite.stdout.readline() == b"up\n"
    assert await polite.end() == 5
    deaf = await room.processes.start(shell("trap '' TERM; echo up; read x"), writes=None)
    assert await deaf.stdout.readline() == b"up\n"
    assert await deaf.end(0.05) == -signal.SIGKILL
    assert await deaf.end() == -signal.SIGKILL
    assert is_clean(room)


async def test_its_children_end_with_it(room: Room) -> None:
    """Whether it is ended, killed, or exits and leaves them behind."""
    for script, number in (
        ("sleep 60 & echo $!; wait", 15),
        ("sleep 60 & echo $!; wait", 9),
        ("sleep 60 & echo $!", 0),
    ):
        git = await room.processes.start(shell(script), writes=None)
        child = int(await git.stdout.readline())
        if number:
            git.signal(signal.Signals(number))
        async with asyncio.timeout(LIMIT_S):
            assert await git.wait() == -number
        assert process_id(child) is None
        await git.end()


async def test_a_grandchild_that_keeps_the_pipe_holds_up_nobody(room: Room) -> None:
    """The end of output comes although a left-behind child had the pipe open."""
    out = await room.processes.run(shell("sleep 60 & echo out"), limit_s=LIMIT_S)
    assert out == b"out\n"


async def test_a_writer_is_recorded_before_it_can_write_and_until_it_is_reaped(
    room: Room, repository: Path
) -> None:
    """The record names process and repository; the process holds the writers lock."""
    git = await room.processes.start(shell("cat /proc/$$/stat; ls -l /proc/$$/fd; read x"), writes=repository)
    stat = (await git.stdout.readline()).split()
    (record,) = room.datadir.writers.iterdir()
    value = json.loads(record.read_text())
    assert value["repository"] == str(repository)
    assert (value["pid"], value["start"]) == (git.pid, int(stat[21]))
    assert value["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    git.stdin.close()
    assert b"writers.lock" in await git.stdout.read()
    await git.end()
    assert is_clean(room)


async def test_readers_have_neither_record_nor_lock(room: Room) -> None:
    """A clone that lasts does not keep a restarted node from its start."""
    out = await room.processes.run(shell("ls -l /proc/$$/fd"), limit_s=LIMIT_S)
    assert b".lock" not in out


async def test_a_record_that_cannot_be_written_means_no_process(room: Room, repository: Path) -> None:
    """Rather no push than one that a later node does not know of."""
    for record in room.datadir.writers.iterdir():
        record.unlink()
    room.datadir.writers.rmdir()
    mark = repository / "ran"
    with pytest.raises(UnavailableError):
        await room.processes.start(["touch", str(mark)], writes=repository)
    room.datadir.writers.mkdir()
    assert not mark.exists()
    assert await room.processes.run(["echo", "x"], limit_s=LIMIT_S, writes=repository) == b"x\n"


async def test_a_program_that_is_missing_is_a_clear_error(room: Room, repository: Path) -> None:
    """And leaves no record."""
    with pytest.raises(UnavailableError, match="cannot start no-such-program"):
        await room.processes.run(["no-such-program"], limit_s=LIMIT_S, writes=repository)
    assert is_clean(room)


async def test_a_failure_carries_stderr_and_status(room: Room) -> None:
    """`ok` says what is none."""
    with pytest.raises(GitFailedError, match="failed with 3: why") as caught:
        await room.processes.run(["git", "-c", "alias.x=!echo why >&2; exit 3", "x"], limit_s=LIMIT_S)
    assert caught.value.returncode == 3
    assert await room.processes.run(shell("echo x; exit 3"), limit_s=LIMIT_S, ok=(0, 3)) == b"x\n"


async def test_what_takes_too_long_is_ended(room: Room, repository: Path) -> None:
    """And says so."""
    with pytest.raises(GitFailedError, match=r"longer than 0\.05 s"):
        await room.processes.run(shell("sleep 60 & sleep 60"), limit_s=0.05, writes=repository)
    assert is_clean(room)


async def test_too_much_output_ends_the_process(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git gone wild does not fill the node's memory."""
    monkeypatch.setattr(process_module, "MAX_STDOUT_BYTES", 1_000_000)
    with pytest.raises(GitFailedError, match="failed with -9"):
        await room.processes.run(["cat", "/dev/zero"], limit_s=LIMIT_S)


async def test_input_that_is_not_read_is_no_error(room: Room) -> None:
    """A program may know enough before its input ends."""
    assert await room.processes.run(["true"], input=bytes(5_000_000), limit_s=LIMIT_S) == b""
    assert len(await room.processes.run(["cat"], input=bytes(5_000_000), limit_s=LIMIT_S)) == 5_000_000


async def test_a_reader_that_stops_holds_the_process_back(room: Room) -> None:
    """Nothing piles up here for a slow client, and ending closes what was not read."""
    git = await room.processes.start(["cat", "/dev/zero"], writes=None)
    await git.stdout.read(1)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await git.wait()
    assert len(git.stdout._buffer) <= 600_000  # type: ignore[attr-defined]
    assert await git.end() == -signal.SIGTERM
    assert is_clean(room)


async def test_streams_can_be_given_instead_of_pipes(room: Room, tmp_path: Path) -> None:
    """Files and /dev/null, as subprocess takes them; asking for a pipe then is an error of the caller."""
    with (tmp_path / "out").open("wb") as out:
        async with await room.processes.start(
            shell("cat; echo done"), writes=None, stdin=DEVNULL, stdout=out, stderr=DEVNULL
        ) as git:
            assert await git.wait() == 0
            with pytest.raises(RuntimeError, match="no pipe"):
                _ = git.stdin
    assert (tmp_path / "out").read_bytes() == b"done\n"


async def _run_it(room: Room, repository: Path) -> None:
    await room.processes.run(shell("cat; sleep 60"), input=b"x", limit_s=LIMIT_S, writes=repository)


async def _use_it(room: Room, repository: Path) -> None:
    git = await room.processes.start(shell("echo up; sleep 60"), writes=repository)
    try:
        await git.stdout.readline()
        await git.wait()
    finally:
        await git.end()


async def _scope_it(room: Room, repository: Path) -> None:
    async with await room.processes.start(shell("exit 1"), writes=repository) as git:
        await git.wait()
        await asyncio.sleep(60)


@pytest.mark.parametrize("use", [_run_it, _use_it, _scope_it])
@pytest.mark.parametrize("twice", [False, True])
async def test_a_caller_cancelled_at_any_point_leaves_nothing(
    room: Room, repository: Path, use: Callable[[Room, Path], Awaitable[None]], *, twice: bool
) -> None:
    """At each turn of the loop: when the cancellation shows, the process is reaped and its record gone."""
    for stage in range(STAGES):
        task = asyncio.ensure_future(use(room, repository))
        for _ in range(stage):
            await asyncio.sleep(0)
        task.cancel()
        if twice:
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(LIMIT_S):
                await task
        assert is_clean(room), stage


@pytest.mark.parametrize("delay_s", [0.001, 0.003, 0.01, 0.03])
async def test_a_caller_cancelled_later_leaves_nothing(room: Room, repository: Path, delay_s: float) -> None:
    """Also while git already works, and the pipes are closed."""
    before = open_descriptors()
    tasks = [asyncio.create_task(_use_it(room, repository)) for _ in range(5)]
    await asyncio.wait(tasks, timeout=delay_s)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert is_clean(room)
    assert open_descriptors() == before


async def test_end_all_ends_also_what_is_just_starting(room: Room, repository: Path) -> None:
    """After it nothing runs."""
    git = await room.processes.start(shell("trap '' TERM; echo up; read x"), writes=repository)
    await git.stdout.readline()
    starting = asyncio.create_task(room.processes.start(shell("sleep 60"), writes=repository))
    await asyncio.sleep(0)
    await room.processes.end_all(0.05)
    assert not children()
    assert (await starting).returncode is not None
    await starting.result().end()
    await git.end()
    assert is_clean(room)


def test_a_loop_that_is_closed_leaves_no_process(tmp_path: Path) -> None:
    """Even if nobody ended it: the keeper is cancelled, and kills and reaps at once."""
    pids = []

    async def forget() -> None:
        from_room = GitProcess(
            process_module._spawn(shell("trap '' TERM; sleep 60"), None, (DEVNULL, DEVNULL, DEVNULL), ())
        )
        from_room.start_reaper(HeldTasks(), lambda _status: asyncio.sleep(0))
        pids.append(from_room.pid)

    asyncio.run(forget())
    assert process_id(pids[0]) is None
    assert not children()


async def test_no_new_writer_comes_while_a_repository_is_swept(room: Room, repository: Path) -> None:
    """A killed push's lock file is gone before the next push starts; a living one's is left alone."""
    lock = repository / "refs" / "x.lock"
    for _ in range(5):
        other = await room.processes.start(shell("echo up; read x"), writes=repository)
        await other.stdout.readline()
        killed = await room.processes.start(shell(f"touch {lock}; echo up; read x"), writes=repository)
        await killed.stdout.readline()
        await killed.end(0)
        assert lock.exists(), "swept while somebody writes"
        assert len(list(room.datadir.writers.iterdir())) == 2
        other.stdin.close()
        assert await other.wait() == 1
        assert not lock.exists()
        await other.end()
        assert is_clean(room)


async def test_a_clean_end_sweeps_nothing(room: Room, repository: Path) -> None:
    """Only a bad end leaves something."""
    lock = repository / "refs" / "x.lock"
    await room.processes.run(["touch", str(lock)], writes=repository, limit_s=LIMIT_S)
    assert lock.exists()
    with pytest.raises(GitFailedError):
        await room.processes.run(["false"], writes=repository, limit_s=LIMIT_S)
    assert not lock.exists()


async def test_the_writers_lock_outlives_the_node_in_its_writers(room: Room, repository: Path) -> None:
    """As after `kill -9`: with the node's own descriptor closed it stays taken until the writer ends."""
    git = await room.processes.start(shell("echo up; read x"), writes=repository)
    await git.stdout.readline()
    room.processes._lock.close()
    fd = open_lock_file(room.datadir.writers_lock)
    try:
        assert not try_lock(fd, fcntl.LOCK_EX)
        await git.end()
        assert try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)
