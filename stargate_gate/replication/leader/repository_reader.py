"""Reads repositories on behalf of a term: the answers to `ReadRefs` and `SyncRepository`.

Answers are about a repository's id, and contain the name of its folder at that time. An operator may move
folders while this node works. So a reading counts only if the same folder, with the same id, was at that
place before and after it. What a push has changed is read from the folder in which its git worked
(`RepositoryIdentity`), wherever that is now. If it is gone, no other folder is read instead.
"""

import asyncio
from collections.abc import Awaitable, Callable

from stargate_gate.aio.clock import now
from stargate_gate.errors import GitFailedError, NoSuchRepositoryError, RepositoryGoneError
from stargate_gate.replication.leader.events import (
    DigestRead,
    NotThere,
    OnDisk,
    Purpose,
    ReadEvent,
    RefsRead,
    RefsUnreadable,
    Vanished,
)
from stargate_gate.replication.leader.instructions import ReadDone, ReadRefs, SyncRepository
from stargate_gate.replication.leader.sent_states import State
from stargate_gate.replication.wire.messages import MAX_REASON_CHARACTERS
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository, is_remains
from stargate_gate.repos.store import Store

SyncToDisk = Callable[[Repository], Awaitable[None]]
Find = Callable[[], Awaitable[Repository | None]]
_MOVED = (NoSuchRepositoryError, RepositoryGoneError, FileNotFoundError)


class RepositoryReader:
    """One for a term.

    on_disk  puts all that was complete in a repository before the call on this node's disk; raises
             TryAgainError if it is not
    """

    def __init__(self, store: Store, refs: RefReader, on_disk: SyncToDisk) -> None:
        self.store = store
        self.refs = refs
        self.on_disk = on_disk

    def of_push(self, identity: RepositoryIdentity) -> "OneReading":
        """Of the folder in which a push's git has worked."""
        return OneReading(self, lambda: self.store.register.whereabouts(identity), Purpose.SEND, identity)

    def of_id(self, identity: str) -> "OneReading":
        """Of the repository that has that id, wherever it is."""
        return OneReading(self, lambda: self.store.by_id(identity, search=True), Purpose.SHOW)

    def of_folder(self, repository: Repository, identity: RepositoryIdentity) -> "OneReading":
        """Of that folder, as an entry of a list."""

        async def there() -> Repository | None:
            return repository

        return OneReading(self, there, Purpose.LIST, identity)


class PendingReading:
    """What the term wants of one reading, for the task that does it. `over`: ReadDone has come."""

    def __init__(self) -> None:
        self.todo = asyncio.Queue[ReadRefs | SyncRepository | ReadDone]()
        self.over = False


class OneReading:
    """Carries out what the term wants for one reading. `find` says where the repository is now."""

    def __init__(
        self,
        reader: RepositoryReader,
        find: Find,
        purpose: Purpose,
        identity: RepositoryIdentity | None = None,
    ) -> None:
        self._reader = reader
        self._find = find
        self._purpose = purpose
        self._wanted = identity
        self._found: tuple[Repository, RepositoryIdentity | None] | None = None

    async def read(self, number: int) -> ReadEvent:
        """Read it where it is now. Raises UnavailableError if its id cannot be read just now."""
        repository = await self._find()
        if repository is None:
            return Vanished(now(), number)
        self._found = (repository, None)
        try:
            if self._purpose is Purpose.SHOW and await asyncio.to_thread(is_remains, repository.path):
                reason = "it is no whole repository any more: HEAD or a folder is gone"
                return RefsUnreadable(now(), number, repository.name, reason)
            identity = self._wanted or self._reader.store.register.identity(repository)
            if self._purpose is Purpose.LIST:
                return await self._digest(number, repository, identity)
            return await self._refs(number, repository, identity)
        except _MOVED:
            return NotThere(now(), number)
        except (GitFailedError, OSError) as error:
            reason = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
            return RefsUnreadable(now(), number, repository.name, reason)

    async def sync(self, number: int) -> ReadEvent:
        """Put on disk what was complete in it before the call. Raises as `on_disk`."""
        if self._found is None:
            raise RuntimeError("what is put on disk was read before")
        repository, identity = self._found
        await self._reader.on_disk(repository)
        if identity is not None and not self._is_there(repository, identity):
            return NotThere(now(), number)
        return OnDisk(now(), number)

    async def _refs(self, number: int, repository: Repository, identity: RepositoryIdentity) -> ReadEvent:
        self._require_there(repository, identity)
        snapshot = await self._reader.refs.snapshot(repository)
        await asyncio.to_thread(lambda: snapshot.digest)  # kept; for many refs it takes a while
        self._require_there(repository, identity)
        self._found = (repository, identity)
        return RefsRead(now(), number, State(identity.id, repository.name, snapshot))

    async def _digest(self, number: int, repository: Repository, identity: RepositoryIdentity) -> ReadEvent:
        self._require_there(repository, identity)
        digest, whole = await self._reader.refs.digest_and_whole(repository)
        self._require_there(repository, identity)
        return DigestRead(now(), number, repository.name, digest, whole)

    def _require_there(self, repository: Repository, identity: RepositoryIdentity) -> None:
        if self._reader.store.register.identity(repository) != identity:
            raise RepositoryGoneError(f"another repository is called {repository.name} now")

    def _is_there(self, repository: Repository, identity: RepositoryIdentity) -> bool:
        try:
            self._require_there(repository, identity)
        except _MOVED:
            return False
        return True
