"""The gate's ear and the peers' door: hands what happened here, and who asks for it, to the term's feed.

There is a feed while this node leads, and none otherwise. May import: gate (ports), replication (feed),
repos, errors.
"""

from collections.abc import Callable

from stargate_gate.errors import NotLeaderError
from stargate_gate.gate.commands import PeerCommand
from stargate_gate.gate.ports import Channel
from stargate_gate.replication.feed import Feed
from stargate_gate.repos.maintenance import Maintenance
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository


class Publisher:
    """The gate's `Changes` and `Peers`. `feed` gives the one of the term that this node leads, if any."""

    def __init__(self, node: str, feed: Callable[[], Feed | None], maintenance: Maintenance) -> None:
        self._node = node
        self._feed = feed
        self._maintenance = maintenance

    async def pushed(self, repository: Repository) -> None:
        """receive-pack has ended there: tell the standbys, and tidy up some time."""
        if (feed := self._feed()) is not None:
            await feed.pushed(repository)
        await self._maintenance.touched(repository)

    async def created(self, repository: Repository) -> None:
        """Tell the standbys."""
        if (feed := self._feed()) is not None:
            await feed.created(repository)

    async def deleted(self, name: RepositoryName) -> None:
        """Tell the standbys."""
        if (feed := self._feed()) is not None:
            await feed.deleted(name)

    async def replicated(self, repository: Repository) -> None:
        """Mode async waits for nobody; see docs/decisions/0003-held-back-report.md."""

    async def run(self, command: PeerCommand, channel: Channel, peer_of: str) -> int:
        """A standby follows the feed, or asks for one repository's refs.

        Raises:
            NotLeaderError: this node has no feed.
        """
        feed = self._feed()
        if feed is None:
            raise NotLeaderError(f"{self._node} has no feed: follow the leader that the record names")
        return await feed.serve(command.words, channel, peer_of)
