"""The gate's ear and the peers' door: hands what happened here, and who asks for it, to the term's feed.

There is a feed while this node leads, and none otherwise. May import: gate (ports), replication (feed),
repos, errors.
"""

from collections.abc import Callable, Mapping

import structlog

from stargate_gate.election.port import Member
from stargate_gate.errors import NotLeaderError, TryAgainError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.commands import PeerCommand
from stargate_gate.gate.ports import Channel
from stargate_gate.replication.leader.feed import Feed
from stargate_gate.replication.leader.reach import COMMAND as WHOAMI
from stargate_gate.replication.leader.reach import answer_whoami
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.housekeeping import Maintenance
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()


class Publisher:
    """The gate's `Changes` and `Peers`, the store's `Births`. `feed` gives that of the term led here."""

    def __init__(
        self, me: Member, feed: Callable[[], Feed | None], store: Store, maintenance: Maintenance
    ) -> None:
        self._me = me
        self._node = me.name
        self._feed = feed
        self._store = store
        self._maintenance = maintenance
        self._folders = FolderSyncs()

    async def writing(self, identity: RepositoryIdentity) -> None:
        """Note in the journal that its refs may get values that others lack.

        Raises:
            OSError: it cannot be noted; nothing may be written.
            RepositoryGoneError: it was deleted.
        """
        if (feed := self._feed()) is not None:
            await feed.writing(identity)

    async def written(self, identity: RepositoryIdentity) -> int:
        """As `pushed`, of what `writing` announced.

        Raises:
            TryAgainError: it is not on disk.
            RepositoryGoneError: it was deleted.
        """
        if (repository := await self._store.register.whereabouts(identity)) is not None:
            await self._maintenance.touched(repository)
        if (feed := self._feed()) is not None:
            return await feed.written(identity)
        if repository is not None:
            await self.on_disk(repository)
        return 0

    async def on_disk(self, repository: Repository) -> None:
        """Put on disk what receive-pack has left to the system.

        Raises:
            TryAgainError: it is not on disk.
        """
        try:
            await self._folders.sync(repository.path)
        except OSError as error:
            log.exception("push_not_on_disk", repository=str(repository.name))
            raise TryAgainError(f"not on disk ({error.strerror}); the outcome is unknown") from error

    async def pushed(self, identity: RepositoryIdentity) -> int:
        """Put it on disk, and tell the standbys.

        Raises:
            TryAgainError: it is not on disk.
            RepositoryGoneError: it was deleted.
        """
        return await feed.pushed(identity) if (feed := self._feed()) is not None else 0

    async def created(self, identity: RepositoryIdentity) -> int:
        """Tell the standbys."""
        return await feed.created(identity) if (feed := self._feed()) is not None else 0

    async def deleted(self, name: RepositoryName, identity: str) -> int:
        """Tell the standbys."""
        return await feed.deleted(name, identity) if (feed := self._feed()) is not None else 0

    async def replicated(self, identity: str, position: int) -> None:
        """Wait until every member of the sync set has it.

        Raises:
            TryAgainError: not in time.
            NotLeaderError: the term is over.
        """
        feed = self._feed()
        if feed is None:
            raise NotLeaderError(f"{self._node} has lost its leadership; the outcome is unknown")
        await feed.replicated(identity, position)

    async def expect(self, identity: str, name: RepositoryName) -> None:
        """A repository is about to get that id: note in the journal that others lack it.

        Raises:
            OSError: it cannot be noted.
        """
        if (feed := self._feed()) is not None:
            await feed.expect(identity, name)

    async def born(self, identity: RepositoryIdentity) -> None:
        """It has its id: tell the standbys. Raises as `written`."""
        await self.written(identity)

    def sync_set(self) -> frozenset[str]:
        """The names of the sync set now."""
        return feed.sync_set() if (feed := self._feed()) is not None else frozenset()

    def waits_for(self, identity: str, position: int) -> Mapping[str, int]:
        """Whom a push waits for: the standbys' names, and the bytes that each has got of it."""
        return feed.waits_for(identity, position) if (feed := self._feed()) is not None else {}

    def worked_for(self, identity: str, peer_of: str) -> None:
        """Git has used the processor here for the standby at that address."""
        if (feed := self._feed()) is not None:
            feed.worked_for(identity, peer_of)

    async def run(self, command: PeerCommand, channel: Channel, peer_of: str) -> int:
        """A standby follows the feed, or asks for one repository's refs; a leader asks who this node is.

        Raises:
            NotLeaderError: this node has no feed.
        """
        if command.words[0] == WHOAMI:
            await answer_whoami(command.words, self._me, channel)
            return ExitCode.OK
        feed = self._feed()
        if feed is None:
            raise NotLeaderError(f"{self._node} has no feed: follow the leader that the record names")
        return await feed.serve(command.words, channel, peer_of)
