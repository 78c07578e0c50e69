"""Housekeeping of repositories at low priority, as git would do it after pushes; see git-maintenance(1).

No task here prunes. Unreachable objects stay, because a running push may need them, and rescued values must
never be lost.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from stargate_gate.aio.tasks import TaskGroup
from stargate_gate.errors import GitFailedError, StargateError
from stargate_gate.repos.git import repository_argv
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.priority import idle_priority
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

QUIET_S = 60.0  # a repository is left alone until it was not written to for this long
LATEST_S = 3600.0  # but not longer than this
PAUSE_S = 5.0  # between two repositories
TASK_LIMIT_S = 3600.0
MAX_WAITING = 10_000  # repositories; beyond that, the one that waited longest is left out until its next push
TRASH_EVERY_S = 3600.0

# In this order: loose objects into packs, small packs into larger ones, then what makes reading fast.
TASKS = ("loose-objects", "incremental-repack", "commit-graph", "pack-refs")


class Housekeeping:
    """One per node. `run` works until cancelled; then its git process is ended and reaped."""

    def __init__(
        self,
        store: Store,
        processes: GitProcesses,
        *,
        quiet_s: float = QUIET_S,
        latest_s: float = LATEST_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._processes = processes
        self._quiet_s = quiet_s
        self._latest_s = latest_s
        self._now = now
        self._waiting: OrderedDict[RepositoryName, tuple[float, float]] = OrderedDict()  # first, last touch
        self._touched = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    async def touched(self, repository: Repository) -> None:
        """The repository was written to: do its housekeeping when it has been quiet for a while."""
        now = asyncio.get_running_loop().time()
        first, _ = self._waiting.get(repository.name, (now, now))
        self._waiting[repository.name] = (first, now)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
        self._touched.set()

    async def run(self) -> None:
        """Do the housekeeping of written repositories, one at a time, and empty the trash every hour."""
        async with TaskGroup() as group:
            group.create_task(self._empty_trash(), name="empty-trash")
            group.create_task(self._look_after_all(), name="housekeeping")

    async def look_after(self, repository: Repository) -> None:
        """Run every task on one repository, at low priority."""
        for task in TASKS:
            argv = repository_argv(repository, "maintenance", "run", "--quiet", f"--task={task}")
            try:
                await self._processes.run(
                    [*idle_priority(), *argv], limit_s=TASK_LIMIT_S, writes=repository.path
                )
            except GitFailedError as error:
                log.warning(
                    "maintenance_failed",
                    repository=str(repository.name),
                    task=task,
                    error=error.stderr[-300:],
                )

    async def _look_after_all(self) -> None:
        while True:
            name = await self._next()
            del self._waiting[name]  # before the work: a push during it counts for the next time
            try:
                repository = self._store.find_whole(name)
                if repository is not None:
                    await self.look_after(repository)
            except (StargateError, OSError) as error:
                log.warning("maintenance_failed", repository=str(name), error=str(error))
            await asyncio.sleep(PAUSE_S)

    async def _next(self) -> RepositoryName:
        """Wait until a repository is due; returns its name."""
        loop = asyncio.get_running_loop()
        while True:
            self._touched.clear()
            due = [
                (min(last + self._quiet_s, first + self._latest_s), name)
                for name, (first, last) in self._waiting.items()
            ]
            wait_s = None
            if due:
                when, name = min(due)
                if when <= loop.time():
                    return name
                wait_s = when - loop.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._touched.wait()

    async def _empty_trash(self) -> None:
        while True:
            try:
                await self._store.empty_trash(self._now())
            except OSError as error:
                log.warning("trash_not_emptied", error=str(error))
            await asyncio.sleep(TRASH_EVERY_S)
