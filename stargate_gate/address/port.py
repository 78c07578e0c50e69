"""The port of an address that follows the leader, and the value that says what is wanted of it."""

from dataclasses import dataclass
from typing import Literal, Protocol

Reason = Literal["start", "takeover", "step-down", "lost", "command"]


@dataclass(frozen=True)
class Turn:
    """Whether this node leads, as an `Address` is told.

    node        this node's name
    role        "leader": the address belongs here; "standby": it does not
    term        of this leadership, or of the one that has ended; 0: there was none
    cluster_id  of the cluster that this node leads or led; "": there was none
    reason      start: a node starts, and does not lead yet; takeover: it begins to lead; step-down:
                it hands over; lost: it cannot prove any more that it leads; command: an operator
                or a service manager has asked for it
    """

    node: str
    role: Literal["leader", "standby"]
    term: int
    cluster_id: str
    reason: Reason


class Address(Protocol):
    """One address that follows the leader. A `Reconciler` calls it.

    Every method is idempotent, also after a failure or a cancellation: when it returns, its state is in
    force, whatever the state was before. It raises AddressError if the state is not in force. It may be
    cancelled at any time, and then leaves nothing running.
    """

    @property
    def name(self) -> str:
        """Its name in status, metrics and log, such as "vip 10.0.0.100 on eth0"."""

    @property
    def keep_s(self) -> float:
        """How often `keep` is called while the address is claimed."""

    @property
    def limit_s(self) -> float:
        """A method that takes longer is cancelled, and has failed."""

    @property
    def hosts(self) -> frozenset[str] | None:
        """The IP addresses whose connections end when this node releases it; None if that is not known."""

    async def claim(self, turn: Turn) -> None:
        """Let it point to this node. When this returns, that was checked."""

    async def keep(self, turn: Turn) -> None:
        """Called every `keep_s` after a claim: check it, restore it if needed, and tell the network."""

    async def release(self, turn: Turn) -> None:
        """Stop it from pointing to this node, as far as this node can do that."""
