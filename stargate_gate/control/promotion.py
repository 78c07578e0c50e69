"""`stargate promote` on the node's side: first it says what may be lost, then the node may try to lead."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stargate_gate.election.elector import Elector
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.health.wording import duration, time_of_day
from stargate_gate.status import Equality, MirrorStatus

PROMOTE_FOR_S = 60.0  # how long an operator's override is valid
SHOWN = 5  # names in a line


@dataclass(frozen=True)
class Standing:
    """What this node knows of itself and of the cluster.

    record   of the last leadership; None: it cannot be read
    checked  (term, position): it had everything of that leader up to there, at least; None: of nobody
    mirror   how it follows, or tried to; it knows when it was equal to a leader last
    now      seconds since 1970
    started  when this node was started, in seconds since 1970
    """

    me: Member
    record: ClusterRecord | None
    checked: tuple[int, int] | None
    mirror: MirrorStatus | None
    now: float
    started: float


def risk(standing: Standing) -> str:
    """What may be lost if this node leads, in lines for people. Pure."""
    record = standing.record
    if record is None:
        return "the cluster record cannot be read, so nothing can be said of what may be lost"
    me = standing.me
    if me == record.leader or me in record.sync_set:
        why = "led last" if me == record.leader else f"is in the sync set of term {record.term}"
        return (
            f"nothing that was acknowledged: {me.name} {why}, and leads without this as soon as it gets the "
            f"leader lock"
        )
    return "\n".join([*_lost(standing, record), *_elsewhere(me, record)])


def _lost(standing: Standing, record: ClusterRecord) -> Iterator[str]:
    me, checked = standing.me.name, standing.checked
    in_step = standing.mirror.in_step if standing.mirror is not None else None
    if in_step is not None and (checked is None or (in_step.term, in_step.position) >= checked):
        checked = (in_step.term, in_step.position)
    else:
        in_step = None  # what is known to be equal is newer than what has a time
    if checked is None:
        yield f"{me} was never equal to a leader: whole repositories may be missing"
    elif checked[0] < record.term:
        yield (
            f"{me} was last equal to a leader in term {checked[0]}, at position {checked[1]}"
            f"{_when(standing, in_step)}: what was acknowledged after that, and in all terms up to "
            f"{record.term}, may be missing"
        )
    else:
        whose = f"{record.leader.name}'s term {record.term}"
        yield (
            f"{me} had everything of {whose} up to position {checked[1]}{_when(standing, in_step)}: what was "
            f"acknowledged after that may be missing"
        )
        if (lacking := record.position - checked[1]) > 0:
            yield f"the record has position {record.position}: at least {lacking} changes are missing"
    yield from _known_to_differ(standing.mirror)


def _when(standing: Standing, in_step: Equality | None) -> str:
    """When that was, by the leader's clock; and that this node was not there all the time since."""
    if in_step is None or not in_step.at:
        return ", at a time that is not known"
    ago = duration(standing.now - in_step.at)
    stopped = f"; {standing.me.name} was stopped since" if in_step.at < standing.started else ""
    return f", before {time_of_day(in_step.at, standing.now)} ({ago} ago{stopped})"


def _known_to_differ(mirror: MirrorStatus | None) -> Iterator[str]:
    if mirror is None or not mirror.behind:
        return
    names = ", ".join(mirror.behind[:SHOWN])
    more = len(mirror.behind) - SHOWN
    yield f"known to differ: {names}{f' and {more} more' if more > 0 else ''}"


def _elsewhere(me: Member, record: ClusterRecord) -> Iterator[str]:
    others = [f"{member.name} (in its sync set)" for member in record.sync_set if member != me]
    if record.leader != me and record.term:
        others.insert(0, f"{record.leader.name} (led term {record.term})")
    if not others:
        return
    yield (
        f"whatever was acknowledged is on {' and '.join(others)}: if one of them can be started, start it "
        f"instead"
    )
    yield (
        "one that comes back later follows the new leader, and keeps what that lacks as rescued refs: see "
        "`stargate rescued list` there"
    )


class NodePromotion:
    """The control socket's `Promotion`. `mirror` answers from memory; None on a single node."""

    def __init__(self, elector: Elector, mirror: Callable[[], MirrorStatus | None]) -> None:
        self._started = time.time()
        self._elector = elector
        self._mirror = mirror

    def risk(self) -> str:
        """What may be lost by it, as far as this node knows."""
        view, me = self._elector.view(), self._elector.me
        if view.role == "leader":
            return f"nothing: {me.name} leads already"
        if view.record is None and view.trouble is None:
            return f"{me.name} is starting: ask again"
        checked = self._elector.checked_through
        return risk(Standing(me, view.record, checked, self._mirror(), time.time(), self._started))

    def promote(self) -> str:
        """Override eligibility for one attempt to lead."""
        me = self._elector.me
        if self._elector.view().role == "leader":
            return f"{me.name} leads already: nothing was done"
        self._elector.override(PROMOTE_FOR_S)
        return (
            f"{me.name} tries for the leader lock for {PROMOTE_FOR_S:.0f} s, whatever it may lack: "
            f"watch `stargate status`"
        )
