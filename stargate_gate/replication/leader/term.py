"""One term on its leader: here everything about replication is decided on the leader. Pure.

The theory. `LeaderTerm.handle` is told what happened (events.py) and returns what is to be done
(instructions.py). It does no I/O, knows no clock and draws no random numbers, so the product (feed.py) and
the simulator (tests/simulation/leading.py) run this very object.

Its parts, and who decides what:

    readings.py   in which order repositories are read, put on disk, numbered and sent; their turns
    link.py       what one standby is sent, what it has, its stages
    sync_set.py   who belongs into the cluster record, which pushes may be acknowledged
    here          who is admitted, stepping down, the end

A connection of a standby is in one of these states. An event that has no entry is illegal: it raises
IllegalEventError, which names both.

    unknown   Joined            → admitted (Admit), ended (Refuse), or asking if it is connected already
    asking    ConnectionEnded   → unknown
              the older one has spoken: → ended (Refuse); it has ended: → admitted
    admitted  Heard, Sent, RepositoriesListed, LookedUp, ReachTried
              ConnectionEnded   → unknown
              what it says is wrong, it is silent, somebody takes its place, this program has a bug that
              shows there, Closed: → ended (EndLink)
    ended     ConnectionEnded   → unknown
              Heard, Sent, RepositoriesListed, LookedUp, ReachTried count for nothing: they were on their way

What was rejected: to have each connection's tasks decide by themselves, with locks and wake-ups between them.
That worked, and nobody could run it without asyncio, so the simulator checked a copy of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from stargate_gate.election.port import Member
from stargate_gate.replication.illegal_event import IllegalEventError
from stargate_gate.replication.leader.context import Context, FeedSettings, Outside
from stargate_gate.replication.leader.events import (
    CatchUpGivenUp,
    CatchUpWanted,
    Closed,
    ConnectionEnded,
    DigestRead,
    Event,
    Heard,
    Joined,
    LinkEvent,
    LookedUp,
    NotThere,
    OnDisk,
    ReachTried,
    ReadGivenUp,
    ReadWanted,
    RecordEvent,
    RecordLost,
    RecordUncertain,
    RecordWritten,
    RefsRead,
    RefsUnreadable,
    RepositoriesListed,
    Sent,
    Tick,
    Vanished,
    WaitBegan,
    WaitGivenUp,
    WorkedFor,
)
from stargate_gate.replication.leader.instructions import Admit, CaughtUp, EndLink, Instruction, Refuse, Wake
from stargate_gate.replication.leader.link import MISSED_BEATS, Link
from stargate_gate.replication.leader.readings import Readings
from stargate_gate.replication.leader.sync_rules import conflict
from stargate_gate.replication.leader.sync_set import SyncSet
from stargate_gate.replication.ports import TermRecord
from stargate_gate.replication.wire.messages import PROTOCOL, FromStandby, Join, News, out_of_place
from stargate_gate.replication.wire.numbers import FIRST_POSITION

CAUGHT_UP_ASK_S = 0.1  # how often a standby that is asked for its position is asked again


@dataclass
class _Asking:
    """A connection that waits until it is clear whether the older one of the same member lives."""

    joined: Joined
    former: int
    until: float


@dataclass
class _Catching:
    """Stepping down: until when, and when standbys are asked for their position next."""

    until: float
    ask_at: float


class LeaderTerm:
    """Made when this node has won a term, and told of everything until it is over.

    record    the cluster record of the term. It is only looked at; `WriteRecord` asks for a write
    me        this node
    now       the clock, in seconds, as in every event
    heard_at  when each standby that has gone since said something last, for status
    """

    def __init__(
        self, record: TermRecord, me: Member, settings: FeedSettings, outside: Outside, now: float
    ) -> None:
        self._context = Context(record, me, settings, outside, now)
        self.heard_at: dict[Member, float] = {}
        self._links: dict[Member, Link] = {}
        self._by_number: dict[int, Link] = {}
        self._asking: dict[int, _Asking] = {}
        self._ended: set[int] = set()
        self._catching: _Catching | None = None
        self._closed = False
        self._woken_at: float | None = None
        self._woken = False  # the Tick of that Wake has come: another one is needed, even for the same time
        self.sync_set = SyncSet(self._context, self._links)
        self.readings = Readings(self._context, self._send, self.sync_set.lost)
        self._context.note_replicated = self.sync_set.note_replicated

    @property
    def position(self) -> int:
        """The newest change's sequence number; FIRST_POSITION before the first one of this term."""
        return self._context.position

    @property
    def links(self) -> Mapping[Member, Link]:
        """The connected standbys."""
        return self._links

    @property
    def closed(self) -> bool:
        """`Closed` has come."""
        return self._closed

    def wanted_members(self) -> dict[Member, str | None]:
        """What a `WriteRecord` is to write, at this moment: members, each with its incarnation."""
        return self.sync_set.wanted_members()

    def handle(self, event: Event) -> list[Instruction]:
        """What follows from `event`, to be carried out in this order.

        Raises:
            IllegalEventError: this state does not allow it; nothing has changed.
            Exception: a bug that is not of one standby's connection; see `take`.
        """
        self._context.now = max(self._context.now, event.now)
        self._dispatch(event)
        self._advance()
        if __debug__ and self._check():
            self._advance()
        return self.take()

    def take(self) -> list[Instruction]:
        """What `handle` had decided before it raised.

        It is to be carried out all the same: pushes, readings and standbys wait for it.
        """
        taken = list(self._context.out)
        self._context.out.clear()
        return taken

    def _dispatch(self, event: Event) -> None:  # noqa: C901, PLR0912 - one case for each kind of event
        match event:
            case Tick():  # `_advance` does what is due
                self._woken = self._woken_at is not None and event.now >= self._woken_at
            case Joined():
                self._join(event)
            case Heard() | Sent() | ConnectionEnded() | RepositoriesListed() | LookedUp() | ReachTried():
                self._of_link(event)
            case WorkedFor():
                for link in [one for one in self._links.values() if one.source == event.source]:
                    self._attempt(link, lambda link: link.worked_for(event.id))
            case ReadWanted():
                if not self.readings.want(event):
                    raise IllegalEventError(event, self.readings.state_of(event.read))
            case (
                RefsRead()
                | DigestRead()
                | RefsUnreadable()
                | NotThere()
                | Vanished()
                | OnDisk()
                | ReadGivenUp()
            ):
                if not self.readings.handle(event):
                    raise IllegalEventError(event, self.readings.state_of(event.read))
            case RecordWritten() | RecordUncertain() | RecordLost():
                self._of_record(event)
            case WaitBegan():
                if self.sync_set.waits(event.wait):
                    raise IllegalEventError(event, "that push waits already")
                self.sync_set.wait(event.wait, event.id, event.seq, event.name)
            case WaitGivenUp():
                if not self.sync_set.waits(event.wait):
                    raise IllegalEventError(event, "that push does not wait")
                self.sync_set.give_up(event.wait)
            case CatchUpWanted() | CatchUpGivenUp():
                self._catch_up(event)
            case Closed():
                self._close()
            case _:
                assert_never(event)

    # -- connections -----------------------------------------------------------------------------------

    def _join(self, event: Joined) -> None:
        if event.link in self._by_number or event.link in self._asking or event.link in self._ended:
            raise IllegalEventError(event, "a connection of that number is there")
        join, me = event.join, self._context.me
        if join.protocol != PROTOCOL:
            self._refuse(
                event, f"{me.name} speaks version {PROTOCOL}, not {join.protocol}: update the older node"
            )
        elif join.member == me:
            self._refuse(
                event, f"it has the name and the data_dir of the leader {me.name!r}: give each node its own"
            )
        elif (earlier := self._asking_of(join.member)) is not None and join.member not in self._links:
            # The connection before that one has not ended. It comes after both, so that the newest one wins.
            self._asking[event.link] = _Asking(event, earlier.former, earlier.until)
        else:
            self._admit(event)

    def _asking_of(self, member: Member) -> _Asking | None:
        return next((one for one in self._asking.values() if one.joined.join.member == member), None)

    def _admit(self, event: Joined) -> None:
        """Take the standby in, or say why not, or find out whether its older connection lives."""
        join, context = event.join, self._context
        if (reason := conflict(join.member, (context.me, *self._links))) is not None:
            self._refuse(event, reason)
            return
        if self._closed:
            self._refuse(event, None)
            return
        former = self._links.get(join.member)
        if former is None:
            carried = self.sync_set.is_carried(join.member)
            link = Link(context, event.link, join, event.source, carried=carried)
            self._links[join.member] = self._by_number[event.link] = link
            context.out.append(Admit(event.link))
            context.log.info(
                "standby_connected", standby=join.member.name, source=event.source, term=context.term
            )
            context.changed = True
            return
        until = context.now
        if former.join.instance != join.instance:
            until += context.settings.heartbeat_s
            former.ask()
        else:
            self._end(former, "the standby has connected again")
        self._asking[event.link] = _Asking(event, former.number, until)

    def _refuse(self, event: Joined, reason: str | None) -> None:
        self._asking.pop(event.link, None)
        self._ended.add(event.link)
        if reason is not None:
            member = event.join.member
            self._context.log.warning(
                "standby_refused", standby=member.name, source=event.source, reason=reason
            )
        self._context.out.append(Refuse(event.link, reason))

    def _of_link(self, event: LinkEvent) -> None:
        link = self._by_number.get(event.link)
        if isinstance(event, ConnectionEnded):
            self._connection_ended(event)
        elif link is None:
            if event.link not in self._ended:
                state = "it is not admitted yet" if event.link in self._asking else "no such connection"
                raise IllegalEventError(event, state)
        else:
            self._attempt(link, lambda link: self._of_admitted(link, event))

    def _of_admitted(self, link: Link, event: LinkEvent) -> None:
        match event:
            case Heard():
                self._hear(link, event)
            case ReachTried():
                link.reach_tried(event.problem)
            case Sent():
                if not link.sent():
                    raise IllegalEventError(event, "nothing was being sent")
            case RepositoriesListed():
                if not link.repositories_listed(event.names, event.known):
                    raise IllegalEventError(event, "no list waits for names")
            case LookedUp():
                if not link.looked_up(event.listed):
                    raise IllegalEventError(event, "no list waits for entries")

    def _hear(self, link: Link, event: Heard) -> None:
        message = event.message
        if not isinstance(message, FromStandby) or isinstance(message, Join):
            self._end(link, str(out_of_place(message)))
            return
        if not link.is_of_term(message):
            self._end(link, f"it speaks of term {message.term}; this is term {self._context.term}")
            return
        if (reason := link.disbelief(message)) is not None:
            self._end(link, reason)
            return
        link.hear(message)
        for asking in [one for one in self._asking.values() if one.former == link.number]:
            self._refuse(
                asking.joined,
                f"{link.join.member.name!r} is connected already, with this data_dir or a copy of it: give "
                f"each node a name of its own, and start it with an empty data_dir",
            )

    def _each(self, act: Callable[[Link], object]) -> None:
        for link in list(self._links.values()):
            self._attempt(link, act)

    def _attempt(self, link: Link, act: Callable[[Link], object]) -> None:
        """A bug that shows in one standby's connection ends that connection, and nothing else."""
        try:
            act(link)
        except IllegalEventError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, other standbys and pushes go on
            self._fail(link, repr(error))

    def _fail(self, link: Link, problem: str) -> None:
        """Its state cannot be trusted any more. The standby connects again, and is checked anew."""
        self._context.log.error(
            "standby_failed", standby=link.join.member.name, error=problem, term=self._context.term
        )
        if self._by_number.get(link.number) is link:
            self._end(link, f"this node has failed: {problem}")

    def _end(self, link: Link, reason: str) -> None:
        """It counts as gone from here on."""
        self._context.out.append(EndLink(link.number, reason))
        self._ended.add(link.number)
        self._forget(link)

    def _forget(self, link: Link) -> None:
        self.heard_at[link.join.member] = link.heard_at
        del self._by_number[link.number], self._links[link.join.member]
        self.sync_set.gone(link.join.member)

    def _connection_ended(self, event: ConnectionEnded) -> None:
        link = self._by_number.get(event.link)
        if link is not None:
            self._forget(link)
        elif event.link in self._ended:
            self._ended.discard(event.link)
        elif self._asking.pop(event.link, None) is None:
            raise IllegalEventError(event, "no such connection")
        for asking in [one for one in self._asking.values() if one.former == event.link]:
            if self._asking.pop(asking.joined.link, None) is not None:
                self._admit(asking.joined)

    # -- the record, stepping down, the end ------------------------------------------------------------

    def _of_record(self, event: RecordEvent) -> None:
        if not self.sync_set.is_writing:
            if self._closed:
                return  # it was on its way when the term was closed
            raise IllegalEventError(event, "no record is being written")
        match event:
            case RecordWritten():
                self.sync_set.written(event.members)
            case RecordUncertain():
                self.sync_set.uncertain(event.problem)
            case RecordLost():
                self.sync_set.over()

    def _catch_up(self, event: CatchUpWanted | CatchUpGivenUp) -> None:
        if (self._catching is None) is not isinstance(event, CatchUpWanted):
            raise IllegalEventError(event, "stepping down" if self._catching else "not stepping down")
        if isinstance(event, CatchUpGivenUp):
            self._catching = None
        else:
            self._catching = _Catching(event.until, event.now)

    def _see_whether_caught_up(self, catching: _Catching) -> None:
        """The first member of the sync set that has confirmed everything; nobody if nobody is there."""
        context = self._context
        level = sorted(member for member, link in self._links.items() if link.holds(context.position))
        successor = next((member for member in level if member in context.record.in_force), None)
        if successor is not None or not self._links or context.now >= catching.until:
            self._catching = None
            context.out.append(CaughtUp(successor))
        elif context.now >= catching.ask_at:
            catching.ask_at = context.now + CAUGHT_UP_ASK_S
            for link in self._links.values():
                link.ask()

    def _close(self) -> None:
        self._closed = True
        for link in list(self._links.values()):
            self._end(link, "the leader has ended it")
        for asking in list(self._asking.values()):
            self._refuse(asking.joined, None)
        self.sync_set.over()

    # -- time, and what follows from everything ---------------------------------------------------------

    def _send(self, news: News) -> None:
        """A change has a number now: every standby is to have it."""
        self._context.position = news.seq
        self._each(lambda link: link.add(news))

    def _advance(self) -> None:
        """Whatever is due by now, whichever event it was."""
        context = self._context
        self._each(self._end_if_silent)
        for asking in [one for one in self._asking.values() if context.now >= one.until]:
            if (former := self._by_number.get(asking.former)) is not None:
                self._end(former, "another start of the same standby takes its place")
        while True:
            self.sync_set.settle()
            if self._catching is not None:
                self._see_whether_caught_up(self._catching)
            self._each(lambda link: link.pump())
            if not context.changed:  # a standby that gets a new list may have fallen behind
                break
        at = self._wake_at()
        if at != self._woken_at or self._woken:
            self._woken_at, self._woken = at, False
            context.out.append(Wake(at))

    def _end_if_silent(self, link: Link) -> None:
        if link.silent():
            self._end(link, f"it has said nothing for {MISSED_BEATS} heartbeats")

    def _wake_at(self) -> float | None:
        times = [link.wake_at() for link in self._links.values()]
        times += [one.until for one in self._asking.values() if one.former in self._by_number]
        if (when := self.sync_set.wake_at()) is not None:
            times.append(when)
        if self._catching is not None:
            times.append(min(self._catching.until, self._catching.ask_at))
        return min(times, default=None)

    def _check(self) -> bool:
        """Look for a state that cannot be, in connections and never in repositories.

        In one connection it ends that connection: then True. Elsewhere it raises AssertionError.
        """
        by_number, ended, unsound = self._by_number, self._ended, []
        sound = self._context.position >= FIRST_POSITION and len(by_number) == len(self._links)
        for member, link in self._links.items():
            known = by_number.get(link.number) is link and link.join.member == member
            sound = sound and known and link.number not in ended and not self._closed
            if not link.is_sound():
                unsound.append(link)
        if not sound or (self._asking and not ended.isdisjoint(self._asking)):
            links = {member.name: vars(link) for member, link in self._links.items()}
            raise AssertionError(f"term {self._context.term}: {links}, asking {self._asking}, ended {ended}")
        for link in unsound:
            self._fail(link, f"a state that cannot be: {vars(link)!r:.500}")
        return bool(unsound)
