"""Checks one copy: reads it, follows its refs, and looks a second time before it says that it is damaged.

Theory of operation. Two child processes, one after the other, at the lowest priority for processor and disk:

    reader.py    every file with a checksum, and the refs; it limits its own rate of reading
    git fsck     --connectivity-only: that every object is there which the refs need. It also computes the ids
                 of commits and trees anew. It is stopped and continued by signals to limit its rate

Both end with the node, also if it is killed while git is stopped. Neither writes, and neither holds a lock,
so pushes, fetches and housekeeping never wait for them. What they change meanwhile is no damage:
findings.judge. Commit-graph and multi-pack-index are switched off for git: it would take their word for it
that an object is there.
"""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import stargate_gate
from stargate_gate.aio.tasks import TaskGroup, run_until
from stargate_gate.errors import GitFailedError, StargateError, UnavailableError
from stargate_gate.repos.git import git_environment, repository_argv
from stargate_gate.repos.priority import LOWEST, bounded_memory, ends_with_parent, idle_priority
from stargate_gate.repos.process import DEVNULL, GitProcess, GitProcesses
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store
from stargate_gate.scrub.findings import (
    Finding,
    Look,
    Verdict,
    combined,
    finding_of,
    judge,
    one_line,
    walk_findings,
)

READER = ("-P", "-S", "-m", "stargate_gate.scrub.reader")  # -S: it needs the standard library only
FSCK = ("fsck", "--connectivity-only", "--no-dangling", "--no-reflogs", "--no-progress")
FSCK_CONFIG = ("core.commitGraph=false", "core.multiPackIndex=false")

LOOKS = 4  # at most, at a copy that looks different each time
AGAIN_S = 2.0  # between two looks: a push or a task of the housekeeping has gone on by then
MAX_WALK_BYTES = 2 * 2**30  # git keeps some 130 bytes for each object: 16 million of them
MAX_OUTPUT_BYTES = 64 * 1024  # of git's messages
THROTTLE_S = 0.2  # how often git's reading is compared with the rate
MAX_FINDINGS_READ = 1000  # of one look; a disk that has lost more than that is not described by a list

_NO_LAYOUT = frozenset({"layout", "head", "config"})
_SECOND_LOOK = frozenset({"object", "pack", "helper"})


@dataclass
class Reading:
    """What is read now, for status; `read_bytes` of the whole check so far."""

    read_bytes: int = 0


class Checker:
    """Checks copies; many tasks may use it. `again_s`: between two looks."""

    def __init__(self, store: Store, processes: GitProcesses, *, again_s: float = AGAIN_S) -> None:
        self._store = store
        self._processes = processes
        self._again_s = again_s

    async def check(self, repository: Repository, rate: float, reading: Reading) -> tuple[int, Verdict]:
        """Look at the copy until the looks agree; returns the inode of its folder, and what they say.

        rate  bytes a second; 0: as fast as it can

        Raises:
            UnavailableError: no process can be started.
        """
        before: Look | None = None
        for _ in range(LOOKS):
            look = await self._look(repository, rate, reading, before)
            if (verdict := judge(before, look)) is not None:
                return look.folder, verdict
            before = look
            await asyncio.sleep(self._again_s)
        return look.folder, Verdict("unverified", why="it changes while it is being checked")

    async def _look(self, repository: Repository, rate: float, reading: Reading, before: Look | None) -> Look:
        only = None
        if before is not None:  # the rest was whole a moment ago
            only = [one.where for one in before.findings if one.kind in _SECOND_LOOK]
        try:
            folder = repository.path.lstat().st_ino
            found, undone = await self._read(repository.path, rate, only, reading)
            walked: tuple[Finding, ...] = ()
            if not any(one.kind in _NO_LAYOUT for one in found) and undone is None:
                walked, undone = await self._walk(repository, rate, reading)
            if repository.path.lstat().st_ino != folder:
                return Look(folder, undone="it was replaced or moved while it was being checked")
        except FileNotFoundError:
            return Look(0, undone="it is gone")
        return Look(folder, combined(found, walked), undone)

    async def _read(
        self, path: Path, rate: float, only: list[str] | None, reading: Reading
    ) -> tuple[list[Finding], str | None]:
        package = Path(stargate_gate.__file__).parent.parent
        process = await self._processes.start(
            [*idle_priority(LOWEST), *ends_with_parent(), sys.executable, *READER],
            writes=None,
            env=git_environment(extra={"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}),
        )
        request = {"folder": str(path), "rate": rate, "only": only}
        answer = _Answer(reading)
        try:
            process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            process.stdin.close()
            async with TaskGroup() as group:
                stderr = group.create_task(_head(process.stderr))
                while line := await process.stdout.readline():
                    answer.take(line)
            if await process.wait() and (words := stderr.result().strip().splitlines()):
                answer.undone = f"the reader failed: {one_line(words[-1])}"
        finally:
            await process.end()
        return answer.findings, answer.undone

    async def _walk(
        self, repository: Repository, rate: float, reading: Reading
    ) -> tuple[tuple[Finding, ...], str | None]:
        try:
            repository = await self._store.adopt(repository)
        except UnavailableError as error:
            cause = error.__cause__
            if isinstance(cause, GitFailedError):
                return (Finding("config", "config", one_line(str(cause))),), None
            return (), one_line(error.message)
        except StargateError as error:
            return (), one_line(error.message)
        argv = [
            *idle_priority(LOWEST),
            *bounded_memory(MAX_WALK_BYTES),
            *ends_with_parent(),
            *repository_argv(repository, *FSCK, config=FSCK_CONFIG),
        ]
        process = await self._processes.start(argv, writes=None, stdin=DEVNULL)
        try:
            async with TaskGroup() as group:
                out = group.create_task(_head(process.stdout))
                err = group.create_task(_head(process.stderr))
                await run_until(
                    process.wait(), _throttled(process, rate, lambda count: _count(reading, count))
                )
            status = await process.wait()
        finally:
            process.signal(signal.SIGCONT)
            await process.end()
        return walk_findings(status, out.result(), err.result())


class _Answer:
    """What the reader says, line by line."""

    def __init__(self, reading: Reading) -> None:
        self.findings: list[Finding] = []
        self.undone: str | None = "the reader ended early"
        self._reading = reading
        self._start = reading.read_bytes

    def take(self, line: bytes) -> None:
        """One line."""
        try:
            value = json.loads(line)
        except ValueError:  # it was ended within the line
            return
        if "read" in value:
            self._reading.read_bytes = self._start + value["read"]
        if "done" in value:
            self.undone = None if value["done"] else one_line(value["why"])
        elif "kind" in value and len(self.findings) < MAX_FINDINGS_READ:
            self.findings.append(finding_of(value))


def _count(reading: Reading, count: int) -> None:
    reading.read_bytes += count


async def _head(stream: asyncio.StreamReader) -> str:
    """The first MAX_OUTPUT_BYTES of what comes to the end."""
    kept = bytearray()
    while chunk := await stream.read(MAX_OUTPUT_BYTES):
        if len(kept) < MAX_OUTPUT_BYTES:
            kept += chunk
    return bytes(kept[:MAX_OUTPUT_BYTES]).decode("utf-8", "replace")


async def _throttled(process: GitProcess, rate: float, count: Callable[[int], None]) -> None:
    """Until cancelled, hold the process up while it has read more from the disk than `rate` allows."""
    loop = asyncio.get_running_loop()
    began, seen = loop.time(), 0
    while True:
        await asyncio.sleep(THROTTLE_S)
        read = _disk_bytes(process.pid)
        count(max(0, read - seen))
        seen = max(seen, read)
        ahead_s = read / rate - (loop.time() - began) if rate else 0.0
        if ahead_s > THROTTLE_S:
            process.signal(signal.SIGSTOP)
            await asyncio.sleep(ahead_s)
            process.signal(signal.SIGCONT)


def _disk_bytes(pid: int) -> int:
    """What the process has read from disks so far (/proc/<pid>/io); 0 where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/io").read_text("ascii")
        return int(text.partition("\nread_bytes: ")[2].split()[0])
    return 0
