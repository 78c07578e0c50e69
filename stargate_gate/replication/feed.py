"""The leader's side: every change of a term, told to every standby, and who of them holds everything.

The theory. The feed tells of *states*, not of events: what it sends about a repository is what that
repository is when it is sent, with the difference to what was sent before as a short cut. So changes
may be joined, lists and changes may overlap, and whatever a standby is told last is right. Lists are
sent on connecting and every full_check_s; they catch what was never told.

One task at a time reads a repository's refs and tells or shows them: its turn. So a standby never sees
a state that has the number of another one.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog

from stargate_gate.election.port import Member
from stargate_gate.errors import (
    GitFailedError,
    NoSuchRepositoryError,
    NotLeaderError,
    TryAgainError,
    UnavailableError,
    UsageError,
)
from stargate_gate.exitcodes import ExitCode
from stargate_gate.replication.feeding import Feeding
from stargate_gate.replication.keeper import SyncSetKeeper
from stargate_gate.replication.lines import LineReader
from stargate_gate.replication.messages import (
    MAX_BROKEN_REFS,
    MAX_REASON_CHARACTERS,
    PROTOCOL,
    Changed,
    Compare,
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
from stargate_gate.replication.notes import Notes
from stargate_gate.replication.ports import Channel, LeaderJournal, TermRecord
from stargate_gate.replication.published import LastRead, Published, State
from stargate_gate.replication.syncset import Limits, Mode, conflict
from stargate_gate.replication.unreplicated import UNNUMBERED
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.store import Repository, Store

log = structlog.get_logger()

JOIN_LIMIT_S = 10.0  # from the start of a feed's channel to the standby's first line
CAUGHT_UP_ASK_S = 0.1  # how often a standby that is asked for its position is asked again

OnDisk = Callable[[Repository], Awaitable[None]]


@dataclass(frozen=True)
class StandbyStatus:
    """A connected standby as the leader sees it. The lags are upper bounds."""

    name: str
    data_dir_id: str
    in_sync: bool
    lag_changes: int
    lag_s: float


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
    """

    def __init__(  # noqa: PLR0917 - node.py passes its parts in this order
        self,
        term: TermRecord,
        me: Member,
        store: Store,
        refs: RefReader,
        settings: FeedSettings,
        on_disk: OnDisk,
        journal: LeaderJournal,
    ) -> None:
        self.term = term.number
        self.me = me
        self.store = store
        self.refs = refs
        self.heartbeat_s = settings.heartbeat_s
        self.full_check_s = settings.full_check_s
        self._feedings: dict[Member, Feeding] = {}
        self._keeper = SyncSetKeeper(term, self._feedings, settings.mode, settings.limits)
        self._on_disk = on_disk
        self._journal = journal
        self._published = Published()
        self._last_read = LastRead()
        self.notes = Notes("repository_not_read", time.monotonic)
        self._turns: WeakValueDictionary[RepositoryName, asyncio.Lock] = WeakValueDictionary()
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

    async def writing(self, repository: Repository) -> None:
        """Refs of it are about to get values: noted on disk when this returns. Followed by one `written`.

        Raises:
            OSError: it is not; they must stay as they are.
            UnavailableError: its id cannot be read.
        """
        try:
            identity = await asyncio.to_thread(repository.id)
        except ValueError as error:
            raise UnavailableError(f"{repository.name} is damaged: its id cannot be read") from error
        await self._journal.mark(self.term, UNNUMBERED, identity, str(repository.name), None)

    async def written(self, repository: Repository) -> int:
        """As `pushed`, of what `writing` announced.

        Which refs it were is noted when it is told. What cannot be read stays noted as any of them.
        """
        seq, identity = await self._read_and_tell(repository)
        if identity is not None:
            self._journal.refine(identity, self.term, seq, ())
        return seq

    async def pushed(self, repository: Repository) -> int:
        """Read what it holds, put that on disk, and tell it, if it is not what was told last.

        In that order: what is read after the syncing might be told, confirmed by all, and lost here.
        Returns the sequence number that covers what the repository holds now. A repository that cannot
        be read is told of all the same, so that standbys compare; nothing is acknowledged in it.

        Raises:
            TryAgainError: it is not on disk, or cannot be read.
        """
        return (await self._read_and_tell(repository))[0]

    async def created(self, repository: Repository) -> int:
        """Tell of a new repository; returns the sequence number that covers it."""
        return await self.pushed(repository)

    async def deleted(self, name: RepositoryName) -> int:
        """Tell that there is no repository of that name any more; the sequence number of that."""
        async with self._turn(name):
            return self._forget(name)

    async def replicated(self, name: RepositoryName, seq: int) -> None:
        """Wait until every member of the sync set has that repository as it was at `seq`, on disk.

        Raises:
            TryAgainError: not in time, or nobody is there in mode strict.
            LeadershipLostError: the term is over.
        """
        await self._keeper.replicated(name, seq)

    def sync_set(self) -> frozenset[str]:
        """The names of the sync set as it is recorded; nobody in mode async, which waits for nobody."""
        return self._keeper.names

    def waits_for(self, name: RepositoryName, seq: int) -> dict[str, int]:
        """Whom `replicated` waits for: the standbys' names, and the bytes that each has got of it."""
        return self._keeper.waits_for(name, seq)

    def worked_for(self, name: RepositoryName, peer_of: str) -> None:
        """Git has worked on that repository here for the standbys at that address: they get on."""
        for feeding in self._feedings.values():
            if feeding.source == peer_of:
                feeding.worked_for(name)

    # -- the node's side -------------------------------------------------------------------------------

    def standbys(self) -> tuple[StandbyStatus, ...]:
        """The connected standbys, by name."""
        in_force = self._keeper.in_force
        return tuple(
            StandbyStatus(member.name, member.data_dir_id, member in in_force, *feeding.lag())
            for member, feeding in sorted(self._feedings.items())
        )

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
        """Run one command of a peer's: `stargate-feed`, or `stargate-refs NAME`; the exit status.

        Raises:
            UsageError: it is another command, or wrong arguments.
            NotLeaderError: this term is over.
        """
        self._require_open()
        match tuple(words):
            case ("stargate-feed",):
                return await self._serve_feed(channel, peer_of)
            case ("stargate-refs", name):
                return await self._serve_refs(parse_repository_name(name), channel)
        raise UsageError(f"{' '.join(words)[:100]!r} is not a command for peers of this version")

    async def _serve_feed(self, channel: Channel, source: str) -> int:
        lines = LineReader(channel)
        try:
            async with asyncio.timeout(JOIN_LIMIT_S):
                join = expect(await lines.line(), Join)
        except (TimeoutError, EOFError, MessageError) as error:
            raise UsageError(f"no standby of this version: {error or 'it does not say who it is'}") from error
        feeding = Feeding(self, join, channel, lines, source)
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

    async def _serve_refs(self, name: RepositoryName, channel: Channel) -> int:
        """Send all refs of one repository as they are now, with the number that covers them."""
        seq, state = await self._show(name)
        self._require_open()
        if state is None or isinstance(state, str):
            await channel.write(encode(self._not_shown(name, seq, state)))
            return ExitCode.OK
        snapshot = state.snapshot
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
        """Its entry in a full list; None if it is gone."""
        name = repository.name
        async with self._turn(name):
            try:
                identity = await asyncio.to_thread(repository.id)
                digest, whole = await self.refs.digest_and_whole(repository)
            except (NoSuchRepositoryError, FileNotFoundError):
                return None  # the standby asks for it by name, and that is noted
            except (GitFailedError, OSError, ValueError) as error:
                reason = self._cannot_read(name, error)
                last = self._last_read.get(name, await asyncio.to_thread(_id_of, repository))
                return Listed(name, last[0], last[1], reason) if last else Listed(name, None, None, reason)
            self._was_read(name, identity, digest, whole=whole)
            self._published.shown(name, identity, digest)
            return Listed(name, identity, digest)

    async def _show(self, name: RepositoryName) -> tuple[int, State | str | None]:
        """What a standby is to be shown of it, and the number that covers that.

        None: it is gone. A text: it is there, and cannot be read; why.

        What was not told yet is told now, as something to compare: a difference would not fit those
        who have seen it.
        """
        async with self._turn(name):
            try:
                repository = await self.store.require(name)
                state = await self._read(repository)
            except (NoSuchRepositoryError, FileNotFoundError, UsageError) as error:
                self._published.forget(name)
                if await asyncio.to_thread(self.store.remains, name) is not None:
                    problem = UnavailableError("it is no whole repository any more: HEAD or a folder is gone")
                    return self.position, self._cannot_read(name, problem)
                if isinstance(error, NoSuchRepositoryError):
                    self._last_read.forget(name)
                return self.position, None
            except (GitFailedError, UnavailableError, OSError, ValueError) as error:
                self._published.forget(name)
                return self.position, self._cannot_read(name, error)
            if (lost := len(state.snapshot.broken)) > MAX_BROKEN_REFS:
                problem = UnavailableError(f"{lost} of its refs have no value")
                return self.position, self._cannot_read(name, problem)
            self._published.shown(name, state.id, state.snapshot.digest)
            return await self._number(repository, state), state

    def _not_shown(self, name: RepositoryName, seq: int, reason: str | None) -> Gone | Unreadable:
        if reason is None:
            return Gone(self.term, seq, name)
        return Unreadable(self.term, seq, name, reason, self._last_read.get(name, None))

    def _cannot_read(self, name: RepositoryName, error: Exception) -> str:
        """Note it, for status and log; why, in one line."""
        reason = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
        self.notes.say(name, f"{name} cannot be read here, and takes no pushes: {reason}")
        return reason

    def _was_read(self, name: RepositoryName, identity: str, digest: str, *, whole: bool) -> None:
        self._last_read.was(name, identity, digest, whole=whole)
        self.notes.clear(name)

    async def _read_and_tell(self, repository: Repository) -> tuple[int, str | None]:
        """As `pushed`; with the repository's id, if it could be read."""
        name = repository.name
        async with self._turn(name):
            try:
                state = await self._read(repository)
            except (NoSuchRepositoryError, GitFailedError, OSError, ValueError) as error:
                gone = isinstance(error, NoSuchRepositoryError | FileNotFoundError)
                if gone and not await asyncio.to_thread(self.store.remains, name):
                    log.warning("change_not_read", repository=str(name), error=str(error))
                    self._last_read.forget(name)  # no standby may confirm by that what was not read
                    await self._on_disk(repository)
                    return self._forget(name), None
                reason = self._cannot_read(name, error)
                await self._on_disk(repository)
                self._forget(name)
                raise TryAgainError(
                    f"this node cannot read {name} ({reason}): see its status; the outcome is unknown"
                ) from error
            return await self._number(repository, state), state.id

    async def _read(self, repository: Repository) -> State:
        identity = await asyncio.to_thread(repository.id)
        snapshot = await self.refs.snapshot(repository)
        digest = await asyncio.to_thread(lambda: snapshot.digest)  # kept; for many refs it takes a while
        self._was_read(repository.name, identity, digest, whole=snapshot.whole)
        return State(identity, snapshot)

    async def _number(self, repository: Repository, state: State) -> int:
        """The number of that state, which is put on disk and told if it was not."""
        name = repository.name
        if not self._published.was_read_again(name, state):
            await self._on_disk(repository)
            self._published.is_on_disk(name, state)
        seq = self._published.seq_of(name, state)
        if seq is None:
            seq = self.position + 1
            news = self._published.tell(name, state, self.term, seq)
            refs = [change.ref for change in news.delta] if isinstance(news, Changed) else None
            self._journal.told(self.term, seq, state.id, str(name), refs)
            self._tell(news)
        return seq

    def _forget(self, name: RepositoryName) -> int:
        """Something is different there, whatever it is; the sequence number of that."""
        self._published.forget(name)
        self._tell(Compare(self.term, self.position + 1, name))
        return self.position

    def _tell(self, news: News) -> None:
        self._keeper.position = news.seq
        for feeding in self._feedings.values():
            feeding.tell(news)

    def _turn(self, name: RepositoryName) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())

    def _require_open(self) -> None:
        if self._closed:
            raise NotLeaderError(f"{self.me.name} has stepped down from term {self.term}")


def _id_of(repository: Repository) -> str | None:
    """Its id, if that can be read. For a thread."""
    with contextlib.suppress(OSError, ValueError):
        return repository.id()
    return None
