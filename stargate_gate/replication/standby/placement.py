"""Which repository lies where on a standby: names follow the leader's, and nothing goes before its time.

Theory of operation. A repository is the one with its id, here and on the leader; its name is where it lies.

    it has another name there       it is moved here, as a whole and at once; nothing is fetched for that
    its name is taken here          whoever has the name belongs elsewhere (the leader says where), and moves
                                    on; two that change places do so in one step
    it is not here                  it is fetched beside, and comes to its place when it is complete; only
                                    then goes what is to go for it
    a user has deleted it           into the trash: the leader says so, of that id
    the leader has not got it       that is no deletion: an operator or a disk has taken it away there, or
                                    this node has led and had more. What may be here alone (the journal
                                    knows) is rescued, and goes into the trash as a whole; what the whole
                                    sync set had stays where it is, and is told of: it may be the last copy
                                    of something that was acknowledged
    it has no id, or another's      nobody has acknowledged anything of it; it goes into the trash, rescued

So a standby in the sync set lacks nothing that was acknowledged, at any moment: every step is one rename, of
a repository that stays. One task at a time moves folders, and none that is being worked on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog

from stargate_gate.errors import NoSuchRepositoryError, UnavailableError
from stargate_gate.replication.rescue.keep import Rescue
from stargate_gate.replication.wire.messages import Gone
from stargate_gate.repos.adoption import new_id
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

MAX_MOVES = 1000  # for one repository to come to its place; a chain of names that does not end has changed


class Named(Protocol):
    """A repository of the leader's."""

    @property
    def name(self) -> RepositoryName:
        """What it is called there now."""


class Names(Protocol):
    """Who is asked what the leader calls a repository. Raises ConnectionError, StargateError."""

    async def repository(self, identity: str) -> Named | Gone:
        """As `apply.Leader`."""


class Placement:
    """For one session. `require_current` raises once the mirror has ended."""

    def __init__(
        self,
        leader: Names,
        store: Store,
        refs: RefReader,
        *,
        rescue: Rescue,
        folders: FolderSyncs,
        require_current: Callable[[], None],
    ) -> None:
        self.orphans: dict[str, RepositoryName] = {}  # here, and not on the leader, which should have them
        self._leader = leader
        self._store = store
        self._refs = refs
        self._rescue = rescue
        self._folders = folders
        self._require_current = require_current
        self._turn = asyncio.Lock()
        self._working: set[str] = set()

    @contextlib.contextmanager
    def working(self, identity: str) -> Iterator[None]:
        """It is worked on in the body, where it lies: it is not moved meanwhile."""
        self._working.add(identity)
        try:
            yield
        finally:
            self._working.discard(identity)

    async def at_its_place(self, identity: str, name: RepositoryName) -> Repository | None:
        """The repository of that id, moved to that name if it has another one; None if it is not here.

        Raises:
            StargateError, OSError, ConnectionError: it cannot be moved now.
        """
        self.orphans.pop(identity, None)
        repository = await self._store.by_id(identity)
        if repository is None or repository.name == name:
            return repository
        async with self._turn:
            repository = await self._store.by_id(identity)
            if repository is None or repository.name == name:
                return repository
            while (occupant := await self._occupant(name)) is not None:
                room, where = occupant
                if where is not None:
                    self._require_idle(identity, room)
                    repository, room = await self._exchange(repository, room)
                    await self._move_on(room, where)
                    return repository
            self._require_idle(identity, None)
            return await self._move(repository, name)

    async def come(
        self,
        made: Repository,
        name: RepositoryName,
        instead_of: Repository | None,
        *,
        why: str = "it is of another object format",
        damaged: bool = False,
    ) -> Repository:
        """Put a complete repository into its place; `instead_of`, of the same id, goes to the trash for it.

        why      it goes
        damaged  what it holds is in the new one, but for what is not known replicated

        Raises:
            StargateError, OSError, ConnectionError: not now; it is where it was made.
        """
        async with self._turn:
            while (occupant := await self._occupant(name, instead_of)) is not None:
                room, where = occupant
                if where is not None:
                    await self._move_on(room, where)
            if instead_of is not None:
                if damaged:
                    await self._rescue.keep_damaged(instead_of, self._refs)
                else:
                    identity = self._store.register.identity(instead_of).id
                    await self._rescue.keep_whole(instead_of, identity, self._refs, everything=True)
                log.warning("repository_to_trash", repository=str(name), reason=why)
            self._require_current()
            repository = await self._store.complete(made, name, instead_of)
            self._folders.changing(repository.path)
        await self._folders.sync(repository.path)
        return repository

    async def gone(self, identity: str, *, deleted: bool) -> None:
        """The leader has none of that id. `deleted`: because a user has deleted it.

        Raises:
            StargateError, OSError: not now.
        """
        repository = await self._store.by_id(identity)
        if repository is None:
            self.orphans.pop(identity, None)
            return
        async with self._turn:
            self._require_idle(identity, None)
            if deleted:
                await self._put_away(repository, identity, "a user has deleted it", deleted=True)
            elif await self._rescue.is_surplus(repository, identity, self._refs):
                await self._put_away(repository, identity, "the leader has none of that id", deleted=False)
            else:
                if identity not in self.orphans:
                    log.error(
                        "repository_vanished_from_leader",
                        repository=str(repository.name),
                        id=identity,
                        remedy="it stays here; put it back on the leader, or see the runbook",
                    )
                self.orphans[identity] = repository.name
                return
        self.orphans.pop(identity, None)

    async def put_away_stray(self, name: RepositoryName) -> None:
        """Nobody knows whose repository that is: it has no id, or that of another one.

        Raises:
            StargateError, OSError: not now.
        """
        async with self._turn:
            stray = self._store.find_whole(name)
            if stray is not None and self._id_of(stray) is None:
                await self._put_stray_away(stray)

    # -- inside: with the turn -------------------------------------------------------------------------

    async def _occupant(
        self, name: RepositoryName, but: Repository | None = None
    ) -> tuple[Repository, RepositoryName | None] | None:
        """Who has that name here, and which it should have; None if nobody has it any more.

        Without another name it was put away: look again.
        """
        occupant = self._store.find_whole(name)
        if occupant is None or occupant == but:
            return None
        identity = self._id_of(occupant)
        if identity is None:
            await self._put_stray_away(occupant)
            return occupant, None
        self._require_idle(identity, None)
        wanted = await self._leader.repository(identity)
        if isinstance(wanted, Gone):
            reason = "a user has deleted it" if wanted.deleted else "the leader has another one of its name"
            await self._put_away(occupant, identity, reason, deleted=wanted.deleted)
            return occupant, None
        if wanted.name == name:
            raise UnavailableError(f"two repositories are called {name}: the leader's names are changing")
        return occupant, wanted.name

    async def _move_on(self, repository: Repository, name: RepositoryName) -> None:
        """To that name; whoever has it moves on as well, and so on."""
        for _ in range(MAX_MOVES):
            if repository.name == name:
                return
            occupant = await self._occupant(name)
            if occupant is None:
                await self._move(repository, name)
                return
            room, where = occupant
            if where is None:
                continue
            _, repository = await self._exchange(repository, room)
            name = where
        raise UnavailableError(f"no end of names that are taken: {name}")

    async def _move(self, repository: Repository, name: RepositoryName) -> Repository:
        self._require_current()
        moved = await self._store.move(repository, name)
        self._folders.changing(moved.path)
        return moved

    async def _exchange(self, one: Repository, other: Repository) -> tuple[Repository, Repository]:
        self._require_current()
        both = await self._store.exchange(one, other)
        for moved in both:
            self._folders.changing(moved.path)
        return both

    async def _put_away(self, repository: Repository, identity: str, reason: str, *, deleted: bool) -> None:
        """Into the trash. What may be here alone is kept for ever; of what was not deleted, all of it."""
        repository, refs = await self._to_read(repository)
        await self._rescue.keep_whole(repository, identity, refs, everything=not deleted)
        self._require_current()
        log.warning("repository_to_trash", repository=str(repository.name), id=identity, reason=reason)
        await self._store.put_away(repository, deleted=deleted)

    async def _put_stray_away(self, stray: Repository) -> None:
        """What nobody knows is rescued as a whole, under an id that only the trash uses."""
        entry_id = new_id()
        stray, refs = await self._to_read(stray)
        await self._rescue.keep_whole(stray, entry_id, refs, everything=True)
        self._require_current()
        reason = "it has no id of its own, and only the leader gives one"
        log.warning("repository_to_trash", repository=str(stray.name), id=entry_id, reason=reason)
        await self._store.put_away(stray, deleted=False, entry_id=entry_id)

    async def _to_read(self, repository: Repository) -> tuple[Repository, RefReader | None]:
        """It, and what reads its refs; nothing does if it is not safe to run git in."""
        try:
            return await self._store.adopt(repository), self._refs
        except UnavailableError:
            return repository, None

    def _id_of(self, repository: Repository) -> str | None:
        """Its id, if it is the one that is known to have it."""
        with contextlib.suppress(NoSuchRepositoryError, UnavailableError):
            identity = self._store.register.identity(repository)
            return identity.id if self._store.register.holds(repository, identity) else None
        return None

    def _require_idle(self, identity: str, other: Repository | None) -> None:
        """None of these is being worked on. Whoever waits for that tries again later."""
        ids = {identity, self._id_of(other) if other is not None else None}
        if busy := ids & self._working:
            names = sorted(str(self._store.register.name_of(one)) for one in busy if one is not None)
            raise UnavailableError(f"{', '.join(names)} is being worked on, and is moved when that is done")
