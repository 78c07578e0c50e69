"""All addresses of a node: one call for each change of role, and no wait without a limit."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import structlog

from stargate_gate.address.port import Address, Reason, Turn
from stargate_gate.address.reconciler import Keeper
from stargate_gate.status import AddressReport

log = structlog.get_logger()

CLAIM_WAIT_S = 2.0  # the most that a claim may delay the first write of a term
RELEASE_WAIT_S = 2.0  # the most that a release may hold up the next leader


class FloatingAddress:
    """The node's side of its addresses, from `start` to `close`.

    `claim` and `release` say what is wanted from now on and return at once; `settled` waits for it,
    within a limit. What fails is tried again in the background for as long as it is wanted.
    """

    def __init__(self, node: str, addresses: Sequence[Address]) -> None:
        self._turn = Turn(node, "standby", 0, "", "start")
        self._keepers = tuple(Keeper(address, self._turn) for address in addresses)
        known = [hosts for address in addresses if (hosts := address.hosts) is not None]
        self._hosts = frozenset().union(*known) if len(known) == len(addresses) else None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def hosts(self) -> frozenset[str] | None:
        """The IP addresses to which no connection outlives a release; None: not known which."""
        return self._hosts

    @property
    def breaks_connections(self) -> bool:
        """Whether clients' connections end when the address goes."""
        return self._hosts is None or bool(self._hosts)

    @property
    def wanted_here(self) -> bool:
        """It was claimed, and not released since."""
        return self._turn.role == "leader"

    async def start(self) -> None:
        """Release what an earlier run of this node may have left, for RELEASE_WAIT_S at most."""
        self._tasks = [asyncio.create_task(keeper.run(), name="address") for keeper in self._keepers]
        await self.settled(RELEASE_WAIT_S)

    def claim(self, term: int, cluster_id: str, proved: Callable[[], bool]) -> None:
        """This node leads `term`, as long as `proved` says so: without that no address is claimed or kept."""
        self._want(Turn(self._turn.node, "leader", term, cluster_id, "takeover"), proved)

    def release(self, reason: Reason) -> None:
        """This node does not lead any more. Called again, it changes nothing."""
        if self.wanted_here:
            turn = Turn(self._turn.node, "standby", self._turn.term, self._turn.cluster_id, reason)
            self._want(turn, lambda: False)

    def _want(self, turn: Turn, proved: Callable[[], bool]) -> None:
        self._turn = turn
        for keeper in self._keepers:
            keeper.want(turn, proved)

    async def settled(self, limit_s: float) -> bool:
        """Wait until each address is where it belongs or has failed once; False at the limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                for keeper in self._keepers:
                    await keeper.tried()
            return True
        log.warning("address_slow", role=self._turn.role, term=self._turn.term, limit_s=limit_s)
        return False

    def reports(self) -> tuple[AddressReport, ...]:
        """How it is with each, from memory."""
        return tuple(keeper.report() for keeper in self._keepers)

    async def close(self) -> None:
        """Give a release that still runs its own limit, then end. The leader lock is let go by now."""
        self.release("step-down")
        if self._tasks:
            await self.settled(max(keeper.limit_s for keeper in self._keepers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
