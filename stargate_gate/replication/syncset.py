"""Which standbys count as holding everything. Pure.

A standby is in the sync set from the moment that it was fully checked in this term until its connection
ends. That is all while mode `async` is in force; with acknowledgements more steps come between.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from stargate_gate.election.port import Member


class Stage(Enum):
    """How far a connected standby has come in this term."""

    CHECKING = "checking"  # it compares, and fetches what it lacks
    LEVEL = "level"  # it had everything once, and follows


@dataclass(frozen=True)
class Presence:
    """One connected standby."""

    member: Member
    stage: Stage


def sync_set(present: Iterable[Presence]) -> frozenset[Member]:
    """Who should be in the cluster record, given who is connected."""
    return frozenset(one.member for one in present if one.stage is Stage.LEVEL)


def conflict(joining: Member, others: Iterable[Member]) -> str | None:
    """Why `joining` cannot be told from one of `others` (the leader, connected standbys); None if it can.

    The very same member is no conflict here: that may be a standby that comes back.
    """
    for other in others:
        if joining.name == other.name and joining != other:
            return (
                f"another node is called {joining.name!r} too: give each node a name of its own (node.name)"
            )
        if joining.data_dir_id == other.data_dir_id and joining != other:
            return (
                f"the data_dir of {joining.name!r} is a copy of that of {other.name!r}: start this node "
                f"with an empty data_dir"
            )
    return None
