"""A program of the operator's own, told of each change of role."""

from collections.abc import Sequence

from stargate_gate.address.port import Turn
from stargate_gate.address.running import environment, run

NEVER_S = 86_400.0  # there is nothing to keep: the program is told of changes
GRACE_S = 5.0  # for ending it, beyond its own limit


class Command:
    """The `Address` of kind command.

    argv       the program and its arguments
    name       see `Address`
    address    what users put in their URLs, for the program's STARGATE_ADDRESS
    timeout_s  it is ended after that long
    """

    keep_s = NEVER_S
    hosts: frozenset[str] | None = None  # whatever the program moves

    def __init__(self, argv: Sequence[str], *, name: str, address: str, timeout_s: float) -> None:
        self.name = name
        self.limit_s = timeout_s + GRACE_S
        self._argv = tuple(argv)
        self._address = address
        self._timeout_s = timeout_s

    async def claim(self, turn: Turn) -> None:
        """Run it as the leader's; exit status 0 means that the address is here."""
        await self._tell(turn)

    async def keep(self, turn: Turn) -> None:
        """Nothing to do."""

    async def release(self, turn: Turn) -> None:
        """Run it as a standby's; exit status 0 means that the address is not here."""
        await self._tell(turn)

    async def _tell(self, turn: Turn) -> None:
        env = environment(
            STARGATE_ROLE=turn.role,
            STARGATE_TERM=str(turn.term),
            STARGATE_REASON=turn.reason,
            STARGATE_NODE=turn.node,
            STARGATE_ADDRESS=self._address,
        )
        await run(self._argv, env, self._timeout_s)
