"""The elector: watches the record, tries for the lock when it may, and keeps a term. Any engine.

Theory of operation. A node is always in one of these stages, and `Elector.view` shows it:

    watching    this node is not eligible, or must wait: it reads the record every retry_s
    trying      it is eligible: it reads the record and tries the lock every retry_s
    taking over it has the lock, and proves that from here on; it reads the record again and decides
                again, ends its own mirror (`prepare`), and claims the next term
    leading     the body of `async with elector.term()` runs; it opens and closes the term
    ending      the body was left, or cancelled because the lease was lost; then the lock is released,
                in every case

Every later stage goes through "ending" before the node watches again. Whatever ends a leadership early
cancels the task that runs the body, so everything that belongs to the leadership ends with that task.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import structlog

from stargate_gate.aio.tasks import Signal
from stargate_gate.aio.worker import Worker
from stargate_gate.election.eligibility import (
    Standing,
    Try,
    Unavailable,
    Watch,
    carried_over,
    decide,
    distrust,
    first_record,
    why_standby,
)
from stargate_gate.election.incarnation import new_incarnation
from stargate_gate.election.lease import Lease, boottime
from stargate_gate.election.port import ClusterRecord, Engine, LeaseHandle, Member
from stargate_gate.election.state import ElectionState
from stargate_gate.election.status import Advertised, LeadershipView, Timings
from stargate_gate.election.term import Term
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError

log = structlog.get_logger()

PREPARE_LIMIT_S = 60.0  # ending the mirror and finishing what was received; the lock is held meanwhile

Prepare = Callable[[ClusterRecord], Awaitable[None]]


class Elector:
    """One node's part in the election. One `term()` at a time."""

    def __init__(
        self,
        engine: Engine,
        me: Member,
        *,
        timings: Timings,
        advertised: Callable[[], Advertised],
        state: ElectionState,
        clock: Callable[[], float] = boottime,
    ) -> None:
        """`advertised` is asked at each takeover. The elector does not own `engine`: its maker closes it."""
        self._engine = engine
        self._me = me
        self._timings = timings
        self._advertised = advertised
        self._state = state
        self._clock = clock
        self._disk = Worker("election-state")
        self._record: ClusterRecord | None = None
        self._record_since = clock()
        self._read_at: float | None = None
        self._term_since = clock()
        self._checked: tuple[int, int] | None = None  # newer than what is on disk
        self._aside: tuple[str, float] | None = None  # why, and until when
        self._override_until = 0.0
        self._term: Term | None = None
        self._reason = "it is starting"
        self._trouble: str | None = None
        self._taking_over = False
        self._changed = Signal()

    @property
    def me(self) -> Member:
        """This node."""
        return self._me

    def view(self) -> LeadershipView:
        """Who leads, as known now. From memory."""
        term = self._term
        if term is None:
            number = self._record.term if self._record else 0
            return LeadershipView(
                "standby",
                self._me.name,
                self._record,
                number,
                False,
                self._reason,
                self._trouble,
                taking_over=self._taking_over,
                record_age_s=self._clock() - self._read_at if self._read_at is not None else None,
            )
        proved = term.valid()
        accepting = term.is_open and proved
        reason = "" if accepting else term.closed_because if proved else "the lease has run out"
        return LeadershipView(
            "leader",
            self._me.name,
            term.record,
            term.number,
            accepting,
            reason,
            self._trouble,
            proved=proved,
            record_age_s=0.0,
            term_age_s=self._clock() - self._term_since,
        )

    async def wait_for(self, predicate: Callable[[LeadershipView], bool], limit_s: float) -> LeadershipView:
        """The first view that satisfies `predicate`, or the one at the limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not predicate(self.view()):
                    await self._changed.wait()
        return self.view()

    def checked(self, term: int, position: int = 0) -> None:
        """The mirror says: every repository equals that of the leader of `term`, up to `position`.

        On disk soon after, once a term; forgetting it in a crash only means checking again.
        """
        is_new = self._checked is None or self._checked[0] != term
        self._checked = (term, position)
        if is_new:
            noted = self._disk.submit(self._state.note_checked, term, position)
            noted.add_done_callback(_say_not_noted)

    async def enroll(self, incarnation: str) -> None:
        """Note, on disk when this returns, that the record may name this incarnation for this node.

        Raises:
            ElectionUnavailableError: it is not noted, and must not go into the record.
        """
        await self._disk.call(self._state.note_incarnation, incarnation)

    @property
    def checked_through(self) -> tuple[int, int] | None:
        """Term and position up to which this node had everything, at least; None: never."""
        known = self._state.known
        if self._checked is not None:
            return self._checked
        return None if known.checked_term is None else (known.checked_term, known.position)

    def override(self, limit_s: float) -> None:
        """An operator accepts data loss: this node may try without being eligible.

        For `limit_s` seconds, or until a term is won. It still needs the lock: a living leader is not
        pushed aside.
        """
        self._override_until = self._clock() + limit_s
        log.warning("election_overridden", node=self._me.name, limit_s=limit_s)

    def stand_aside(self, reason: str, limit_s: float) -> None:
        """Do not try for `limit_s` seconds."""
        self._aside = (reason, self._clock() + limit_s)

    async def next_leader(self, limit_s: float) -> ClusterRecord | None:
        """The record of a later term than the one seen last, once there is one; None at the limit.

        For a node that has stepped down and takes no part any more. A record that cannot be read is none.
        """
        before = self._record.term if self._record is not None else 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while True:
                    with contextlib.suppress(ElectionUnavailableError):
                        record = await self._engine.read()
                        if record.term > before:
                            return record
                    await asyncio.sleep(self._timings.retry_s)
        return None

    def close(self) -> None:
        """Give back the elector's thread."""
        self._disk.close()

    @contextlib.asynccontextmanager
    async def term(self, prepare: Prepare) -> AsyncIterator[Term]:
        """Wait until this node may lead and does; the body runs as the leader of a new term.

        `prepare(record)` is awaited under the lock, before the claim, with the record in force: it
        ends and reaps this node's mirror. The body is cancelled, and LeadershipLostError raised in
        its place, when the lock is lost or was not proved for `lease_s`. Leaving the body in any way
        releases the lock, after the body's own clean-up.

        Raises:
            LeadershipLostError: the term was lost while the body ran.
        """
        while True:
            asked_at, handle = await self._win()
            began = False
            lease = Lease(handle, self._timings, clock=self._clock, proved_at=asked_at, on_lost=self._lost)
            try:
                async with lease:
                    term = await self._take_over(lease, prepare)
                    if term is not None:
                        began = True
                        yield term
            except (LeadershipLostError, ElectionUnavailableError, TimeoutError) as error:
                if began:
                    raise
                log.warning(
                    "leadership_not_taken", error=str(error) or f"prepare took over {PREPARE_LIMIT_S:g} s"
                )
            finally:
                self._end(lease.lost)
                await handle.release()
            if began:
                return
            await asyncio.sleep(self._timings.retry_s)

    async def _win(self) -> tuple[float, LeaseHandle]:
        """Watch and try until this node has the lock. The clock from before it asked, and the handle."""
        while True:
            pause_s = self._timings.retry_s
            try:
                async with asyncio.timeout(self._timings.lease_s):
                    if await self._look():
                        asked_at = self._clock()
                        handle = await self._engine.try_acquire()
                        if handle is not None:
                            return asked_at, handle
            except ElectionUnavailableError as error:
                self._in_trouble(error.message)
                pause_s = max(pause_s, self._timings.heartbeat_s)
            except TimeoutError:
                waited = f"did not answer for {self._timings.lease_s:g} s"
                self._in_trouble(f"{self._engine.place} {waited}: check the shared volume")
            await asyncio.sleep(pause_s)

    async def _look(self) -> bool:
        """Read the record, keep the view fresh, and say whether to try for the lock."""
        asked_at = self._clock()
        record = await self._engine.read()
        await self._admit(record)
        self._read_at = asked_at
        decision = self._decide(record)
        if isinstance(decision, Unavailable):
            raise ElectionUnavailableError(decision.reason)
        self._show(record=record, reason=why_standby(record, self._me, decision), trouble=None)
        return isinstance(decision, Try)

    async def _admit(self, record: ClusterRecord) -> None:
        """Check that the record is this cluster's, and note it on disk before acting on it."""
        if (problem := distrust(record, self._state.known, self._engine.place)) is not None:
            raise ElectionUnavailableError(problem.reason)
        if not self._state.noted(record):
            await self._disk.call(self._state.note, record)

    def _decide(self, record: ClusterRecord) -> Try | Watch | Unavailable:
        now = self._clock()
        seen_s = now - self._record_since if record == self._record else 0.0
        known = self._state.known
        if self._checked is not None:
            known = replace(known, checked_term=self._checked[0], position=self._checked[1])
        aside = self._aside[0] if self._aside is not None and now < self._aside[1] else None
        standing = Standing(self._me, known, seen_s=seen_s, aside=aside, override=now < self._override_until)
        return decide(
            record, standing, place=self._engine.place, handover_wait_s=self._timings.handover_wait_s
        )

    async def _take_over(self, lease: Lease, prepare: Prepare) -> Term | None:
        """Everything between getting the lock and the body; None if this node must not lead after all."""
        record = await lease.handle.read()
        await self._admit(record)
        decision = self._decide(record)
        if not isinstance(decision, Try):
            return None
        self._taking_over = True
        self._show(record=record, reason="taking over", trouble=None)
        log.info("leadership_taking_over", after_term=record.term, why=decision.why)
        async with asyncio.timeout(PREPARE_LIMIT_S):
            await prepare(record)
        incarnation = new_incarnation()
        await self.enroll(incarnation)
        opening = first_record(
            record,
            self._me,
            self._state.known,
            self._advertised(),
            members=carried_over(record, self._me),
            incarnation=incarnation,
            forced=decision.forced,
        )
        claimed = await lease.handle.claim(opening, former=record)
        await self._disk.call(self._state.note, claimed)
        term = Term(lease, claimed, self._pulse)
        self._term, self._override_until, self._aside = term, 0.0, None
        self._term_since = self._clock()
        self._show(record=claimed, reason="not open yet", trouble=None)
        log.info("leadership_won", term=claimed.term, sync_set=[member.name for member in claimed.sync_set])
        return term

    def _lost(self, reason: str) -> None:
        term = self._term
        if term is not None:
            term.close()
            log.error("leadership_lost", term=term.number, reason=reason)
        self._show(record=self._record, reason=f"leadership lost: {reason}", trouble=self._trouble)

    def _end(self, lost: str | None) -> None:
        """The term is over, however it ended."""
        term, self._term = self._term, None
        self._taking_over = False
        if term is not None:
            term.close()
            self._read_at = self._clock()  # it has written the record itself
            reason = f"leadership lost: {lost}" if lost is not None else "stepped down"
            self._show(record=term.record, reason=reason, trouble=self._trouble)
            log.info("leadership_ended", term=term.number, clean=term.record.clean)

    def _in_trouble(self, trouble: str) -> None:
        self._show(record=self._record, reason="the leader lock is unavailable", trouble=trouble)

    def _show(self, *, record: ClusterRecord | None, reason: str, trouble: str | None) -> None:
        """Change what `view` returns. Logs one line if the reason or the trouble changed, else none."""
        if record != self._record:
            self._record_since = self._clock()
        if trouble != self._trouble:
            if trouble is not None:
                log.error("election_unavailable", problem=trouble)
            else:
                log.info("election_available_again")
        elif reason != self._reason and self._term is None:
            log.info("election_standby", reason=reason, term=record.term if record else 0)
        changed = (record, reason, trouble) != (self._record, self._reason, self._trouble)
        self._record, self._reason, self._trouble = record, reason, trouble
        if changed:
            self._pulse()

    def _pulse(self) -> None:
        """Wake everybody in `wait_for`."""
        self._changed.wake()


def _say_not_noted(noted: "asyncio.Future[None]") -> None:
    if not noted.cancelled() and (error := noted.exception()) is not None:
        log.error("full_check_not_noted", problem=str(error))
