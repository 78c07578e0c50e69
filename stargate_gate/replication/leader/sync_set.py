"""The sync set of one term: gets it into the cluster record, and lets pushes wait for it.

What may be acknowledged and who belongs into the record is decided in sync_rules.py; this is its shell.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterator, Mapping

import structlog

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.port import Member
from stargate_gate.errors import LeadershipLostError, StargateError, TryAgainError
from stargate_gate.replication.leader.standby_link import Feeding
from stargate_gate.replication.leader.sync_rules import (
    Limits,
    Mode,
    Presence,
    Stage,
    Verdict,
    Waiting,
    judge,
    required,
    wanted,
)
from stargate_gate.replication.ports import TermRecord
from stargate_gate.replication.wire.numbers import FIRST_POSITION

log = structlog.get_logger()

RECORD_BACKOFF = Backoff(0.2, 5.0, random.random)


class SyncSetKeeper:
    """Lives as long as a term of this node.

    feedings  the connected standbys, as the feed keeps them; after a change there call `moved`
    carried   members of the former sync set that are in the record of this term already
    """

    def __init__(
        self, term: TermRecord, feedings: Mapping[Member, Feeding], mode: Mode, limits: Limits
    ) -> None:
        self.position = FIRST_POSITION  # of the newest change; kept by the feed
        self._term = term
        self._feedings = feedings
        self._mode: Mode = mode
        self._limits = limits
        self._carried = set(term.needed)
        self._gone_at = dict.fromkeys(term.needed, self._now())
        self._replicated = 0
        self._uncertain = False  # a record was tried to be written, and perhaps was
        self._recorder: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        if self._carried:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(limits.ack_timeout_s, self._end_grace)
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def in_force(self) -> frozenset[Member]:
        """The sync set of the record that was written last."""
        return self._term.in_force

    @property
    def names(self) -> frozenset[str]:
        """The names of `in_force`; nobody in mode async."""
        return frozenset() if self._mode == "async" else frozenset(one.name for one in self.in_force)

    @property
    def required(self) -> frozenset[Member]:
        """Whose confirmation a push needs now."""
        return required(self._presences(), self._term.needed)

    @property
    def replicated_through(self) -> int:
        """Up to this position every member of the sync set has everything; 0: nobody can say. Grows only.

        In mode async others than members may lead next, so what members have says nothing.
        """
        members = self.required
        if self.in_force and self._mode != "async":
            self._replicated = max(self._replicated, min(map(self._held_through, members)))
        return self._replicated

    def is_carried(self, member: Member) -> bool:
        """Whether it is a member from the term before, and neither was late nor has gone."""
        return member in self._carried

    def moved(self) -> None:
        """A standby has come, gone or caught up: see to the record, and wake who waits."""
        self._wake()
        self._see_to_record()

    def gone(self, member: Member) -> None:
        """Its connection has ended."""
        self._carried.discard(member)
        self._gone_at[member] = self._now()
        self.moved()

    async def until_moved(self, limit_s: float) -> None:
        """Until something has changed, or the limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._changed.wait()

    async def replicated(self, identity: str, seq: int) -> None:
        """Wait until every member of the sync set has that repository as it was at `seq`, on disk.

        Raises:
            TryAgainError: not in time, or nobody is there in mode strict.
            LeadershipLostError: the term is over.
        """
        began = self._now()
        while True:
            changed = self._changed
            verdict = self._judge(identity, seq, began)
            for member in verdict.late:
                self._dismiss(member, identity)
            if self._closed or not self._term.valid():
                raise LeadershipLostError("the term has ended; the outcome is unknown")
            if verdict.acknowledge:
                return
            if verdict.refused is not None:
                log.warning("not_replicated", repository_id=identity, seq=seq, reason=verdict.refused)
                raise TryAgainError(f"not replicated in time: {verdict.refused}; the outcome is unknown")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(verdict.look_again):
                    await changed.wait()

    def waits_for(self, identity: str, seq: int) -> dict[str, int]:
        """Whom `replicated` waits for: the standbys' names, and the bytes that each has got of it."""
        lacking = {}
        for member in self.required:
            feeding = self._feedings.get(member)
            if feeding is None or not feeding.confirmed(identity, seq):
                lacking[member.name] = feeding.received(identity) if feeding is not None else 0
        return lacking

    async def close(self) -> None:
        """The term is over: write no more records, let nobody wait. Safe to call twice."""
        self._closed = True
        self._wake()
        if self._grace is not None:
            self._grace.cancel()
        if self._recorder is not None:
            self._recorder.cancel()
            await asyncio.wait({self._recorder})

    # -- inside ----------------------------------------------------------------------------------------

    def _presences(self) -> Iterator[Presence]:
        for member, feeding in self._feedings.items():
            yield Presence(member, feeding.stage, member in self._carried)
        for member in self._carried - self._feedings.keys():
            yield Presence(member, Stage.ABSENT, carried=True)

    def _judge(self, identity: str, seq: int, began: float) -> Verdict:
        members = self.required
        lacking = {
            member: moved
            for member in members
            if (moved := self._lacks(member, identity, seq, began)) is not None
        }
        return judge(Waiting(began, self._now(), members, self.in_force, lacking), self._mode, self._limits)

    def _lacks(self, member: Member, identity: str, seq: int, began: float) -> float | None:
        """Its last sign of progress on that change, if it has not confirmed it."""
        feeding = self._feedings.get(member)
        if feeding is None:
            return self._gone_at.get(member, began)
        return None if feeding.confirmed(identity, seq) else feeding.moved_at(identity, began)

    def _held_through(self, member: Member) -> int:
        feeding = self._feedings.get(member)
        return 0 if feeding is None else feeding.held_through(self.position)

    def _dismiss(self, member: Member, identity: str) -> None:
        """It is late: it leaves the record, and comes back by being checked."""
        feeding = self._feedings.get(member)
        late = member in self._carried or (feeding is not None and feeding.stage is not Stage.CHECKING)
        self._carried.discard(member)
        if feeding is not None:
            feeding.late()
        if late:
            log.warning("standby_late", standby=member.name, repository_id=identity, term=self._term.number)
            self.moved()

    def _end_grace(self) -> None:
        """Whoever was carried over and has not come by now is gone."""
        for member in self._carried - self._feedings.keys():
            log.warning("standby_did_not_come", standby=member.name, term=self._term.number)
            self._carried.discard(member)
        self.moved()

    def _wanted(self) -> dict[Member, str | None]:
        """Who should be in the record, and with which incarnation: who joins, with the one it has noted."""
        recorded = self._term.members
        members = {}
        for member in wanted(self._presences(), self.in_force, self._mode):
            feeding = self._feedings.get(member)
            joins = feeding is not None and feeding.stage is Stage.LEVEL
            members[member] = feeding.incarnation if feeding and joins else recorded.get(member)
        return members

    def _unlike(self) -> bool:
        return self._uncertain or self._wanted() != self._term.members

    def _see_to_record(self) -> None:
        if self._unlike() and self._recorder is None and not self._closed:
            self._recorder = asyncio.create_task(self._record(), name="sync-set")
            self._recorder.add_done_callback(self._recorded)

    async def _record(self) -> None:
        """Get what is wanted into the record, however often it takes. Ends for good when the term is lost."""
        failures = 0
        while self._unlike():
            before = self.in_force
            try:
                self._uncertain = True
                members = await self._term.update_members(self._wanted, position=self.position)
            except LeadershipLostError:
                self._closed = True
                self._wake()
                return
            except StargateError as error:
                failures += 1
                log.warning("sync_set_not_recorded", error=error.message, term=self._term.number)
                await asyncio.sleep(RECORD_BACKOFF.delay_s(failures))
            else:
                failures = 0
                self._uncertain = False
                if members != before:
                    self._say(members)
                self._wake()

    def _say(self, members: frozenset[Member]) -> None:
        names = sorted(member.name for member in members)
        log.info("sync_set_changed", term=self._term.number, sync_set=names)
        if not members and self._mode != "async":
            log.error("sync_set_empty", term=self._term.number, mode=self._mode, remedy="see the standbys")

    def _recorded(self, task: asyncio.Task[None]) -> None:
        self._recorder = None
        if task.cancelled():
            return
        if (problem := task.exception()) is not None:
            log.error("sync_set_not_recorded", error=repr(problem), term=self._term.number)
            return
        self._see_to_record()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
