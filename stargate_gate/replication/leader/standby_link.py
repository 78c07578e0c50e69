"""One standby's connection, as the leader sees it: what it is sent, and what it says it has."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.incarnation import new_incarnation
from stargate_gate.election.port import Member
from stargate_gate.replication.leader.backlog import Backlog
from stargate_gate.replication.leader.reach import AGAIN_S, RETRY, Reach
from stargate_gate.replication.leader.sync_rules import Stage, next_stage
from stargate_gate.replication.ports import Channel
from stargate_gate.replication.wire.about import About, KeysApart, Profile, Reached, Refilling
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import (
    PROTOCOL,
    Alive,
    Applied,
    Changed,
    Checked,
    Compare,
    Enroll,
    Enrolled,
    FromStandby,
    Heartbeat,
    Join,
    ListBegin,
    Listed,
    ListEnd,
    ListPart,
    Message,
    MessageError,
    News,
    Progress,
    Welcome,
    decode,
    encode,
    out_of_place,
)
from stargate_gate.repos.store import Repository, Store

log = structlog.get_logger()

LIST_PART = 100  # repositories whose digests are looked up at a time, and sent in one line
# before one that was late is checked anew: it may be late again
LATE_BACKOFF = Backoff(1.0, 60.0, random.random)
MISSED_BEATS = 3  # a standby that has said nothing for so many heartbeats is taken for dead


class Term(Protocol):
    """What a feeding needs of the feed."""

    term: int
    me: Member
    store: Store
    heartbeat_s: float
    full_check_s: float
    profile: Callable[[], Profile]
    reach: Reach

    @property
    def position(self) -> int:
        """The newest change's sequence number."""

    def note_replicated(self) -> int:
        """Up to there every member of the sync set has everything; noted on this node, too."""

    def moved(self) -> None:
        """This standby has come closer, or gone."""

    async def listed(self, repository: Repository) -> Listed | None:
        """A repository's entry in a full list; None if it is gone."""


class _EndedError(Exception):
    """The connection is over; the message says why."""


class Feeding:
    """Made when a standby has introduced itself; `run` lasts as long as its connection.

    source     the standby's address
    about      what it tells of itself; None before it has
    keys       whether it lets in other keys than this node
    problem    why the leader does not find it where it says that it is; None: not tried yet; "": found
    refilling  how far it is, while it is being checked
    carried    it is a member of the sync set from the term before, whether it can be reached or not
    """

    def __init__(
        self,
        term: Term,
        join: Join,
        channel: Channel,
        lines: LineReader,
        source: str = "",
        *,
        carried: bool = False,
    ) -> None:
        self.join = join
        self.source = source
        self.about: About | None = None
        self.keys = KeysApart()
        self.problem: str | None = None
        self.refilling: Refilling | None = None
        self._reached = carried
        self.stage = Stage.CHECKING
        self.ended = asyncio.Event()  # set by the feed, once it has forgotten this
        self._term = term
        self._channel = channel
        self._lines = lines
        self._backlog = Backlog()
        self._began = self._behind_from = self._now()
        self._position = 0  # up to which the standby says it has everything
        self._level_from = 0  # what has to be confirmed before it is level
        self._offered: str | None = None  # the incarnation that it is asked to note before it is level
        self._offer_sent = False
        self.incarnation: str | None = None  # the one that it has noted, since it was last behind
        self._times_late = 0
        self._check = 0
        self._confirmed_check = 0
        self._list_seq = 0
        self._list_due = 0.0
        self._uncovered = False  # changes were dropped that no list has begun to cover yet
        self._told_about: Profile | None = None
        self._told_reached: str | None = None
        self._moved_house = asyncio.Event()  # it tells another address of itself
        self._wake = asyncio.Event()
        self._beat = asyncio.Event()
        self._answered = asyncio.Event()
        self._stop = asyncio.Event()
        self._sending = asyncio.Lock()

    def tell(self, news: News) -> None:
        """Send this when its turn comes. Never blocks; a backlog without bounds becomes a full list.

        Until a full list was confirmed, a difference proves nothing of the rest of a repository: then it
        is told to compare.
        """
        if not self._backlog.covered and isinstance(news, Changed):
            news = Compare(news.term, news.seq, news.name, news.id)
        if not self._backlog.add(news, self._now()):
            log.warning("standby_far_behind", standby=self.join.member.name, remedy="it is given a full list")
            self._backlog.clear()
            self._uncovered = True
            self._list_due = 0.0
            self._fall_behind()
        self._wake.set()

    def lag(self) -> tuple[int | None, float]:
        """Changes it has not applied, at most, and for how many seconds the oldest.

        Before it has confirmed a list: the repositories that it knows to differ (None: not known yet), and
        the time since it connected or fell behind.
        """
        if self._backlog.covered:
            return self._backlog.lag(self._now())
        known = self.refilling
        differing = known.total - known.done if known is not None and known.total else None
        return differing, self._now() - self._behind_from

    def holds(self, position: int) -> bool:
        """Whether it has confirmed to have everything up to `position`."""
        return self.stage is Stage.LEVEL and self._position >= position and not len(self._backlog)

    def confirmed(self, identity: str, seq: int) -> bool:
        """Whether it has confirmed that repository as it was at `seq`, or later, in this term."""
        return self._backlog.holds(identity, seq)

    def held_through(self, position: int) -> int:
        """Up to which position it has confirmed everything; `position` is that of the newest change."""
        return self._backlog.held_through(position)

    def moved_at(self, identity: str, since: float) -> float:
        """Its last sign of progress on that repository, for somebody who waits for it since then."""
        return max(self._began, self._backlog.moved_at(identity) or since)

    def worked_for(self, identity: str) -> None:
        """This node's git has worked on that repository for its sake: that is progress of its."""
        self._backlog.progress(identity, self._now())
        self._term.moved()

    def received(self, identity: str) -> int:
        """The bytes that it says to have got of that repository's open changes."""
        return self._backlog.received(identity)

    def late(self) -> None:
        """Nobody waits for it any more; it is given a full list after a while."""
        if self.stage is not Stage.CHECKING:
            self._times_late += 1
            self._list_due = self._now() + LATE_BACKOFF.delay_s(self._times_late)
            self._fall_behind()
            self._wake.set()

    def ask(self) -> None:
        """Ask it for its position now and not at the next heartbeat."""
        self._beat.set()

    async def answers(self, limit_s: float) -> bool:
        """Whether it says anything within `limit_s` seconds when it is asked."""
        self._answered.clear()
        self.ask()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._answered.wait()
        return self._answered.is_set() and not self.ended.is_set()

    async def end(self) -> None:
        """End the connection; returns when the feed has forgotten it."""
        self._stop.set()
        await self.ended.wait()

    async def run(self) -> str:
        """Feed it until the connection ends; why it did."""
        reason = "the connection has ended"
        try:
            async with asyncio.TaskGroup() as group:
                for work, name in (
                    (self._listen(), "feed-listen"),
                    (self._send_all(), "feed-send"),
                    (self._beat_all(), "feed-beat"),
                    (self._look_for_it(), "feed-reach"),
                    (self._until_stopped(), "feed-stop"),
                ):
                    group.create_task(work, name=name)
        except* _EndedError as ended:
            reason = str(ended.exceptions[0])
        except* ConnectionError as lost:
            reason = str(lost.exceptions[0]) or reason
        return reason

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        raise _EndedError("the leader has ended it")

    # -- what the standby says -------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout(MISSED_BEATS * self._term.heartbeat_s):
                    message = decode(await self._lines.line())
                if not isinstance(message, FromStandby) or isinstance(message, Join):
                    raise out_of_place(message)
            except TimeoutError:
                raise _EndedError(f"it has said nothing for {MISSED_BEATS} heartbeats") from None
            except (EOFError, MessageError) as error:
                raise _EndedError(str(error)) from error
            if message.term != self._term.term:
                raise _EndedError(f"it speaks of term {message.term}; this is term {self._term.term}")
            self._hear(message)
            self._answered.set()

    def _hear(self, message: FromStandby) -> None:
        match message:
            case About():
                if self.about is None or self.about.ssh != message.ssh:
                    self._moved_house.set()
                self.about = message
            case Refilling():
                self.refilling = message
            case Applied():
                self._backlog.applied(message.id, message.seq, self._now())
            case Progress():
                self._backlog.progress(message.id, self._now(), message.received)
            case Checked():
                self._confirm(message.check)
            case Enrolled():
                if message.incarnation == self._offered:
                    self.incarnation = message.incarnation
            case Alive():
                self._position = message.position
        self._rise()
        self._term.moved()

    def _confirm(self, check: int) -> None:
        if check != self._check or self._uncovered:
            return
        self._backlog.checked(self._list_seq)
        self._confirmed_check = check
        self.refilling = None

    def _rise(self) -> None:
        """Take the next stages (sync_rules.py). Whoever is level has noted the incarnation of its joining."""
        stage = next_stage(
            self.stage,
            confirmed=self._backlog.covered and self._confirmed_check == self._check,
            reached=self._reached,
            holds=False,
        )
        if stage is not self.stage:
            self.stage, self._level_from = stage, self._term.position
            self._offered, self._offer_sent = new_incarnation(), False
            self._wake.set()
        holds = self.incarnation is not None and self.held_through(self._term.position) >= self._level_from
        self.stage = next_stage(self.stage, confirmed=False, reached=self._reached, holds=holds)

    # -- whether it can be reached -----------------------------------------------------------------------

    async def _look_for_it(self) -> None:
        """Dial it where it says that it is, until it was found; then again now and then."""
        failures = 0
        while True:
            self._moved_house.clear()
            if self.about is not None:
                problem = await self._term.reach(self.join.member, self.about.ssh)
                failures = failures + 1 if problem is not None else 0
                self._found(problem)
            delay_s = AGAIN_S if not failures else RETRY.delay_s(failures)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._moved_house.wait()

    def _found(self, problem: str | None) -> None:
        before, self.problem = self.problem, problem or ""
        self._reached = self._reached or problem is None
        if problem is not None and problem != before:
            log.warning("standby_not_reached", standby=self.join.member.name, reason=problem)
        elif problem is None and before != "":
            log.info("standby_reached", standby=self.join.member.name, ssh=self.about and self.about.ssh)
        self._rise()
        self._term.moved()
        self.ask()  # it is told with the next heartbeat

    # -- what it is sent -------------------------------------------------------------------------------

    async def _send(self, message: Message) -> None:
        async with self._sending:
            await self._channel.write(encode(message))

    async def _beat_all(self) -> None:
        while True:
            self._beat.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._term.heartbeat_s):
                    await self._beat.wait()
            await self._introduce()
            position = self._term.position
            sent = 0 if self._uncovered else self._backlog.sent_through(position)
            at = int(time.time()) if sent == position else 0
            await self._send(Heartbeat(self._term.term, sent, self._term.note_replicated(), at))

    async def _introduce(self) -> None:
        """Tell what of this node, and of the way to the standby, it was not told yet."""
        profile = self._term.profile()
        self.keys.see(profile.settings, self.about.settings if self.about else None, self._now())
        if profile != self._told_about:
            self._told_about = profile
            await self._send(profile.about(self._term.term))
        if self.problem is not None and self.problem != self._told_reached:
            self._told_reached = self.problem
            await self._send(Reached(self._term.term, self.problem))

    async def _send_all(self) -> None:
        term = self._term
        await self._send(Welcome(PROTOCOL, term.term, term.me, term.heartbeat_s))
        while True:
            if self._now() >= self._list_due:
                self._list_due = self._now() + term.full_check_s
                await self._send_list()
            self._wake.clear()
            if self._offered is not None and not self._offer_sent:
                self._offer_sent = True
                await self._send(Enroll(term.term, self._offered))
            if (news := self._backlog.next(self._now())) is not None:
                await self._send(news)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._list_due):
                    await self._wake.wait()

    async def _send_list(self) -> None:
        """Everything there is. Changes that are told meanwhile follow after it."""
        term = self._term
        if self._confirmed_check != self._check:
            self._fall_behind()  # it had a whole full_check_s for the list before
        self._check += 1
        self._uncovered = False
        self._list_seq = term.position
        await self._send(ListBegin(term.term, self._check, self._list_seq))
        count = 0
        repositories = await term.store.list()
        for start in range(0, len(repositories), LIST_PART):
            listed = await self._look_up(repositories[start : start + LIST_PART])
            count += len(listed)
            await self._send(ListPart(term.term, self._check, listed))
        await self._send(ListEnd(term.term, self._check, count))

    def _fall_behind(self) -> None:
        """It does not hold everything, and must be checked again."""
        if self.stage is not Stage.CHECKING:
            self.stage = Stage.CHECKING
            self._confirmed_check, self._behind_from = 0, self._now()
            self._offered = self.incarnation = None  # it joins anew
            log.warning("standby_not_level", standby=self.join.member.name, lag_changes=self.lag()[0])
            self._term.moved()

    async def _look_up(self, repositories: Sequence[Repository]) -> tuple[Listed, ...]:
        listed = await asyncio.gather(*(self._term.listed(repository) for repository in repositories))
        return tuple(one for one in listed if one is not None)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
