"""The product's rules of "Repositories have ids", each broken: what mutations.py puts in their place."""

from typing import Any

from stargate_gate.errors import UnavailableError
from stargate_gate.replication.standby.answers import NOTHING_TO_RESCUE, STAYS
from stargate_gate.replication.standby.placement import Placement
from stargate_gate.replication.standby.rescue_steps import RescueSteps
from stargate_gate.replication.standby.steps import Find, PutAway, Steps, WhoHas
from stargate_gate.repos import identities
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.register import Register
from stargate_gate.repos.repository import Repository
from tests.simulation.mutation import Patch

# -- who gives ids, and to whom --------------------------------------------------------------------------


async def _leave_it(_: Register, __: Repository) -> None:
    """Nobody makes certain whose id a folder has."""


async def _always(self: Register, repository: Repository) -> None:
    """A standby gives ids as well."""
    leads, self._leads = self._leads, lambda: True
    try:
        await _identify(self, repository)
    finally:
        self._leads = leads


_identify = Register.identify


async def _keep_any_id(self: Register, repository: Repository) -> RepositoryIdentity | None:
    """Whoever has an id in its file keeps it."""
    seen = self._look(repository.path)
    if seen.id is None:
        return await self._give(repository, seen.folder, is_copy=False)
    return await self._take_for(repository, seen, is_new=self._identities.get(seen.id) is None)


async def _by_inode_number(self: Register, repository: Repository) -> RepositoryIdentity | None:
    """A folder without an id gets that of the folder that had its inode number before."""
    seen = self._look(repository.path)
    former = self._identities.id_of(seen.folder) if seen.id is None else None
    if former is None:
        return await _settle(self, repository)
    await self._files.give_id(repository.path, former)
    self._identities.put(former, repository, seen.folder)
    return None


_settle = Register._settle


def _the_newest(some: list[Any], _: Any) -> Any:
    """Of two folders with one id, not the one that was known, but the one whose id file is newer."""
    return max(some, key=lambda one: (one[1].since, one[0].name))


NOT_IDENTIFIED = (Patch(Register, "identify", _leave_it),)
STANDBY_GIVES_IDS = (Patch(Register, "identify", _always),)
COPY_KEEPS_ID = (Patch(Register, "_settle", _keep_any_id),)
ID_BY_INODE_NUMBER = (Patch(Register, "_settle", _by_inode_number),)
NEWEST_KEEPS_ID = (Patch(identities, "_holder", _the_newest),)


# -- where it is ---------------------------------------------------------------------------------------


def _found_by_name(self: Register, identity: str) -> Repository | None:
    """Whatever lies where it was known has that id."""
    known = self._identities.get(identity)
    if known is None:
        return None
    try:
        return known.repository if self.identity(known.repository).id == identity else None
    except UnavailableError:
        return None
    except Exception:  # noqa: BLE001 - it is gone
        return None


async def _known_name_only(self: Register, repository: Repository) -> str | None:
    """What was moved by hand is taken for a stray."""
    try:
        identity = self.identity(repository)
    except Exception:  # noqa: BLE001 - it is gone, or has none
        return None
    return identity.id if self.holds(repository, identity) else None


async def _whereabouts_by_name(self: Register, identity: RepositoryIdentity) -> Repository | None:
    """Where that id was known last, whatever folder is there."""
    known = self._identities.get(identity.id)
    if known is None:
        return None
    try:
        self.identity(known.repository)
    except Exception:  # noqa: BLE001 - nothing is there
        return None
    return known.repository


COPY_IN_ITS_PLACE_IS_IT = (Patch(Register, "_found", _found_by_name),)
MOVED_IS_STRAY = (Patch(Register, "own_id", _known_name_only),)
WHATEVER_HAS_THE_NAME = (Patch(Register, "whereabouts", _whereabouts_by_name),)


# -- what goes to the trash ------------------------------------------------------------------------------


def _vanished_is_deleted(self: Placement, identity: str, *, deleted: bool) -> Steps[Any]:
    del deleted
    return (yield from _gone(self, identity, deleted=True))


def _surplus(*_: Any) -> Steps[bool]:
    return True
    yield


def _moved_is_gone(self: Placement, identity: str, name: Any) -> Steps[Any]:
    """What has another name on the leader is not moved, but put away, and comes anew."""
    copy: Any = yield Find(identity)
    if copy is None or copy.name == name:
        return copy
    yield from self._in_turn(self._put_away(copy, identity, "it has another name", deleted=False))
    return None


def _keep_only_marked(self: RescueSteps, copy: Any, identity: str, **others: Any) -> Steps[Any]:
    """What goes to the trash is rescued as if another node had it still."""
    return (yield from _keep_whole(self, copy, identity, **{**others, "everything": False}))


def _before_its_turn(self: Placement, identity: str, *, deleted: bool) -> Steps[Any]:
    """Who is put away is decided before the turn; others may have its place by then."""
    copy: Any = yield Find(identity)
    if copy is None or not deleted:
        return (yield from _gone(self, identity, deleted=deleted))
    return (yield from self._in_turn(_put_away_by_name(copy.name)))


def _put_away_by_name(name: Any) -> Steps[Any]:
    occupant: Any = yield WhoHas(name)
    if occupant is None:
        return STAYS
    return (yield PutAway(occupant.copy, True, None, NOTHING_TO_RESCUE))


_gone, _keep_whole = Placement.gone, RescueSteps.keep_whole

VANISHED_IS_DELETED = (Patch(Placement, "gone", _vanished_is_deleted),)
VANISHED_GOES = (Patch(RescueSteps, "is_surplus", _surplus),)
MOVED_IS_FETCHED_ANEW = (Patch(Placement, "at_its_place", _moved_is_gone),)
ONLY_MARKED_IS_RESCUED = (Patch(RescueSteps, "keep_whole", _keep_only_marked),)
DECIDED_BEFORE_ITS_TURN = (Patch(Placement, "gone", _before_its_turn),)
