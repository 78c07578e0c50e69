"""One standby's connection, as the leader sees it: what it is sent, and what it says it has. Pure.

One `Send` at a time is under way. When the shell says that it was written, `pump` chooses what comes next:

    1. Welcome, once
    2. when a heartbeat is due: what is new of this node since the last one, and the heartbeat
    3. the next piece of the full list, while one is sent
    4. the beginning of a full list, when one is due
    5. Enroll, when the standby is about to join the sync set
    6. the next change of the backlog

So a slow connection delays no other standby. Changes wait in the backlog, where those of one repository
become one. A heartbeat says what was sent before it, never what is still waiting.

A full list names every repository that the leader knows to have, whether it was found or not. Folders are
looked through one after the other, and meanwhile an operator may rename some: then neither the old name nor
the new one may be found, and no read fails. A standby without that repository would confirm the list, join
the sync set, and lack acknowledged pushes. So what is known by its id and was not found is in the list
without a digest: the standby asks for it by its id, and the leader searches every folder for it. It is left
out only after such a search has found nothing, or if a user has deleted it.

Rejected: to drop a list in which a name was not found, and to make a new one. A search can miss a folder
without any name that is not found; and folders that are renamed all the time would keep every standby out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stargate_gate.replication.leader.backlog import Backlog
from stargate_gate.replication.leader.context import Context
from stargate_gate.replication.leader.instructions import ListRepositories, LookUp, Reach, Send
from stargate_gate.replication.leader.sync_rules import Stage, next_stage
from stargate_gate.replication.wire.about import About, KeysApart, Profile, Reached, Refilling
from stargate_gate.replication.wire.messages import (
    PROTOCOL,
    Alive,
    Applied,
    Changed,
    Checked,
    Compare,
    Deleted,
    Enroll,
    Enrolled,
    FromLeader,
    FromStandby,
    Heartbeat,
    Join,
    ListBegin,
    Listed,
    ListEnd,
    ListPart,
    News,
    Progress,
    Welcome,
)
from stargate_gate.repos.names import RepositoryName

LIST_PART = 100  # repositories whose digests are looked up at a time, and sent in one line
MISSED_BEATS = 3  # a standby that has said nothing for so many heartbeats is taken for dead
AGAIN_S = 300.0  # a standby that was found is looked for again: routes and firewalls change


@dataclass
class _FullList:
    """A full list that is being sent.

    names   what is looked up for it; None: not known yet
    known   what the leader knows to have, by id
    asked   so many names were looked up, or are being looked up
    looking whether some are being looked up
    ids     what was found
    unfound what was not found, and is not in a piece yet; None: names are still looked up
    count   so many are in the pieces so far
    ready   the piece that is sent next
    """

    check: int
    begun: bool = False
    names: Sequence[RepositoryName] | None = None
    known: Mapping[str, RepositoryName] = field(default_factory=dict)
    asked: int = 0
    looking: bool = False
    ids: set[str] = field(default_factory=set)
    unfound: list[Listed] | None = None
    count: int = 0
    ready: ListPart | ListEnd | None = None


class Link:
    """From the moment in which a standby is admitted until its connection ends.

    about        what it tells of itself; None before it has
    keys         whether it lets in other keys than this node
    problem      why the leader does not find it where it says that it is; None: not tried yet; "": found
    refilling    how far it is, while it is being checked
    incarnation  the one that it has noted, since it was last behind
    heard_at     when it said something last
    tried_at     when the leader looked for it last, and knew the result
    carried      it is a member of the sync set from the term before, whether it can be reached or not
    """

    def __init__(self, context: Context, number: int, join: Join, source: str, *, carried: bool) -> None:
        self.number = number
        self.join = join
        self.source = source
        self.about: About | None = None
        self.keys = KeysApart()
        self.problem: str | None = None
        self.refilling: Refilling | None = None
        self.stage = Stage.CHECKING
        self.incarnation: str | None = None
        self.backlog = Backlog()
        self._context = context
        self._reached = carried
        self._began = self._behind_from = self.heard_at = context.now
        self.tried_at = context.now
        self._position = 0  # up to which the standby says it has everything
        self._level_from = 0  # what has to be confirmed before it is level
        self._offered: str | None = None  # the incarnation that it is asked to note before it is level
        self._offer_sent = False
        self._times_late = 0
        self._check = 0
        self._confirmed_check = 0
        self._list: _FullList | None = None
        self._list_seq = 0
        self._list_due = context.now
        self._uncovered = False  # changes were dropped that no list has begun to cover yet
        self._sent_about: Profile | None = None
        self._sent_reached: str | None = None
        self._welcomed = False
        self._sending = False
        self._beat_at = context.now + context.settings.heartbeat_s
        self._reaching = False
        self._reach_at = context.now
        self._moved = False  # it tells another address of itself while it is looked for at the old one
        self._times_not_reached = 0

    # -- what others ask of it -------------------------------------------------------------------------

    def lag(self, now: float) -> tuple[int | None, float]:
        """Changes it has not applied, at most, and for how many seconds the oldest.

        Before it has confirmed a list: the repositories that it knows to differ (None: not known yet), and
        the time since it connected or fell behind.
        """
        if self.backlog.covered:
            return self.backlog.lag(now)
        known = self.refilling
        differing = max(0, known.total - known.done) if known is not None and known.total else None
        return differing, now - self._behind_from

    def holds(self, position: int) -> bool:
        """Whether it has confirmed to have everything up to `position`."""
        return self.stage is Stage.LEVEL and self._position >= position and not len(self.backlog)

    def moved_at(self, identity: str, since: float) -> float:
        """Its last sign of progress on that repository, for somebody who waits for it since then."""
        return max(self._began, self.backlog.moved_at(identity) or since)

    def ask(self) -> None:
        """Ask it for its position now and not at the next heartbeat."""
        self._beat_at = self._context.now

    def silent(self) -> bool:
        """Whether it has said nothing for too long."""
        return self._context.now >= self._silent_at()

    def wake_at(self) -> float:
        """When time alone makes a difference to it."""
        times = [self._silent_at()]
        if not self._sending:
            times.append(self._beat_at)
            if self._list is None:
                times.append(self._list_due)
        if self.about is not None and not self._reaching:
            times.append(self._reach_at)
        return min(times)

    def is_sound(self) -> bool:
        """The invariants: for `LeaderTerm` to check.

        Who is waited for has confirmed a list, and nothing was dropped since. Who is level has noted an
        incarnation. No list is confirmed that was not sent.
        """
        checked = self.backlog.covered and not self._uncovered
        return (
            (self.stage is Stage.CHECKING or checked)
            and (self.stage is not Stage.LEVEL or self.incarnation is not None)
            and self._confirmed_check <= self._check
        )

    # -- what has changed here -------------------------------------------------------------------------

    def add(self, news: News) -> None:
        """Send this when its turn comes. A backlog without bounds becomes a full list.

        Until a full list was confirmed, a difference proves nothing of the rest of a repository: then it
        is told to compare.
        """
        if not self.backlog.covered and isinstance(news, Changed):
            news = Compare(news.term, news.seq, news.name, news.id)
        if not self.backlog.add(news, self._context.now):
            self._context.log.warning(
                "standby_far_behind", standby=self.join.member.name, remedy="it is given a full list"
            )
            self.backlog.clear()
            self._uncovered = True
            self._list_due = self._context.now
            self._fall_behind()

    def late(self) -> None:
        """Nobody waits for it any more; it is given a full list after a while."""
        if self.stage is not Stage.CHECKING:
            self._times_late += 1
            self._list_due = self._context.now + self._context.outside.late_delay_s(self._times_late)
            self._fall_behind()

    # -- what the standby says -------------------------------------------------------------------------

    def hear(self, message: FromStandby) -> None:
        """One message of this term, which `disbelief` has passed."""
        now = self.heard_at = self._context.now
        match message:
            case About():
                if self.about is None or self.about.ssh != message.ssh:
                    self._reach_at, self._moved = now, self._reaching
                self.about = message
            case Refilling():
                self.refilling = message
            case Applied():
                self.backlog.applied(message.id, message.seq, now)
                self._context.changed_ids.add(message.id)
            case Progress():
                self.backlog.progress(message.id, now, message.received)
            case Checked():
                self._confirm(message.check)
            case Enrolled():
                if message.incarnation == self._offered:
                    self.incarnation = message.incarnation
            case Alive():
                self._position = message.position
        self._rise()

    def disbelief(self, message: FromStandby) -> str | None:
        """Why this message cannot be true: it confirms what the standby was not sent. None: it may be."""
        newest = self._context.position
        match message:
            case Applied(seq=seq) if seq > newest:
                return f"it confirms change {seq}, and the newest is {newest}"
            case Alive(position=position) if position > newest:
                return f"it has position {position}, and the newest is {newest}"
            case Checked(check=check) if not 1 <= check <= self._sent_check():
                return f"it confirms list {check}, which it was not sent"
        return None

    def worked_for(self, identity: str) -> None:
        """This node's git has worked on that repository for its sake: that is progress of its."""
        self.backlog.progress(identity, self._context.now)

    def is_of_term(self, message: FromStandby) -> bool:
        """Whether that is said in this term."""
        return not isinstance(message, Join) and message.term == self._context.term

    def _sent_check(self) -> int:
        """The newest full list that was sent to its end; 0: none was."""
        return self._check if self._list is None else self._check - 1

    def _confirm(self, check: int) -> None:
        if check != self._check or self._uncovered:
            return
        self.backlog.checked(self._list_seq)
        self._confirmed_check = check
        self.refilling = None
        self._context.changed = True

    def _rise(self) -> None:
        """Take the next stages (sync_rules.py). A level standby has noted the incarnation of its joining."""
        if self.stage is Stage.CHECKING:
            stage = next_stage(
                self.stage,
                confirmed=self.backlog.covered and self._confirmed_check == self._check,
                reached=self._reached,
                holds=False,
            )
            if stage is not self.stage:
                self._level_from = self._required_from()
                self._offer()
                self._become(stage)
        if self.stage is Stage.CATCHING_UP:
            holds = (
                self.incarnation is not None
                and self.backlog.held_through(self._context.position) >= self._level_from
            )
            stage = next_stage(self.stage, confirmed=False, reached=self._reached, holds=holds)
            if stage is not self.stage:
                self._become(stage)

    def _required_from(self) -> int:
        """To be level it must hold everything up to here: what was acknowledged before pushes wait for it."""
        return self._context.position

    def _offer(self) -> None:
        """A membership that begins again has an incarnation of its own."""
        self._offered, self._offer_sent = self._context.outside.new_incarnation(), False
        self.incarnation = None

    def _fall_behind(self) -> None:
        """It does not hold everything, and must be checked again."""
        if self.stage is not Stage.CHECKING:
            self._confirmed_check, self._behind_from = 0, self._context.now
            self._offered = self.incarnation = None  # it joins anew
            self._become(Stage.CHECKING)
            self._context.log.warning(
                "standby_not_level", standby=self.join.member.name, lag_changes=self.lag(self._context.now)[0]
            )

    def _become(self, stage: Stage) -> None:
        self.stage = stage
        self._context.changed = True

    # -- whether it can be reached ---------------------------------------------------------------------

    def reach_tried(self, problem: str | None) -> None:
        """The leader has looked for it where it says that it is."""
        self._reaching, self.tried_at = False, self._context.now
        self._times_not_reached = self._times_not_reached + 1 if problem is not None else 0
        delay_s = (
            self._context.outside.reach_delay_s(self._times_not_reached) if problem is not None else AGAIN_S
        )
        self._reach_at = self._context.now if self._moved else self._context.now + delay_s
        before, self.problem = self.problem, problem or ""
        self._reached = self._reached or problem is None
        if problem is not None and problem != before:
            self._context.log.warning("standby_not_reached", standby=self.join.member.name, reason=problem)
        elif problem is None and before != "":
            ssh = self.about.ssh if self.about is not None else None
            self._context.log.info("standby_reached", standby=self.join.member.name, ssh=ssh)
        self._rise()
        self.ask()  # the next heartbeat tells it

    def _look_for_it(self) -> None:
        if self.about is not None and not self._reaching and self._context.now >= self._reach_at:
            self._reaching, self._moved = True, False
            self._context.out.append(Reach(self.number, self.join.member, self.about.ssh))

    # -- what it is sent -------------------------------------------------------------------------------

    def sent(self) -> bool:
        """The last Send was written; False if there was none."""
        if not self._sending:
            return False
        self._sending = False
        if self._list is not None and not self._list.begun:
            self._list.begun = True
            self._context.out.append(ListRepositories(self.number))
        return True

    def repositories_listed(
        self, names: Sequence[RepositoryName], known: Mapping[str, RepositoryName]
    ) -> bool:
        """What is in the full list, as in `RepositoriesListed`; False if that was not asked."""
        if self._list is None or not self._list.begun or self._list.names is not None:
            return False
        self._list.names, self._list.known = names, known
        self._look_up(self._list)
        return True

    def looked_up(self, listed: tuple[Listed, ...]) -> bool:
        """The next part of the full list; False if that was not asked."""
        full = self._list
        if full is None or not full.looking:
            return False
        full.looking = False
        full.ids.update(one.id for one in listed)
        self._add_part(full, listed)
        return True

    def pump(self) -> None:
        """Whatever is due now."""
        self._look_for_it()
        if not self._sending and (messages := self._next()):
            after = tuple((m.id, m.seq) for m in messages if isinstance(m, Changed | Compare | Deleted))
            self._sending = True
            self._context.out.append(Send(self.number, messages, after))

    def _next(self) -> tuple[FromLeader, ...]:
        context = self._context
        if not self._welcomed:
            self._welcomed = True
            return (Welcome(PROTOCOL, context.term, context.me, context.settings.heartbeat_s),)
        if context.now >= self._beat_at:
            return self._beat()
        if self._list is not None:
            return self._next_piece(self._list)
        if context.now >= self._list_due:
            return self._begin_list()
        if self._offered is not None and not self._offer_sent:
            self._offer_sent = True
            return (Enroll(context.term, self._offered),)
        news = self.backlog.next(context.now)
        return () if news is None else (news,)

    def _beat(self) -> tuple[FromLeader, ...]:
        """A heartbeat. Before it: About and Reached, if what they say has changed."""
        context = self._context
        self._beat_at = context.now + context.settings.heartbeat_s
        profile = context.outside.profile()
        self.keys.see(profile.settings, self.about.settings if self.about else None, context.now)
        messages: list[FromLeader] = []
        if profile != self._sent_about:
            self._sent_about = profile
            messages.append(profile.about(context.term))
        if self.problem is not None and self.problem != self._sent_reached:
            self._sent_reached = self.problem
            messages.append(Reached(context.term, self.problem))
        sent = 0 if self._uncovered else self.backlog.sent_through(context.position)
        at = int(context.outside.wall_s()) if sent == context.position else 0
        return (*messages, Heartbeat(context.term, sent, context.note_replicated(), at))

    def _begin_list(self) -> tuple[FromLeader, ...]:
        """Everything there is. Changes that happen meanwhile follow after it."""
        context = self._context
        if self._confirmed_check != self._check:
            self._fall_behind()  # it had a whole full_check_s for the list before
        self._list_due = context.now + context.settings.full_check_s
        self._check += 1
        self._uncovered = False
        self._list_seq = context.position
        self._list = _FullList(self._check)
        return (ListBegin(context.term, self._check, self._list_seq),)

    def _next_piece(self, full: _FullList) -> tuple[FromLeader, ...]:
        piece = full.ready
        if piece is None:
            return ()
        full.ready = None
        if isinstance(piece, ListEnd):
            self._list = None
        else:
            self._look_up(full)
        return (piece,)

    def _look_up(self, full: _FullList) -> None:
        """Have the next names looked up; after the last one, add what was not found, and end the list."""
        part = tuple((full.names or ())[full.asked : full.asked + LIST_PART])
        if part:
            full.asked += len(part)
            full.looking = True
            self._context.out.append(LookUp(self.number, part))
            return
        if full.unfound is None:
            full.unfound = self._unfound(full)
        if full.unfound:
            some, full.unfound = full.unfound[:LIST_PART], full.unfound[LIST_PART:]
            self._add_part(full, tuple(some))
        else:
            full.ready = ListEnd(self._context.term, full.check, full.count)

    def _add_part(self, full: _FullList, listed: tuple[Listed, ...]) -> None:
        full.count += len(listed)
        full.ready = ListPart(self._context.term, full.check, listed)

    def _unfound(self, full: _FullList) -> list[Listed]:
        """What the leader knows to have, and was not found for this list."""
        gone = self._context.gone
        return [
            Listed(name, identity, None)
            for identity, name in full.known.items()
            if identity not in full.ids and identity not in gone
        ]

    def _silent_at(self) -> float:
        return self.heard_at + MISSED_BEATS * self._context.settings.heartbeat_s
