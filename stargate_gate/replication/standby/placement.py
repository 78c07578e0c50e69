"""Which repository lies where on a standby: steps of a job. Pure.

Theory of operation. A repository is the one with its id, here and on the leader; its name is where it lies.

    it has another name there       it is moved here, as a whole and at once; nothing is fetched for that
    its name is taken here          the repository that has it gets the name that it has on the leader; two
                                    that exchange names do so in one step
    it is not here                  it is fetched into a hidden folder, and gets its name when it is complete;
                                    only then is a repository moved away that had this name
    a user has deleted it           into the trash: the leader says so, of that id
    the leader does not have it     that is no deletion: an operator or a broken disk removed it there, or
                                    this node has led and had more. If the journal says that it may be only
                                    here, it goes into the trash as a whole and counts as rescued. If the
                                    whole sync set had it, it stays, and status names it: it may be the last
                                    copy of something that was acknowledged
    it has no id, or another's      nothing of it was acknowledged; it goes into the trash and is rescued

So at any moment a standby in the sync set has everything that was acknowledged: every step is one rename.
One job at a time moves folders, and only those in which no other job works.
"""

import contextlib
from collections.abc import Iterator

from stargate_gate.errors import UnavailableError
from stargate_gate.replication.standby.answers import (
    NOTHING_HERE,
    NOTHING_TO_RESCUE,
    STAYS,
    Copy,
    LeaderRepository,
    Occupant,
    OnDisk,
)
from stargate_gate.replication.standby.rescue_steps import RescueSteps
from stargate_gate.replication.standby.steps import (
    Adopt,
    AskLeader,
    Complete,
    Exchange,
    Find,
    Log,
    Move,
    NewId,
    PutAway,
    ReadId,
    Steps,
    T,
    TakeTurn,
    WhoHas,
)
from stargate_gate.replication.wire.messages import Gone
from stargate_gate.repos.names import RepositoryName

MAX_MOVES = 1000  # for one repository to come to its place; a chain of names that does not end has changed


class Turn:
    """Which job may move folders. The runner of the jobs takes it for a job that yields `TakeTurn`."""

    def __init__(self) -> None:
        self.taken = False

    def leave(self) -> None:
        """Another job may have it."""
        self.taken = False


class Placement:
    """For one session.

    orphans  what is here and not on the leader, which should have it: by id
    """

    def __init__(self, rescue: RescueSteps) -> None:
        self.orphans: dict[str, RepositoryName] = {}
        self.turn = Turn()
        self._rescue = rescue
        self._working: set[str] = set()

    @contextlib.contextmanager
    def working(self, identity: str) -> Iterator[None]:
        """It is worked on in the body, where it lies: it is not moved meanwhile."""
        self._working.add(identity)
        try:
            yield
        finally:
            self._working.discard(identity)

    def at_its_place(self, identity: str, name: RepositoryName) -> Steps[Copy | None]:
        """The copy of that id, moved to that name if it has another one; None if it is not here."""
        self.orphans.pop(identity, None)
        copy: Copy | None = yield Find(identity)
        if copy is None or copy.name == name:
            return copy
        return (yield from self._in_turn(self._bring(identity, name)))

    def come(
        self,
        made: Copy,
        name: RepositoryName,
        instead_of: Copy | None,
        whole: OnDisk,
        *,
        why: str = "it is of another object format",
        damaged: bool = False,
    ) -> Steps[Copy]:
        """Put a complete copy into its place; `instead_of`, of the same id, goes to the trash for it.

        why      it goes
        damaged  what it holds is in the new one, but for what is not known replicated
        """
        return (yield from self._in_turn(self._come(made, name, instead_of, whole, why, damaged=damaged)))

    def gone(self, identity: str, *, deleted: bool) -> Steps[OnDisk]:
        """The leader has none of that id. `deleted`: because a user has deleted it."""
        copy: Copy | None = yield Find(identity)
        if copy is None:
            self.orphans.pop(identity, None)
            return NOTHING_HERE
        return (yield from self._in_turn(self._lose(identity, deleted=deleted)))

    def put_away_stray(self, name: RepositoryName) -> Steps[OnDisk]:
        """Nobody knows whose repository that is: it has no id, or that of another one."""
        return (yield from self._in_turn(self._put_away_if_stray(name)))

    # -- inside: with the turn -------------------------------------------------------------------------

    def _in_turn(self, steps: Steps[T]) -> Steps[T]:
        yield TakeTurn()
        try:
            return (yield from steps)
        finally:
            self.turn.leave()

    def _bring(self, identity: str, name: RepositoryName) -> Steps[Copy | None]:
        copy: Copy | None = yield Find(identity)
        if copy is None or copy.name == name:
            return copy
        while (occupant := (yield from self._occupant(name))) is not None:
            other, where = occupant
            if where is not None:
                self._require_idle((identity, copy), (other.id, other.copy))
                copy, moved = yield Exchange(copy, other.copy)
                yield from self._move_on(moved, where)
                return copy
        self._require_idle((identity, copy))
        moved_there: Copy = yield Move(copy, name)
        return moved_there

    def _come(
        self,
        made: Copy,
        name: RepositoryName,
        instead_of: Copy | None,
        whole: OnDisk,
        why: str,
        *,
        damaged: bool,
    ) -> Steps[Copy]:
        while (occupant := (yield from self._occupant(name, instead_of))) is not None:
            other, where = occupant
            if where is not None:
                yield from self._move_on(other.copy, where)
        rescued = NOTHING_TO_RESCUE
        if instead_of is not None:
            now: Occupant | None = yield WhoHas(instead_of.name)
            own: str = yield ReadId(made)
            if now is not None and now.id not in {None, own}:
                raise UnavailableError(f"another repository is called {instead_of.name} now")
            if damaged:
                rescued = yield from self._rescue.keep_damaged(instead_of, own)
            elif (identity := (yield ReadId(instead_of))) is not None:
                kept = yield from self._rescue.keep_whole(instead_of, identity, everything=True)
                rescued = kept or NOTHING_TO_RESCUE
            yield Log.of("warning", "repository_to_trash", repository=str(name), reason=why)
        copy: Copy = yield Complete(made, name, instead_of, whole, rescued)
        return copy

    def _lose(self, identity: str, *, deleted: bool) -> Steps[OnDisk]:
        copy: Copy | None = yield Find(identity)  # once more: others have moved folders before its turn
        if copy is None:
            self.orphans.pop(identity, None)
            return NOTHING_HERE
        self._require_idle((identity, copy))
        if deleted:
            put = yield from self._put_away(copy, identity, "a user has deleted it", deleted=True)
        elif (yield from self._rescue.is_surplus(copy, identity)):
            put = yield from self._put_away(copy, identity, "the leader has none of that id", deleted=False)
        else:
            if identity not in self.orphans:
                yield Log.of(
                    "error",
                    "repository_vanished_from_leader",
                    repository=str(copy.name),
                    id=identity,
                    remedy="it stays here; put it back on the leader, or see the runbook",
                )
            self.orphans[identity] = copy.name
            return STAYS
        self.orphans.pop(identity, None)
        return put

    def _put_away_if_stray(self, name: RepositoryName) -> Steps[OnDisk]:
        occupant: Occupant | None = yield WhoHas(name)
        if occupant is None or occupant.id is not None:
            return STAYS
        return (yield from self._put_stray_away(occupant.copy))

    def _occupant(
        self, name: RepositoryName, but: Copy | None = None
    ) -> Steps[tuple[Occupant, RepositoryName | None] | None]:
        """Who has that name here, and which it should have; None if nobody has it any more.

        Without another name it was put away: look again.
        """
        occupant: Occupant | None = yield WhoHas(name)
        if occupant is None or occupant.copy == but:
            return None
        if occupant.id is None:
            yield from self._put_stray_away(occupant.copy)
            return occupant, None
        self._require_idle((occupant.id, occupant.copy))
        wanted: LeaderRepository | Gone = yield AskLeader(occupant.id)
        if isinstance(wanted, Gone):
            reason = "a user has deleted it" if wanted.deleted else "the leader has another one of its name"
            yield from self._put_away(occupant.copy, occupant.id, reason, deleted=wanted.deleted)
            return occupant, None
        if wanted.name == name:
            raise UnavailableError(f"two repositories are called {name}: the leader's names are changing")
        return occupant, wanted.name

    def _move_on(self, copy: Copy, name: RepositoryName) -> Steps[None]:
        """Move to that name. A repository that has it now is moved on first, and so on."""
        for _ in range(MAX_MOVES):
            if copy.name == name:
                return
            occupant = yield from self._occupant(name)
            if occupant is None:
                yield Move(copy, name)
                return
            other, where = occupant
            if where is None:
                continue
            _, copy = yield Exchange(copy, other.copy)
            name = where
        raise UnavailableError(f"no end of names that are taken: {name}")

    def _put_away(self, copy: Copy, identity: str, reason: str, *, deleted: bool) -> Steps[OnDisk]:
        """Into the trash. What may be here alone is kept for ever; of what was not deleted, all of it."""
        copy, safe = yield Adopt(copy)
        kept = yield from self._rescue.keep_whole(copy, identity, readable=safe, everything=not deleted)
        yield Log.of("warning", "repository_to_trash", repository=str(copy.name), id=identity, reason=reason)
        put: OnDisk = yield PutAway(copy, deleted, None, kept or NOTHING_TO_RESCUE)
        return put

    def _put_stray_away(self, stray: Copy) -> Steps[OnDisk]:
        """What nobody knows is rescued as a whole, under an id that only the trash uses."""
        entry_id: str = yield NewId()
        stray, safe = yield Adopt(stray)
        kept = yield from self._rescue.keep_whole(stray, entry_id, readable=safe, everything=True)
        reason = "it has no id of its own, and only the leader gives one"
        yield Log.of("warning", "repository_to_trash", repository=str(stray.name), id=entry_id, reason=reason)
        put: OnDisk = yield PutAway(
            stray, deleted=False, entry_id=entry_id, rescued=kept or NOTHING_TO_RESCUE
        )
        return put

    def _require_idle(self, *copies: tuple[str | None, Copy]) -> None:
        """Raise UnavailableError if one of these is being worked on; the caller tries again later."""
        if busy := sorted(str(copy.name) for identity, copy in copies if identity in self._working):
            raise UnavailableError(f"{', '.join(busy)} is being worked on, and is moved when that is done")
