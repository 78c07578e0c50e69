"""Knows the repositories of this node by id. It reads and writes id files; identities.py decides.

The leader gives ids. Before it acknowledges anything about a repository, it makes sure that no other folder
has the same id: every request calls `identify` first. If nothing was moved, that costs three stat calls.
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
    ENOUGH_SEARCHES,
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

SEARCH_AGAIN_S = 1.0  # a search that found nothing is valid for calls up to this long after it began
MAX_SEARCHES = 5  # if folders are moved all the time

FindAll = Callable[[], Iterable[Repository]]


class NewRepositories(Protocol):
    """Called for each repository that is new on this leader: created, copied in, or moved in."""

    async def expect(self, identity: str, name: RepositoryName) -> None:
        """It is about to get the id. When this returns, its content is noted as not replicated.

        Raises:
            OSError: that could not be noted; it must not get the id.
        """

    async def appeared(self, identity: RepositoryIdentity) -> None:
        """It exists and has its id."""


class IgnoreNew:
    """Does nothing."""

    async def expect(self, identity: str, name: RepositoryName) -> None:
        """As `NewRepositories`."""

    async def appeared(self, identity: RepositoryIdentity) -> None:
        """As `NewRepositories`."""


class IdFiles:
    """The id files of this node's disk. The simulator has others, on a disk that it makes."""

    def __init__(self, find_all: FindAll) -> None:
        self._find_all = find_all

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
        for repository in self._find_all():
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
        self.new_repositories: NewRepositories = IgnoreNew()
        self._files = files
        self._leads = leads
        self._now = now
        self._identities = Identities()
        self._looks: dict[Path, Look] = {}
        self._turn = asyncio.Lock()
        self._searched_at: float | None = None

    async def census(self) -> Census:
        """Search all folders, and take over what was found."""
        async with self._turn:
            return await self._search()

    async def identify(self, repository: Repository) -> None:
        """Check which id it has; on a leader, give it one of its own if needed. Idempotent.

        Raises:
            NoSuchRepositoryError: it is gone.
            UnavailableError: its id files cannot be read or written now.
        """
        try:
            # The usual case, without the lock: the same folder with the same id under the same name as
            # before.
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
        """Its identity, after `identify`. A few stat calls.

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
        """The repository with this id and this folder, wherever it was moved; None if it is gone."""
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
        """The repository of that id. With `search`, all folders are searched before None is returned."""
        if (found := self._found(identity)) is not None:
            return found
        if not search and self._identities.get(identity) is None:
            return None
        async with self._turn:
            # One search may have missed it because it was moved just then, also if it was for another one.
            if self._identities.missed(identity) < ENOUGH_SEARCHES or not self._searched_just_now():
                await self._search_twice(identity)
        return self._found(identity)

    def has(self, identity: str) -> bool:
        """Whether the last search found a repository of that id."""
        return self._identities.has(identity)

    def name_of(self, identity: str) -> RepositoryName | None:
        """Its name as it is known; if it is gone, the name that it had."""
        known = self._identities.get(identity)
        return known.repository.name if known is not None else None

    def holds(self, repository: Repository, identity: RepositoryIdentity) -> bool:
        """Whether this repository is the one that is known to have the id."""
        known = self._identities.get(identity.id)
        return known is not None and (known.repository, known.folder) == (repository, identity.folder)

    async def own_id(self, repository: Repository) -> str | None:
        """Its id, if it is the one that has it; None: it has none, or another's.

        A folder that was moved there by hand is known under its former name: the folder counts, and not the
        name. All are looked for before anybody takes this one for a copy.
        """
        for search in (False, True):
            if search:
                async with self._turn:
                    await self._search()
            try:
                identity = self.identity(repository)
            except (NoSuchRepositoryError, UnavailableError):
                return None
            known = self._identities.get(identity.id)
            if known is not None and known.folder == identity.folder:
                return identity.id
        return None

    def put(self, repository: Repository) -> RepositoryIdentity:
        """Note a repository that this node has created or moved.

        Raises:
            NoSuchRepositoryError, UnavailableError: as `identity`.
        """
        identity = self.identity(repository)
        self._identities.put(identity.id, repository, identity.folder)
        return identity

    def renamed(self, before: Repository, after: Repository) -> None:
        """Note that this node has renamed its folder, if the repository was known."""
        with contextlib.suppress(NoSuchRepositoryError, UnavailableError):
            identity = self.identity(after)
            if self.holds(before, identity):
                self._identities.put(identity.id, after, identity.folder)

    def forget(self, identity: str) -> None:
        """Forget a repository that was deleted or moved to the trash."""
        self._identities.forget(identity)

    def known(self) -> dict[str, Repository]:
        """All repositories by id, where each was last; also those that the last search did not find."""
        return self._identities.known()

    def is_at_its_place(self, identity: str) -> bool:
        """Whether the repository of that id is still where it was last. A few stat calls."""
        return self._found(identity) is not None

    def vanished(self) -> dict[str, Repository]:
        """Repositories that were known, were not deleted by this node, and are not found: by id."""
        return self._identities.vanished()

    # -- inside ----------------------------------------------------------------------------------------

    def _look(self, path: Path) -> Look:
        self._looks[path] = seen = self._files.look(path, self._looks.get(path))
        return seen

    def _found(self, identity: str) -> Repository | None:
        """The one known to have that id, if that folder still lies there: under its name may be a copy."""
        known = self._identities.get(identity)
        if known is not None:
            with contextlib.suppress(NoSuchRepositoryError, UnavailableError):
                if self.identity(known.repository) == RepositoryIdentity(identity, known.folder):
                    return known.repository
        return None

    async def _search_twice(self, identity: str) -> None:
        """Search until it is found or two searches in a row miss it: one search may miss a moving folder."""
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
        """Make sure that it has an id of its own; returns its identity if it is new here. Raises OSError."""
        seen = self._look(repository.path)
        if seen.id is not None:
            known = self._identities.get(seen.id)
            if known is not None and known.folder != seen.folder:
                await self._search_twice(seen.id)  # to find out whether it was moved or copied
                known = self._identities.get(seen.id)
            if known is None or known.folder == seen.folder:
                return await self._take_for(repository, seen, is_new=known is None)
        # A known folder without a readable id: its file was damaged, and is written again with the same id. A
        # new id would make it another repository for every standby. Without `home` it may be another folder
        # with the inode number of one that was removed.
        elif seen.home and (former := self._identities.id_of(seen.folder)) is not None:
            await self._files.give_id(repository.path, former)
            self._identities.put(former, repository, seen.folder)
            return None
        return await self._give(repository, seen.folder, is_copy=seen.id is not None)

    async def _take_for(
        self, repository: Repository, seen: Look, *, is_new: bool
    ) -> RepositoryIdentity | None:
        """Note that it has the id that its file says."""
        assert seen.id is not None  # noqa: S101 - the caller has checked
        if is_new:
            await self.new_repositories.expect(seen.id, repository.name)
        if not seen.home:
            await self._files.note_home(repository.path)
            self._looks.pop(repository.path, None)
        self._identities.put(seen.id, repository, seen.folder)
        return RepositoryIdentity(seen.id, seen.folder) if is_new else None

    async def _give(self, repository: Repository, folder: Folder, *, is_copy: bool) -> RepositoryIdentity:
        identity = new_id()
        await self.new_repositories.expect(identity, repository.name)
        await self._files.give_id(repository.path, identity)
        self._identities.put(identity, repository, folder)
        event = "repository_copy_got_its_own_id" if is_copy else "repository_got_its_id"
        log.info(event, repository=str(repository.name), id=identity)
        return RepositoryIdentity(identity, folder)

    async def _tell(self, identity: RepositoryIdentity) -> None:
        """Report a new repository. If this fails, the next full list contains it all the same."""
        try:
            await self.new_repositories.appeared(identity)
        except StargateError as error:
            log.warning("new_repository_not_told", id=identity.id, error=error.message)


def _gone(name: RepositoryName) -> NoSuchRepositoryError:
    return NoSuchRepositoryError(f"no repository {name} on this node")
