"""What the rest of the node may do because it leads: the scope of each write, and ending them all.

The elector says who leads; this module turns that into the gate's two questions, "may this push
start?" and "may it go on?". May import: election (views), gate (ports), errors.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from stargate_gate.errors import LeadershipLostError, NotLeaderError


class WriteScopes:
    """The writes that run in one term. Made when the term opens, ended with it.

    A write enters by `scope()`. `drain` waits for the running ones and lets no new one in; `revoke`
    cancels them and returns when each has ended, its git process reaped.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[object]] = set()
        self._revoked: str | None = None
        self._closed: str | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._running)

    @contextlib.asynccontextmanager
    async def scope(self) -> AsyncIterator[None]:
        """Run the body as one write of this term.

        Raises:
            NotLeaderError: no new writes are let in.
            LeadershipLostError: the term ended while the body ran; the body was cancelled.
        """
        if self._closed is not None:
            raise NotLeaderError(self._closed)
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a write needs a task")
        self._running.add(task)
        self._empty.clear()
        try:
            yield
        except asyncio.CancelledError:
            if self._revoked is None or task.uncancel() > 0:
                raise
            raise LeadershipLostError(self._revoked) from None
        finally:
            self._running.discard(task)
            if not self._running:
                self._empty.set()

    async def drain(self, reason: str, limit_s: float) -> bool:
        """Let no new write in, wait for the running ones; False if some still run at the limit."""
        self._closed = reason
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._empty.wait()
        return not self._running

    async def revoke(self, reason: str) -> None:
        """End every write now, and return when none runs."""
        self._closed = self._revoked = reason
        for task in list(self._running):
            task.cancel()
        await self._empty.wait()
