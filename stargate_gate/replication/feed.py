"""The leader's side: every change of a term, told to every standby, and who of them holds everything.

The theory. The feed tells of *states*, not of events: what it sends about a repository is what that
repository is when it is sent, with the difference to what was sent before as a short cut. So changes
may be joined, lists and changes may overlap, and whatever a standby is told last is right. Lists are
sent on connecting and every full_check_s; they catch what was never told.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import structlog

from stargate_gate.election.port import Member
from stargate_gate.errors import (
    GitFailedError,
    LeadershipLostError,
    NoSuchRepositoryError,
    NotLeaderError,
    StargateError,
    UsageError,
)
from stargate_gate.exitcodes import ExitCode
from stargate_gate.replication.delta import difference
from stargate_gate.replication.feeding import Feeding
from stargate_gate.replication.lines import LineReader
from stargate_gate.replication.messages import (
    MAX_BROKEN_REFS,
    PROTOCOL,
    Changed,
    Compare,
    Gone,
    Join,
    MessageError,
    News,
    RefsPart,
    Refused,
    SnapshotBegin,
    SnapshotEnd,
    encode,
    expect,
    parts,
)
from stargate_gate.replication.ports import Channel
from stargate_gate.replication.retry import Backoff
from stargate_gate.replication.syncset import Presence, conflict, sync_set
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from stargate_gate.repos.refs import RefReader, RefSnapshot
from stargate_gate.repos.store import Repository, Store

log = structlog.get_logger()

JOIN_LIMIT_S = 10.0  # from the start of a feed's channel to the standby's first line
CAUGHT_UP_ASK_S = 0.1  # how often a standby that is asked for its position is asked again
PUBLISHED_BYTES = (
    32 * 1024 * 1024
)  # of what was published last, to tell differences; beyond: compare everything
RECORD_BACKOFF = Backoff(0.2, 5.0)


@dataclass(frozen=True)
class StandbyStatus:
    """A connected standby as the leader sees it. The lags are upper bounds."""

    name: str
    data_dir_id: str
    in_sync: bool
    lag_changes: int
    lag_s: float


class Feed:
    """Lives as long as a term of this node; implements the gate's `Changes` but for `replicated`.

    term         stamped on everything that is sent; what standbys send of another term is refused
    on_sync_set  awaited with the sync set that should be in the record, one call at a time, again and
                 again until it succeeds; never while nothing changes. The record is taken to begin
                 the term with an empty sync set
    """

    def __init__(
        self,
        term: int,
        me: Member,
        store: Store,
        refs: RefReader,
        *,
        on_sync_set: Callable[[frozenset[Member]], Awaitable[None]],
        heartbeat_s: float,
        full_check_s: float,
    ) -> None:
        self.term = term
        self.me = me
        self.store = store
        self.refs = refs
        self.heartbeat_s = heartbeat_s
        self.full_check_s = full_check_s
        self.position = 0
        self._on_sync_set = on_sync_set
        self._feedings: dict[Member, Feeding] = {}
        self._published = _PublishedCache()
        self._turns: WeakValueDictionary[RepositoryName, asyncio.Lock] = WeakValueDictionary()
        self._in_force: frozenset[Member] = frozenset()
        self._uncertain = False  # a record was tried to be written, and perhaps was
        self._recorder: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._closed = False

    # -- the gate's side: what has changed -------------------------------------------------------------

    async def pushed(self, repository: Repository) -> None:
        """Tell what has changed there since it was last told; nothing if nothing has.

        A repository that cannot be read is told of all the same: the standby will compare, and say
        what is wrong. Serialised per repository, and only for reading the refs.
        """
        name = repository.name
        async with self._turn(name):
            try:
                after = _Published(
                    await asyncio.to_thread(repository.id), await self.refs.snapshot(repository)
                )
            except (NoSuchRepositoryError, GitFailedError, OSError, ValueError) as error:
                log.warning("change_not_read", repository=str(name), error=str(error))
                self._forget(name)
                return
            before = self._published.get(name)
            self._published.put(name, after)
            if before is None or before.id != after.id:
                self._tell(Compare(self.term, self.position + 1, name))
            elif before != after:
                self._tell(self._news(name, before, after))

    async def created(self, repository: Repository) -> None:
        """Tell of a new repository."""
        await self.pushed(repository)

    async def deleted(self, name: RepositoryName) -> None:
        """Tell that there is no repository of that name any more."""
        async with self._turn(name):
            self._forget(name)

    # -- the node's side -------------------------------------------------------------------------------

    def standbys(self) -> tuple[StandbyStatus, ...]:
        """The connected standbys, by name."""
        return tuple(
            StandbyStatus(member.name, member.data_dir_id, member in self._in_force, *feeding.lag())
            for member, feeding in sorted(self._feedings.items())
        )

    async def caught_up(self, limit_s: float) -> Member | None:
        """The first member of the sync set to confirm that it holds everything told so far.

        For stepping down, when no more writes come. None if there is none within `limit_s` seconds.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while True:
                    level = sorted(m for m, one in self._feedings.items() if one.holds(self.position))
                    if successors := [member for member in level if member in self._in_force]:
                        return successors[0]
                    for feeding in self._feedings.values():
                        feeding.ask()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(CAUGHT_UP_ASK_S):
                            await self._moved.wait()
        return None

    async def close(self) -> None:
        """The term is over: end every connection, write no more records. Safe to call twice."""
        self._closed = True
        for feeding in list(self._feedings.values()):
            await feeding.end()
        if self._recorder is not None:
            self._recorder.cancel()
            await asyncio.wait({self._recorder})

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
        feeding = Feeding(self, join, channel, lines)
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
            self.moved()
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
        """Send all refs of one repository as they are now."""
        seq = self.position
        try:
            repository = await self.store.require(name)
            snapshot = await self.refs.snapshot(repository)
            identity = await asyncio.to_thread(repository.id)
        except (NoSuchRepositoryError, FileNotFoundError, UsageError):
            self._require_open()
            await channel.write(encode(Gone(self.term, seq, name)))
            return ExitCode.OK
        if len(snapshot.broken) > MAX_BROKEN_REFS:
            raise StargateError(
                f"{len(snapshot.broken)} refs of {name} have no value: repair it on the leader"
            )
        self._require_open()
        await channel.write(
            encode(SnapshotBegin(self.term, seq, name, identity, snapshot.object_format, snapshot.head))
        )
        for part in parts(snapshot.refs.items()):
            await channel.write(encode(RefsPart(self.term, part)))
        self._require_open()
        await channel.write(
            encode(SnapshotEnd(self.term, len(snapshot.refs), tuple(sorted(snapshot.broken))))
        )
        return ExitCode.OK

    # -- inside ----------------------------------------------------------------------------------------

    def moved(self) -> None:
        """A standby has come, gone or caught up: see to the record, and wake who waits."""
        self._moved.set()
        self._moved = asyncio.Event()
        self._see_to_record()

    def _see_to_record(self) -> None:
        unlike = self._uncertain or self._wanted() != self._in_force
        if unlike and self._recorder is None and not self._closed:
            self._recorder = asyncio.create_task(self._record(), name="sync-set")
            self._recorder.add_done_callback(self._recorded)

    def _wanted(self) -> frozenset[Member]:
        return sync_set(Presence(member, one.stage) for member, one in self._feedings.items())

    async def _record(self) -> None:
        """Get what is wanted into the record, however often it takes. Ends for good when the term is lost."""
        failures = 0
        while self._uncertain or self._wanted() != self._in_force:
            wanted = self._wanted()
            try:
                self._uncertain = True
                await self._on_sync_set(wanted)
            except LeadershipLostError:
                self._closed = True
                return
            except StargateError as error:
                failures += 1
                log.warning("sync_set_not_recorded", error=error.message, term=self.term)
                await asyncio.sleep(RECORD_BACKOFF.delay_s(failures))
            else:
                failures = 0
                self._uncertain, self._in_force = False, wanted
                self._moved.set()
                self._moved = asyncio.Event()

    def _recorded(self, task: asyncio.Task[None]) -> None:
        self._recorder = None
        if task.cancelled():
            return
        if (problem := task.exception()) is not None:
            log.error("sync_set_not_recorded", error=repr(problem), term=self.term)
            return
        self._see_to_record()

    def _news(self, name: RepositoryName, before: "_Published", after: "_Published") -> News:
        seq = self.position + 1
        delta = difference(before.snapshot, after.snapshot)
        if delta is None:
            return Compare(self.term, seq, name)
        return Changed(self.term, seq, name, after.id, after.snapshot.head, delta)

    def _forget(self, name: RepositoryName) -> None:
        """Something is different there, whatever it is."""
        self._published.forget(name)
        self._tell(Compare(self.term, self.position + 1, name))

    def _tell(self, news: News) -> None:
        self.position = news.seq
        for feeding in self._feedings.values():
            feeding.tell(news)

    def _turn(self, name: RepositoryName) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())

    def _require_open(self) -> None:
        if self._closed:
            raise NotLeaderError(f"{self.me.name} has stepped down from term {self.term}")


@dataclass(frozen=True)
class _Published:
    """What standbys were told of a repository last."""

    id: str
    snapshot: RefSnapshot


class _PublishedCache:
    """What was published last, for as many repositories as fit; the least recently used go first."""

    def __init__(self, max_bytes: int = PUBLISHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[RepositoryName, _Published] = OrderedDict()

    def get(self, name: RepositoryName) -> _Published | None:
        return self._entries.get(name)

    def put(self, name: RepositoryName, published: _Published) -> None:
        self.forget(name)
        self._entries[name] = published
        self._bytes += published.snapshot.size
        while self._bytes > self._max_bytes:
            self.forget(next(iter(self._entries)))

    def forget(self, name: RepositoryName) -> None:
        former = self._entries.pop(name, None)
        if former is not None:
            self._bytes -= former.snapshot.size
