"""What the status report says of standbys, copies and keys, in words. Pure."""

from collections.abc import Sequence

from stargate_gate.health.wording import (
    aged,
    behind,
    catching_up,
    duration,
    listed,
    plural,
    time_of_day,
)
from stargate_gate.status import (
    AsideStatus,
    Equality,
    ExpiringKey,
    MirrorStatus,
    OpenChanges,
    Refill,
    StandbyStatus,
)

SERVED = {
    "normally": "served as always",
    "read-only": "served here read-only",
    "refused": "refused here with 69",
}


def standby_text(standby: StandbyStatus) -> str:
    """How far a standby is, in words."""
    if standby.refill is not None:
        return _refill_text(standby.refill)
    if standby.lag_changes == 0 and not standby.in_sync:
        return (
            "has everything, joins soon" if standby.problem is None else "has everything, cannot be reached"
        )
    return behind(standby.lag_changes, standby.lag_s)


def mirror_text(mirror: MirrorStatus, now: float) -> str:
    """How a standby follows, in words; `now` in seconds since 1970."""
    if not mirror.connected:
        since = f" for {duration(mirror.not_connected_s)}" if mirror.not_connected_s is not None else ""
        return f"not connected{since}; {_in_step_text(mirror.in_step, now)}"
    link = aged(f"connected to {mirror.leader}", "heard", mirror.heard_s)
    if mirror.level:
        return f"{link}, up to date"
    if mirror.refill is not None:
        return f"{link}, {_refill_text(mirror.refill)}"
    return f"{link}, {behind(mirror.behind_changes, mirror.behind_s)}"


def open_changes_text(repositories: Sequence[OpenChanges], now: float) -> str:
    """Repositories with changes that others lack, the oldest first; the first few."""
    return listed(repositories, lambda one: _open_text(one, now))


def aside_text(repositories: Sequence[AsideStatus], me: str, now: float) -> str:
    """Repositories that are set aside: which, who has them and who does not, why, and since when."""
    shown = listed(repositories, lambda one: _aside_text(one, me, now), "; ")
    return f"{plural(len(repositories), 'repository')} set aside: {shown}"


def keys_text(keys: Sequence[ExpiringKey], now: float) -> str:
    """Users whose last key ends."""
    return listed(keys, lambda one: _key_text(one, now))


def _open_text(one: OpenChanges, now: float) -> str:
    since = f"since {duration(now - one.since)}" if one.since else "since before this term"
    count = f" ({plural(one.changes, 'change')})" if one.changes else ""
    return f"{one.repository}.git {since}{count}"


def _aside_text(one: AsideStatus, me: str, now: float) -> str:
    def named(names: Sequence[str]) -> str:
        return " and ".join(f"{name} (this node)" if name == me else name for name in names) or "no node"

    why = f" ({one.why})" if one.why else ""
    since = f" since {duration(now - one.since)}" if one.since else ""
    lacking = f", {named(one.lacking)} may lack pushes{why}{since}" if one.lacking else f"{why}{since}"
    return f"{one.repository}.git: all of it is on {named(one.holders)}{lacking}; {SERVED[one.served]}"


def _key_text(one: ExpiringKey, now: float) -> str:
    left_s = one.at - now
    when = f"ends in {duration(left_s)}" if left_s >= 0 else f"ended {duration(-left_s)} ago"
    return f"{one.user} {when} (line {one.line})"


def _in_step_text(in_step: Equality | None, now: float) -> str:
    if in_step is None:
        return "never in step with a leader"
    place = f"term {in_step.term}, position {in_step.position}"
    if not in_step.at:
        return f"last in step at an unknown time ({place})"
    return f"last in step {time_of_day(in_step.at, now)} ({place})"


def _refill_text(refill: Refill) -> str:
    return catching_up(refill.done, refill.total, refill.received_bytes, refill.bytes_per_s)
