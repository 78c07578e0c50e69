"""How refs change: the difference of two snapshots, and of several in a row. Pure."""

from collections.abc import Mapping
from dataclasses import replace

from stargate_gate.replication.wire.messages import (
    MAX_DELTA_CHANGES,
    MAX_DELTA_CHARACTERS,
    Changed,
    Compare,
    Deleted,
    Delta,
    News,
)
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.snapshot import RefSnapshot


def difference(before: RefSnapshot, after: RefSnapshot) -> Delta | None:
    """What brings a copy from `before` to `after`; None if that is too much for one message.

    A ref that is there and has no value any more is no deletion.
    """
    if abs(len(before.refs) - len(after.refs)) > MAX_DELTA_CHANGES + len(after.broken):
        return None
    changed = {ref for ref, _ in before.refs.items() ^ after.refs.items()} - after.broken
    if len(changed) > MAX_DELTA_CHANGES:
        return None
    return _bounded(
        tuple(RefChange(ref, before.refs.get(ref), after.refs.get(ref)) for ref in sorted(changed))
    )


def joined(first: News, second: News) -> News:
    """Two changes of one repository as one; `second` is the newer.

    If two deltas cancel out (A→B→A), an empty delta would be wrong: the standby may already have B from a
    list or a snapshot. So it is told to compare. Changes before a deletion do not matter.
    """
    if isinstance(second, Deleted):
        return second
    if isinstance(first, Changed) and isinstance(second, Changed):
        delta = _in_a_row(first.delta, second.delta)
        if delta is not None:
            return replace(second, delta=delta)
    return Compare(second.term, max(first.seq, second.seq), second.name, second.id)


def _in_a_row(first: Delta, second: Delta) -> Delta | None:
    """Both as one, `first` first; None if they are too much, do not follow each other, or undo anything."""
    changes: dict[str, RefChange] = {change.ref: change for change in first}
    for change in second:
        earlier = changes.pop(change.ref, None)
        if earlier is not None and (earlier.new != change.old or earlier.old == change.new):
            return None
        changes[change.ref] = change if earlier is None else replace(change, old=earlier.old)
    return _bounded(tuple(changes.values()))


def before_and_after(delta: Delta) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """What the changed refs are before and after `delta`."""
    return (
        {change.ref: change.old for change in delta if change.old is not None},
        {change.ref: change.new for change in delta if change.new is not None},
    )


def _bounded(delta: Delta) -> Delta | None:
    characters = sum(len(change.ref) for change in delta)
    return None if len(delta) > MAX_DELTA_CHANGES or characters > MAX_DELTA_CHARACTERS else delta
