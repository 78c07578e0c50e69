"""How a write is noted, told to the standbys and waited for while this node leads: one object per term.

A write gets the `TermChanges` of its term when it enters its scope (`NodeLeadership.writing`), and uses no
other one. So the standbys that hear of a write are those of the term in which it was let in, whatever happens
to the leadership meanwhile. After the end of a term its object sends nothing: the feed has no connections
any more, and every wait ends with LeadershipLostError.
"""

import time
from collections.abc import Collection, Mapping

import structlog

from stargate_gate.election.port import Member
from stargate_gate.errors import NotLeaderError, TryAgainError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.commands import PeerCommand
from stargate_gate.gate.ports import Channel
from stargate_gate.replication.leader.feed import Feed
from stargate_gate.replication.leader.reach import COMMAND as WHOAMI
from stargate_gate.replication.leader.reach import answer_whoami
from stargate_gate.replication.leader.standby_status import away_of
from stargate_gate.replication.leader.unconfirmed import Unconfirmed
from stargate_gate.replication.ports import LeaderJournal, TermRecord
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.housekeeping import Housekeeping
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store
from stargate_gate.status import AwayStatus, StandbyStatus, UnreplicatedStatus

log = structlog.get_logger()


class TermChanges:
    """The gate's `Changes` and the store's `NewRepositories` of one term; `feed` is that of the term.

    Errors are those of `Feed`'s methods of the same names.
    """

    def __init__(
        self,
        feed: Feed,
        store: Store,
        housekeeping: Housekeeping,
        *,
        record: TermRecord,
        unconfirmed: Unconfirmed,
    ) -> None:
        self.feed = feed
        self._store = store
        self._housekeeping = housekeeping
        self._record = record
        self._unconfirmed = unconfirmed

    async def writing(self, identity: RepositoryIdentity) -> None:
        """Note in the journal, durably, that its refs may get values that others lack."""
        await self.feed.writing(identity)

    async def written(self, identity: RepositoryIdentity) -> int:
        """As `pushed`, for what `writing` announced; housekeeping looks at the repository later."""
        if (repository := await self._store.register.whereabouts(identity)) is not None:
            await self._housekeeping.touched(repository)
        return await self.feed.written(identity)

    async def pushed(self, identity: RepositoryIdentity) -> int:
        """Put what it holds on disk, and tell the standbys; the position that covers it."""
        return await self.feed.pushed(identity)

    async def created(self, identity: RepositoryIdentity) -> int:
        """Tell the standbys of a new repository; the position that covers it."""
        return await self.feed.created(identity)

    async def deleted(self, name: RepositoryName, identity: str) -> int:
        """Tell the standbys that a user has deleted it; the position that covers that."""
        self._unconfirmed.deleted(identity)
        return await self.feed.deleted(name, identity)

    async def replicated(self, identity: str, position: int) -> None:
        """Return when every member of the sync set has it as it was at `position`."""
        await self.feed.replicated(identity, position)

    def sync_set(self) -> frozenset[str]:
        """The names of the sync set now."""
        return self.feed.sync_set()

    def waits_for(self, identity: str, position: int) -> Mapping[str, int]:
        """Which standbys `replicated` waits for, and how many bytes each has received of it."""
        return self.feed.waits_for(identity, position)

    async def expect(self, identity: str, name: RepositoryName) -> None:
        """A repository is about to get that id: note in the journal that others lack it."""
        await self.feed.expect(identity, name)

    async def appeared(self, identity: RepositoryIdentity) -> None:
        """It has got its id: tell the standbys."""
        await self.written(identity)

    # -- for status ------------------------------------------------------------------------------------

    def standbys(self) -> tuple[StandbyStatus, ...]:
        """The connected standbys, by name."""
        return self.feed.standbys()

    def away(self, now: float) -> tuple[AwayStatus, ...]:
        """Standbys that are not connected: members of the sync set, or heard in this term.

        `now`: the clock of the event loop.
        """
        core = self.feed.core
        return away_of(core.links, self._record.in_force, core.heard_at, now)

    def unreplicated(self) -> UnreplicatedStatus:
        """What others may lack of what is here."""
        return self._unconfirmed.status(self.feed.core.links, self._record.in_force, time.time())


class WatchedJournal:
    """The journal of one term, as the feed writes it; `unconfirmed` is told of what it is told."""

    def __init__(self, journal: LeaderJournal, unconfirmed: Unconfirmed) -> None:
        self._journal = journal
        self._unconfirmed = unconfirmed

    async def mark(
        self, term: int, seq: int, repository_id: str, name: str, refs: Collection[str] | None
    ) -> None:
        """As `LeaderJournal.mark`."""
        await self._journal.mark(term, seq, repository_id, name, refs)

    def told(self, term: int, seq: int, repository_id: str, name: str, refs: Collection[str] | None) -> None:
        """As `LeaderJournal.told`."""
        self._unconfirmed.told(repository_id, name, seq, time.time())
        self._journal.told(term, seq, repository_id, name, refs)

    def refine(self, repository_id: str, term: int, seq: int, refs: Collection[str] | None) -> None:
        """As `LeaderJournal.refine`."""
        self._journal.refine(repository_id, term, seq, refs)

    def replicated(self, term: int, seq: int) -> None:
        """As `LeaderJournal.replicated`."""
        self._unconfirmed.replicated(seq)
        self._journal.replicated(term, seq)


class LedTerm:
    """The term that this node leads now, if any. One per node; the lifecycle sets it.

    Made first of all, so that whatever is built later can ask for it.
    """

    def __init__(self) -> None:
        self._changes: TermChanges | None = None

    @property
    def feed(self) -> Feed | None:
        """Its feed; None while this node does not lead."""
        return self._changes.feed if self._changes is not None else None

    @property
    def changes(self) -> TermChanges | None:
        """The term's changes, for status; None while this node does not lead."""
        return self._changes

    def leads(self) -> bool:
        """Whether there is one."""
        return self._changes is not None

    def begin(self, changes: TermChanges) -> None:
        """A term begins; writes are let in later."""
        self._changes = changes

    async def end(self) -> None:
        """The term is over: end the connections of its standbys. Safe to call without one."""
        changes, self._changes = self._changes, None
        if changes is not None:
            await changes.feed.close()


class PeerCommands:
    """The gate's `Peers`: what another node may run here with the cluster's key."""

    def __init__(self, me: Member, led: LedTerm) -> None:
        self._me = me
        self._led = led

    def worked_for(self, identity: str, peer_of: str) -> None:
        """Git has used the processor here for the standby at that address."""
        if (feed := self._led.feed) is not None:
            feed.worked_for(identity, peer_of)

    async def run(self, command: PeerCommand, channel: Channel, peer_of: str) -> int:
        """A standby follows the feed, or asks for one repository's refs; a leader asks who this node is.

        Raises:
            NotLeaderError: this node has no feed.
        """
        if command.words[0] == WHOAMI:
            await answer_whoami(command.words, self._me, channel)
            return ExitCode.OK
        feed = self._led.feed
        if feed is None:
            raise NotLeaderError(f"{self._me.name} has no feed: follow the leader that the record names")
        return await feed.serve(command.words, channel, peer_of)


class DiskSync:
    """Puts repositories on this node's disk. One per node: many calls at once share the work."""

    def __init__(self) -> None:
        self._folders = FolderSyncs()

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
