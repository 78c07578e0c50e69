"""Changing refs of a repository here, by git and by packed-refs."""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence

from stargate_gate.aio.tasks import beside, finish
from stargate_gate.config.rules import PROGRESS_EVERY_S
from stargate_gate.errors import (
    GitFailedError,
    UnavailableError,
)
from stargate_gate.replication.standby.answers import TermOverError
from stargate_gate.replication.standby.apply_steps import SYMBOLIC
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.git import git_argv, repository_argv
from stargate_gate.repos.names import encode_ref
from stargate_gate.repos.packed import PackedRef, add_packed_refs
from stargate_gate.repos.plan import RefChange, update_ref_input
from stargate_gate.repos.process import GitProcess, GitProcesses
from stargate_gate.repos.repository import Repository, read_head

REFS_LIMIT_S = 60.0  # for one step, and besides
REF_LIMIT_S = 0.1  # for each of its refs: git syncs every one by itself, on a slow disk


class NotReapedError(Exception):
    """A git process does not end, not even killed: while `process` runs, this node must not lead."""

    def __init__(self, process: GitProcess, message: str) -> None:
        super().__init__(message)
        self.process = process


class RefWriter:
    """Changes refs here. `is_current` is asked before each step: once the mirror has ended it says no."""

    def __init__(
        self, processes: GitProcesses, *, folders: FolderSyncs, is_current: Callable[[], bool]
    ) -> None:
        self._processes = processes
        self._folders = folders
        self._is_current = is_current

    async def _change_refs(
        self,
        repository: Repository,
        changes: Sequence[RefChange],
        progress: Progress,
        *,
        packed: bool,
    ) -> None:
        """One transaction.

        Raises:
            GitFailedError, PackedRefsError: it does not fit, and nothing was changed.
        """
        self._require_current()
        if packed:
            await self._add_packed(repository, changes, progress)
        else:
            limit_s = REFS_LIMIT_S + REF_LIMIT_S * len(changes)
            await self._git(
                repository,
                "update-ref",
                "--stdin",
                "-z",
                given=update_ref_input(changes),
                limit_s=limit_s,
                progress=progress,
            )
        progress.did()

    async def _add_packed(
        self, repository: Repository, changes: Sequence[RefChange], progress: Progress
    ) -> None:
        """All these new refs, or none of them. That their objects are here is asked of git, as it would."""
        peeled = await self._peel(repository, await asyncio.to_thread(_new_oids, changes))
        refs = await asyncio.to_thread(_packed, changes, peeled)
        progress.did()
        self._folders.changing(repository.path)
        async with self._processes.writing(repository.path):
            self._require_current()
            await finish(asyncio.to_thread(add_packed_refs, repository.path, refs))

    async def _missing(self, repository: Repository, oids: Collection[str]) -> set[str]:
        """Those of `oids` that are not here."""
        answer = await self._ask(repository, "%(objectname)", oids)
        return await asyncio.to_thread(_not_here, answer)

    async def _peel(self, repository: Repository, oids: Collection[str]) -> Mapping[str, str]:
        """What the annotated tags among `oids` lead to at last: tag → object.

        Raises:
            UnavailableError: one of `oids` is not here.
        """
        kinds = await self._ask(repository, "%(objectname) %(objecttype)", oids)
        if await asyncio.to_thread(_not_here, kinds):
            raise UnavailableError(f"objects that refs of {repository.name} name are not here")
        tags = await asyncio.to_thread(_tags, kinds)
        if not tags:
            return {}
        ends = await self._ask(repository, "%(objectname)", [f"{tag}^{{}}" for tag in tags])
        if len(lines := ends.decode("ascii").split()) != len(tags):
            raise UnavailableError(f"what tags of {repository.name} lead to is not here")
        return dict(zip(tags, lines, strict=True))

    async def _ask(self, repository: Repository, form: str, objects: Collection[str]) -> bytes:
        """A line of `git cat-file --batch-check` for each object, in order of their names."""
        argv = repository_argv(repository, "cat-file", f"--batch-check={form}")
        given = await asyncio.to_thread(_lines, objects)
        limit_s = REFS_LIMIT_S + REF_LIMIT_S * len(objects)
        return await self._processes.run(argv, limit_s=limit_s, input=given)

    async def _change_head(self, repository: Repository, head: str) -> bool:
        """Let HEAD say that; whether it does. It stays as it is if git takes no such HEAD."""
        if await asyncio.to_thread(read_head, repository.path) == head:
            return True
        self._require_current()
        if not head.startswith(SYMBOLIC):
            await self._git(repository, "update-ref", "--no-deref", "HEAD", head)
            return True
        target = os.fsdecode(encode_ref(head.removeprefix(SYMBOLIC)))
        checked = await self._processes.complete(git_argv("check-ref-format", target), limit_s=REFS_LIMIT_S)
        if checked.status:
            return False
        await self._git(repository, "symbolic-ref", "HEAD", target)
        return True

    async def _git(
        self,
        repository: Repository,
        *args: str,
        given: bytes = b"",
        limit_s: float = REFS_LIMIT_S,
        pass_fds: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> None:
        """Run a git command that writes there; when this returns or raises, it is reaped."""
        argv = repository_argv(repository, *args, config=("protocol.version=2",))
        self._folders.changing(repository.path)
        process = await self._processes.start(argv, writes=repository.path, pass_fds=pass_fds)
        progress = progress or Progress()
        progress.started()
        watch = process.watch_cpu(PROGRESS_EVERY_S, progress.worked)
        try:
            async with beside(watch, "watch-cpu"), asyncio.timeout(limit_s):
                done = await process.communicate(given)
        except TimeoutError as error:
            raise GitFailedError(argv, -1, f"it took longer than {limit_s:g} s".encode()) from error
        finally:
            try:
                await process.end()
            except UnavailableError as error:
                raise NotReapedError(process, error.message) from error
        if done.status != 0:
            raise GitFailedError(argv, done.status, done.stderr)

    def _require_current(self) -> None:
        if not self._is_current():
            raise TermOverError("the mirror has ended")


# All of these are for threads: there may be very many, and the event loop has other things to do.


def _lines(objects: Collection[str]) -> bytes:
    return "".join(f"{one}\n" for one in sorted(objects)).encode("ascii")


def _not_here(answer: bytes) -> set[str]:
    missing = (line.split() for line in answer.splitlines() if line.endswith(b" missing"))
    return {words[0].decode("ascii") for words in missing}


def _tags(kinds: bytes) -> list[str]:
    return [line.split()[0].decode("ascii") for line in kinds.splitlines() if line.endswith(b" tag")]


def _new_oids(changes: Sequence[RefChange]) -> set[str]:
    return {change.new for change in changes if change.new is not None}


def _packed(changes: Sequence[RefChange], peeled: Mapping[str, str]) -> dict[bytes, PackedRef]:
    return {
        encode_ref(change.ref): PackedRef(change.new, peeled.get(change.new))
        for change in changes
        if change.new is not None
    }
