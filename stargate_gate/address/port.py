"""The port: what an address that follows the leader can do, and whose turn it is."""

from dataclasses import dataclass
from typing import Literal, Protocol

Reason = Literal["start", "takeover", "step-down", "lost", "command"]


@dataclass(frozen=True)
class Turn:
    """Whether this node leads, for whoever moves the address.

    node        this node's name
    role        "leader": the address belongs here; "standby": it does not
    term        the leadership that the turn belongs to, or that ended; 0: none
    cluster_id  of the cluster that was led; "": none
    reason      start: a node starts, and does not lead yet; takeover: it begins to lead; step-down:
                it hands over; lost: it cannot prove any more that it leads; command: an operator
                or a service manager says so
    """

    node: str
    role: Literal["leader", "standby"]
    term: int
    cluster_id: str
    reason: Reason


class Address(Protocol):
    """One address that follows the leader. `Keeper` drives it.

    Every method can be repeated, also after a failure or a cancellation, with the same result: it
    puts in force what it says, whatever was there. It raises AddressError if that is not in force.
    It may be cancelled at any time, and then leaves nothing running.
    """

    @property
    def name(self) -> str:
        """For status, metrics and the log: "vip 10.0.0.100 on eth0"."""

    @property
    def keep_s(self) -> float:
        """How often `keep` is called while the address is claimed."""

    @property
    def limit_s(self) -> float:
        """A method that takes longer is cancelled, and has failed."""

    @property
    def hosts(self) -> frozenset[str] | None:
        """The IP addresses to which no connection lives on when this node has released it; None: unknown."""

    async def claim(self, turn: Turn) -> None:
        """Make it lead here; true and checked when this returns."""

    async def keep(self, turn: Turn) -> None:
        """After a claim, again and again: see that it is still so, mend it, and tell the network."""

    async def release(self, turn: Turn) -> None:
        """Make it lead here no more, as far as that is this node's to do."""
