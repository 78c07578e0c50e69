"""Telling a copy that is damaged here from a fetch that failed for another reason.

A mirror that cannot apply a change has one of these: the leader or the line to it, this node's disk (full,
or gone), or the copy. Only the last is mended by fetching it anew, so it has to be shown by reading the copy
itself, without the leader and without writing: a full disk reads well. And should this be wrong all the
same, it costs a fetch and some room in the trash, and nothing else: the old copy stays where it is until a
whole new one is beside it, and is kept whole after that.

What the copy holds is the leader's anyway, but for values that are not known replicated: with any of those
it stays in the trash for as long as they are rescued (keep.py).

The standby stays what it was in the sync set meanwhile: with the damaged copy it holds what it held, and it
confirms nothing of that repository before the new copy equals the leader's. A push there makes it late,
and it leaves by the record, as ever.
"""

import asyncio
import re
from collections.abc import Callable

from stargate_gate.errors import GitFailedError, NoSuchRepositoryError, StargateError, UnavailableError
from stargate_gate.repos.git import repository_argv
from stargate_gate.repos.process import DEVNULL, GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.snapshot import RefSnapshot

WALK_LIMIT_S = 3600.0  # all commits and trees of the largest repositories
WALK_EVERY_S = 600.0  # a walk that has found nothing is not repeated before
_NO_RESOURCES = re.compile(r"out of memory|cannot allocate|too many open files|cannot fork", re.IGNORECASE)


class Healer:
    """Looks for damage of this node's copies. One per session of a standby."""

    def __init__(self, processes: GitProcesses, refs: RefReader, now: Callable[[], float]) -> None:
        self._processes = processes
        self._refs = refs
        self._now = now
        self._walked: dict[str, float] = {}

    async def damage(self, repository: Repository, wanted: RefSnapshot, failed: StargateError) -> str | None:
        """What is wrong with the copy here, that could not be made what `wanted` says; None: nothing is seen.

        failed  what went wrong
        """
        try:
            local = await self._refs.snapshot(repository)
        except NoSuchRepositoryError:
            return None
        except (GitFailedError, OSError) as error:
            return None if _for_lack_of_resources(error) else f"its refs cannot be read: {error}"
        if broken := sorted(local.broken & wanted.refs.keys()):
            return f"{broken[0]} has no value here"
        if not isinstance(failed, GitFailedError | UnavailableError) or _for_lack_of_resources(failed):
            return None
        return await self._walk(repository)

    async def _walk(self, repository: Repository) -> str | None:
        """Whether every object that its refs need is there and whole, as far as commits and trees tell."""
        if self._now() - self._walked.get(str(repository.path), -WALK_EVERY_S) < WALK_EVERY_S:
            return None
        argv = repository_argv(repository, "rev-list", "--objects", "--all", "--quiet")
        process = await self._processes.start(argv, writes=None, stdin=DEVNULL, stdout=DEVNULL)
        try:
            async with asyncio.timeout(WALK_LIMIT_S):
                stderr = await process.stderr.read(64 * 1024)
                while await process.stderr.read(64 * 1024):
                    pass
                status = await process.wait()
        except TimeoutError:
            return None
        finally:
            await process.end()
        self._walked[str(repository.path)] = self._now()
        error = GitFailedError(argv, status, stderr)
        if status == 0 or status < 0 or _for_lack_of_resources(error):
            return None
        del self._walked[str(repository.path)]
        return f"objects are missing or damaged: {error.message}"


def _for_lack_of_resources(error: Exception) -> bool:
    text = error.stderr if isinstance(error, GitFailedError) else str(error)
    return _NO_RESOURCES.search(text) is not None
