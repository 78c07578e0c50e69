"""Runs git processes: each in a process group of its own, always reaped, never left behind.

Theory of operation. `GitProcesses.start` gives every process a task, the reaper, that no caller can cancel.
The reaper waits for the exit. It kills what is left of the process group *before* it reaps the process,
because until then the kernel cannot give the group's number to another one. Then it sweeps the repository if
a writer ended badly and nobody else writes there, and removes the writer's record. Callers wait for the
reaper behind a shield, so a caller may be cancelled at any await and nothing is lost. `end` and `end_all`
make sure that processes have ended.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, TypeVar

import structlog

from stargate_gate.aio.children import exited
from stargate_gate.aio.tasks import HeldTasks, TaskGroup, finish, task_group
from stargate_gate.datadir.layout import DataDir
from stargate_gate.datadir.procs import cpu_s, group_lives
from stargate_gate.datadir.writers import ActiveWriters, WriterRecords, WritersLock
from stargate_gate.errors import GitFailedError, UnavailableError
from stargate_gate.repos.git import git_environment
from stargate_gate.repos.sweep import sweep_repository

log = structlog.get_logger()

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL

TERM_GRACE_S = 2.0  # on SIGTERM git removes its lock files and exits
KILL_LIMIT_S = 30.0  # after SIGKILL, a process stays only while its I/O hangs in the kernel
CLEAN_UP_LIMIT_S = 600.0  # for removing what a killed git has left: 100,000 lock files take seconds
GROUP_LIMIT_S = 5.0  # for the other processes of a killed group to disappear
GROUP_POLL_S = 0.005  # the kernel does not report the end of processes that are not our children
MAX_STDERR_BYTES = 64 * 1024  # kept for an error message
MAX_STDOUT_BYTES = 256 * 1024 * 1024  # the refs of the largest repositories are tens of megabytes
CHUNK_BYTES = 64 * 1024
READ_LIMIT_BYTES = 128 * 1024  # a stream holds up to twice this, then it stops reading from the pipe

T = TypeVar("T")


class _PipeProtocol(asyncio.StreamReaderProtocol):
    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


class _Pipe:
    """One end of a child's pipe. `close` is safe in any state, and returns when the descriptor is closed."""

    def __init__(self, transport: asyncio.BaseTransport, protocol: _PipeProtocol) -> None:
        self._transport = transport
        self._protocol = protocol

    async def close(self) -> None:
        """Close it; what was not written yet is dropped."""
        if isinstance(self._transport, asyncio.WriteTransport):
            # asyncio fails if a transport is closed a second time. The exception is one that is closing and
            # still has something to write: that would wait for the reader, so it is aborted.
            if not self._transport.is_closing() or self._transport.get_write_buffer_size():
                self._transport.abort()
        else:
            self._transport.close()
        await self._protocol.lost.wait()


async def _open_reader(pipe: IO[bytes]) -> tuple[_Pipe, asyncio.StreamReader]:
    """Read from `pipe`, which the stream owns from now on."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=READ_LIMIT_BYTES, loop=loop)
    transport, protocol = await loop.connect_read_pipe(lambda: _PipeProtocol(reader), pipe)
    return _Pipe(transport, protocol), reader


async def _open_writer(pipe: IO[bytes]) -> tuple[_Pipe, asyncio.StreamWriter]:
    """Write to `pipe`, which the stream owns from now on."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    transport, protocol = await loop.connect_write_pipe(lambda: _PipeProtocol(reader), pipe)
    return _Pipe(transport, protocol), asyncio.StreamWriter(transport, protocol, None, loop)


@dataclass(frozen=True)
class Completed:
    """The result of a git process: all of stdout, and stderr or the end of it."""

    status: int
    stdout: bytes
    stderr: bytes


class GitProcess:
    """One running git. The caller who started it must call `end`, in `finally` or by `async with`."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid
        self._popen = popen
        self._pipes: list[_Pipe] = []
        self._reaper: asyncio.Task[int] | None = None
        self._reaped = asyncio.Event()
        self._stdin: asyncio.StreamWriter | None = None
        self._stdout: asyncio.StreamReader | None = None
        self._stderr: asyncio.StreamReader | None = None

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """Its standard input, if a pipe was asked for."""
        return _piped(self._stdin)

    @property
    def stdout(self) -> asyncio.StreamReader:
        """Its standard output, if a pipe was asked for. It can be read to its end also after the exit."""
        return _piped(self._stdout)

    @property
    def stderr(self) -> asyncio.StreamReader:
        """Its standard error, if a pipe was asked for."""
        return _piped(self._stderr)

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None until it is reaped."""
        return self._popen.returncode

    async def wait(self) -> int:
        """Wait until it is reaped and cleaned up; returns the exit status, negative for a signal."""
        return await asyncio.shield(_piped(self._reaper))

    async def end(self, grace_s: float = TERM_GRACE_S) -> int:
        """End its process group if it still runs, reap it and close the pipes; returns the exit status.

        Sends SIGTERM, and SIGKILL after `grace_s` seconds, or at once if that is 0. Idempotent. A
        cancellation takes effect when all that is done.

        Raises:
            UnavailableError: it still runs KILL_LIMIT_S after SIGKILL, because its I/O hangs in the kernel;
            or
                its leftovers are not removed after CLEAN_UP_LIMIT_S.
        """
        return await finish(self._end(grace_s))

    async def communicate(self, given: bytes = b"") -> Completed:
        """Write `given`, read all output and wait for the end. It is killed at MAX_STDOUT_BYTES of output."""
        async with TaskGroup() as group:
            group.create_task(self._give(given))
            out = group.create_task(self._take_all())
            err = group.create_task(self._take_end())
        return Completed(await self.wait(), out.result(), err.result())

    async def watch_cpu(self, every_s: float, used: Callable[[float], None]) -> None:
        """Until it is reaped, call `used` every `every_s` seconds with its processor time so far, in s."""
        while self.returncode is None:
            await asyncio.sleep(every_s)
            used(await asyncio.to_thread(cpu_s, self.pid))

    def signal(self, number: signal.Signals) -> None:
        """Send `number` to the process group, if it is not reaped."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def open_pipes(self) -> None:
        """Make streams of its pipes. Called once, by `GitProcesses`."""
        popen = self._popen
        if popen.stdin is not None:
            pipe, self._stdin = await _open_writer(popen.stdin)
            self._pipes.append(pipe)
        if popen.stdout is not None:
            pipe, self._stdout = await _open_reader(popen.stdout)
            self._pipes.append(pipe)
        if popen.stderr is not None:
            pipe, self._stderr = await _open_reader(popen.stderr)
            self._pipes.append(pipe)

    def start_reaper(self, reapers: HeldTasks, cleaned_up: Callable[[int], Awaitable[None]]) -> None:
        """Start the reaper; `cleaned_up` is awaited with the status after reaping. Called once."""
        self._reaper = reapers.start(self._reap(cleaned_up), f"reap-git-{self.pid}", awaited=True)

    async def _reap(self, cleaned_up: Callable[[int], Awaitable[None]]) -> int:
        try:
            await exited(self.pid)
        finally:
            # The process is not reaped yet, so the number still belongs to its group. Normally no other
            # process is left in the group. The reaper itself is cancelled only when the loop is closed.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            status = self._popen.wait()
            self._reaped.set()
        await _group_gone(self.pid)
        await cleaned_up(status)
        return status

    async def _end(self, grace_s: float) -> int:
        reaper = _piped(self._reaper)
        try:
            if not reaper.done() and grace_s > 0:
                self.signal(signal.SIGTERM)
                await asyncio.wait({reaper}, timeout=grace_s)
            if not self._reaped.is_set():
                self.signal(signal.SIGKILL)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KILL_LIMIT_S):
                        await self._reaped.wait()
            if not self._reaped.is_set():
                log.error("git_process_does_not_end", pid=self.pid)
                raise UnavailableError(f"git process {self.pid} does not end: its disk does not answer")
            await asyncio.wait({reaper}, timeout=CLEAN_UP_LIMIT_S)
            if not reaper.done():
                log.error("git_process_not_cleaned_up_after", pid=self.pid)
                raise UnavailableError(f"what git process {self.pid} left cannot be removed: slow disk?")
            return await reaper
        finally:
            for pipe in self._pipes:
                await pipe.close()

    async def _give(self, given: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # it may end before it has read everything
            self.stdin.write(given)
            await self.stdin.drain()
        self.stdin.close()

    async def _take_all(self) -> bytes:
        taken = bytearray()
        while chunk := await self.stdout.read(CHUNK_BYTES):
            if len(taken) > MAX_STDOUT_BYTES:
                self.signal(signal.SIGKILL)
            else:
                taken += chunk
        return bytes(taken)

    async def _take_end(self) -> bytes:
        taken = bytearray()
        while chunk := await self.stderr.read(CHUNK_BYTES):
            taken += chunk
            del taken[:-MAX_STDERR_BYTES]
        return bytes(taken)


class GitProcesses:
    """All git processes of a node. Those that write inherit the writers lock."""

    def __init__(self, datadir: DataDir, writers: WritersLock) -> None:
        self._lock = writers
        self._records = WriterRecords(datadir.writers)
        self._active = ActiveWriters(self._records, sweep_repository)
        self._running: set[GitProcess] = set()
        self._starting = HeldTasks()
        self._reapers = HeldTasks()

    def __len__(self) -> int:
        return len(self._running)

    async def start(
        self,
        argv: Sequence[str],
        *,
        writes: Path | None,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = PIPE,
        stdout: int | IO[bytes] = PIPE,
        stderr: int | IO[bytes] = PIPE,
        pass_fds: Sequence[int] = (),
    ) -> GitProcess:
        """Start `argv` in a session of its own, in "/", with `env` (default: git_environment()).

        writes  the repository that it may write to. The process is recorded before it exists, inherits the
                writers lock, and the repository is swept if it ends badly.

        If the caller is cancelled meanwhile, the process is ended and reaped before CancelledError is raised.

        Raises:
            UnavailableError: it cannot be started, or this node is stopping.
        """
        work = self._start(argv, writes, env, (stdin, stdout, stderr), tuple(pass_fds))
        task = self._starting.start(work, "start-git", awaited=True)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await finish(_discard(task))
            raise

    async def complete(
        self,
        argv: Sequence[str],
        *,
        limit_s: float,
        input: bytes = b"",  # noqa: A002 - as in subprocess.run
        writes: Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Completed:
        """Run `argv` to its end, whatever its status.

        Raises:
            GitFailedError: it took longer than `limit_s` seconds and was ended.
            UnavailableError: it cannot be started.
        """
        process = await self.start(argv, writes=writes, env=env, pass_fds=pass_fds)
        try:
            async with asyncio.timeout(limit_s):
                return await process.communicate(input)
        except TimeoutError:
            status = await process.end()
            raise GitFailedError(argv, status, f"it took longer than {limit_s:g} s".encode()) from None
        finally:
            await process.end()

    async def run(
        self,
        argv: Sequence[str],
        *,
        limit_s: float,
        input: bytes = b"",  # noqa: A002 - as in subprocess.run
        writes: Path | None = None,
        ok: Collection[int] = (0,),
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> bytes:
        """Run `argv` to its end; returns its stdout.

        Raises:
            GitFailedError: its status is not in `ok`, or it took longer than `limit_s` seconds.
            UnavailableError: it cannot be started.
        """
        done = await self.complete(
            argv, limit_s=limit_s, input=input, writes=writes, env=env, pass_fds=pass_fds
        )
        if done.status not in ok:
            raise GitFailedError(argv, done.status, done.stderr)
        return done.stdout

    @contextlib.asynccontextmanager
    async def writing(self, repository: Path) -> AsyncIterator[None]:
        """A scope in which this process itself writes to the repository; it is swept if the body raises.

        Raises:
            UnavailableError: the record cannot be written.
        """
        try:
            record = await self._active.enter(repository)
        except OSError as error:
            raise UnavailableError(f"cannot note who writes there: {error.strerror}") from error
        clean = False
        try:
            yield
            clean = True
        finally:
            await finish(self._active.leave(repository, record, clean=clean))

    def alone(self, repository: Path) -> contextlib.AbstractAsyncContextManager[None]:
        """A scope in which nobody writes to the repository. Not inside `writing` of the same repository.

        Raises:
            UnavailableError: somebody else writes for too long.
        """
        return self._active.alone(repository)

    async def end_all(self, grace_s: float = TERM_GRACE_S) -> None:
        """End and reap all processes, including those that are being started. Returns when none is left."""
        while self._running or self._starting:
            await self._starting.ended()
            async with task_group() as group:  # one that does not end must not keep the others from ending
                for process in list(self._running):
                    group.create_task(process.end(grace_s))

    async def _start(
        self,
        argv: Sequence[str],
        writes: Path | None,
        env: Mapping[str, str] | None,
        streams: tuple[int | IO[bytes], int | IO[bytes], int | IO[bytes]],
        pass_fds: tuple[int, ...],
    ) -> GitProcess:
        record: Path | None = None
        try:
            # The record comes before the process: if this node is killed between the two, the next one sweeps
            # the repository for nothing. The other way round it would leave a lock file that refuses pushes
            # for ever.
            if writes is not None:
                pass_fds = (*pass_fds, self._lock.fd)
                record = await self._active.enter(writes)
            process = GitProcess(_spawn(argv, env, streams, pass_fds))
        except OSError as error:
            if writes is not None and record is not None:
                await self._active.leave(writes, record, clean=True)
            raise UnavailableError(f"cannot start {argv[0]}: {error.strerror}") from error
        if writes is not None and record is not None:
            self._records.complete(record, writes, process.pid)
        self._running.add(process)

        async def cleaned_up(status: int) -> None:
            try:
                if writes is not None and record is not None:
                    await self._active.leave(writes, record, clean=status == 0)
            finally:
                self._running.discard(process)

        process.start_reaper(self._reapers, cleaned_up)
        try:
            await process.open_pipes()
        except BaseException:
            await process.end(0)
            raise
        return process


def _spawn(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    streams: tuple[int | IO[bytes], int | IO[bytes], int | IO[bytes]],
    pass_fds: tuple[int, ...],
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        list(argv),
        bufsize=0,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        cwd="/",
        env=git_environment() if env is None else dict(env),
        start_new_session=True,
    )


async def _discard(starting: "asyncio.Task[GitProcess]") -> None:
    """End a process whose caller was cancelled while it was started."""
    await asyncio.wait({starting})
    if not starting.cancelled() and starting.exception() is None:
        await starting.result().end(0)


async def _group_gone(group: int) -> None:
    """Wait until no process is left in the killed process group. They are not our children."""
    loop = asyncio.get_running_loop()
    until = loop.time() + GROUP_LIMIT_S
    while True:
        # If this node is process 1 of a container, it inherits them and has to reap them.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - WNOHANG
        if not group_lives(group):
            return
        if loop.time() >= until:
            log.warning("killed_processes_linger", group=group)
            return
        await asyncio.sleep(GROUP_POLL_S)


def _piped(stream: T | None) -> T:
    if stream is None:
        raise RuntimeError("no pipe was asked for")
    return stream
