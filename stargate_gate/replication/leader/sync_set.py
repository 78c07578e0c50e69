"""The sync set of one term: who should be in the cluster record, and which pushes may be acknowledged. Pure.

sync_rules.py has the rules; this applies them to the standbys of this term. The record is written by one
write at a time. While the outcome of a write is unknown `TermRecord.needed` names the members of both
records, so pushes wait for all of them; the write is repeated until its outcome is known.

A waiting push is judged again when a standby has confirmed more of its repository, when any standby came,
went or changed its stage, when the record was written, and when its verdict says `look_again`.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.context import Context
from stargate_gate.replication.leader.instructions import Answer, JournalReplicated, WriteRecord
from stargate_gate.replication.leader.link import Link
from stargate_gate.replication.leader.sync_rules import (
    Presence,
    Stage,
    Verdict,
    Waiting,
    judge,
    required,
    wanted,
)

VANISHED = "the repository was moved away on this node meanwhile"  # by hand, or by another program


@dataclass
class _Wait:
    """A push that waits."""

    number: int
    id: str
    seq: int
    name: str | None
    began: float
    look_again: float = 0.0


class SyncSet:
    """Made once for a term. `links` are the connected standbys, as LeaderTerm keeps them."""

    def __init__(self, context: Context, links: Mapping[Member, Link]) -> None:
        self._context = context
        self._links = links
        self._carried = set(context.record.needed)
        self._gone_at = dict.fromkeys(context.record.needed, context.now)
        grace_s = context.settings.limits.ack_timeout_s
        self._grace_at: float | None = context.now + grace_s if self._carried else None
        self._replicated = 0
        self._over = False
        self._writing = False
        self._uncertain = False  # a record was tried to be written, and perhaps was
        self._failures = 0  # of writes of the record, in a row
        self._write_at: float | None = None  # after a failure
        self._before: frozenset[Member] = frozenset()  # in force when the write began
        self._waits: dict[int, _Wait] = {}
        self._by_id: dict[str, dict[int, _Wait]] = {}
        self._lost: dict[str, int] = {}  # repositories that had vanished, and the newest number then
        self._alarms: list[tuple[float, int]] = []  # (look_again, wait); some are out of date

    @property
    def required(self) -> frozenset[Member]:
        """Whose confirmation a push needs now."""
        return required(self._presences(), self._context.record.needed)

    @property
    def replicated_through(self) -> int:
        """Up to this position every member of the sync set has everything; 0: nobody can say. Grows only.

        In mode async others than members may lead next, so what members have says nothing.
        """
        if self._context.record.in_force and self._context.settings.mode != "async":
            self._replicated = max(self._replicated, min(map(self._held_through, self.required), default=0))
        return self._replicated

    def note_replicated(self) -> int:
        """`replicated_through`, noted in the journal as well."""
        through = self.replicated_through
        self._context.out.append(JournalReplicated(through))
        return through

    def is_carried(self, member: Member) -> bool:
        """Whether it is a member from the term before, and neither was late nor has gone."""
        return member in self._carried

    @property
    def is_writing(self) -> bool:
        """Whether a WriteRecord was not answered yet."""
        return self._writing

    def waits(self, number: int) -> bool:
        """Whether that push waits."""
        return number in self._waits

    # -- what happens ----------------------------------------------------------------------------------

    def gone(self, member: Member) -> None:
        """Its connection has ended."""
        self._carried.discard(member)
        self._gone_at[member] = self._context.now
        self._context.changed = True

    def wait(self, number: int, identity: str, seq: int, name: str | None) -> None:
        """A push waits from now on; perhaps it is answered at once."""
        one = _Wait(number, identity, seq, name, self._context.now)
        self._waits[number] = one
        self._by_id.setdefault(identity, {})[number] = one
        self._see_to(one)

    def lost(self, identity: str) -> None:
        """That repository has vanished from this node: no push into it is acknowledged by its old numbers."""
        self._lost[identity] = self._context.position
        for one in list(self._by_id.get(identity, {}).values()):
            self._see_to(one)

    def give_up(self, number: int) -> None:
        """That push has gone."""
        one = self._waits.pop(number)
        of_id = self._by_id[one.id]
        del of_id[number]
        if not of_id:
            del self._by_id[one.id]

    def written(self, members: frozenset[Member]) -> None:
        """These are in the record, for certain."""
        self._writing = self._uncertain = False
        self._failures = 0
        if members != self._before:
            self._say(members)
        self._context.changed = True

    def uncertain(self, problem: str) -> None:
        """The old or the new record is in force."""
        self._writing = False
        self._failures += 1
        self._context.log.warning("sync_set_not_recorded", error=problem, term=self._context.term)
        self._write_at = self._context.now + self._context.outside.record_delay_s(self._failures)
        self._context.changed = True

    def over(self) -> None:
        """The term is over: write no more records, let nobody wait."""
        self._writing = False
        self._over = self._context.changed = True
        self._grace_at = self._write_at = None

    def settle(self) -> None:
        """Draw the conclusions of what has happened: answer pushes, see to the record."""
        context = self._context
        if self._grace_at is not None and context.now >= self._grace_at:
            self._end_grace()
        while self._alarms and self._alarms[0][0] <= context.now:
            when, number = heapq.heappop(self._alarms)
            one = self._waits.get(number)
            if one is not None and one.look_again == when:
                self._see_to(one)
        see_to_record = self._write_at is not None and context.now >= self._write_at
        while context.changed or context.changed_ids:
            see_to_record = see_to_record or context.changed
            changed, ids = context.changed, set(context.changed_ids)
            context.changed = False
            context.changed_ids.clear()
            waits = (
                self._waits if changed else {n: one for i in ids for n, one in self._by_id.get(i, {}).items()}
            )
            for one in list(waits.values()):
                self._see_to(one)
        if see_to_record:
            self._see_to_record()

    def wake_at(self) -> float | None:
        """When time alone makes a difference."""
        while self._alarms and not self._is_due(*self._alarms[0]):
            heapq.heappop(self._alarms)
        times = [when for when in (self._grace_at, self._write_at) if when is not None]
        if self._alarms:
            times.append(self._alarms[0][0])
        return min(times, default=None)

    # -- pushes that wait ------------------------------------------------------------------------------

    def waits_for(self, identity: str, seq: int) -> dict[str, int]:
        """Whom a push waits for: the standbys' names, and the bytes that each has got of it."""
        lacking = {}
        for member in self.required:
            link = self._links.get(member)
            if link is None or not link.backlog.holds(identity, seq):
                lacking[member.name] = link.backlog.received(identity) if link is not None else 0
        return lacking

    def _see_to(self, one: _Wait) -> None:
        if one.seq <= self._lost.get(one.id, -1) and self._context.settings.mode != "async":
            self._answer(one, Answer(one.number, acknowledged=False, refused=VANISHED))
            return
        verdict, members = self._judge(one)
        for member in sorted(verdict.late):
            self._dismiss(member, one)
        if self._over or not self._context.record.valid():
            self._answer(one, Answer(one.number, acknowledged=False))
        elif verdict.acknowledge:
            after = frozenset() if self._context.settings.mode == "async" else members
            self._answer(one, Answer(one.number, acknowledged=True, after=after))
        elif verdict.refused is not None:
            self._answer(one, Answer(one.number, acknowledged=False, refused=verdict.refused))
        elif verdict.look_again != one.look_again:
            one.look_again = verdict.look_again
            heapq.heappush(self._alarms, (one.look_again, one.number))

    def _answer(self, one: _Wait, answer: Answer) -> None:
        self.give_up(one.number)
        self._context.out.append(answer)

    def _judge(self, one: _Wait) -> tuple[Verdict, frozenset[Member]]:
        """The verdict, and whose confirmation it asks for."""
        context, members = self._context, self.required
        lacking = {member: moved for member in members if (moved := self._lacks(member, one)) is not None}
        waiting = Waiting(one.began, context.now, members, context.record.in_force, lacking)
        return judge(waiting, context.settings.mode, context.settings.limits), members

    def _lacks(self, member: Member, one: _Wait) -> float | None:
        """Its last sign of progress on that change, if it has not confirmed it."""
        link = self._links.get(member)
        if link is None:
            return self._gone_at.get(member, one.began)
        return None if link.backlog.holds(one.id, one.seq) else link.moved_at(one.id, one.began)

    def _is_due(self, when: float, number: int) -> bool:
        one = self._waits.get(number)
        return one is not None and one.look_again == when

    def _held_through(self, member: Member) -> int:
        link = self._links.get(member)
        return 0 if link is None else link.backlog.held_through(self._context.position)

    def _dismiss(self, member: Member, one: _Wait) -> None:
        """It is late: it leaves the record, and comes back by being checked."""
        link = self._links.get(member)
        late = member in self._carried or (link is not None and link.stage is not Stage.CHECKING)
        self._carried.discard(member)
        if link is not None:
            link.late()
        if late:
            fields = {} if one.name is None else {"repository": one.name}
            self._context.log.warning(
                "standby_late", standby=member.name, repository_id=one.id, term=self._context.term, **fields
            )
            self._context.changed = True

    # -- the record ------------------------------------------------------------------------------------

    def wanted_members(self) -> dict[Member, str | None]:
        """Who should be in the record, and with which incarnation: who joins, with the one it has noted."""
        recorded, in_force = self._context.record.members, self._context.record.in_force
        members = {}
        for member in wanted(self._presences(), in_force, self._context.settings.mode):
            link = self._links.get(member)
            joins = link is not None and link.stage is Stage.LEVEL
            members[member] = link.incarnation if link and joins else recorded.get(member)
        return members

    def _see_to_record(self) -> None:
        if self._write_at is not None and self._context.now < self._write_at:
            return
        self._write_at = None
        if self._over or self._writing:
            return
        members, recorded = self.wanted_members(), self._context.record.members
        if self._uncertain or members != recorded:
            self._writing = self._uncertain = True
            self._before = self._context.record.in_force
            joining = tuple(sorted(item for item in members.items() if recorded.get(item[0]) != item[1]))
            self._context.out.append(WriteRecord(joining))

    def _say(self, members: frozenset[Member]) -> None:
        names = sorted(member.name for member in members)
        self._context.log.info("sync_set_changed", term=self._context.term, sync_set=names)
        mode = self._context.settings.mode
        if not members and mode != "async":
            self._context.log.error(
                "sync_set_empty", term=self._context.term, mode=mode, remedy="see the standbys"
            )

    def _presences(self) -> Iterator[Presence]:
        for member, link in self._links.items():
            yield Presence(member, link.stage, member in self._carried)
        for member in sorted(self._carried - self._links.keys()):
            yield Presence(member, Stage.ABSENT, carried=True)

    def _end_grace(self) -> None:
        """Give up the members that were carried over and have not connected by now."""
        self._grace_at = None
        for member in sorted(self._carried - self._links.keys()):
            self._context.log.warning("standby_did_not_come", standby=member.name, term=self._context.term)
            self._carried.discard(member)
        self._context.changed = True
