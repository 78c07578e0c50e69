"""The rescue, as a standby of one term does it: note what it receives, keep what the leader lacks.

marking      before refs change: they get values of this term
keep         before values of older terms are overwritten or removed
is_surplus   of a repository that the leader has not got
keep_whole   before a repository goes to the trash
settle       after a comparison with the leader
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog

from stargate_gate.aio.tasks import finish
from stargate_gate.errors import GitFailedError, NoSuchRepositoryError
from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.rescue.unreplicated import Kept
from stargate_gate.replication.rescue.values import (
    Rescued,
    Value,
    in_question,
    lacking,
    reachability_input,
)
from stargate_gate.repos.git import repository_argv
from stargate_gate.repos.names import encode_ref
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository

log = structlog.get_logger()

NOBODY_KNOWS = 0  # the term of a value of which no term is known
READ_LIMIT_S = 600.0  # walking the history of a large repository that has nothing in common with the leader's


class WriteRefs(Protocol):
    """Runs `git update-ref --stdin -z` and puts what it did on disk."""

    async def __call__(self, repository: Repository, commands: bytes) -> None:
        """Raises GitFailedError, OSError, UnavailableError: not now."""


class Rescue:
    """For one session of a standby, with the leader of one term."""

    def __init__(
        self, term: int, leader: str, journal: Journal, rescues: Rescues, processes: GitProcesses
    ) -> None:
        self._term = term
        self._leader = leader
        self._journal = journal
        self._rescues = rescues
        self._processes = processes

    @contextlib.asynccontextmanager
    async def marking(
        self, repository: Repository, identity: str, seq: int, refs: Collection[str]
    ) -> AsyncIterator[None]:
        """These refs are to get the values of that change. It is on disk when the scope is left, not before.

        Raises:
            OSError: it is not; the refs must stay as they are.
        """
        if not refs:
            yield
            return
        noted = asyncio.create_task(
            self._journal.mark(self._term, seq, identity, str(repository.name), refs), name="mark"
        )
        try:
            yield
        finally:
            await finish(asyncio.wait({noted}))
        noted.result()

    async def keep(
        self,
        repository: Repository,
        identity: str,
        local: Mapping[str, str],
        wanted: Mapping[str, str],
        write: WriteRefs,
    ) -> None:
        """Before `local` becomes `wanted`, whose objects are here: keep what that lacks. Safe to repeat.

        Raises:
            GitFailedError, OSError, UnavailableError: not now; nothing may be overwritten.
        """
        kept = self._journal.kept(identity, self._term)
        values = await asyncio.to_thread(in_question, local, wanted, kept) if kept else ()
        if not values:
            return
        lost = await self._lacking(repository, values, {*wanted.values()})
        if not lost:
            return
        commands = b"".join(_keeping(ref, oid) for ref, oid in _refs(lost))
        await write(repository, commands)
        await self._rescues.add(identity, str(repository.name), self._rescued(lost), in_trash=False)
        self._say(repository, lost, "refs overwritten")

    async def is_surplus(self, repository: Repository, identity: str, refs: RefReader) -> bool:
        """Whether that repository, which the leader has not got, may be here alone.

        Not if the whole sync set had all of it: then the leader should have it, too.

        Raises:
            OSError: it cannot be read.
        """
        kept = self._journal.kept(identity, self._term)
        if not kept:
            return False
        try:
            local = (await refs.snapshot(repository)).refs
        except GitFailedError:
            return True
        return not local or bool(in_question(local, {}, kept))

    async def keep_whole(
        self, repository: Repository, identity: str, refs: RefReader | None, *, everything: bool = False
    ) -> bool:
        """Before it goes to the trash: if the leader may lack any of it, it stays there. Safe to repeat.

        refs        None: it cannot be read, so nobody knows what is in it
        everything  no other node has it, whatever the journal says
        Returns whether it stays.

        Raises:
            OSError: not now; it must stay where it is.
        """
        kept = self._journal.kept(identity, self._term)
        if everything and kept.rest is None:
            kept = Kept(kept.terms, NOBODY_KNOWS)
        if not kept and not everything:
            return False
        lost: tuple[Value, ...] = ()
        try:
            local = (await refs.snapshot(repository)).refs if refs is not None else None
        except (GitFailedError, NoSuchRepositoryError) as error:
            log.warning("rescued_unread", repository=str(repository.name), error=error.message)
            local = None
        if local is not None and not (lost := in_question(local, {}, kept)):
            return False
        await self._rescues.add(identity, str(repository.name), self._rescued(lost), in_trash=True)
        self._say(repository, lost, "repository to the trash")
        return True

    async def keep_damaged(self, repository: Repository, refs: RefReader) -> None:
        """As `keep_whole`, of a damaged copy whose place another takes. What was rescued in it moves as well.

        Raises:
            OSError: not now; it must stay where it is.
        """
        try:
            identity = await asyncio.to_thread(repository.id)
        except (FileNotFoundError, ValueError):
            return  # nothing was noted of what has no id
        kept = await self.keep_whole(repository, identity, refs)
        if not kept and self._rescues.has(identity):
            await self._rescues.add(identity, str(repository.name), (), in_trash=True)

    def settle(self, repository: Repository, identity: str, seq: int) -> None:
        """It was made equal to the leader's as of `seq`."""
        self._journal.settle(self._term, seq, identity, str(repository.name))

    def settle_all(self, seq: int) -> None:
        """Everything was, as of `seq`."""
        self._journal.settle(self._term, seq)

    def replicated(self, seq: int) -> None:
        """The leader says that its whole sync set has everything up to `seq`."""
        self._journal.replicated(self._term, seq)

    # -- inside ----------------------------------------------------------------------------------------

    async def _lacking(
        self, repository: Repository, values: Sequence[Value], wanted: Collection[str]
    ) -> tuple[Value, ...]:
        oids = sorted({value.oid for value in values})
        argv = repository_argv(repository, "cat-file", "--batch-check=%(objectname) %(objecttype)")
        given = "".join(f"{oid}\n" for oid in oids).encode("ascii")
        output = await self._processes.run(argv, limit_s=READ_LIMIT_S, input=given)
        kinds = dict(line.split(" ", 1) for line in output.decode("ascii", "replace").splitlines())
        argv = repository_argv(repository, "rev-list", "--stdin")
        output = await self._processes.run(
            argv, limit_s=READ_LIMIT_S, input=reachability_input(values, wanted)
        )
        return lacking(values, kinds, {*output.decode("ascii").split()}, wanted)

    def _rescued(self, values: Iterable[Value]) -> list[Rescued]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return [Rescued(value, self._leader, self._term, now) for value in values]

    def _say(self, repository: Repository, values: Sequence[Value], why: str) -> None:
        log.error(
            "rescued",
            repository=str(repository.name),
            refs=len(values),
            first=[f"{value.ref} {value.oid}" for value in values[:5]],
            why=why,
            leader=self._leader,
            term=self._term,
            remedy="see `stargate rescued list`",
        )


def _refs(values: Iterable[Value]) -> list[tuple[str, str]]:
    return sorted({(value.rescued_ref, value.oid) for value in values})


def _keeping(ref: str, oid: str) -> bytes:
    """Whatever it was before: it can only have been that."""
    return b"update %b\0%b\0\0" % (encode_ref(ref), oid.encode("ascii"))
