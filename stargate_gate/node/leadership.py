"""Which writes may run on this node: lets them in while it leads, and ends them all with the term.

The elector says who leads. The gate asks this module whether a push may start, and whether it may go on.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from stargate_gate.aio.tasks import Signal
from stargate_gate.election.status import LeadershipView
from stargate_gate.errors import LeadershipLostError, NotLeaderError
from stargate_gate.gate.commands import GateView, not_leader_message
from stargate_gate.gate.ports import Changes


class WriteScopes:
    """The writes that run in one term. Made when the term opens, ended with it.

    A write runs inside `scope()`. `finish_running` waits for the writes that run when it is called, and lets
    new ones in meanwhile. `drain` lets no new write in and waits for all. `revoke` cancels all and returns
    when each has ended and its git process is reaped.

    changes  what each write is given: those of the term
    """

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._running: set[asyncio.Task[object]] = set()
        self._revoked: str | None = None
        self._closed: str | None = None
        self._left = Signal()  # a write has ended

    def __len__(self) -> int:
        return len(self._running)

    @contextlib.asynccontextmanager
    async def scope(self) -> AsyncIterator[Changes]:
        """Run the body as one write of this term, with the term's changes.

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
        try:
            yield self._changes
        except asyncio.CancelledError:
            if self._revoked is None or task.uncancel() > 0:
                raise
            raise LeadershipLostError(self._revoked) from None
        finally:
            self._running.discard(task)
            self._left.wake()

    async def finish_running(self, limit_s: float) -> bool:
        """Wait for the writes that run now; False if one of them still runs at the limit.

        New writes are let in meanwhile, and are not waited for.
        """
        return await self._ended(self._running.copy(), limit_s)

    async def drain(self, reason: str, limit_s: float) -> bool:
        """Let no new write in, wait for the running ones; False if some still run at the limit."""
        self._closed = reason
        return await self._ended(self._running, limit_s)

    async def _ended(self, some: "set[asyncio.Task[object]]", limit_s: float | None) -> bool:
        """Wait until none of `some` runs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while some & self._running:
                    await self._left.wait()
        return not some & self._running

    async def revoke(self, reason: str) -> None:
        """End every write now, and return when none runs."""
        self._closed = self._revoked = reason
        for task in list(self._running):
            task.cancel()
        await self._ended(self._running, None)


@dataclass(frozen=True)
class _Departure:
    """This node has stopped taking writes, since it steps down.

    let_go     waiting pushes are refused, with the address of the new leader; until then they wait
    successor  the node that the record names as the next leader, if any
    url        "ssh://host:port" of `successor`, once that is known to lead
    """

    let_go: bool = False
    successor: str | None = None
    url: str | None = None


class NodeLeadership:
    """The gate's `Leadership`, put together from the election, the mirror and the node's own life.

    view          what the election knows now
    followed      the leader that the mirror is connected to, which is therefore alive; None: none
    changed       woken here, and by the mirror, when something that `view` is made of has changed
    """

    def __init__(
        self,
        node: str,
        view: Callable[[], LeadershipView],
        followed: Callable[[], str | None],
        changed: Signal,
    ) -> None:
        self._node = node
        self._election = view
        self._followed = followed
        self._scopes: WriteScopes | None = None
        self._token = ""
        self._stopping = False
        self._departure: _Departure | None = None
        self._waiting = 0
        self._sessions: set[asyncio.Task[object]] = set()
        self._changed = changed

    def __len__(self) -> int:
        return len(self._scopes) if self._scopes is not None else 0

    def view(self) -> GateView:
        """Leadership as of now, from memory."""
        view = self._election()
        accepting = view.role == "leader" and view.accepting and self._scopes is not None
        leader = None if view.role == "leader" else self._followed()
        if not accepting and leader is None and self._departure is not None:
            return self._departing(self._departure)
        if view.role == "leader":
            return GateView(accepting, self._node, None, None, leader_alive=False)
        url = f"ssh://{view.record.ssh}" if leader and view.record and view.record.ssh else None
        return GateView(
            False,
            self._node,
            leader,
            url,
            leader_alive=leader is not None,
        )

    def _departing(self, departure: _Departure) -> GateView:
        return GateView(
            False,
            self._node,
            departure.successor,
            departure.url,
            leader_alive=departure.url is not None,
            stepping_down=True,
        )

    async def wait_decided(self, limit_s: float) -> GateView:
        """Wait until this node accepts writes, knows a live leader, or lets nobody wait any more.

        Returns the view as it is then, or at the limit. On a standby that stops nobody waits; on a leader
        that steps down pushes wait until `let_go`.
        """
        self._remember_session()
        self._waiting += 1
        try:
            async with asyncio.timeout(limit_s):
                while not self._decided():
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1
        return self.view()

    def _decided(self) -> bool:
        view = self.view()
        if view.accepting or view.leader_alive:
            return True
        return self._stopping if self._departure is None else self._departure.let_go

    @property
    def waiting(self) -> int:
        """How many writes wait in `wait_decided` now."""
        return self._waiting

    def token(self) -> str:
        """The leading lock's token; the pre-receive hook asks for it."""
        return self._token

    def still_leads(self) -> bool:
        """This node leads, provably, at this moment; also while it steps down and takes no new writes."""
        return self._scopes is not None and self._election().proved

    def writing(self) -> AbstractAsyncContextManager[Changes]:
        """The scope of one write; see `WriteScopes.scope`.

        Raises:
            NotLeaderError: writes are not accepted now.
        """
        view = self.view()
        if self._scopes is None or not view.accepting:
            raise NotLeaderError(not_leader_message(view))
        self._remember_session()
        return self._scopes.scope()

    def _remember_session(self) -> None:
        """Count the current task in `sessions` until it ends: it sends its answer after its write."""
        task = asyncio.current_task()
        if task is not None and task not in self._sessions:
            self._sessions.add(task)
            task.add_done_callback(self._sessions.discard)

    @property
    def sessions(self) -> "frozenset[asyncio.Task[object]]":
        """The tasks of all requests that write, have written or wait, until their answer is sent."""
        return frozenset(self._sessions)

    def open(self, token: str, changes: Changes) -> None:
        """Writes are let in from now on, each with these `changes`."""
        self._token, self._scopes, self._departure = token, WriteScopes(changes), None
        self._changed.wake()

    def stop(self) -> None:
        """The node stops: no push waits for it to lead. While it leads, it goes on taking writes."""
        self._stopping = True
        self._changed.wake()

    async def finish_running(self, limit_s: float) -> bool:
        """Wait for the writes that run now, and let new ones in; False if one still runs at the limit."""
        return self._scopes is None or await self._scopes.finish_running(limit_s)

    async def drain(self, limit_s: float) -> bool:
        """Let new writes wait, and wait for the running ones; False if some still run at the limit."""
        self._departure = _Departure()
        self._changed.wake()
        if self._scopes is None:
            return True
        return await self._scopes.drain(f"not leader: {self._node} is stepping down, try again", limit_s)

    def let_go(self, successor: str | None, url: str | None = None) -> None:
        """Refuse waiting and new pushes: `successor` takes over, or, with `url`, leads there already."""
        self._departure = _Departure(True, successor, url)
        self._changed.wake()

    async def close(self, reason: str) -> None:
        """End every write of the term. When this returns, none runs and the git process of each is reaped."""
        scopes, self._scopes, self._token = self._scopes, None, ""
        if scopes is not None:
            await scopes.revoke(f"not leader: {self._node} {reason}; the outcome of this push is unknown")
        self._changed.wake()

    def ended(self) -> None:
        """The term is over. Pushes that wait go on waiting for the next leader, here or elsewhere."""
        if not self._stopping:
            self._departure = None
        self._changed.wake()
