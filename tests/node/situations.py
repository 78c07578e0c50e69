"""Situations of a node, by name: at least one for each kind of concern. See test_status_rows.py."""

from collections.abc import Mapping
from dataclasses import replace

from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.status import LeadershipView
from stargate_gate.health.report import Health
from stargate_gate.node.assessment import Situation
from stargate_gate.status import (
    AddressReport,
    AsideStatus,
    AwayStatus,
    DamagedCopy,
    Equality,
    ExpiringKey,
    MirrorStatus,
    OpenChanges,
    ScrubStatus,
    StandbyStatus,
    UnreplicatedStatus,
    VolumeStatus,
)

NOW = 1_767_441_600.0  # 2026-01-03 12:00:00 UTC
DAY_S, HOUR_S, GIB, MIB = 86_400.0, 3_600.0, 2**30, 2**20
A, B, C = (Member(f"node-{letter}", letter * 32) for letter in "abc")
RECORD = ClusterRecord("cluster", 5, 2, A, mode="sync", sync_set=(B,), position=10)
FRESH = replace(RECORD, term=0, sync_set=())
LEADING = LeadershipView(
    "leader", "node-a", RECORD, 5, True, "", None, record_age_s=0.0, term_age_s=2 * HOUR_S
)
FOLLOWING = LeadershipView(
    "standby", "node-b", RECORD, 5, False, "node-a leads, says the record", None, record_age_s=1.2
)
IN_SYNC = StandbyStatus("node-b", True, 0, 0.0, heard_s=0.4)
LATE = StandbyStatus("node-b", False, 3, 41.5, heard_s=1.0)
WELL = Health({"data_dir": None, "git": None, "ssh": None})
ROOM = VolumeStatus("data_dir", "/var/lib/stargate", 3.0, 40 * GIB, 100 * GIB, 6_000_000, 6_553_600)
LOCK = VolumeStatus("lock volume", "/mnt/shared/stargate", 3.0, 400 * MIB, GIB, 60_000, 65_536)
FOLLOWS = MirrorStatus(
    True, "node-a", 0, 0.0, level=True, position=10, heard_s=0.6, in_step=Equality(5, 10, int(NOW) - 1)
)
CUT = replace(
    FOLLOWS, connected=False, level=False, heard_s=None, not_connected_s=42.0, tried_s=3.0,
    last_error="cannot connect to node-a.example:2222: no answer: is it up, and does a firewall let it?",
    in_step=Equality(5, 9, int(NOW) - 43),
)  # fmt: skip

LEADER = Situation(
    me=A, view=LEADING, ready=True, mode="sync", cluster=True, mirror=None, standbys=(IN_SYNC,), addresses=(),
    health=WELL, rescued_refs=0, volumes=(ROOM, LOCK), version="1.2.3", cluster_name="prod",
    address="stargate.local:2222", position=10, up_s=3 * HOUR_S, now=NOW,
)  # fmt: skip
STANDBY = replace(
    LEADER, me=B, view=FOLLOWING, ready=False, mirror=FOLLOWS, standbys=(), reason="node-b is a standby"
)
ALONE = replace(LEADER, view=replace(LEADING, record=replace(RECORD, sync_set=())), standbys=())
GONE = replace(LEADER, standbys=(), away=(AwayStatus("node-b", 12.3),))
WAITING = (
    OpenChanges("team/app", 3, NOW - 752),
    OpenChanges("team/web", 1, NOW - 12),
    OpenChanges("docs", 1, NOW - 2),
)
ASIDE = AsideStatus(
    "team/app", "a" * 32, ("node-a",), ("node-b",), "No space left on device", NOW - 3 * HOUR_S
)


def leader(**fields: object) -> Situation:
    """A leader that is well, but for these."""
    return replace(LEADER, **fields)  # type: ignore[arg-type]


def standby(**fields: object) -> Situation:
    """The same of a standby."""
    return replace(STANDBY, **fields)  # type: ignore[arg-type]


def trouble(view: LeadershipView) -> LeadershipView:
    """The lock volume hangs."""
    place = "the leader lock /mnt/shared/stargate/leader.lock"
    return replace(
        view, trouble=f"{place} did not answer for 5 s: check the shared volume", record_age_s=64.0
    )


SITUATIONS: Mapping[str, Situation] = {
    "a leader that is well": LEADER,
    "a standby that is well": STANDBY,
    "a single node that is well": replace(
        ALONE, cluster=False, cluster_name=None, address=None, volumes=(ROOM,)
    ),
    # critical
    "nobody leads, the volume hangs": standby(mirror=CUT, view=trouble(FOLLOWING)),
    "nobody leads, and this node led last": standby(
        me=A, mirror=None, view=replace(FOLLOWING, node="node-a", reason="it may lead, and tries")
    ),
    "nobody has led yet": standby(
        mirror=None, view=replace(FOLLOWING, record=FRESH, term=0, reason="nobody has led yet: start node-a")
    ),
    "a leader that steps down": leader(
        ready=False, view=replace(LEADING, accepting=False, reason="stepping down"), reason="stepping down"
    ),
    "a check fails": leader(health=Health({"git": "git does not start: No such file or directory"})),
    "nobody can log in": leader(
        health=replace(WELL, warnings=("nobody can log in: /k has no usable key: write one into it",))
    ),
    "the volume hangs under a leader": leader(view=trouble(LEADING)),
    "a standby that is cut off and is no member": standby(me=C, mirror=CUT),
    "alone in sync": replace(ALONE, away=(AwayStatus("node-b", 754.0, member=False),)),
    "alone in strict": replace(ALONE, mode="strict"),
    "all members away in strict": replace(GONE, mode="strict"),
    "the address cannot be claimed": leader(
        addresses=(AddressReport("vip 192.0.2.7", "claiming", "RTNETLINK answers: Operation not permitted"),)
    ),
    "a leader that does not hold a repository": leader(
        aside=(replace(ASIDE, holders=("node-b",), lacking=("node-a",), why="object 3f2a91c is missing",
                       here=False, served="read-only"),)
    ),
    "the disk is nearly full": leader(volumes=(replace(ROOM, free_bytes=600 * MIB), LOCK)),
    # unknown
    "a node that starts": standby(
        mirror=None, up_s=1.0, volumes=(replace(ROOM, measured_s=None, free_bytes=None),),
        view=replace(FOLLOWING, record=None, term=0, reason="it is starting", record_age_s=None),
    ),
    "a volume that does not answer": leader(
        volumes=(ROOM, replace(LOCK, measured_s=127.0, problem="no result for 122 s (limit 5 s)"))
    ),
    # warnings
    "a member that is cut off": standby(mirror=CUT),
    "a standby that catches up, on the leader": leader(standbys=(IN_SYNC, replace(LATE, name="node-c"))),
    "a standby that is no member yet": standby(me=C, mirror=replace(FOLLOWS, behind_changes=2, level=False)),
    "a member that is away": GONE,
    "a member that never came in this term": leader(standbys=(), away=(AwayStatus("node-b"),)),
    "alone in async": replace(ALONE, mode="async"),
    "the only copy": replace(ALONE, unreplicated=UnreplicatedStatus(WAITING)),
    "the only copy, of many": replace(
        ALONE, unreplicated=UnreplicatedStatus(
            tuple(OpenChanges(f"team/app-{n}", 1, NOW - 9_000 + n) for n in range(9_000))
        ),
    ),
    "alone after a restart, without a journal": replace(ALONE, unreplicated=UnreplicatedStatus(unknown=True)),
    "pushes that one member of two has not confirmed": leader(
        view=replace(LEADING, record=replace(RECORD, sync_set=(B, C))),
        standbys=(IN_SYNC, replace(LATE, name="node-c", in_sync=True)),
        unreplicated=UnreplicatedStatus((replace(WAITING[1], elsewhere=("node-b",)),)),
    ),
    "a push that was made a moment ago": leader(unreplicated=UnreplicatedStatus((WAITING[2],))),
    "a repository that a standby cannot hold": leader(aside=(ASIDE,)),
    "the same, as the standby knows it": standby(aside=(replace(ASIDE, here=False),)),
    "a repository that could not be mirrored": standby(
        mirror=replace(FOLLOWS, last_error="team/app: git fetch failed with 1: No space left on device")
    ),
    "a standby that the leader does not find": leader(
        standbys=(
            replace(IN_SYNC, in_sync=False, tried_s=8.0, problem="node-a cannot reach node-b: no answer"),
        )
    ),
    "the same, as the standby is told": standby(
        mirror=replace(FOLLOWS, problem="node-a cannot reach node-b: no answer")
    ),
    "nodes that differ, on the leader": leader(
        standbys=(replace(IN_SYNC, differs=("node-b has repositories.trash_days 3, this node 7",)),)
    ),
    "nodes that differ, on the standby": standby(
        mirror=replace(FOLLOWS, differs=("node-a has repositories.trash_days 7, this node 3",))
    ),
    "an address that a standby cannot give up": standby(
        addresses=(AddressReport("vip 192.0.2.7", "releasing", "ip: Operation not permitted"),)
    ),
    "rescued refs": standby(rescued_refs=2),
    "a copy that is damaged": leader(
        scrub=ScrubStatus(
            on=True, total=40, verified=39, unverified=1, oldest_check_s=2 * DAY_S,
            damaged=(DamagedCopy("team/app", "object 3f2a91c: its checksum is wrong", "fetch it anew"),),
        )
    ),
    "a scrub that is late": leader(
        scrub=ScrubStatus(on=True, total=40, verified=9, unverified=31, oldest_check_s=15 * DAY_S, late=True)
    ),
    "a repository that the leader has lost": standby(
        vanished=("team/app is here and not on the leader, which has lost it: see the runbook",)
    ),
    "a repository that cannot be read": leader(
        notes=("team/app cannot be read here, and takes no pushes: bad tree object 3f2a91c",)
    ),
    "a folder that is not served": leader(not_served=("not served: team/old.git: it has a file commondir",)),
    "settings that a failover loses": leader(
        policies=("settings that a failover loses: team/app: receive.denyNonFastForwards",)
    ),
    "lines of authorized_keys that do not count": leader(
        keys=("/etc/stargate/authorized_keys: line 3: a quote is not closed; this line is ignored",)
    ),
    "keys that expire": leader(
        expiring_keys=(
            ExpiringKey("old", 1, NOW - 30 * DAY_S), ExpiringKey("bob", 7, NOW - 2 * HOUR_S),
            ExpiringKey("alice", 3, NOW + 11 * DAY_S), ExpiringKey("carol", 4, NOW + 31 * DAY_S),
        )
    ),
    "a disk that fills up": leader(volumes=(replace(ROOM, free_bytes=8 * GIB, free_inodes=80_000), LOCK)),
    "several things at once": standby(
        mirror=CUT, rescued_refs=1, volumes=(replace(ROOM, free_bytes=MIB), LOCK)
    ),
    "something else": leader(warnings=("/var/lib/stargate/state/rescued/1.json is damaged",)),
}  # fmt: skip
