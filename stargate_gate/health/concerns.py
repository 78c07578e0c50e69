"""What an operator should look at, and how severe each is: one table. Pure.

`stargate status` (and `ssh … status`) ends with the number of a level, as monitoring plug-ins do.

    critical  users are refused or do not get here now, or the next fault would stop the service
    warning   the service goes on; something should be looked at today
    unknown   this node does not know (yet)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal


class Level(IntEnum):
    """How a node does; the value is the exit status of `status`."""

    WELL = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def word(self) -> str:
        """In lower case, as the report writes it."""
        return self.name.lower()


Kind = Literal[
    "nobody_leads",
    "no_writes",
    "unhealthy",
    "nobody_can_log_in",
    "lock_unavailable",
    "cut_off",
    "sync_set_empty",
    "sync_set_gone",
    "address_not_claimed",
    "starting",
    "cannot_follow",
    "not_in_sync",
    "member_absent",
    "alone_in_async",
    "mirror_error",
    "not_reached",
    "nodes_differ",
    "address_not_released",
    "rescued_refs",
    "copy_damaged",
    "scrub_late",
    "other",
]

LEVELS: Mapping[Kind, Level] = {
    "nobody_leads": Level.CRITICAL,  # no living leader is known, and this node does not lead
    "no_writes": Level.CRITICAL,  # this node leads, and refuses pushes
    "unhealthy": Level.CRITICAL,  # a check of /healthz fails
    "nobody_can_log_in": Level.CRITICAL,  # no usable key, or clients without a login hold all places
    "lock_unavailable": Level.CRITICAL,  # the leader lock or the record cannot be trusted or reached
    "cut_off": Level.CRITICAL,  # as cannot_follow, and it may not take over: perhaps nobody leads
    "sync_set_empty": Level.CRITICAL,  # sync: one copy of each new push. strict: pushes are refused
    "sync_set_gone": Level.CRITICAL,  # strict: no member of it is connected, pushes are refused
    "address_not_claimed": Level.CRITICAL,  # this node leads, and users do not find it
    "starting": Level.UNKNOWN,
    "cannot_follow": Level.WARNING,  # a member of the sync set is not connected to the leader of the record
    "not_in_sync": Level.WARNING,  # a connected standby is not a member of the sync set
    "member_absent": Level.WARNING,  # a member of the sync set is not connected to this leader
    "alone_in_async": Level.WARNING,  # as sync_set_empty, in a mode that never waits
    "mirror_error": Level.WARNING,  # a repository could not be made equal
    "not_reached": Level.WARNING,  # the leader does not find a standby where it says that it is
    "nodes_differ": Level.WARNING,  # a value that should be the same on all nodes is not
    "address_not_released": Level.WARNING,
    "rescued_refs": Level.WARNING,
    "copy_damaged": Level.WARNING,  # a check has found damage in a copy of this node
    "scrub_late": Level.WARNING,  # copies are not checked as often as scrub.interval_days says
    "other": Level.WARNING,
}
# Worst first. UNKNOWN is between the other two.
ORDER = (Level.CRITICAL, Level.UNKNOWN, Level.WARNING)

COUNTED = {Level.CRITICAL: "critical problem", Level.UNKNOWN: "thing unknown", Level.WARNING: "warning"}


@dataclass(frozen=True)
class Concern:
    """One thing to look at; `text` is one line."""

    kind: Kind
    text: str

    @property
    def level(self) -> Level:
        """How severe it is."""
        return LEVELS[self.kind]


def worst_first(concerns: Iterable[Concern]) -> tuple[Concern, ...]:
    """Ordered by level; those of one level stay in their order."""
    return tuple(sorted(concerns, key=lambda one: ORDER.index(one.level)))


def level_of(concerns: Iterable[Concern]) -> Level:
    """The worst of them; WELL if there are none."""
    levels = {one.level for one in concerns}
    return next((level for level in ORDER if level in levels), Level.WELL)


def counted(concerns: Iterable[Concern]) -> str:
    """In words: "all is well", "1 warning", "1 critical problem, 2 warnings"."""
    levels = [one.level for one in concerns]
    parts = [
        f"{count} {COUNTED[level]}{'s' if count > 1 else ''}"
        for level in ORDER
        if (count := levels.count(level))
    ]
    return ", ".join(parts) or "all is well"
