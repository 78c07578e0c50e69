"""Keeps a standby's own values before they are replaced: steps of a job. Pure; rescue/values.py has the rule.

mark          before refs change: they get values of this term
keep          before values of older terms are overwritten or removed
is_surplus    whether a repository that the leader does not have may be only here
keep_whole    before a repository goes to the trash
keep_damaged  before a damaged copy does, for another one
"""

from collections.abc import Collection, Iterable, Mapping

from stargate_gate.errors import GitFailedError, NoSuchRepositoryError
from stargate_gate.replication.rescue.unreplicated import Kept, Mark
from stargate_gate.replication.rescue.values import Value, in_question, lacking
from stargate_gate.replication.standby.answers import NOTHING_TO_RESCUE, Copy, Histories, OnDisk
from stargate_gate.replication.standby.steps import (
    Adopt,
    CompareHistories,
    Compute,
    HasRescued,
    KeepRefs,
    Log,
    NoteRescued,
    ReadId,
    ReadJournal,
    ReadRefs,
    Steps,
)

NOBODY_KNOWS = 0  # the term of a value of which no term is known
INLINE_REFS = 1000  # with more refs than that, a computation is for a thread
WHOLE_IN_TRASH = OnDisk("no ref has to keep the values: the whole repository stays in the trash")


class RescueSteps:
    """For one session of a standby, with the leader of one term."""

    def __init__(self, term: int, leader: str) -> None:
        self._term = term
        self._leader = leader

    def mark(self, copy: Copy, identity: str, seq: int, refs: Collection[str]) -> Mark | None:
        """What the journal has to say before these refs get the values of that change; None: nothing."""
        return Mark(self._term, seq, identity, str(copy.name), tuple(refs)) if refs else None

    def keep(
        self, copy: Copy, identity: str, local: Mapping[str, str], wanted: Mapping[str, str]
    ) -> Steps[OnDisk]:
        """Before `local` becomes `wanted`, whose objects are here: keep what that lacks. Safe to repeat."""
        kept: Kept = yield ReadJournal(identity)
        if not kept:
            return NOTHING_TO_RESCUE
        values: tuple[Value, ...]
        if len(local) <= INLINE_REFS:
            values = in_question(local, wanted, kept)
        else:
            values = yield Compute(in_question, (local, wanted, kept))
        if not values:
            return NOTHING_TO_RESCUE
        tips = frozenset(wanted.values())
        histories: Histories = yield CompareHistories(copy, values, tips)
        lost = lacking(values, histories.kinds, histories.beyond, tips)
        if not lost:
            return NOTHING_TO_RESCUE
        refs: OnDisk = yield KeepRefs(copy, lost)
        rescued: OnDisk = yield NoteRescued(identity, copy.name, lost, in_trash=False, kept=refs)
        yield self._said(copy, lost, "refs overwritten")
        return rescued

    def is_surplus(self, copy: Copy, identity: str) -> Steps[bool]:
        """Whether that repository, which the leader has not got, may be here alone.

        Not if the whole sync set had all of it: then the leader should have it, too.
        """
        kept: Kept = yield ReadJournal(identity)
        if not kept:
            return False
        try:
            local = (yield ReadRefs(copy)).refs
        except GitFailedError:
            return True
        return not local or bool(in_question(local, {}, kept))

    def keep_whole(
        self, copy: Copy, identity: str, *, readable: bool = True, everything: bool = False
    ) -> Steps[OnDisk | None]:
        """Before it goes to the trash: if the leader may lack any of it, it stays there. Safe to repeat.

        readable    False: git must not run in it, so nobody knows what is in it
        everything  no other node has it, whatever the journal says
        Returns what is on disk if it stays; else None.
        """
        kept: Kept = yield ReadJournal(identity)
        if everything and kept.rest is None:
            kept = Kept(kept.terms, NOBODY_KNOWS)
        if not kept and not everything:
            return None
        lost: tuple[Value, ...] = ()
        try:
            local = (yield ReadRefs(copy)).refs if readable else None
        except (GitFailedError, NoSuchRepositoryError) as error:
            yield Log.of("warning", "rescued_unread", repository=str(copy.name), error=error.message)
            local = None
        if local is not None and not (lost := in_question(local, {}, kept)):
            return None
        rescued: OnDisk = yield NoteRescued(identity, copy.name, lost, in_trash=True, kept=WHOLE_IN_TRASH)
        yield self._said(copy, lost, "repository to the trash")
        return rescued

    def keep_damaged(self, copy: Copy, identity: str) -> Steps[OnDisk]:
        """As `keep_whole`, of a damaged copy whose place the repository of that id takes.

        Its own id counts if it can be read. What was rescued in it moves to the trash as well.
        """
        identity = (yield ReadId(copy)) or identity
        copy, safe = yield Adopt(copy)
        rescued = yield from self.keep_whole(copy, identity, readable=safe)
        if rescued is None and (yield HasRescued(identity)):
            rescued = yield NoteRescued(identity, copy.name, (), in_trash=True, kept=WHOLE_IN_TRASH)
        return rescued or NOTHING_TO_RESCUE

    def _said(self, copy: Copy, values: Iterable[Value], why: str) -> Log:
        values = list(values)
        return Log.of(
            "error",
            "rescued",
            repository=str(copy.name),
            refs=len(values),
            first=[f"{value.ref} {value.oid}" for value in values[:5]],
            why=why,
            leader=self._leader,
            term=self._term,
            remedy="see `stargate rescued list`",
        )
