"""Whom a node follows, and when it connects to its leader again. Pure.

The product (node/lifecycle.py, mirror.py) and the simulator (tests/simulation/following.py) ask this.
"""

from dataclasses import dataclass

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.port import ClusterRecord, Member

STEADY_S = 10.0  # a connection that lasted so long was none that failed


@dataclass(frozen=True)
class Leadership:
    """What makes it another leadership to follow. The other fields of its record may change meanwhile."""

    term: int
    leader: Member
    ssh: str


def to_follow(record: ClusterRecord | None, me: Member, *, leads: bool) -> ClusterRecord | None:
    """The record of the leader that this node should mirror; None: there is none now.

    record  the newest that this node has seen; None: none yet
    leads   this node leads, or has the lock and is about to
    """
    if leads or record is None or not record.term or record.leader == me:
        return None
    return record


def leadership_of(record: ClusterRecord | None) -> Leadership | None:
    """To compare: while it stays the same, the mirror goes on with what it follows."""
    return None if record is None else Leadership(record.term, record.leader, record.ssh)


class Attempts:
    """Connections to one leader, one after the other.

    backoff   how long to wait after so many in a row that failed
    steady_s  a connection that lasted longer was none that failed; seconds
    """

    def __init__(self, backoff: Backoff, *, steady_s: float = STEADY_S) -> None:
        self._backoff = backoff
        self._steady_s = steady_s
        self._failures = 0
        self._began = 0.0

    def begin(self, now: float) -> None:
        """It connects."""
        self._began = now

    def ended(self, now: float) -> float:
        """It could not connect, or the connection has ended: seconds to wait before the next one."""
        self._failures = 1 if now - self._began > self._steady_s else self._failures + 1
        return self._backoff.delay_s(self._failures)
