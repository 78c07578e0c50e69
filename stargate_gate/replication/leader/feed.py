"""The leader's side: every change of a term, told to every standby, and who of them holds everything.

The theory. The feed tells of *states*, not of events: what it sends about a repository is what that
repository is when it is sent, with the difference to what was sent before as a short cut. So changes
may be joined, lists and changes may overlap, and whatever a standby is told last is right. Lists are
sent on connecting and every full_check_s; they catch what was never told.

One task at a time reads a repository's refs and tells or shows them: its turn. So a standby never sees
a state that has the number of another one.

Whatever is said of a repository is said of its id, and names its folder's place as of then. An operator may
move folders while this node works: so what is read counts only if the same folder, with the same id, lay at
that place before and after the reading (`_read`). What a push has changed is read from the very folder in
which its git worked (`RepositoryIdentity`), wherever that is by then; and where it is gone, the push is not
answered with what is in another one.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog
from structlog.contextvars import bound_contextvars

from stargate_gate.election.port import Member
from stargate_gate.errors import (
    GitFailedError,
    NoSuchRepositoryError,
    NotLeaderError,
    RepositoryGoneError,
    TryAgainError,
    UnavailableError,
    UsageError,
)
from stargate_gate.exitcodes import ExitCode
from stargate_gate.replication.leader.reach import Reach
from stargate_gate.replication.leader.sent_states import LastRead, Published, State
from stargate_gate.replication.leader.standby_link import Feeding
from stargate_gate.replication.leader.standby_status import StandbyStatus, standbys_of
from stargate_gate.replication.leader.sync_rules import Limits, Mode, conflict
from stargate_gate.replication.leader.sync_set import SyncSetKeeper
from stargate_gate.replication.notes import Notes
from stargate_gate.replication.ports import Channel, LeaderJournal, TermRecord
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import (
    MAX_BROKEN_REFS,
    MAX_REASON_CHARACTERS,
    PROTOCOL,
    Changed,
    Compare,
    Deleted,
    Gone,
    Join,
    Listed,
    MessageError,
    News,
    RefsPart,
    Refused,
    SnapshotBegin,
    SnapshotEnd,
    Unreadable,
    encode,
    expect,
    parts,
)
from stargate_gate.replication.wire.numbers import UNNUMBERED
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import is_id, is_remains
from stargate_gate.repos.store import Repository, Store

log = structlog.get_logger()

JOIN_LIMIT_S = 10.0  # from the start of a feed's channel to the standby's first line
READ_ATTEMPTS = 3  # of a repository that is moved just when it is read
CAUGHT_UP_ASK_S = 0.1  # how often a standby that is asked for its position is asked again

OnDisk = Callable[[Repository], Awaitable[None]]


@dataclass(frozen=True)
class FeedSettings:
    """What of the configuration concerns the feed. In seconds, but for the mode."""

    mode: Mode
    limits: Limits
    heartbeat_s: float
    full_check_s: float


class Feed:
    """Lives as long as a term of this node: what the gate tells of changes, and what it waits for.

    The term's number is stamped on everything that is sent; what standbys send of another term is
    refused.

    on_disk  puts all that was complete in a repository before the call on this node's disk; raises
             TryAgainError if it is not
    journal  told what is written, and what every member of the sync set has
    profile  what this node tells its standbys of itself
    reach    looks whether a standby is where it says that it is
    """

    def __init__(  # noqa: PLR0917 - node/node.py passes its parts in this order
        self,
        term: TermRecord,
        me: Member,
        store: Store,
        refs: RefReader,
        settings: FeedSettings,
        on_disk: OnDisk,
        journal: LeaderJournal,
        *,
        profile: Callable[[], Profile],
        reach: Reach,
    ) -> None:
        self.term = term.number
        self.me = me
        self.store = store
        self.refs = refs
        self.heartbeat_s = settings.heartbeat_s
        self.full_check_s = settings.full_check_s
        self.profile = profile
        self.reach = reach
        self._feedings: dict[Member, Feeding] = {}
        self._keeper = SyncSetKeeper(term, self._feedings, settings.mode, settings.limits)
        self._on_disk = on_disk
        self._journal = journal
        self._published = Published()
        self._last_read = LastRead()
        self.notes = Notes("repository_not_read", time.monotonic)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._closed = False

    @property
    def position(self) -> int:
        """The newest change's sequence number; FIRST_POSITION before the first one of this term."""
        return self._keeper.position

    @property
    def replicated_through(self) -> int:
        """Up to this position every member of the sync set has everything."""
        return self._keeper.replicated_through

    def note_replicated(self) -> int:
        """`replicated_through`, noted in the journal as well."""
        through = self.replicated_through
        self._journal.replicated(self.term, through)
        return through

    # -- the gate's side: what has changed -------------------------------------------------------------

    async def writing(self, identity: RepositoryIdentity) -> None:
        """Refs of it are about to get values: noted on disk when this returns. Followed by one `written`.

        Raises:
            OSError: it is not; they must stay as they are.
            RepositoryGoneError: it was deleted.
        """
        repository = await self.store.register.whereabouts(identity)
        if repository is None:
            raise RepositoryGoneError("the repository was deleted meanwhile; nothing was changed: try again")
        await self.expect(identity.id, repository.name)

    async def expect(self, identity: str, name: RepositoryName) -> None:
        """As `writing`, of one that is about to get that id."""
        await self._journal.mark(self.term, UNNUMBERED, identity, str(name), None)

    async def written(self, identity: RepositoryIdentity) -> int:
        """As `pushed`, of what `writing` or `expect` announced.

        Which refs it were is noted when it is told. What cannot be read stays noted as any of them.
        """
        seq, was_read = await self._read_and_tell(identity)
        if was_read:
            self._journal.refine(identity.id, self.term, seq, ())
        return seq

    async def pushed(self, identity: RepositoryIdentity) -> int:
        """Read what it holds, put that on disk, and tell it, if it is not what was told last.

        In that order: what is read after the syncing might be told, confirmed by all, and lost here.
        Returns the sequence number that covers what the repository holds now. A repository that cannot
        be read is told of all the same, so that standbys compare; nothing is acknowledged in it.

        Raises:
            TryAgainError: it is not on disk, or cannot be read.
            RepositoryGoneError: it was deleted, or another one is in its place.
        """
        return (await self._read_and_tell(identity))[0]

    async def created(self, identity: RepositoryIdentity) -> int:
        """Tell of a new repository, which `expect` announced; returns the sequence number that covers it."""
        return await self.written(identity)

    async def deleted(self, name: RepositoryName, identity: str) -> int:
        """Tell that a user has deleted that repository; the sequence number of that."""
        async with self._turn(identity):
            self._published.forget(identity)
            return self._tell(Deleted(self.term, self.position + 1, name, identity))

    async def replicated(self, identity: str, seq: int) -> None:
        """Wait until every member of the sync set has that repository as it was at `seq`, on disk.

        Raises:
            TryAgainError: not in time, or nobody is there in mode strict.
            LeadershipLostError: the term is over.
        """
        name = self.store.register.name_of(identity)
        with bound_contextvars(repository=str(name) if name is not None else None):
            await self._keeper.replicated(identity, seq)

    def sync_set(self) -> frozenset[str]:
        """The names of the sync set as it is recorded; nobody in mode async, which waits for nobody."""
        return self._keeper.names

    def waits_for(self, identity: str, seq: int) -> dict[str, int]:
        """As `SyncSetKeeper.waits_for`."""
        return self._keeper.waits_for(identity, seq)

    def worked_for(self, identity: str, peer_of: str) -> None:
        """Git has worked on that repository here for the standbys at that address: they get on."""
        for feeding in self._feedings.values():
            if feeding.source == peer_of:
                feeding.worked_for(identity)

    # -- the node's side -------------------------------------------------------------------------------

    def standbys(self) -> tuple[StandbyStatus, ...]:
        """The connected standbys, by name."""
        return standbys_of(self._feedings, self._keeper.in_force, self.profile().settings)

    async def caught_up(self, limit_s: float) -> Member | None:
        """The first member of the sync set to confirm that it holds everything told so far.

        For stepping down, when no more writes come. None if there is none within `limit_s` seconds, or
        nobody is connected any more.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._feedings:
                    level = sorted(m for m, one in self._feedings.items() if one.holds(self.position))
                    if successors := [member for member in level if member in self._keeper.in_force]:
                        return successors[0]
                    for feeding in self._feedings.values():
                        feeding.ask()
                    await self._keeper.until_moved(CAUGHT_UP_ASK_S)
        return None

    async def close(self) -> None:
        """The term is over: end every connection, write no more records. Safe to call twice."""
        self._closed = True
        for feeding in list(self._feedings.values()):
            await feeding.end()
        await self._keeper.close()

    # -- the standbys' side ----------------------------------------------------------------------------

    async def serve(self, words: Sequence[str], channel: Channel, peer_of: str) -> int:
        """Run one command of a peer's: `stargate-feed`, or `stargate-refs ID`; the exit status.

        Raises:
            UsageError: it is another command, or wrong arguments.
            NotLeaderError: this term is over.
        """
        self._require_open()
        match tuple(words):
            case ("stargate-feed",):
                return await self._serve_feed(channel, peer_of)
            case ("stargate-refs", identity) if is_id(identity):
                return await self._serve_refs(identity, channel)
        raise UsageError(f"{' '.join(words)[:100]!r} is not a command for peers of this version")

    async def _serve_feed(self, channel: Channel, source: str) -> int:
        lines = LineReader(channel)
        try:
            async with asyncio.timeout(JOIN_LIMIT_S):
                join = expect(await lines.line(), Join)
        except (TimeoutError, EOFError, MessageError) as error:
            raise UsageError(f"no standby of this version: {error or 'it does not say who it is'}") from error
        carried = self._keeper.is_carried(join.member)
        feeding = Feeding(self, join, channel, lines, source, carried=carried)
        if (reason := await self._admit(feeding)) is not None:
            log.warning("standby_refused", standby=join.member.name, source=source, reason=reason)
            await channel.write(encode(Refused(reason)))
            return ExitCode.UNAVAILABLE
        log.info("standby_connected", standby=join.member.name, source=source, term=self.term)
        try:
            ended = await feeding.run()
        finally:
            if self._feedings.get(join.member) is feeding:
                del self._feedings[join.member]
            feeding.ended.set()
            self._keeper.gone(join.member)
        log.info("standby_disconnected", standby=join.member.name, reason=ended, term=self.term)
        return ExitCode.NOT_LEADER if self._closed else ExitCode.OK

    async def _admit(self, feeding: Feeding) -> str | None:
        """Take the standby in, or say why not."""
        join = feeding.join
        if join.protocol != PROTOCOL:
            return f"{self.me.name} speaks version {PROTOCOL}, not {join.protocol}: update the older node"
        if join.member == self.me:
            return f"it has the name and the data_dir of the leader {self.me.name!r}: give each node its own"
        while (reason := conflict(join.member, (self.me, *self._feedings))) is None:
            former = self._feedings.get(join.member)
            if former is None:
                self._require_open()
                self._feedings[join.member] = feeding
                return None
            if former.join.instance != join.instance and await former.answers(self.heartbeat_s):
                return (
                    f"{join.member.name!r} is connected already, with this data_dir or a copy of it: give "
                    f"each node a name of its own, and start it with an empty data_dir"
                )
            await former.end()
        return reason

    async def _serve_refs(self, identity: str, channel: Channel) -> int:
        """Send all refs of one repository as they are now, with the number that covers them."""
        seq, state = await self._show(identity)
        self._require_open()
        if state is None:
            deleted = await self.store.was_deleted(identity)
            await channel.write(encode(Gone(self.term, seq, identity, deleted)))
            return ExitCode.OK
        if isinstance(state, Unreadable):
            await channel.write(encode(state))
            return ExitCode.OK
        name, snapshot = state.name, state.snapshot
        await channel.write(
            encode(SnapshotBegin(self.term, seq, name, state.id, snapshot.object_format, snapshot.head))
        )
        for part in parts(snapshot.refs.items()):
            await channel.write(encode(RefsPart(self.term, part)))
            await asyncio.sleep(0)  # the line may take all of it at once, and others want their turn
        self._require_open()
        await channel.write(
            encode(SnapshotEnd(self.term, len(snapshot.refs), tuple(sorted(snapshot.broken))))
        )
        return ExitCode.OK

    # -- inside ----------------------------------------------------------------------------------------

    def moved(self) -> None:
        """A standby has come closer, or fallen behind."""
        self._keeper.moved()

    async def listed(self, repository: Repository) -> Listed | None:
        """Its entry in a full list; None if it is gone, or another repository is there by now."""
        try:
            identity = self.store.register.identity(repository)
        except (NoSuchRepositoryError, UnavailableError):
            return None  # a standby that has it asks for it by its id
        name = repository.name
        async with self._turn(identity.id):
            try:
                digest, whole = await self._digest(repository, identity)
            except (NoSuchRepositoryError, RepositoryGoneError, FileNotFoundError):
                return None
            except (GitFailedError, OSError) as error:
                reason = self._cannot_read(name, error)
                return Listed(name, identity.id, self._last_read.get(identity.id), reason)
            self._was_read(name, identity.id, digest, whole=whole)
            self._published.shown(name, identity.id, digest)
            return Listed(name, identity.id, digest)

    async def _show(self, identity: str) -> tuple[int, State | Unreadable | None]:
        """What a standby is to be shown of it (None: it is gone), and the number that covers that.

        What was not told yet is told now, as something to compare: a difference would not fit those
        who have seen it.
        """
        async with self._turn(identity):
            for _ in range(READ_ATTEMPTS):
                repository = await self.store.by_id(identity, search=True)
                if repository is None:
                    self._published.forget(identity)
                    self._last_read.forget(identity)
                    return self.position, None
                if await asyncio.to_thread(is_remains, repository.path):
                    problem = UnavailableError("it is no whole repository any more: HEAD or a folder is gone")
                    return self.position, self._unreadable(repository.name, identity, problem)
                with contextlib.suppress(NoSuchRepositoryError, RepositoryGoneError, FileNotFoundError):
                    return await self._show_there(repository, identity)
        raise UnavailableError("the repository is being moved: try again")

    async def _show_there(
        self, repository: Repository, identity: str
    ) -> tuple[int, State | Unreadable | None]:
        name = repository.name
        try:
            found = self.store.register.identity(repository)
            state = await self._read(repository, found)
        except FileNotFoundError:
            raise
        except (GitFailedError, OSError) as error:
            return self.position, self._unreadable(name, identity, error)
        if (lost := len(state.snapshot.broken)) > MAX_BROKEN_REFS:
            problem = UnavailableError(f"{lost} of its refs have no value")
            return self.position, self._unreadable(name, identity, problem)
        self._published.shown(name, identity, state.snapshot.digest)
        return await self._number(repository, found, state), state

    def _unreadable(self, name: RepositoryName, identity: str, problem: Exception) -> Unreadable:
        self._published.forget(identity)
        reason, last = self._cannot_read(name, problem), self._last_read.get(identity)
        return Unreadable(self.term, self.position, name, identity, reason, last)

    def _cannot_read(self, name: RepositoryName, error: Exception) -> str:
        """Note it, for status and log; why, in one line."""
        reason = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
        self.notes.say(name, f"{name} cannot be read here, and takes no pushes: {reason}")
        return reason

    def _was_read(self, name: RepositoryName, identity: str, digest: str, *, whole: bool) -> None:
        self._last_read.was(identity, digest, whole=whole)
        self.notes.clear(name)

    async def _read_and_tell(self, identity: RepositoryIdentity) -> tuple[int, bool]:
        """As `pushed`; and whether it could be read."""
        async with self._turn(identity.id):
            for _ in range(READ_ATTEMPTS):
                repository = await self.store.register.whereabouts(identity)
                if repository is None:
                    break
                try:
                    state = await self._read(repository, identity)
                    return await self._number(repository, identity, state), True
                except (NoSuchRepositoryError, RepositoryGoneError, FileNotFoundError):
                    continue  # it is being moved
                except (GitFailedError, OSError) as error:
                    reason = self._cannot_read(repository.name, error)
                    await self._on_disk(repository)
                    self._published.forget(identity.id)
                    self._tell(Compare(self.term, self.position + 1, repository.name, identity.id))
                    raise TryAgainError(
                        f"this node cannot read {repository.name} ({reason}): see its status; "
                        "the outcome is unknown"
                    ) from error
        self._last_read.forget(identity.id)  # no standby may confirm by that what was not read
        raise RepositoryGoneError("the repository was deleted or moved meanwhile; the outcome is unknown")

    async def _read(self, repository: Repository, identity: RepositoryIdentity) -> State:
        """What that folder holds. Raises RepositoryGoneError if it was not there all the time."""
        self._require_same(repository, identity)
        snapshot = await self.refs.snapshot(repository)
        digest = await asyncio.to_thread(lambda: snapshot.digest)  # kept; for many refs it takes a while
        self._require_same(repository, identity)
        self._was_read(repository.name, identity.id, digest, whole=snapshot.whole)
        return State(identity.id, repository.name, snapshot)

    async def _digest(self, repository: Repository, identity: RepositoryIdentity) -> tuple[str, bool]:
        """As `_read`: the digest, and whether no ref has lost its value."""
        self._require_same(repository, identity)
        digest = await self.refs.digest_and_whole(repository)
        self._require_same(repository, identity)
        return digest

    def _require_same(self, repository: Repository, identity: RepositoryIdentity) -> None:
        if self.store.register.identity(repository) != identity:
            raise RepositoryGoneError(f"another repository is called {repository.name} now")

    async def _number(self, repository: Repository, identity: RepositoryIdentity, state: State) -> int:
        """The number of that state, which is put on disk and told if it was not. Raises as `_read`."""
        if not self._published.was_read_again(state):
            await self._on_disk(repository)
            self._require_same(repository, identity)
            self._published.is_on_disk(state)
        seq = self._published.seq_of(state)
        if seq is None:
            seq = self.position + 1
            news = self._published.tell(state, self.term, seq)
            refs = [change.ref for change in news.delta] if isinstance(news, Changed) else None
            self._journal.told(self.term, seq, state.id, str(state.name), refs)
            self._tell(news)
        return seq

    def _tell(self, news: News) -> int:
        """Tell every standby; the number of that."""
        self._keeper.position = news.seq
        for feeding in self._feedings.values():
            feeding.tell(news)
        return news.seq

    def _turn(self, identity: str) -> asyncio.Lock:
        return self._turns.setdefault(identity, asyncio.Lock())

    def _require_open(self) -> None:
        if self._closed:
            raise NotLeaderError(f"{self.me.name} has stepped down from term {self.term}")
