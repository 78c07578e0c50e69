"""Proves again and again that this node still holds the leadership, and cancels a task when it does not."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from stargate_gate.aio.tasks import HeldTasks
from stargate_gate.election.port import LeaseHandle
from stargate_gate.election.status import Timings
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError

log = structlog.get_logger()

NO_ANSWER = "no answer"
MISTAKE = "the heartbeat failed"


def boottime() -> float:
    """The clock of leases: seconds since boot, suspension included (CLOCK_BOOTTIME, clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """A scope that lasts as long as the leadership can be proved; as `asyncio.timeout`, for leading.

    Inside `async with Lease(...)` heartbeats run. When the leadership is lost, or was not proved for
    `lease_s`, `on_lost` is called and the body is cancelled; the scope then raises LeadershipLostError
    in place of that cancellation. A cancellation from outside passes through.

    The lease is counted from before the proof was asked for, and a proof may take no longer than what is
    left of it. So a call that hangs loses the lease on time.
    """

    def __init__(
        self,
        handle: LeaseHandle,
        timings: Timings,
        *,
        clock: Callable[[], float],
        proved_at: float,
        on_lost: Callable[[str], None],
    ) -> None:
        """`proved_at`: the clock, read before `handle` was asked for."""
        self.handle = handle
        self.lost: str | None = None
        self._timings = timings
        self._clock = clock
        self._proved_at = proved_at
        self._on_lost = on_lost
        self._ended = False
        self._body: asyncio.Task[object] | None = None
        self._cancels_before = 0
        self._tasks = HeldTasks()
        self._keeper: asyncio.Task[None] | None = None

    def valid(self) -> bool:
        """The proof is fresh enough at this moment."""
        return self.lost is None and not self._ended and self.left_s() > 0

    def left_s(self) -> float:
        """What is left of the lease, in seconds."""
        return self._proved_at + self._timings.lease_s - self._clock()

    def lose(self, reason: str) -> None:
        """The leadership is lost: cancel the body. Only the first reason counts."""
        if self.lost is not None or self._ended:
            return
        self.lost = reason
        self._on_lost(reason)
        if self._body is not None:
            self._body.cancel(f"leadership lost: {reason}")

    async def __aenter__(self) -> Self:
        self._body = asyncio.current_task()
        if self._body is None:
            raise RuntimeError("a lease needs a task")
        self._cancels_before = self._body.cancelling()
        self._keeper = self._tasks.start(self._keep(), "leadership-heartbeat")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        interrupted = await self._stop_keeper()
        if self.lost is None or self._body is None:
            if interrupted is not None:
                raise interrupted
            return
        from_outside = self._body.uncancel() > self._cancels_before
        if from_outside or (error is not None and not isinstance(error, asyncio.CancelledError)):
            if error is None and interrupted is not None:
                raise interrupted
            return  # what the body raised, or the outer cancellation, passes through
        raise LeadershipLostError(self.lost) from error

    async def _stop_keeper(self) -> asyncio.CancelledError | None:
        """End the heartbeats; takes back our own cancellation if the body ended before it arrived."""
        if self._keeper is None:
            return None
        self._keeper.cancel()
        interrupted = None
        while not self._keeper.done():
            try:
                await asyncio.wait({self._keeper})
            except asyncio.CancelledError as error:
                interrupted = error
        if self.lost is not None and interrupted is None:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                interrupted = error
        return interrupted

    async def _keep(self) -> None:
        pause_s = 0.0
        problem: str | None = None
        while self.lost is None:
            await asyncio.sleep(max(0.0, min(pause_s, self.left_s())))
            asked_at = self._clock()
            before, problem = problem, await self._prove(problem)
            if problem is None:
                self._proved_at = asked_at
                pause_s = max(0.0, self._timings.heartbeat_s - (self._clock() - asked_at))
            else:
                pause_s = self._timings.retry_s
            if (before is None) != (problem is None):
                log.warning("leadership_unproved" if problem else "leadership_proved_again", problem=problem)

    async def _prove(self, before: str | None) -> str | None:
        """One proof, or why it failed; loses the lease when that is for certain or for too long.

        `before` is why the last one failed, if it did: when no time is left to ask again, that is why.
        """
        try:
            if self.left_s() > 0:
                async with asyncio.timeout(self.left_s()):
                    await self.handle.prove()
                return None
            problem = before or NO_ANSWER
        except LeadershipLostError as error:
            self.lose(error.message.removeprefix("not leader: "))
            return self.lost
        except ElectionUnavailableError as error:
            problem = error.message
        except TimeoutError:
            problem = NO_ANSWER
        except Exception:
            if before != MISTAKE:  # one traceback, not ten a second
                log.exception("leadership_heartbeat_failed")
            problem = MISTAKE
        if self.left_s() <= 0:
            self.lose(f"no proof of leading for {self._timings.lease_s:g} s: {problem}")
        return problem
