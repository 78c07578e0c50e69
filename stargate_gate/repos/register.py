"""Which repository is which on this node: the shell around identities.py.

The leader gives ids, and sees to it that each is one folder's alone before anything is acknowledged of it:
whoever serves a repository calls `identify` first. While nothing was moved, that costs three stat calls.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import structlog

from stargate_gate.aio.foreign_files import reason_of
from stargate_gate.errors import NoSuchRepositoryError, StargateError, UnavailableError
from stargate_gate.repos.adoption import new_id
from stargate_gate.repos.identities import (
    Census,
    Folder,
    Identities,
    Look,
    RepositoryIdentity,
    give_id,
    look,
    note_home,
)
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository

log = structlog.get_logger()

SEARCH_AGAIN_S = 1.0  # that one is nowhere counts for others who ask so shortly after the search began
ENOUGH_SEARCHES = 2
MAX_SEARCHES = 5  # of folders that are being moved all the time

Walk = Callable[[], Iterable[Repository]]


class Births(Protocol):
    """Who is told of each repository that is new on this leader: made, copied in, or moved in."""

    async def expect(self, identity: str, name: RepositoryName) -> None:
        """It is about to get that id. What is in it counts as not known replicated when this returns.

        Raises:
            OSError: that is not noted; it must not get the id.
        """

    async def born(self, identity: RepositoryIdentity) -> None:
        """It is there."""


class NoBirths:
    """Nobody is told."""

    async def expect(self, identity: str, name: RepositoryName) -> None:
        """As `Births`."""

    async def born(self, identity: RepositoryIdentity) -> None:
        """As `Births`."""


class IdFiles:
    """The id files of this node's disk. The simulator has others, on a disk that it makes."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk

    def look(self, path: Path, before: Look | None) -> Look:
        """As `identities.look`."""
        return look(path, before)

    async def look_at_all(self, before: Mapping[Path, Look]) -> list[tuple[Repository, Look]]:
        """What each folder says of its id; without those that vanish meanwhile, or cannot be read."""
        return await asyncio.to_thread(self._look_at_all, before)

    async def give_id(self, path: Path, identity: str) -> None:
        """As `identities.give_id`."""
        await asyncio.to_thread(give_id, path, identity)

    async def note_home(self, path: Path) -> None:
        """As `identities.note_home`."""
        await asyncio.to_thread(note_home, path)

    def _look_at_all(self, before: Mapping[Path, Look]) -> list[tuple[Repository, Look]]:
        found = []
        for repository in self._walk():
            with contextlib.suppress(OSError):
                found.append((repository, look(repository.path, before.get(repository.path))))
        return found


class Register:
    """One per store.

    files  what is read and written on this node's disk
    leads  whether this node gives ids
    now    a clock in seconds
    """

    def __init__(
        self, files: IdFiles, leads: Callable[[], bool], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.births: Births = NoBirths()
        self._files = files
        self._leads = leads
        self._now = now
        self._identities = Identities()
        self._looks: dict[Path, Look] = {}
        self._turn = asyncio.Lock()
        self._searched_at: float | None = None

    async def census(self) -> Census:
        """Look at everything there is, and know it from here on."""
        async with self._turn:
            return await self._search()

    async def identify(self, repository: Repository) -> None:
        """Make certain whose id it has; on a leader, that it has one of its own. Harmless when repeated.

        Raises:
            NoSuchRepositoryError: it is gone.
            UnavailableError: it cannot be made certain now.
        """
        try:
            if self._identities.is_known(repository, seen := self._look(repository.path)) and seen.home:
                return
            if not self._leads():
                return
            async with self._turn:
                is_new = await self._settle(repository)
            if is_new is not None:
                await self._tell(is_new)
        except FileNotFoundError as error:
            raise _gone(repository.name) from error
        except OSError as error:
            log.warning("repository_not_identified", repository=str(repository.name), error=str(error))
            raise UnavailableError(
                f"repository {repository.name} cannot be served now ({reason_of(error)}): try again later"
            ) from error

    def identity(self, repository: Repository) -> RepositoryIdentity:
        """Who it is, after `identify`. A few stat calls.

        Raises:
            NoSuchRepositoryError: it is gone.
            UnavailableError: it has no id (yet).
        """
        try:
            seen = self._look(repository.path)
        except OSError as error:
            raise _gone(repository.name) from error
        if seen.id is None:
            raise UnavailableError(f"repository {repository.name} has no id yet: try again")
        return RepositoryIdentity(seen.id, seen.folder)

    async def whereabouts(self, identity: RepositoryIdentity) -> Repository | None:
        """Where that very folder with that id lies now; None if it is gone, or is another one by now."""
        for search in (False, True):
            if search:
                async with self._turn:
                    await self._search()
            known = self._identities.get(identity.id)
            if known is not None and known.folder == identity.folder:
                with contextlib.suppress(NoSuchRepositoryError, UnavailableError):
                    if self.identity(known.repository) == identity:
                        return known.repository
        return None

    async def by_id(self, identity: str, *, search: bool) -> Repository | None:
        """The repository of that id. With `search`, it is looked for wherever it may have been moved to."""
        if (found := self._found(identity)) is not None:
            return found
        if not search and self._identities.get(identity) is None:
            return None
        async with self._turn:
            if not self._searched_just_now():
                await self._search_twice(identity)
        return self._found(identity)

    def has(self, identity: str) -> bool:
        """Whether there is one of that id, as far as is known."""
        return self._identities.has(identity)

    def name_of(self, identity: str) -> RepositoryName | None:
        """What it is called, as far as is known; of one that has gone, what it was called."""
        known = self._identities.get(identity)
        return known.repository.name if known is not None else None

    def holds(self, repository: Repository, identity: RepositoryIdentity) -> bool:
        """Whether it is the one that is known to have its id."""
        known = self._identities.get(identity.id)
        return known is not None and (known.repository, known.folder) == (repository, identity.folder)

    def put(self, repository: Repository) -> RepositoryIdentity:
        """This node has made it, or has moved it there.

        Raises:
            NoSuchRepositoryError, UnavailableError: as `identity`.
        """
        identity = self.identity(repository)
        self._identities.put(identity.id, repository, identity.folder)
        return identity

    def renamed(self, before: Repository, after: Repository) -> None:
        """Its folder was given another name by this node, if it was known at all."""
        with contextlib.suppress(NoSuchRepositoryError, UnavailableError):
            identity = self.identity(after)
            if self.holds(before, identity):
                self._identities.put(identity.id, after, identity.folder)

    def forget(self, identity: str) -> None:
        """It was deleted, or put away."""
        self._identities.forget(identity)

    def vanished(self) -> dict[str, Repository]:
        """Those that were here, were not deleted here, and are not found any more: by id."""
        return self._identities.vanished()

    # -- inside ----------------------------------------------------------------------------------------

    def _look(self, path: Path) -> Look:
        self._looks[path] = seen = self._files.look(path, self._looks.get(path))
        return seen

    def _is(self, repository: Repository, identity: str) -> bool:
        with contextlib.suppress(NoSuchRepositoryError, UnavailableError):
            return self.identity(repository).id == identity
        return False

    def _found(self, identity: str) -> Repository | None:
        known = self._identities.get(identity)
        return known.repository if known is not None and self._is(known.repository, identity) else None

    async def _search_twice(self, identity: str) -> None:
        """Until that one is found, or two searches in a row have missed it: one alone may miss what moves."""
        began, missed = self._now(), 0
        for _ in range(MAX_SEARCHES):
            await self._search()
            if self._found(identity) is not None:
                return
            missed = 0 if self._identities.has(identity) else missed + 1
            if missed == ENOUGH_SEARCHES:
                break
        self._searched_at = began

    def _searched_just_now(self) -> bool:
        return self._searched_at is not None and self._now() - self._searched_at < SEARCH_AGAIN_S

    async def _search(self) -> Census:
        found = await self._files.look_at_all(self._looks)
        census = self._identities.settle(found)
        self._looks = {repository.path: seen for repository, seen in found}
        return census

    async def _settle(self, repository: Repository) -> RepositoryIdentity | None:
        """Let it have an id of its own; who it is, if that is new here. Raises OSError."""
        seen = self._look(repository.path)
        if seen.id is not None:
            known = self._identities.get(seen.id)
            if known is not None and known.folder != seen.folder:
                await self._search()  # has it been moved, or was it copied?
                known = self._identities.get(seen.id)
            if known is None or known.folder == seen.folder:
                return await self._take_for(repository, seen, is_new=known is None)
        elif (former := self._identities.id_of(seen.folder)) is not None:  # its file was damaged
            await self._files.give_id(repository.path, former)
            self._identities.put(former, repository, seen.folder)
            return None
        return await self._give(repository, seen.folder, is_copy=seen.id is not None)

    async def _take_for(
        self, repository: Repository, seen: Look, *, is_new: bool
    ) -> RepositoryIdentity | None:
        """It has that id."""
        assert seen.id is not None  # noqa: S101
        if is_new:
            await self.births.expect(seen.id, repository.name)
        if not seen.home:
            await self._files.note_home(repository.path)
            self._looks.pop(repository.path, None)
        self._identities.put(seen.id, repository, seen.folder)
        return RepositoryIdentity(seen.id, seen.folder) if is_new else None

    async def _give(self, repository: Repository, folder: Folder, *, is_copy: bool) -> RepositoryIdentity:
        identity = new_id()
        await self.births.expect(identity, repository.name)
        await self._files.give_id(repository.path, identity)
        self._identities.put(identity, repository, folder)
        event = "repository_copy_got_its_own_id" if is_copy else "repository_got_its_id"
        log.info(event, repository=str(repository.name), id=identity)
        return RepositoryIdentity(identity, folder)

    async def _tell(self, identity: RepositoryIdentity) -> None:
        """What fails here the next full list tells."""
        try:
            await self.births.born(identity)
        except StargateError as error:
            log.warning("new_repository_not_told", id=identity.id, error=error.message)


def _gone(name: RepositoryName) -> NoSuchRepositoryError:
    return NoSuchRepositoryError(f"no repository {name} on this node")
