"""The gate's ear and the peers' door: hands what happened here, and who asks for it, to the term's feed.

There is a feed while this node leads, and none otherwise. May import: gate (ports), replication (feed),
repos, errors.
"""

from collections.abc import Callable, Mapping

import structlog

from stargate_gate.errors import NotLeaderError, TryAgainError
from stargate_gate.gate.commands import PeerCommand
from stargate_gate.gate.ports import Channel
from stargate_gate.replication.feed import Feed
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.maintenance import Maintenance
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository

log = structlog.get_logger()


class Publisher:
    """The gate's `Changes` and `Peers`. `feed` gives the one of the term that this node leads, if any."""

    def __init__(self, node: str, feed: Callable[[], Feed | None], maintenance: Maintenance) -> None:
        self._node = node
        self._feed = feed
        self._maintenance = maintenance
        self._folders = FolderSyncs()

    async def writing(self, repository: Repository) -> None:
        """Note in the journal that its refs may get values that others lack.

        Raises:
            OSError: it cannot be noted; nothing may be written.
        """
        if (feed := self._feed()) is not None:
            await feed.writing(repository)

    async def written(self, repository: Repository) -> int:
        """As `pushed`, of what `writing` announced.

        Raises:
            TryAgainError: it is not on disk.
        """
        await self._maintenance.touched(repository)
        if (feed := self._feed()) is not None:
            return await feed.written(repository)
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

    async def pushed(self, repository: Repository) -> int:
        """Put it on disk, and tell the standbys.

        Raises:
            TryAgainError: it is not on disk.
        """
        if (feed := self._feed()) is not None:
            return await feed.pushed(repository)
        await self.on_disk(repository)
        return 0

    async def created(self, repository: Repository) -> int:
        """Tell the standbys."""
        return await feed.created(repository) if (feed := self._feed()) is not None else 0

    async def deleted(self, name: RepositoryName) -> int:
        """Tell the standbys."""
        return await feed.deleted(name) if (feed := self._feed()) is not None else 0

    async def replicated(self, name: RepositoryName, position: int) -> None:
        """Wait until every member of the sync set has it.

        Raises:
            TryAgainError: not in time.
            NotLeaderError: the term is over.
        """
        feed = self._feed()
        if feed is None:
            raise NotLeaderError(f"{self._node} has lost its leadership; the outcome is unknown")
        await feed.replicated(name, position)

    def sync_set(self) -> frozenset[str]:
        """The names of the sync set now."""
        return feed.sync_set() if (feed := self._feed()) is not None else frozenset()

    def waits_for(self, name: RepositoryName, position: int) -> Mapping[str, int]:
        """Whom a push waits for: the standbys' names, and the bytes that each has got of it."""
        return feed.waits_for(name, position) if (feed := self._feed()) is not None else {}

    def worked_for(self, name: RepositoryName, peer_of: str) -> None:
        """Git has used the processor here for the standby at that address."""
        if (feed := self._feed()) is not None:
            feed.worked_for(name, peer_of)

    async def run(self, command: PeerCommand, channel: Channel, peer_of: str) -> int:
        """A standby follows the feed, or asks for one repository's refs.

        Raises:
            NotLeaderError: this node has no feed.
        """
        feed = self._feed()
        if feed is None:
            raise NotLeaderError(f"{self._node} has no feed: follow the leader that the record names")
        return await feed.serve(command.words, channel, peer_of)
