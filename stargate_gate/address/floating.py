"""All floating addresses of a node. Its lifecycle calls this at each change of role; no wait is unlimited."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from stargate_gate.address.port import Address, Reason, Turn
from stargate_gate.address.reconciler import Reconciler
from stargate_gate.aio.tasks import HeldTasks
from stargate_gate.status import AddressReport

log = structlog.get_logger()

CLAIM_WAIT_S = 2.0  # a claim delays the first write of a term by at most this
RELEASE_WAIT_S = 2.0  # a release delays the next leader by at most this


class FloatingAddress:
    """All addresses of the node, from `start` to `close`.

    `claim` and `release` set what is wanted and return at once; `settled` waits for it with a time limit.
    What fails is tried again in the background for as long as it is wanted.
    """

    def __init__(self, node: str, addresses: Sequence[Address]) -> None:
        self._turn = Turn(node, "standby", 0, "", "start")
        self._reconcilers = tuple(Reconciler(address, self._turn) for address in addresses)
        known = [hosts for address in addresses if (hosts := address.hosts) is not None]
        self._hosts = frozenset().union(*known) if len(known) == len(addresses) else None
        self._tasks = HeldTasks()

    @property
    def hosts(self) -> frozenset[str] | None:
        """The IP addresses whose connections end with a release; None if it is not known which."""
        return self._hosts

    @property
    def breaks_connections(self) -> bool:
        """Whether clients' connections end when the address is released."""
        return self._hosts is None or bool(self._hosts)

    @property
    def wanted_here(self) -> bool:
        """Whether it was claimed last, and not released."""
        return self._turn.role == "leader"

    async def start(self) -> None:
        """Release what an earlier run of this node may have left, for RELEASE_WAIT_S at most."""
        for reconciler in self._reconcilers:
            self._tasks.start(reconciler.run(), name="address")
        await self.settled(RELEASE_WAIT_S)

    def claim(self, term: int, cluster_id: str, proved: Callable[[], bool]) -> None:
        """This node leads `term`. `proved` is asked before each step whether it provably still does."""
        self._want(Turn(self._turn.node, "leader", term, cluster_id, "takeover"), proved)

    def release(self, reason: Reason) -> None:
        """This node does not lead any more. Idempotent."""
        if self.wanted_here:
            turn = Turn(self._turn.node, "standby", self._turn.term, self._turn.cluster_id, reason)
            self._want(turn, lambda: False)

    def _want(self, turn: Turn, proved: Callable[[], bool]) -> None:
        self._turn = turn
        for reconciler in self._reconcilers:
            reconciler.want(turn, proved)

    async def settled(self, limit_s: float) -> bool:
        """Wait until each address is in its wanted state or has failed once; False when the limit is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for reconciler in self._reconcilers:
                    await reconciler.tried()
            return True
        log.warning("address_slow", role=self._turn.role, term=self._turn.term, limit_s=limit_s)
        return False

    def reports(self) -> tuple[AddressReport, ...]:
        """The state of each, from memory."""
        return tuple(reconciler.report() for reconciler in self._reconcilers)

    async def close(self) -> None:
        """Release, wait for that as long as the addresses allow, and end. The leader lock is free by now."""
        self.release("step-down")
        if len(self._tasks):
            await self.settled(max(reconciler.limit_s for reconciler in self._reconcilers))
        await self._tasks.close()
