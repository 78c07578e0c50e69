"""What an operator should look at: one row for each kind of it, with its level and what to do. Pure.

`stargate status` (and `ssh … status`) ends with the number of a level, as monitoring plug-ins do.

    critical  users are refused or do not get here now, or the next fault would stop the service
    warning   the service goes on; something should be looked at today
    unknown   this node does not know (yet)

Headline, exit status, text, JSON, /healthz, metrics and log all follow from the same list of `Concern`s,
which node/assessment.py makes of the state of the node.
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


WARNING, CRITICAL, UNKNOWN = Level.WARNING, Level.CRITICAL, Level.UNKNOWN

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
    "aside_refused",
    "disk_full",
    "starting",
    "disk_unknown",
    "cannot_follow",
    "not_in_sync",
    "member_absent",
    "alone_in_async",
    "only_copy",
    "not_replicated",
    "set_aside",
    "mirror_error",
    "not_reached",
    "nodes_differ",
    "address_not_released",
    "rescued_refs",
    "copy_damaged",
    "scrub_late",
    "vanished",
    "repository_problem",
    "not_served",
    "settings_alone",
    "keys_ignored",
    "key_expires",
    "disk_low",
    "other",
]


@dataclass(frozen=True)
class About:
    """What is the same for all concerns of a kind.

    level    how severe
    short    two or three words, for the headline; "" if they would say nothing
    todo     what an operator does first; one line
    runbook  the heading in docs/runbook.md where the procedure is, as a link has it
    """

    level: Level
    short: str
    todo: str
    runbook: str


TABLE: Mapping[Kind, About] = {
    # no living leader is known, and this node does not lead
    "nobody_leads": About(
        CRITICAL, "nobody leads", "see to what it says; start the nodes that may lead", "both-nodes-down"
    ),
    # this node leads, and refuses pushes
    "no_writes": About(
        CRITICAL, "no pushes", "wait if it is stepping down; else see what it says", "planned-switchover"
    ),
    # a check of /healthz fails
    "unhealthy": About(CRITICAL, "a check fails", "repair what the check names", "what-status-says"),
    # no usable key, or clients without a login hold all places
    "nobody_can_log_in": About(
        CRITICAL, "nobody can log in", "repair authorized_keys, or block the strangers", "what-status-says"
    ),
    # the leader lock or the record cannot be trusted or reached
    "lock_unavailable": About(
        CRITICAL, "lock unavailable", "repair the shared volume, in lease_s if this node leads",
        "lost-lock-volume",
    ),
    # as cannot_follow, and it may not take over: perhaps nobody leads
    "cut_off": About(
        CRITICAL, "cut off", "see whether the leader runs; then the network between the nodes",
        "both-nodes-down",
    ),
    # sync: one copy of each new push. strict: pushes are refused
    "sync_set_empty": About(
        CRITICAL, "sync set empty", "get a standby back; do not stop this node before that",
        "the-sync-set-is-empty",
    ),
    # strict: no member of it is connected, pushes are refused
    "sync_set_gone": About(CRITICAL, "sync set gone", "start the members that it names",
                           "the-sync-set-is-empty"),
    # this node leads, and users do not find it
    "address_not_claimed": About(
        CRITICAL, "address not here", "see to what it says; this node tries again by itself",
        "what-status-says",
    ),
    # this node leads, and users of these repositories are refused
    "aside_refused": About(
        CRITICAL, "repository refused", "start a node that holds it: it is taken up again by itself",
        "a-repository-is-set-aside",
    ),
    # the next push may not fit
    "disk_full": About(CRITICAL, "disk nearly full", "make room now", "the-disk-fills-up"),
    "starting": About(UNKNOWN, "starting", "wait some seconds", "what-status-says"),
    # the free space was not measured for a while: the volume does not answer
    "disk_unknown": About(
        UNKNOWN, "free space unknown", "see whether that volume still answers", "the-disk-fills-up"
    ),
    # a member of the sync set is not connected to the leader of the record
    "cannot_follow": About(
        WARNING, "cannot follow", "see whether the leader runs; then the network between the nodes",
        "a-standby-does-not-catch-up",
    ),
    # a connected standby is not a member of the sync set
    "not_in_sync": About(
        WARNING, "not in sync", "wait while it catches up; if it does not, see its log",
        "a-standby-does-not-catch-up",
    ),
    # a member of the sync set is not connected to this leader
    "member_absent": About(
        WARNING, "member away", "start that node, or see to the network", "a-standby-does-not-catch-up"
    ),
    # as sync_set_empty, in a mode that never waits
    "alone_in_async": About(WARNING, "no standby", "get a standby back", "the-sync-set-is-empty"),
    # no other node has what was pushed last
    "only_copy": About(
        WARNING, "only copy here", "get a standby back; do not stop this node before that",
        "the-only-copy-is-here",
    ),
    # a member of the sync set has not confirmed changes for a while
    "not_replicated": About(
        WARNING, "not replicated", "see the standby that it names", "a-standby-does-not-catch-up"
    ),
    # a node cannot hold a repository; it counts for all others
    "set_aside": About(
        WARNING, "set aside", "repair what it says on the node that lacks it", "a-repository-is-set-aside"
    ),
    # a repository could not be made equal
    "mirror_error": About(
        WARNING, "mirror error", "see to what it says; it is tried again", "a-standby-does-not-catch-up"
    ),
    # the leader does not find a standby where it says that it is
    "not_reached": About(
        WARNING, "not reached", "correct ssh.advertise of that standby, or the firewall",
        "a-standby-does-not-catch-up",
    ),
    # a value that should be the same on all nodes is not
    "nodes_differ": About(WARNING, "nodes differ", "make the nodes the same", "what-status-says"),
    "address_not_released": About(
        WARNING, "address not given up", "see to what it says", "what-status-says"
    ),
    "rescued_refs": About(
        WARNING, "rescued refs", "stargate rescued list, on this node", "rescued-refs-appeared"
    ),
    # a check has found damage in a copy of this node
    "copy_damaged": About(WARNING, "copy damaged", "look whether the disk is failing", "a-copy-is-damaged"),
    # copies are not checked as often as scrub.interval_days says
    "scrub_late": About(WARNING, "scrub late", "raise scrub.rate_mb_s or scrub.interval_days",
                        "what-status-says"),
    # a repository's folder is gone from the leader without `repo delete`
    "vanished": About(
        WARNING, "repository vanished", "find out who removed the folder", "a-repository-has-vanished"
    ),
    # a single repository could not be read, applied or compared
    "repository_problem": About(
        WARNING, "repository problem", "see to what it says; all others go on",
        "a-standby-does-not-catch-up",
    ),
    # a folder that cannot be served
    "not_served": About(WARNING, "not served", "mend the folder as it says", "copy-a-repository-in"),
    # settings in a repository's config that other nodes may not have
    "settings_alone": About(
        WARNING, "settings here alone", "set them on every node", "copy-a-repository-in"
    ),
    # lines of authorized_keys that do not count
    "keys_ignored": About(WARNING, "keys ignored", "correct these lines", "what-status-says"),
    # somebody's last key ends soon
    "key_expires": About(
        WARNING, "keys expire", "give these users a new key, on every node", "keys-expire"
    ),
    "disk_low": About(WARNING, "disk fills up", "make room, or plan a larger disk", "the-disk-fills-up"),
    "other": About(WARNING, "", "see to what it says", "what-status-says"),
}  # fmt: skip

LEVELS: Mapping[Kind, Level] = {kind: about.level for kind, about in TABLE.items()}
# Worst first. UNKNOWN is between the other two.
ORDER = (Level.CRITICAL, Level.UNKNOWN, Level.WARNING)

COUNTED = {Level.CRITICAL: "critical problem", Level.UNKNOWN: "thing unknown", Level.WARNING: "warning"}
MAX_IN_HEADLINE = 3  # kinds of a level that are named there


@dataclass(frozen=True)
class Concern:
    """One thing to look at.

    text     one line
    subject  which node, check, volume or repository it is about, "" if there is only one: what stays the
             same while the text changes with time
    """

    kind: Kind
    text: str
    subject: str = ""

    @property
    def about(self) -> About:
        """What is the same for all of its kind."""
        return TABLE[self.kind]

    @property
    def level(self) -> Level:
        """How severe it is."""
        return self.about.level


def worst_first(concerns: Iterable[Concern]) -> tuple[Concern, ...]:
    """Ordered by level; those of one level stay in their order."""
    return tuple(sorted(concerns, key=lambda one: ORDER.index(one.level)))


def level_of(concerns: Iterable[Concern]) -> Level:
    """The worst of them; WELL if there are none."""
    levels = {one.level for one in concerns}
    return next((level for level in ORDER if level in levels), Level.WELL)


def counted(concerns: Iterable[Concern]) -> str:
    """In words: "all is well", "1 critical problem (sync set empty), 2 warnings (rescued refs)"."""
    found = list(concerns)
    parts = [_counted(level, of) for level in ORDER if (of := [one for one in found if one.level == level])]
    return ", ".join(parts) or "all is well"


def _counted(level: Level, found: list[Concern]) -> str:
    names = list(dict.fromkeys(short for one in found if (short := one.about.short)))
    more = ["…"] if len(names) > MAX_IN_HEADLINE else []
    named = f" ({', '.join([*names[:MAX_IN_HEADLINE], *more])})" if names else ""
    return f"{len(found)} {COUNTED[level]}{'s' if len(found) > 1 else ''}{named}"
