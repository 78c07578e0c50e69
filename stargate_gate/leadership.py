"""What this node may do because it leads: the scope of each write, and ending them all with the term.

The elector says who leads; this module turns that into the gate's two questions, "may this push
start?" and "may it go on?". May import: election (views), gate (ports), errors.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from stargate_gate.election.views import LeadershipView
from stargate_gate.errors import LeadershipLostError, NotLeaderError
from stargate_gate.gate.decision import not_leader_message
from stargate_gate.gate.ports import GateView


class WriteScopes:
    """The writes that run in one term. Made when the term opens, ended with it.

    A write enters by `scope()`. `drain` lets no new one in and waits for the running ones; `revoke`
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
            raise RuntimeError("a write needs a task of its own")
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


class NodeLeadership:
    """The gate's `Leadership`, put together from the election, the mirror and the node's own life.

    view          what the election knows now
    followed      the leader that the mirror hears from now, if any: that one is alive
    """

    def __init__(
        self, node: str, view: Callable[[], LeadershipView], followed: Callable[[], str | None]
    ) -> None:
        self._node = node
        self._election = view
        self._followed = followed
        self._scopes: WriteScopes | None = None
        self._token = ""
        self._stopping = False
        self._changed = asyncio.Event()

    def view(self) -> GateView:
        """Leadership as of now, from memory."""
        view = self._election()
        if view.role == "leader":
            accepting = view.accepting and self._scopes is not None and not self._stopping
            reason = view.reason or ("" if accepting else "it is stepping down")
            return GateView(
                accepting, self._node, None, None, leader_alive=False, term=view.term, reason=reason
            )
        leader = self._followed()
        url = f"ssh://{view.record.ssh}" if leader and view.record and view.record.ssh else None
        return GateView(
            False,
            self._node,
            leader,
            url,
            leader_alive=leader is not None,
            term=view.term,
            reason=view.reason,
        )

    async def wait_decided(self, limit_s: float) -> GateView:
        """Wait until this node accepts writes, knows a live leader, or stops; the view as it is then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not (self._stopping or (view := self.view()).accepting or view.leader_alive):
                    await self._changed.wait()
        return self.view()

    def token(self) -> str:
        """The leading lock's token; the pre-receive hook asks for it."""
        return self._token

    def still_leads(self) -> bool:
        """This node leads, provably, at this moment; also while it steps down and takes no new writes."""
        return self._scopes is not None and self._election().proved

    def writing(self) -> AbstractAsyncContextManager[None]:
        """The scope of one write; see `WriteScopes.scope`.

        Raises:
            NotLeaderError: writes are not accepted now.
        """
        view = self.view()
        if self._scopes is None or not view.accepting:
            raise NotLeaderError(not_leader_message(view))
        return self._scopes.scope()

    def changed(self) -> None:
        """Something that `view` is made of has changed: wake who waits."""
        self._changed.set()
        self._changed = asyncio.Event()

    def open(self, token: str) -> None:
        """Writes are let in from now on."""
        self._token, self._scopes = token, WriteScopes()
        self.changed()

    def stop(self) -> None:
        """The node is going away: nobody waits for it to lead."""
        self._stopping = True
        self.changed()

    async def drain(self, limit_s: float) -> bool:
        """Let no new write in, wait for the running ones; False if some still run at the limit."""
        if self._scopes is None:
            return True
        return await self._scopes.drain(f"not leader: {self._node} is stepping down, try again", limit_s)

    async def close(self, reason: str) -> None:
        """End every write of the term. When this returns none runs, and each one's git is reaped."""
        scopes, self._scopes, self._token = self._scopes, None, ""
        if scopes is not None:
            await scopes.revoke(f"not leader: {self._node} {reason}; the outcome of this push is unknown")
        self.changed()
