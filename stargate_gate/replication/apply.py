"""Make one repository here what it is on the leader: objects by id first, then refs by transaction.

The order, with what a crash at each point leaves behind:

    place           it gets the name that it has on the leader (placement.py); a new one is made beside
    fetch           objects that nothing names yet; a half-written pack is swept
    mark            in the journal, durably: these refs get values that others may lack
    keep            whatever the leader lacks, before it is overwritten or removed (see rescuing.py)
    (intent)        if more than one ref changes: what is to be done, durably; see `Writer.complete`
    refs            one or two transactions of git's, each with the values that it expects to find
    HEAD
    sync            the folders, so that all of it is on disk before anybody is told
    come            a new one comes to its place, as a whole; what had its place goes before

Whoever calls this sees to it that one task at a time works on a repository, and that nothing an earlier
session or process has left in one counts as being here before it is on disk: `FolderSyncs.settle`.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from stargate_gate.errors import (
    GitFailedError,
    StargateError,
    UnavailableError,
)
from stargate_gate.replication.bridge import gits_end
from stargate_gate.replication.delta import before_and_after
from stargate_gate.replication.intent import Intent, needed, remaining
from stargate_gate.replication.intents import Intents
from stargate_gate.replication.messages import Changed, Gone
from stargate_gate.replication.peer import PeerChannel
from stargate_gate.replication.placement import Placement
from stargate_gate.replication.rescuing import Rescue
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.git import repository_argv
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange, encode_ref, plan_transactions, update_ref_input
from stargate_gate.repos.process import GitProcess, GitProcesses
from stargate_gate.repos.refs import RefReader, RefSnapshot
from stargate_gate.repos.repository import read_head, read_object_format
from stargate_gate.repos.store import Repository, Store

log = structlog.get_logger()

FETCH_LIMIT_S = 6 * 3600.0  # the largest repositories over the slowest lines; a dead line ends it long before
REFS_LIMIT_S = 300.0  # a million refs on a slow disk
SYMBOLIC = "ref: "
ATTEMPTS = 3  # comparisons in a row; only somebody else who writes here makes a second one necessary

FETCH = (
    "fetch",
    "--quiet",
    "--stdin",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-auto-maintenance",
    "--no-auto-gc",
    "--no-recurse-submodules",
    "--update-shallow",
)


@dataclass(frozen=True)
class LeaderRepository:
    """One repository as it is on the leader: all of it was received. `seq` covers what it shows."""

    id: str
    name: RepositoryName
    refs: RefSnapshot
    seq: int


class Leader(Protocol):
    """What an apply asks of the leader. All of it raises ConnectionError when the connection is gone."""

    async def repository(self, identity: str) -> LeaderRepository | Gone:
        """The repository of that id as it is now; Gone: the leader says that there is none.

        Raises:
            StargateError: the leader cannot tell.
        """

    async def upload_pack(self, name: RepositoryName) -> PeerChannel:
        """A running git-upload-pack of protocol v2. Raises as `repository`."""


class TermOverError(StargateError):
    """What was being applied belongs to a term that this mirror follows no more."""


class NotReapedError(Exception):
    """A git process does not end, not even killed: while `process` runs, this node must not lead."""

    def __init__(self, process: GitProcess, message: str) -> None:
        super().__init__(message)
        self.process = process


class Writer:
    """Changes refs here, and completes what a crash has cut. `is_current` is asked before each step."""

    def __init__(
        self,
        store: Store,
        processes: GitProcesses,
        refs: RefReader,
        *,
        intents: Intents,
        folders: FolderSyncs,
        is_current: Callable[[], bool],
    ) -> None:
        self._store = store
        self._processes = processes
        self._refs = refs
        self._intents = intents
        self._folders = folders
        self._is_current = is_current

    async def complete(self) -> None:
        """Do what is left of every intent. For when nothing else works on the repositories.

        Raises:
            GitFailedError, OSError, UnavailableError: not now; some are left.
            TermOverError: not any more.
        """
        for intent in await self._intents.all():
            repository = await self._store.by_id(intent.repository_id)
            if repository is not None:
                await self._complete(repository, intent)
            await self._intents.remove(intent.repository_id)

    async def _complete(self, repository: Repository, intent: Intent) -> None:
        left = remaining(intent, (await self._refs.snapshot(repository)).refs)
        for change in left.misfits:
            log.error(
                "intent_does_not_fit", repository=intent.name, ref=change.ref, old=change.old, new=change.new
            )
        await self._change_refs(repository, left.transactions)
        if not left.misfits:
            await self._change_head(repository, intent.head)
        await self._folders.sync(repository.path)
        log.info("intent_completed", repository=intent.name, changes=sum(map(len, left.transactions)))

    async def _change_refs(self, repository: Repository, transactions: Sequence[Sequence[RefChange]]) -> None:
        for transaction in transactions:
            self._require_current()
            await self._git(repository, "update-ref", "--stdin", "-z", given=update_ref_input(transaction))

    async def _change_head(self, repository: Repository, head: str) -> None:
        if await asyncio.to_thread(read_head, repository.path) == head:
            return
        self._require_current()
        if head.startswith(SYMBOLIC):
            target = os.fsdecode(encode_ref(head.removeprefix(SYMBOLIC)))
            await self._git(repository, "symbolic-ref", "HEAD", target)
        else:
            await self._git(repository, "update-ref", "--no-deref", "HEAD", head)

    async def _git(
        self,
        repository: Repository,
        *args: str,
        given: bytes = b"",
        limit_s: float = REFS_LIMIT_S,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Run a git command that writes there; when this returns or raises, it is reaped."""
        argv = repository_argv(repository, *args, config=("protocol.version=2",))
        self._folders.changing(repository.path)
        process = await self._processes.start(argv, writes=repository.path, pass_fds=pass_fds)
        try:
            async with asyncio.timeout(limit_s):
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


class Applier(Writer):
    """Applies what the leader of one term has. `is_current` is asked before each step that changes refs."""

    def __init__(
        self,
        leader: Leader,
        store: Store,
        processes: GitProcesses,
        refs: RefReader,
        *,
        rescue: Rescue,
        intents: Intents,
        folders: FolderSyncs,
        is_current: Callable[[], bool],
    ) -> None:
        super().__init__(store, processes, refs, intents=intents, folders=folders, is_current=is_current)
        self._leader = leader
        self._rescue = rescue
        self.placement = Placement(
            leader, store, refs, rescue=rescue, folders=folders, require_current=self._require_current
        )

    async def change(self, change: Changed, moved: Callable[[], None]) -> Repository | None:
        """Apply exactly that; None if it does not fit what is here: then `compare`.

        `moved` is called whenever something of it has come.

        Raises:
            GitFailedError, OSError, UnavailableError, ConnectionError: not now.
            TermOverError: not any more.
        """
        repository = await self._store.by_id(change.id)
        if repository is None or repository.name != change.name:
            return None
        with self.placement.working(change.id):
            return await self._change(repository, change, moved)

    async def _change(
        self, repository: Repository, change: Changed, moved: Callable[[], None]
    ) -> Repository | None:
        before, after = before_and_after(change.delta)
        transactions = plan_transactions(before, after)
        async with self._rescue.marking(repository, change.id, change.seq, _refs_of(transactions)):
            await self._fetch(repository, after.values(), moved)
        intended = await self._intend(repository, change.id, transactions, change.head)
        try:
            await self._change_refs(repository, transactions)
        except GitFailedError as error:
            log.info("change_does_not_fit", repository=str(change.name), error=error.message)
            return None
        await self._change_head(repository, change.head)
        await self._folders.sync(repository.path)
        if intended:
            await self._intents.remove(change.id)
        return repository

    async def compare(self, identity: str, moved: Callable[[], None]) -> Repository | None:
        """Make it what it is on the leader now, whatever it is here; None if there it is no more.

        `moved` is called whenever something of it has come.

        Raises:
            GitFailedError, OSError, StargateError, ConnectionError: not now.
            TermOverError: not any more.
        """
        wanted = await self._leader.repository(identity)
        if isinstance(wanted, Gone):
            await self.placement.gone(identity, deleted=wanted.deleted)
            return None
        former = None
        repository = await self.placement.at_its_place(identity, wanted.name)
        if repository is not None and await self._format_of(repository) != wanted.refs.object_format:
            former, repository = repository, None
        is_new = repository is None
        if repository is None:
            self._require_current()
            head = wanted.refs.head if wanted.refs.head.startswith(SYMBOLIC) else None
            repository = await self._store.begin(
                wanted.name, identity, object_format=wanted.refs.object_format, head=head
            )
        with self.placement.working(identity):
            await self._make_equal(repository, wanted, moved)
        if is_new:
            repository = await self.placement.come(repository, wanted.name, former)
        self._rescue.settle(repository, identity, wanted.seq)
        return repository

    async def deleted(self, identity: str) -> None:
        """A user has deleted it. Raises as `compare`."""
        await self.placement.gone(identity, deleted=True)

    async def _make_equal(
        self, repository: Repository, wanted: LeaderRepository, moved: Callable[[], None]
    ) -> None:
        problem: StargateError = UnavailableError(
            f"{wanted.name} does not stay as it is made: somebody writes to it here"
        )
        for _ in range(ATTEMPTS):
            local = await self._refs.snapshot(repository)
            goal = _goal(wanted.refs, local)
            if local.refs == goal and local.head == wanted.refs.head:
                await self._folders.sync(repository.path)
                await self._intents.remove(wanted.id)
                return
            transactions = plan_transactions(local.refs, goal)
            async with self._rescue.marking(repository, wanted.id, wanted.seq, _refs_of(transactions)):
                await self._fetch(repository, {*goal.values()} - {*local.refs.values()}, moved)
            await self._rescue.keep(repository, wanted.id, local.refs, goal, self._write_kept)
            await self._intend(repository, wanted.id, transactions, wanted.refs.head)
            try:
                await self._change_refs(repository, transactions)
            except GitFailedError as error:
                problem = error
            else:
                await self._change_head(repository, wanted.refs.head)
        raise problem

    async def _format_of(self, repository: Repository) -> str:
        return await asyncio.to_thread(read_object_format, repository.path)

    # -- the steps -------------------------------------------------------------------------------------

    async def _write_kept(self, repository: Repository, commands: bytes) -> None:
        """Rescued refs, on disk when this returns."""
        self._require_current()
        await self._git(repository, "update-ref", "--stdin", "-z", given=commands)
        await self._folders.sync(repository.path)

    async def _fetch(self, repository: Repository, oids: Collection[str], moved: Callable[[], None]) -> None:
        """Have these objects and all that they need. git itself sees what is here already."""
        if not oids:
            return
        channel = await self._leader.upload_pack(repository.name)
        try:
            async with gits_end(channel, f"fetch {repository.name}", moved) as fd:
                await self._git(
                    repository,
                    *FETCH,
                    f"fd::{fd},{fd}",
                    given="".join(f"{oid}\n" for oid in sorted({*oids})).encode("ascii"),
                    limit_s=FETCH_LIMIT_S,
                    pass_fds=(fd,),
                )
        except GitFailedError as error:
            if channel.stderr:
                raise UnavailableError(f"{error.message}; the leader says: {channel.stderr}") from error
            raise

    async def _intend(
        self,
        repository: Repository,
        identity: str,
        transactions: Sequence[Sequence[RefChange]],
        head: str,
    ) -> bool:
        """Write down what is about to be done, if half of it could be; the objects are on disk before."""
        head_moves = await asyncio.to_thread(read_head, repository.path) != head
        if not needed(transactions, head_moves=head_moves):
            return False
        await self._folders.sync(repository.path)
        self._require_current()
        await self._intents.put(Intent(identity, str(repository.name), tuple(map(tuple, transactions)), head))
        return True


def _refs_of(transactions: Sequence[Sequence[RefChange]]) -> list[str]:
    return [change.ref for transaction in transactions for change in transaction]


def _goal(wanted: RefSnapshot, local: RefSnapshot) -> Mapping[str, str]:
    """The refs to have here. What has no value on the leader stays what it is: it was not deleted."""
    kept = {ref: local.refs[ref] for ref in wanted.broken if ref in local.refs}
    return {**wanted.refs, **kept}
