"""Which standbys count as having everything, and when a push may be acknowledged. Pure.

Theory of operation. A connected standby goes through these stages in a term:

    CHECKING      it compares a full list, and fetches what it lacks; no push waits for it
      │ the list is confirmed, and the leader has reached it at its advertised address (reach.py)
    CATCHING_UP   from here on every push waits for it; what was sent before is still being applied
      │ all of that is confirmed: it has everything that was acknowledged
    LEVEL         it may be in the cluster record
      │ late: a push waited ack_timeout_s without a sign of progress, or ack_max_s in all
      └─→ CHECKING, with a new full list

The record is written to match: standbys that are level are added, those that are late or gone are removed.
A push is acknowledged when all of `required` have it: all standbys that the record may name (if the outcome
of a write is unknown, those of both versions), and all that are catching up or level. So every standby that
the record names has every acknowledged push, at any moment. Before a push is acknowledged without a standby,
a record without that standby has been written.

Members of the former sync set are carried over into a new term. They stay in the record as long as they are
not late, but count as having a repository only after it was compared in this term.

A standby that the leader cannot reach is not added: as the next leader it would have no followers. A member
that cannot be reached any more stays: it has every acknowledged push, and without it there would be fewer
copies, although the route may work again in a minute. Status warns of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from stargate_gate.election.port import Member

Mode = Literal["sync", "strict", "async"]


class Stage(Enum):
    """How far a standby has come in this term; see the theory of operation."""

    ABSENT = "absent"  # not connected
    CHECKING = "checking"
    CATCHING_UP = "catching up"
    LEVEL = "level"


@dataclass(frozen=True)
class Presence:
    """One standby. `carried`: of the former sync set, has not been late or gone in this term."""

    member: Member
    stage: Stage
    carried: bool = False


@dataclass(frozen=True)
class Limits:
    """The YAML file's replication section. In seconds.

    ack_timeout_s  without progress (see progress.py) for that long a standby is late
    ack_max_s      so long a push waits at most for a standby that makes progress
    """

    ack_timeout_s: float = 5.0
    ack_max_s: float = 3600.0


@dataclass(frozen=True)
class Waiting:
    """A push that waits for its replicas. All times are of one clock, in seconds.

    began     when it began to wait
    now       the clock
    required  whose confirmation it needs; see the theory of operation
    in_force  the sync set of the record that was written last
    lacking   who of the standbys has not confirmed it: their last sign of progress on it
    """

    began: float
    now: float
    required: frozenset[Member]
    in_force: frozenset[Member]
    lacking: Mapping[Member, float]


@dataclass(frozen=True)
class Verdict:
    """What becomes of a push that waits.

    acknowledge  it may be told "ok"
    refused      it never will be; why
    late         these standbys leave the sync set
    look_again   when to decide again if nothing happens before
    """

    acknowledge: bool = False
    refused: str | None = None
    late: frozenset[Member] = frozenset()
    look_again: float = 0.0


def next_stage(stage: Stage, *, confirmed: bool, reached: bool, holds: bool) -> Stage:
    """The stage that follows from what is known of a connected standby; the same if nothing follows.

    confirmed  it has confirmed the newest full list, and nothing was dropped since
    reached    the leader has found it where it says that it is, or it is a member carried over
    holds      everything that was sent before it was required again is confirmed
    """
    if stage is Stage.CHECKING and confirmed and reached:
        return Stage.CATCHING_UP
    return Stage.LEVEL if stage is Stage.CATCHING_UP and holds else stage


def carried(mode: Mode, members: frozenset[Member], former: Member | None) -> frozenset[Member]:
    """Who of the sync set that a new term begins with stays in it; `former` led before."""
    if mode == "async":
        return frozenset()
    return members if mode == "strict" or former is None else members - {former}


def wanted(present: Iterable[Presence], in_force: frozenset[Member], mode: Mode) -> frozenset[Member]:
    """Who should be in the cluster record.

    In mode strict the last members stay, however late: nothing is acknowledged without one of them, so
    they go on holding everything that was.
    """
    members = frozenset(one.member for one in present if one.stage is Stage.LEVEL or one.carried)
    return in_force if mode == "strict" and not members else members


def required(present: Iterable[Presence], recorded: frozenset[Member]) -> frozenset[Member]:
    """Whose confirmation a push needs. `recorded`: the standbys that the record names, or may name."""
    demanded = (one.member for one in present if one.stage in {Stage.CATCHING_UP, Stage.LEVEL})
    return recorded.union(demanded)


def judge(push: Waiting, mode: Mode, limits: Limits) -> Verdict:
    """May it be acknowledged, must it wait, or is it refused?"""
    if mode == "async":
        return Verdict(acknowledge=True)
    lacking = {member: moved for member, moved in push.lacking.items() if member in push.required}
    if not lacking and (push.in_force or mode == "sync"):
        return Verdict(acknowledge=True)
    deadline = push.began + limits.ack_max_s
    due = {member: min(moved + limits.ack_timeout_s, deadline) for member, moved in lacking.items()}
    late = frozenset(member for member, when in due.items() if when <= push.now)
    if mode == "strict":
        nobody_at = push.began + limits.ack_timeout_s
        if not push.in_force and nobody_at <= push.now:
            return Verdict(refused="no standby is in the sync set, and mode strict wants one", late=late)
        if push.in_force and push.in_force <= late:
            return Verdict(refused="no standby has confirmed it", late=late)
        if not push.in_force:
            due[_NOBODY] = nobody_at
    if deadline + limits.ack_timeout_s <= push.now:
        return Verdict(refused="the cluster record could not be written", late=late)
    ahead = [when for when in due.values() if when > push.now]
    return Verdict(late=late, look_again=min([*ahead, deadline + limits.ack_timeout_s]))


_NOBODY = Member("", "")


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
