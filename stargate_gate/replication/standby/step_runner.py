"""Carries out the steps of a standby's jobs (steps.py). Decides nothing.

Steps that read call the store, the reader of refs and the journal. Steps that write are durable when they
return, as their docstrings say, and those that change what a client could see are refused once the mirror has
ended.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol, TypeVar

import structlog

from stargate_gate.aio.tasks import all_of, task_group
from stargate_gate.errors import (
    GitFailedError,
    StargateError,
    UnavailableError,
)
from stargate_gate.replication.notes import Notes
from stargate_gate.replication.peer.connection import PeerChannel
from stargate_gate.replication.peer.fd_bridge import gits_end
from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.rescue.unreplicated import Kept, Mark
from stargate_gate.replication.rescue.values import Rescued, reachability_input
from stargate_gate.replication.standby import steps as do
from stargate_gate.replication.standby.answers import (
    NOTHING_MARKED,
    Copy,
    Digest,
    Histories,
    LeaderRepository,
    Occupant,
    OnDisk,
    Walked,
)
from stargate_gate.replication.standby.intent import Intent
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.ref_writer import RefWriter
from stargate_gate.replication.standby.steps import Remark, Step
from stargate_gate.replication.wire.messages import Gone, Listed
from stargate_gate.repos.adoption import new_id
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.git import repository_argv
from stargate_gate.repos.identities import Census
from stargate_gate.repos.names import RESERVED, RepositoryName, encode_ref
from stargate_gate.repos.process import DEVNULL, GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository, is_remains, read_head, read_object_format
from stargate_gate.repos.snapshot import RefSnapshot
from stargate_gate.repos.store import Store

log = structlog.get_logger()
T = TypeVar("T")

FETCH_LIMIT_S = 6 * 3600.0  # the largest repositories over the slowest lines; a dead line ends it long before
WALK_LIMIT_S = 3600.0  # all commits and trees of the largest repositories
READ_LIMIT_S = 600.0  # walking the history of a large repository that has nothing in common with the leader's

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


class Leader(Protocol):
    """What a standby asks of the leader. All of it raises ConnectionError when the connection is gone."""

    async def repository(self, identity: str) -> LeaderRepository | Gone:
        """The repository of that id as it is now; Gone: the leader says that there is none.

        Raises:
            LeaderCannotReadError: there is one, and it is damaged.
            StargateError: the leader cannot tell.
        """

    async def upload_pack(self, name: RepositoryName) -> PeerChannel:
        """A running git-upload-pack of protocol v2. Raises as `repository`."""


async def nothing_to_note(_: str) -> None:
    """For a caller without enrolment."""


async def nothing_to_look_after(_: Repository) -> None:
    """For a caller without housekeeping."""


class StepRunner(RefWriter):
    """For the jobs of one session; of several at a time, each for another repository.

    note_incarnation  awaited with the incarnation of a membership of this node; on disk when it returns
    look_after        awaited after a repository was written to
    """

    def __init__(
        self,
        term: int,
        leader: Leader | None,
        leader_name: str,
        *,
        store: Store,
        processes: GitProcesses,
        refs: RefReader,
        intents: Intents,
        journal: Journal,
        rescues: Rescues,
        folders: FolderSyncs,
        notes: Notes,
        is_current: Callable[[], bool],
        note_incarnation: Callable[[str], Awaitable[None]] = nothing_to_note,
        look_after: Callable[[Repository], Awaitable[None]] = nothing_to_look_after,
    ) -> None:
        super().__init__(processes, folders=folders, is_current=is_current)
        self._term = term
        self._leader = leader
        self._leader_name = leader_name
        self._store = store
        self._refs = refs
        self._intents = intents
        self._journal = journal
        self._rescues = rescues
        self._notes = notes
        self._note_incarnation = note_incarnation
        self._look_after = look_after

    async def carry_out(self, step: Step, progress: Progress) -> Any:
        """Do it; returns the answer that the step's docstring names.

        Raises:
            StargateError, OSError, ValueError: as the step's docstring says.
            NotReapedError: a git process does not end.
        """
        if isinstance(step, do.FetchObjects):
            return await self._fetch_and_mark(step, progress)
        if isinstance(step, do.ChangeRefs):
            return await self._change_refs(_real(step.copy), step.changes, progress, packed=step.packed)
        return await self._METHODS[type(step)](self, step)

    def remark(self, remark: Remark) -> None:
        """What needs no answer."""
        match remark:
            case do.Log():
                getattr(log, remark.level)(remark.event, **remark.fields)
            case do.Note(line=None):
                self._notes.clear(remark.name)
            case do.Note():
                self._notes.say(remark.name, remark.line or "")
            case do.ClearNotes():
                self._notes.clear_all_but(remark.but)
            case do.NoteSettled():
                name = None if remark.name is None else str(remark.name)
                self._journal.settle(remark.term, remark.seq, remark.id, name)
            case do.NoteReplicated():
                self._journal.replicated(remark.term, remark.seq)

    # -- reading ---------------------------------------------------------------------------------------

    async def _ask_leader(self, step: do.AskLeader) -> LeaderRepository | Gone:
        if self._leader is None:
            raise UnavailableError("there is no leader to ask")
        return await self._leader.repository(step.id)

    async def _find(self, step: do.Find) -> Repository | None:
        return await self._store.by_id(step.id)

    async def _who_has(self, step: do.WhoHas) -> Occupant | None:
        repository = self._store.find_whole(step.name)
        if repository is None:
            return None
        return Occupant(repository, await self._store.register.own_id(repository))

    async def _take_census(self, _: do.TakeCensus) -> Census:
        return await self._store.census()

    async def _read_digests(self, step: do.ReadDigests) -> tuple[Digest | None, ...]:
        return tuple(await all_of(self._read_digest(one, _real(copy)) for one, copy in step.listed))

    async def _read_digest(self, listed: Listed, repository: Repository) -> Digest | None:
        try:
            unsettled = bool(self._journal.kept(listed.id, self._term))
            repository = await self._store.adopt(repository)
            return Digest(await self._refs.digest(repository), unsettled)
        except (StargateError, OSError, ValueError):
            return None

    async def _read_refs(self, step: do.ReadRefs) -> RefSnapshot:
        return await self._refs.snapshot(_real(step.copy))

    async def _read_head(self, step: do.ReadHead) -> str:
        return await asyncio.to_thread(read_head, _real(step.copy).path)

    async def _inspect(self, step: do.Inspect) -> str | None:
        return await asyncio.to_thread(_format_of, _real(step.copy))

    async def _find_remains(self, step: do.FindRemains) -> Repository | None:
        if (broken := await self._store.register.by_id(step.id, search=False)) is not None:
            return broken
        return await asyncio.to_thread(self._store.remains, step.name)

    async def _read_id(self, step: do.ReadId) -> str | None:
        try:
            return await asyncio.to_thread(_real(step.copy).id)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    async def _adopt(self, step: do.Adopt) -> tuple[Repository, bool]:
        repository = _real(step.copy)
        try:
            return await self._store.adopt(repository), True
        except UnavailableError:
            return repository, False

    async def _walk(self, step: do.Walk) -> Walked | None:
        argv = repository_argv(_real(step.copy), "rev-list", "--objects", "--all", "--quiet")
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
        return Walked(status, GitFailedError(argv, status, stderr))

    async def _read_journal(self, step: do.ReadJournal) -> Kept:
        return self._journal.kept(step.id, self._term)

    async def _has_rescued(self, step: do.HasRescued) -> bool:
        return self._rescues.has(step.id)

    async def _compare_histories(self, step: do.CompareHistories) -> Histories:
        oids = sorted({value.oid for value in step.values})
        argv = repository_argv(_real(step.copy), "cat-file", "--batch-check=%(objectname) %(objecttype)")
        given = "".join(f"{oid}\n" for oid in oids).encode("ascii")
        output = await self._processes.run(argv, limit_s=READ_LIMIT_S, input=given)
        kinds = dict(line.split(" ", 1) for line in output.decode("ascii", "replace").splitlines())
        argv = repository_argv(_real(step.copy), "rev-list", "--stdin")
        given = reachability_input(step.values, step.wanted)
        output = await self._processes.run(argv, limit_s=READ_LIMIT_S, input=given)
        return Histories(kinds, frozenset(output.decode("ascii").split()))

    async def _read_intents(self, _: do.ReadIntents) -> list[Intent]:
        return await self._intents.all()

    async def _new_id(self, _: do.NewId) -> str:
        return new_id()

    async def _compute(self, step: do.Compute) -> Any:
        return await asyncio.to_thread(step.function, *step.arguments)

    async def _pause(self, step: do.Pause) -> None:
        await asyncio.sleep(step.seconds)

    # -- writing ---------------------------------------------------------------------------------------

    async def _settle_folders(self, _: do.SettleFolders) -> OnDisk:
        await self._folders.settle(self._store.root)
        return OnDisk("whatever was left to the system")

    async def _note_unsound(self, step: do.NoteUnsound) -> OnDisk:
        await self._store.unsound.note(step.id, str(step.name), step.why)
        return OnDisk(f"note of the unsound copy of {step.name}")

    async def _clear_unsound(self, step: do.ClearUnsound) -> None:
        await self._store.unsound.clear(step.id)

    async def _begin_copy(self, step: do.BeginCopy) -> Repository:
        self._require_current()
        return await self._store.begin(step.name, step.id, object_format=step.object_format, head=step.head)

    async def _fetch_and_mark(self, step: do.FetchObjects, progress: Progress) -> OnDisk:
        repository = _real(step.copy)
        if (mark := step.mark) is None:
            await self._fetch(repository, step.oids, progress)
            return NOTHING_MARKED
        async with task_group() as group:
            group.create_task(self._mark(mark), name="mark")
            await self._fetch(repository, step.oids, progress)
        return OnDisk(f"marked {mark.name} with {mark.seq}")

    async def _mark(self, mark: Mark) -> None:
        await self._journal.mark(mark.term, mark.seq, mark.repository_id, mark.name, mark.refs)

    async def _keep_refs(self, step: do.KeepRefs) -> OnDisk:
        self._require_current()
        repository = _real(step.copy)
        refs = sorted({(value.rescued_ref, value.oid) for value in step.values})
        commands = b"".join(_keeping(ref, oid) for ref, oid in refs)
        await self._git(repository, "update-ref", "--stdin", "-z", given=commands)
        await self._folders.sync(repository.path)
        return OnDisk(f"{len(refs)} refs that keep rescued values of {repository.name}")

    async def _note_rescued(self, step: do.NoteRescued) -> OnDisk:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rescued = [Rescued(value, self._leader_name, self._term, now) for value in step.values]
        await self._rescues.add(step.id, str(step.name), rescued, in_trash=step.in_trash)
        return OnDisk(f"rescued values of {step.name}")

    async def _put_intent(self, step: do.PutIntent) -> OnDisk:
        self._require_current()
        await self._intents.put(step.intent)
        return OnDisk(f"intent of {step.intent.name}")

    async def _do_change_head(self, step: do.ChangeHead) -> bool:
        return await self._change_head(_real(step.copy), step.head)

    async def _sync_repository(self, step: do.SyncRepository) -> OnDisk:
        repository = _real(step.copy)
        await self._folders.sync(repository.path)
        return OnDisk(f"all of {repository.name}")

    async def _remove_intent(self, step: do.RemoveIntent) -> None:
        await self._intents.remove(step.id)

    async def _move(self, step: do.Move) -> Repository:
        self._require_current()
        moved = await self._store.move(_real(step.copy), step.name)
        self._folders.changing(moved.path)
        return moved

    async def _exchange(self, step: do.Exchange) -> tuple[Repository, Repository]:
        self._require_current()
        both = await self._store.exchange(_real(step.one), _real(step.other))
        for moved in both:
            self._folders.changing(moved.path)
        return both

    async def _complete(self, step: do.Complete) -> Repository:
        self._require_current()
        instead_of = None if step.instead_of is None else _real(step.instead_of)
        made = _real(step.made)
        repository = await self._store.complete(made, step.name, instead_of)
        self._folders.changing(repository.path)
        await self._folders.sync(repository.path)
        for changed in (made, repository):
            self._refs.invalidate(changed)
        return repository

    async def _put_away(self, step: do.PutAway) -> OnDisk:
        self._require_current()
        repository = _real(step.copy)
        await self._store.put_away(repository, deleted=step.deleted, entry_id=step.entry_id)
        return OnDisk(f"{repository.name} in the trash")

    async def _do_note_incarnation(self, step: do.NoteIncarnation) -> OnDisk:
        await self._note_incarnation(step.incarnation)
        return OnDisk(f"incarnation {step.incarnation}")

    async def _do_look_after(self, step: do.LookAfter) -> None:
        await self._look_after(_real(step.copy))

    # -- objects ---------------------------------------------------------------------------------------

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
        if self._leader is None:
            raise UnavailableError("there is no leader to fetch from")
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

    _METHODS: ClassVar[Mapping[type, Callable[["StepRunner", Any], Awaitable[Any]]]] = {
        do.AskLeader: _ask_leader,
        do.Find: _find,
        do.WhoHas: _who_has,
        do.TakeCensus: _take_census,
        do.ReadDigests: _read_digests,
        do.ReadRefs: _read_refs,
        do.ReadHead: _read_head,
        do.Inspect: _inspect,
        do.FindRemains: _find_remains,
        do.ReadId: _read_id,
        do.Adopt: _adopt,
        do.Walk: _walk,
        do.ReadJournal: _read_journal,
        do.HasRescued: _has_rescued,
        do.CompareHistories: _compare_histories,
        do.ReadIntents: _read_intents,
        do.NewId: _new_id,
        do.Compute: _compute,
        do.Pause: _pause,
        do.SettleFolders: _settle_folders,
        do.NoteUnsound: _note_unsound,
        do.ClearUnsound: _clear_unsound,
        do.BeginCopy: _begin_copy,
        do.KeepRefs: _keep_refs,
        do.NoteRescued: _note_rescued,
        do.PutIntent: _put_intent,
        do.ChangeHead: _do_change_head,
        do.SyncRepository: _sync_repository,
        do.RemoveIntent: _remove_intent,
        do.Move: _move,
        do.Exchange: _exchange,
        do.Complete: _complete,
        do.PutAway: _put_away,
        do.NoteIncarnation: _do_note_incarnation,
        do.LookAfter: _do_look_after,
    }


def _real(copy: Copy) -> Repository:
    """A session passes on what it was given here."""
    assert isinstance(copy, Repository)  # noqa: S101 - for mypy
    return copy


def _format_of(repository: Repository) -> str | None:
    return None if is_remains(repository.path) else read_object_format(repository.path)


def _keeping(ref: str, oid: str) -> bytes:
    """Whatever it was before: it can only have been that."""
    return b"update %b\0%b\0\0" % (encode_ref(ref), oid.encode("ascii"))


async def carry_out_all(steps: do.Steps[T], runner: StepRunner, progress: Progress) -> T:
    """All steps of a job that runs alone; what it returns. Raises what it raises."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Remark | do.TakeTurn):
                if not isinstance(step, do.TakeTurn):
                    runner.remark(step)
                step = next(steps)
                continue
            try:
                answer = await runner.carry_out(step, progress)
            except (StargateError, OSError, ValueError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result
