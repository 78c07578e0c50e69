"""A program of the operator, which is run at each change of role."""

from collections.abc import Sequence

from stargate_gate.address.port import Turn
from stargate_gate.address.running import environment, run

NEVER_S = 86_400.0  # `keep` has nothing to do: the program is run at changes only
GRACE_S = 5.0  # for ending the program after its own limit


class Command:
    """The `Address` of kind command.

    argv       the program and its arguments
    name       see `Address`
    address    what users put in their URLs, for the program's STARGATE_ADDRESS
    timeout_s  it is ended after that long
    """

    keep_s = NEVER_S
    hosts: frozenset[str] | None = None  # it is not known what the program moves

    def __init__(self, argv: Sequence[str], *, name: str, address: str, timeout_s: float) -> None:
        self.name = name
        self.limit_s = timeout_s + GRACE_S
        self._argv = tuple(argv)
        self._address = address
        self._timeout_s = timeout_s

    async def claim(self, turn: Turn) -> None:
        """Run it with the role leader; exit status 0 means that the address points here."""
        await self._run(turn)

    async def keep(self, turn: Turn) -> None:
        """Do nothing."""

    async def release(self, turn: Turn) -> None:
        """Run it with the role standby; exit status 0 means that the address does not point here."""
        await self._run(turn)

    async def _run(self, turn: Turn) -> None:
        env = environment(
            STARGATE_ROLE=turn.role,
            STARGATE_TERM=str(turn.term),
            STARGATE_REASON=turn.reason,
            STARGATE_NODE=turn.node,
            STARGATE_ADDRESS=self._address,
        )
        await run(self._argv, env, self._timeout_s)
