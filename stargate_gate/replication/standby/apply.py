"""Make one repository here what it is on the leader: objects by id first, then refs by transaction.

The order, with what a crash at each point leaves behind:

    place           it gets the name that it has on the leader (placement.py); a new one is made beside
    fetch           objects that nothing names yet, HEAD's among them; a half-written pack is swept
    mark            in the journal, durably: these refs get values that others may lack
    keep            whatever the leader lacks, before it is overwritten or removed (see keep.py)
    (intent)        if more than one ref changes: what is to be done, durably; see `Writer.complete`
    refs            transactions of git's, each with the values that it expects to find; very many new refs
                    are written as one file (see repos/packed.py)
    HEAD            if it names anything that can be had: it holds up nothing else
    sync            the folders, so that all of it is on disk before anybody is told
    come            a new one comes to its place, as a whole; what had its place goes before

A copy that is damaged here is fetched anew beside it, and goes to the trash when the new one is in its
place: see damage.py.

Whoever calls this sees to it that one task at a time works on a repository, and that nothing an earlier
session or process has left in one counts as being here before it is on disk: `FolderSyncs.settle`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from stargate_gate.errors import (
    GitFailedError,
    StargateError,
    UnavailableError,
)
from stargate_gate.replication.notes import Notes
from stargate_gate.replication.peer.connection import PeerChannel
from stargate_gate.replication.peer.fd_bridge import gits_end
from stargate_gate.replication.rescue.keep import Rescue
from stargate_gate.replication.standby.damage import Healer
from stargate_gate.replication.standby.intent import Intent, needed
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.placement import Placement
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.ref_writer import SYMBOLIC, Writer
from stargate_gate.replication.wire.delta import before_and_after
from stargate_gate.replication.wire.messages import Changed, Gone
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.names import RESERVED, RepositoryName
from stargate_gate.repos.packed import PackedRefsError
from stargate_gate.repos.plan import RefChange, plan_transactions
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository, is_remains, read_head, read_object_format
from stargate_gate.repos.snapshot import RefSnapshot
from stargate_gate.repos.store import Store

log = structlog.get_logger()

FETCH_LIMIT_S = 6 * 3600.0  # the largest repositories over the slowest lines; a dead line ends it long before
ATTEMPTS = 3  # comparisons in a row; only somebody else who writes here makes a second one necessary

FETCH = (
    "fetch",
    "--quiet",
    "--no-tags",
    "--no-write-fetch-head",
    "--no-auto-maintenance",
    "--no-auto-gc",
    "--no-recurse-submodules",
    "--update-shallow",
)

FETCH_ALL = (*FETCH, "--dry-run")  # has the objects, and changes no ref
ALL_REFS = f"+refs/*:{RESERVED}/incoming/*"  # git wants to be told where to; nothing is written there
MANY_OBJECTS = 2000


@dataclass(frozen=True)
class LeaderRepository:
    """One repository as it is on the leader: all of it was received. `seq` covers what it shows."""

    id: str
    name: RepositoryName
    refs: RefSnapshot
    seq: int


class LeaderCannotReadError(UnavailableError):
    """The leader has it, and cannot read it. `last`: its digest when it could in this term."""

    def __init__(self, name: RepositoryName, reason: str, last: str | None) -> None:
        super().__init__(f"the leader cannot read it: {reason}")
        self.name = name
        self.reason = reason
        self.last = last


class Leader(Protocol):
    """What an apply asks of the leader. All of it raises ConnectionError when the connection is gone."""

    async def repository(self, identity: str) -> LeaderRepository | Gone:
        """The repository of that id as it is now; Gone: the leader says that there is none.

        Raises:
            LeaderCannotReadError: there is one, and it is damaged.
            StargateError: the leader cannot tell.
        """

    async def upload_pack(self, name: RepositoryName) -> PeerChannel:
        """A running git-upload-pack of protocol v2. Raises as `repository`."""


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
        notes: Notes | None = None,
    ) -> None:
        super().__init__(store, processes, refs, intents=intents, folders=folders, is_current=is_current)
        self._leader = leader
        self._rescue = rescue
        self._notes = notes or Notes("repository_not_as_it_should_be", time.monotonic)
        self._healer = Healer(processes, refs, time.monotonic)
        self.placement = Placement(
            leader, store, refs, rescue=rescue, folders=folders, require_current=self._require_current
        )

    async def change(self, change: Changed, progress: Progress) -> Repository | None:
        """Apply exactly that; None if it does not fit what is here: then `compare`.

        Raises:
            GitFailedError, OSError, UnavailableError, ConnectionError: not now.
            TermOverError: not any more.
        """
        repository = await self._store.by_id(change.id)
        if repository is None or repository.name != change.name:
            return None
        with self.placement.working(change.id):
            return await self._change(repository, change, progress)

    async def _change(self, repository: Repository, change: Changed, progress: Progress) -> Repository | None:
        before, after = before_and_after(change.delta)
        transactions = plan_transactions(before, after)
        async with self._rescue.marking(repository, change.id, change.seq, _refs_of(transactions)):
            head = await self._fetch_with_head(repository, after.values(), change.head, progress)
        intended = await self._intend(repository, change.id, transactions, change.head)
        try:
            await self._change_refs(repository, transactions, progress)
        except (GitFailedError, PackedRefsError) as error:
            log.info("change_does_not_fit", repository=str(change.name), error=error.message)
            return None
        await self._change_head(repository, head)
        await self._folders.sync(repository.path)
        if intended:
            await self._intents.remove(change.id)
        return repository

    async def compare(self, identity: str, progress: Progress) -> Repository | None:
        """Make it what it is on the leader now, whatever it is here; None if there it is no more.

        Raises:
            GitFailedError, OSError, StargateError, ConnectionError: not now.
            TermOverError: not any more.
        """
        try:
            wanted = await self._leader.repository(identity)
        except LeaderCannotReadError as error:
            return await self._stay(identity, error)
        if isinstance(wanted, Gone):
            await self.placement.gone(identity, deleted=wanted.deleted)
            return None
        repository = await self.placement.at_its_place(identity, wanted.name)
        if repository is None or await asyncio.to_thread(is_remains, repository.path):
            remains = await asyncio.to_thread(self._store.remains, wanted.name)
            return await self._anew(wanted, progress, remains, "it is no whole repository any more")
        if await self._format_of(repository) != wanted.refs.object_format:
            return await self._anew(wanted, progress, repository, "it is of another object format")
        try:
            with self.placement.working(identity):
                await self._equalise(repository, wanted, progress)
        except (GitFailedError, UnavailableError) as error:
            if (damage := await self._healer.damage(repository, wanted.refs, error)) is None:
                raise
            return await self._anew(wanted, progress, repository, damage)
        self._rescue.settle(repository, identity, wanted.seq)
        return repository

    async def deleted(self, identity: str) -> None:
        """A user has deleted it. Raises as `compare`."""
        await self.placement.gone(identity, deleted=True)

    async def _anew(
        self, wanted: LeaderRepository, progress: Progress, former: Repository | None, why: str
    ) -> Repository:
        """Fetch all of it beside, and let it come to its place; `former` goes to the trash then.

        Raises as `compare`: then all is as it was.
        """
        damaged = former is not None and "object format" not in why
        if damaged:
            log.error(
                "repository_damaged_here", repository=str(wanted.name), why=why, remedy="it is fetched anew"
            )
        self._require_current()
        head = wanted.refs.head if wanted.refs.head.startswith(SYMBOLIC) else None
        made = await self._store.begin(
            wanted.name, wanted.id, object_format=wanted.refs.object_format, head=head
        )
        with self.placement.working(wanted.id):
            await self._equalise(made, wanted, progress, served=False)
        repository = await self.placement.come(made, wanted.name, former, why=why, damaged=damaged)
        await self._intents.remove(wanted.id)
        for changed in (made, repository):
            self._refs.invalidate(changed)
        if damaged:
            log.warning("repository_replaced", repository=str(wanted.name), why=why)
        self._rescue.settle(repository, wanted.id, wanted.seq)
        return repository

    async def _format_of(self, repository: Repository) -> str:
        return await asyncio.to_thread(read_object_format, repository.path)

    async def _equalise(
        self, repository: Repository, wanted: LeaderRepository, progress: Progress, *, served: bool = True
    ) -> None:
        """Until all is the same. `served`: it has its place, so an intent covers what takes several steps."""
        head: str | None = wanted.refs.head
        problem: StargateError = UnavailableError(
            f"{repository.name} does not stay as it is made: somebody writes to it here"
        )
        for _ in range(ATTEMPTS):
            local = await self._refs.snapshot(repository)
            goal = await asyncio.to_thread(_goal, wanted.refs, local)
            if local.refs == goal and (not head or local.head == head):
                await self._folders.sync(repository.path)
                if served:
                    await self._intents.remove(wanted.id)
                self._note_head(wanted.name, wanted.refs.head, head)
                return
            transactions = await asyncio.to_thread(plan_transactions, local.refs, goal)
            refs = await asyncio.to_thread(_refs_of, transactions)
            lacking = await asyncio.to_thread(_lacking, goal, local.refs)
            async with self._rescue.marking(repository, wanted.id, wanted.seq, refs):
                head = await self._fetch_with_head(repository, lacking, head, progress)
            await self._rescue.keep(repository, wanted.id, local.refs, goal, self._write_kept)
            if served:
                await self._intend(repository, wanted.id, transactions, wanted.refs.head)
            try:
                await self._change_refs(repository, transactions, progress)
            except (GitFailedError, PackedRefsError) as error:
                problem = error
            else:
                head = await self._change_head(repository, head)
        raise problem

    async def _stay(self, identity: str, error: LeaderCannotReadError) -> Repository:
        """The leader cannot read it: what is here stays, and is enough if the leader's was that at last.

        Why that is enough: `published.LastRead`.
        """
        repository = await self._store.by_id(identity)
        if repository is None or error.last is None or await self._refs.digest(repository) != error.last:
            raise UnavailableError(
                f"{error.message}; this copy is not known to be what it was there: repair it on the leader"
            )
        repository = await self.placement.at_its_place(identity, error.name)
        if repository is None:
            raise UnavailableError(f"{error.name} is being moved here: try again")
        await self._folders.sync(repository.path)
        await self._intents.remove(identity)
        self._notes.say(error.name, only_here(error.name, error.reason))
        return repository

    def _note_head(self, name: RepositoryName, theirs: str, ours: str | None) -> None:
        """The refs are the same. HEAD is as well, or cannot be."""
        if ours == theirs != "":
            self._notes.clear(name)
        elif not self._notes.get(name):
            there = repr(theirs) if theirs else "none"
            self._notes.say(name, f"{name}: HEAD is not mirrored: it is {there} on the leader")

    # -- the steps -------------------------------------------------------------------------------------

    async def _write_kept(self, repository: Repository, commands: bytes) -> None:
        """Rescued refs, on disk when this returns."""
        self._require_current()
        await self._git(repository, "update-ref", "--stdin", "-z", given=commands)
        await self._folders.sync(repository.path)

    async def _fetch_with_head(
        self, repository: Repository, oids: Collection[str], head: str | None, progress: Progress
    ) -> str | None:
        """As `_fetch`, with the object of a detached HEAD, which no ref may reach; what HEAD can say here.

        A HEAD whose object cannot be had is no reason not to have the rest: it stays here as it is.
        """
        if not head or head.startswith(SYMBOLIC) or head in oids:
            await self._fetch(repository, oids, progress)
            return head
        try:
            await self._fetch(repository, {*oids, head}, progress)
        except (GitFailedError, UnavailableError) as error:
            await self._fetch(repository, oids, progress)
            self._notes.say(repository.name, f"{repository.name}: HEAD is not mirrored: {error.message}")
            return None
        return head

    async def _fetch(self, repository: Repository, oids: Collection[str], progress: Progress) -> None:
        """Have these objects and all that they need. git itself sees what is here already.

        For very many, everything that the leader's refs name is fetched first, in one go: git takes a time
        that grows with the square of the number of objects that it is told one by one (2.39.5: for 60,000
        it works as long as for all the rest). What its refs do not name any more is fetched one by one then.
        """
        if len(oids) >= MANY_OBJECTS:
            with contextlib.suppress(GitFailedError):  # a ref that is gone meanwhile makes the whole fail
                await self._fetch_by(repository, (*FETCH_ALL, "{}", ALL_REFS), b"", progress)
            oids = await self._missing(repository, oids)
        if oids:
            given = await asyncio.to_thread(lambda: "".join(f"{oid}\n" for oid in sorted({*oids})).encode())
            await self._fetch_by(repository, (*FETCH, "--stdin", "{}"), given, progress)

    async def _fetch_by(
        self, repository: Repository, words: Sequence[str], given: bytes, progress: Progress
    ) -> None:
        """Run a fetch from the leader; `{}` among its words stands for where that is."""
        channel = await self._leader.upload_pack(repository.name)
        try:
            async with gits_end(channel, f"fetch {repository.name}", progress.came) as fd:
                await self._git(
                    repository,
                    *(word.replace("{}", f"fd::{fd},{fd}") for word in words),
                    given=given,
                    limit_s=FETCH_LIMIT_S,
                    pass_fds=(fd,),
                    progress=progress,
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


def only_here(name: RepositoryName, reason: str) -> str:
    """What to say of a repository that the leader cannot read, and this node has whole."""
    return f"{name} cannot be read on the leader ({reason}); this copy is what it was there when last read"


def _refs_of(transactions: Sequence[Sequence[RefChange]]) -> list[str]:
    return [change.ref for transaction in transactions for change in transaction]


def _lacking(wanted: Mapping[str, str], here: Mapping[str, str]) -> set[str]:
    return {*wanted.values()} - {*here.values()}


def _goal(wanted: RefSnapshot, local: RefSnapshot) -> Mapping[str, str]:
    """The refs to have here. What has no value on the leader stays what it is: it was not deleted."""
    kept = {ref: local.refs[ref] for ref in wanted.broken if ref in local.refs}
    return {**wanted.refs, **kept}
