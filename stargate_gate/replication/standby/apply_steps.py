"""Make one repository here what it is on the leader: steps of a job. Pure.

Objects by id first, then refs by transaction. The order, with what a crash at each point leaves behind:

    place           it gets the name that it has on the leader (placement.py); a new one is made beside
    fetch           objects that no ref names yet, also HEAD's; after a crash a half-written pack is removed
    mark            in the journal, at the same time: these refs get values that other nodes may lack
    keep            values that the leader lacks, before they are overwritten or removed (rescue_steps.py)
    (intent)        if more than one ref changes: the changes, written to disk; see intent_steps.py
    refs            transactions of git's, each with the values that it expects to find; very many new refs
                    are written as one file (see repos/packed.py)
    HEAD            if the leader's has a valid value; if not, the rest goes on
    sync            the folders, so that all of it is on disk before the leader gets `Applied`
    come            a new repository gets its name; a repository that had this name is moved away before

A copy that is damaged here is fetched anew beside it, and goes to the trash when the new one is in its
place: see damage.py.

The session lets one job at a time work on a repository. It calls `intent_steps.prepare` first: what an
earlier session or process has left counts only after it is on disk.
"""

from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from stargate_gate.errors import BrokenRepositoryError, GitFailedError, StargateError, UnavailableError
from stargate_gate.replication.rescue.unreplicated import Mark
from stargate_gate.replication.standby.answers import (
    LEADER_HAS_BOTH,
    NOT_DAMAGED,
    STAYS,
    Copy,
    LeaderCannotReadError,
    LeaderRepository,
    OnDisk,
    Unsound,
)
from stargate_gate.replication.standby.damage import DamageSteps
from stargate_gate.replication.standby.intent import Intent, needed
from stargate_gate.replication.standby.placement import Placement
from stargate_gate.replication.standby.rescue_steps import INLINE_REFS, RescueSteps
from stargate_gate.replication.standby.steps import (
    AskLeader,
    BeginCopy,
    ChangeHead,
    ChangeRefs,
    ClearNotes,
    ClearUnsound,
    Compute,
    FetchObjects,
    Find,
    FindRemains,
    Inspect,
    Log,
    Note,
    NoteSettled,
    NoteUnsound,
    PutIntent,
    ReadHead,
    ReadRefs,
    RemoveIntent,
    Steps,
    SyncRepository,
)
from stargate_gate.replication.wire.delta import before_and_after
from stargate_gate.replication.wire.messages import Changed, Gone
from stargate_gate.repos import plan
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.packed import PackedRefsError
from stargate_gate.repos.plan import RefChange, Step
from stargate_gate.repos.snapshot import RefSnapshot

SYMBOLIC = "ref: "
ATTEMPTS = 3  # comparisons in a row; only somebody else who writes here makes a second one necessary
OTHER_FORMAT = "it is of another object format"

Transactions = Sequence[Sequence[RefChange]]


@dataclass(frozen=True)
class Applied:
    """A repository is what the leader's is. `copy` is None if there it is no more."""

    copy: Copy | None
    on_disk: OnDisk


class ApplySteps:
    """For one session of a standby, with the leader of one term.

    unsound  copies that are to be replaced, whatever their refs look like, by id
    """

    plan: ClassVar = staticmethod(plan.plan_transactions)

    def __init__(
        self,
        term: int,
        rescue: RescueSteps,
        placement: Placement,
        damage: DamageSteps,
        unsound: MutableMapping[str, Unsound],
    ) -> None:
        self._term = term
        self._rescue = rescue
        self._placement = placement
        self._damage = damage
        self._unsound = unsound
        self._noted: set[RepositoryName] = (
            set()
        )  # repositories of which a `Note` says that something is wrong

    # -- the three things that the leader tells of a repository -----------------------------------------

    def change(self, change: Changed) -> Steps[Applied | None]:
        """Apply exactly that; None if it does not fit what is here: then `compare`."""
        try:
            copy: Copy | None = yield Find(change.id)
        except BrokenRepositoryError:
            return None
        if copy is None or copy.name != change.name or change.id in self._unsound:
            return None
        with self._placement.working(change.id):
            return (yield from self._change(copy, change))

    def compare(self, identity: str) -> Steps[Applied]:
        """Make it what it is on the leader now, whatever it is here."""
        try:
            wanted: LeaderRepository | Gone = yield AskLeader(identity)
        except LeaderCannotReadError as error:
            return (yield from self._stay(identity, error))
        if isinstance(wanted, Gone):
            return (yield from self._gone(identity, deleted=wanted.deleted))
        copy, problem = yield from self._sound_copy(wanted)
        if copy is None or problem is not None:
            return (yield from self._anew(wanted, copy, problem or "there is none here"))
        try:
            with self._placement.working(identity):
                synced = yield from self._equalise(copy, wanted)
        except (GitFailedError, UnavailableError) as error:
            damage = yield from self._damage.look(copy, wanted.refs, error)
            if damage is None:
                raise
            return (yield from self._anew(wanted, copy, damage))
        yield from self._settle(identity, copy, wanted.seq)
        return Applied(copy, synced)

    def deleted(self, identity: str) -> Steps[Applied]:
        """A user has deleted it."""
        return (yield from self._gone(identity, deleted=True))

    def clear_notes(self, but: Collection[RepositoryName]) -> ClearNotes:
        """Nothing is wrong with any other repository."""
        self._noted.intersection_update(but)
        return ClearNotes(but)

    def only_here(self, name: RepositoryName, reason: str) -> Note:
        """What to note of a repository that the leader cannot read, and this node has whole."""
        self._noted.add(name)
        return Note(
            name,
            f"{name} cannot be read on the leader ({reason}); this copy is what it was there when last read",
        )

    # -- inside ----------------------------------------------------------------------------------------

    def _sound_copy(self, wanted: LeaderRepository) -> Steps[tuple[Copy | None, str | None]]:
        """The copy of that repository at its place, and why it is replaced; (None, None) if none is here."""
        problem = "it is no whole repository any more"
        try:
            copy = yield from self._placement.at_its_place(wanted.id, wanted.name)
            if copy is not None:
                object_format: str | None = yield Inspect(copy)
                if object_format is not None:
                    found = self._unsound.get(wanted.id)
                    other = object_format != wanted.refs.object_format
                    return copy, OTHER_FORMAT if other else found.why if found is not None else None
        except BrokenRepositoryError as error:
            problem = error.problem
        remains: Copy | None = yield FindRemains(wanted.name, wanted.id)
        return remains, None if remains is None else problem

    def _gone(self, identity: str, *, deleted: bool) -> Steps[Applied]:
        """The leader has none of that id. What is not here any more is no unsound copy, either."""
        put = yield from self._placement.gone(identity, deleted=deleted)
        if put is not STAYS:
            yield from self._forget_unsound(identity, put)
        return Applied(None, put)

    def _change(self, copy: Copy, change: Changed) -> Steps[Applied | None]:
        before, after = before_and_after(change.delta)
        transactions = yield from self._plan(before, after)
        mark = self._rescue.mark(copy, change.id, change.seq, _refs_of(transactions))
        head, marked = yield from self._fetch_with_head(copy, frozenset(after.values()), change.head, mark)
        intended, head_moves = yield from self._intend(copy, change.id, transactions, change.head)
        try:
            yield from self._change_refs(copy, transactions, marked, LEADER_HAS_BOTH, intended)
        except (GitFailedError, PackedRefsError) as error:
            yield Log.of("info", "change_does_not_fit", repository=str(change.name), error=error.message)
            return None
        if head and head_moves:
            yield ChangeHead(copy, head, intended)
        return Applied(copy, (yield from self._finish(copy, change.id if intended else None)))

    def _anew(self, wanted: LeaderRepository, former: Copy | None, why: str) -> Steps[Applied]:
        """Fetch all of it beside, and let it come to its place; `former` goes to the trash then.

        If that fails, all is as it was.
        """
        damaged = former is not None and why != OTHER_FORMAT
        name = str(wanted.name)
        noted = NOT_DAMAGED
        if damaged:
            self._unsound.setdefault(wanted.id, Unsound(wanted.name, why))
            noted = yield NoteUnsound(wanted.id, wanted.name, why)
            yield Log.of(
                "error", "repository_damaged_here", repository=name, why=why, remedy="it is fetched anew"
            )
        head = wanted.refs.head if wanted.refs.head.startswith(SYMBOLIC) else None
        made: Copy = yield BeginCopy(wanted.name, wanted.id, wanted.refs.object_format, head, noted)
        with self._placement.working(wanted.id):
            whole = yield from self._equalise(made, wanted, served=False)
        copy = yield from self._placement.come(made, wanted.name, former, whole, why=why, damaged=damaged)
        yield from self._remove_intent(wanted.id, whole)
        yield from self._forget_unsound(wanted.id, whole)
        if damaged:
            yield Log.of("warning", "repository_replaced", repository=name, why=why)
        yield from self._settle(wanted.id, copy, wanted.seq)
        return Applied(copy, whole)

    def _equalise(self, copy: Copy, wanted: LeaderRepository, *, served: bool = True) -> Steps[OnDisk]:
        """Until all is the same. `served`: it has its place, so an intent covers what takes several steps."""
        head: str | None = wanted.refs.head
        problem: StargateError = UnavailableError(
            f"{copy.name} does not stay as it is made: somebody writes to it here"
        )
        for _ in range(ATTEMPTS):
            local: RefSnapshot = yield ReadRefs(copy)
            goal = yield from self._compute(_goal, wanted.refs, local, size=len(wanted.refs.refs))
            if local.refs == goal and (not head or local.head == head):
                synced = yield from self._finish(copy, wanted.id if served else None)
                yield from self._note_head(wanted.name, wanted.refs.head, head)
                return synced
            transactions = yield from self._plan(local.refs, goal)
            refs = yield from self._compute(_refs_of, transactions, size=len(goal))
            lacking = yield from self._compute(_lacking, goal, local.refs, size=len(goal))
            mark = self._rescue.mark(copy, wanted.id, wanted.seq, refs)
            head, marked = yield from self._fetch_with_head(copy, lacking, head, mark)
            refused, intended = yield from self._overwrite(
                copy, wanted, transactions, marked, local=local.refs, goal=goal, served=served
            )
            if refused is not None:
                problem = refused
            elif head and not (yield ChangeHead(copy, head, intended)):
                head = None
        raise problem

    def _overwrite(
        self,
        copy: Copy,
        wanted: LeaderRepository,
        transactions: Transactions,
        marked: OnDisk,
        *,
        local: Mapping[str, str],
        goal: Mapping[str, str],
        served: bool,
    ) -> Steps[tuple[StargateError | None, OnDisk | None]]:
        """What is here and not known replicated is kept, and then the refs change.

        Returns what git says if it refuses that, and what says that an intent is written.
        """
        rescued = yield from self._rescue.keep(copy, wanted.id, local, goal)
        intended: OnDisk | None = None
        if served:
            intended, _ = yield from self._intend(copy, wanted.id, transactions, wanted.refs.head)
        try:
            yield from self._change_refs(copy, transactions, marked, rescued, intended)
        except (GitFailedError, PackedRefsError) as error:
            return error, intended
        return None, intended

    def _stay(self, identity: str, error: LeaderCannotReadError) -> Steps[Applied]:
        """The leader cannot read it: what is here stays, and is enough if the leader's was that at last.

        Why that is enough: `sent_states.LastRead`.
        """
        if (damaged := self._unsound.get(identity)) is not None:
            raise UnavailableError(f"{error.message}; this copy is damaged, too: {damaged.why}")
        copy: Copy | None = yield Find(identity)
        if copy is None or error.last is None or (yield ReadRefs(copy)).digest != error.last:
            raise UnavailableError(
                f"{error.message}; this copy is not known to be what it was there: repair it on the leader"
            )
        copy = yield from self._placement.at_its_place(identity, error.name)
        if copy is None:
            raise UnavailableError(f"{error.name} is being moved here: try again")
        synced = yield from self._finish(copy, identity)
        yield self.only_here(error.name, error.reason)
        return Applied(copy, synced)

    # -- parts that the tests of the simulator take away one by one ---------------------------------------

    def _plan(self, before: Mapping[str, str], after: Mapping[str, str]) -> Steps[Transactions]:
        size = max(len(before), len(after))
        transactions: Transactions = yield from self._compute(self.plan, before, after, size=size)
        return transactions

    def _fetch_with_head(
        self, copy: Copy, oids: frozenset[str], head: str | None, mark: Mark | None
    ) -> Steps[tuple[str | None, OnDisk]]:
        """The objects, with that of a detached HEAD, which no ref may reach; and what HEAD can say here.

        A HEAD whose object cannot be had is no reason not to have the rest: it stays here as it is.
        """
        if not head or head.startswith(SYMBOLIC) or head in oids:
            return head, (yield FetchObjects(copy, oids, mark))
        try:
            return head, (yield FetchObjects(copy, oids | {head}, mark))
        except (GitFailedError, UnavailableError) as error:
            marked: OnDisk = yield FetchObjects(copy, oids, mark)
            self._noted.add(copy.name)
            yield Note(copy.name, f"{copy.name}: HEAD is not mirrored: {error.message}")
            return None, marked

    def _intend(
        self, copy: Copy, identity: str, transactions: Transactions, head: str
    ) -> Steps[tuple[OnDisk | None, bool]]:
        """Write down what is about to be done, if half of it could be; the objects are on disk before.

        Returns also whether HEAD says something else than `head`.
        """
        head_moves: bool = (yield ReadHead(copy)) != head
        if not needed(transactions, head_moves=head_moves):
            return None, head_moves
        objects: OnDisk = yield SyncRepository(copy)
        intent = Intent(identity, str(copy.name), tuple(map(tuple, transactions)), head)
        return (yield PutIntent(intent, objects)), head_moves

    def _change_refs(
        self,
        copy: Copy,
        transactions: Transactions,
        marked: OnDisk,
        rescued: OnDisk,
        intended: OnDisk | None,
    ) -> Steps[None]:
        """The transactions, in order. Raises what git says if one of them does not fit."""
        for transaction in transactions:
            steps: list[Step] = yield from self._compute(cut, transaction, size=len(transaction))
            for step in steps:
                yield ChangeRefs(copy, step.changes, step.packed, marked, rescued, intended)

    def _finish(self, copy: Copy, identity: str | None) -> Steps[OnDisk]:
        """All of it is on disk; and the intent of that id is done, if there is one."""
        synced: OnDisk = yield SyncRepository(copy)
        if identity is not None:
            yield from self._remove_intent(identity, synced)
        return synced

    def _settle(self, identity: str, copy: Copy, seq: int) -> Steps[None]:
        """It was made equal to the leader's as of `seq`."""
        yield NoteSettled(self._term, seq, identity, copy.name)

    # -- small things ----------------------------------------------------------------------------------

    def _forget_unsound(self, identity: str, fresh: OnDisk) -> Steps[None]:
        if identity in self._unsound:
            yield ClearUnsound(identity, fresh)
            del self._unsound[identity]

    def _remove_intent(self, identity: str, refs: OnDisk) -> Steps[None]:
        yield RemoveIntent(identity, refs)

    def _note_head(self, name: RepositoryName, theirs: str, ours: str | None) -> Steps[None]:
        """The refs are the same. HEAD is as well, or cannot be."""
        if ours == theirs != "":
            self._noted.discard(name)
            yield Note(name, None)
        elif name not in self._noted:
            there = repr(theirs) if theirs else "none"
            self._noted.add(name)
            yield Note(name, f"{name}: HEAD is not mirrored: it is {there} on the leader")

    def _compute(self, function: object, *arguments: object, size: int) -> Steps:  # type: ignore[type-arg]
        """What `function` returns; with very many refs, from a thread."""
        if size <= INLINE_REFS:
            return function(*arguments)  # type: ignore[operator]
        return (yield Compute(function, arguments))  # type: ignore[arg-type]


def cut(transaction: Sequence[RefChange]) -> list[Step]:
    """The steps of a transaction, for `Compute`."""
    return list(plan.steps(transaction))


def _refs_of(transactions: Iterable[Sequence[RefChange]]) -> list[str]:
    return [change.ref for transaction in transactions for change in transaction]


def _lacking(wanted: Mapping[str, str], here: Mapping[str, str]) -> frozenset[str]:
    return frozenset({*wanted.values()} - {*here.values()})


def _goal(wanted: RefSnapshot, local: RefSnapshot) -> Mapping[str, str]:
    """The refs to have here. What has no value on the leader stays what it is: it was not deleted."""
    kept: Collection[str] = [ref for ref in wanted.broken if ref in local.refs]
    return {**wanted.refs, **{ref: local.refs[ref] for ref in kept}}
