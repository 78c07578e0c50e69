"""What an operator should look at: turns the state of a node into `Concern`s, and into a `Status`. Pure.

Headline, exit status, text, JSON, /healthz, metrics and log all follow from `status_of`. A sentence about
another node says how old that knowledge is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.status import LeadershipView
from stargate_gate.health.concerns import Concern, worst_first
from stargate_gate.health.report import Health, Status
from stargate_gate.health.room import shortages
from stargate_gate.health.scrub_text import scrub_concerns
from stargate_gate.health.sentences import aside_text, keys_text, mirror_text, open_changes_text, standby_text
from stargate_gate.health.wording import aged, duration, plural
from stargate_gate.replication.leader.sync_rules import Mode
from stargate_gate.status import (
    ALL_REPLICATED,
    NO_SCRUB,
    AddressReport,
    AsideStatus,
    AwayStatus,
    ExpiringKey,
    MirrorStatus,
    ScrubStatus,
    StandbyStatus,
    UnreplicatedStatus,
    VolumeStatus,
)

OPEN_S = 10.0  # a change that waits for its replica for longer is named; commonly it takes milliseconds
MAX_AWAY = 5  # standbys that are named
EXPIRES_SOON_S = 30 * 86_400.0
EXPIRED_S = 7 * 86_400.0  # an expired key is named for so long; after that nobody seems to miss it


@dataclass(frozen=True)
class Situation:
    """All that a node knows of itself at one moment. Filled by `reports.NodeReports.situation`.

    away         standbys that are not connected to this leader: members, or heard in this term
    vanished     repositories that are gone without a deletion, here or on the leader; a line each
    notes        what is wrong with single repositories, here or on the leader; a line each
    not_served   folders that are not served; a line each
    policies     settings that only this node has; a line each
    keys         what is wrong with authorized_keys; a line each
    warnings     anything else; a line each
    now          seconds since 1970
    """

    me: Member
    view: LeadershipView
    ready: bool
    mode: Mode
    cluster: bool
    mirror: MirrorStatus | None
    standbys: tuple[StandbyStatus, ...]
    addresses: tuple[AddressReport, ...]
    health: Health
    rescued_refs: int
    warnings: tuple[str, ...] = ()
    away: tuple[AwayStatus, ...] = ()
    unreplicated: UnreplicatedStatus = ALL_REPLICATED
    aside: tuple[AsideStatus, ...] = ()
    scrub: ScrubStatus = NO_SCRUB
    volumes: tuple[VolumeStatus, ...] = ()
    expiring_keys: tuple[ExpiringKey, ...] = ()
    vanished: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    not_served: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    version: str = ""
    cluster_name: str | None = None
    address: str | None = None
    reason: str = ""
    position: int = 0
    up_s: float = 0.0
    now: float = 0.0


def status_of(now: Situation) -> Status:
    """The whole report."""
    known_sync_set = now.view.record.sync_set if now.view.record else ()
    return Status(
        node=now.me.name,
        role=now.view.role,
        term=now.view.term,
        leader=living_leader(now),
        recorded_leader=recorded_leader(now),
        mode=now.mode,
        ready=now.ready,
        version=now.version,
        sync_set=tuple(member.name for member in known_sync_set),
        standbys=now.standbys,
        reason=now.reason,
        cluster=now.cluster_name,
        address=now.address,
        position=now.position,
        uptime_s=now.up_s,
        mirror=now.mirror,
        rescued_refs=now.rescued_refs,
        addresses=now.addresses,
        concerns=worst_first(concerns(now)),
        now=now.now,
        record_age_s=now.view.record_age_s,
        away=now.away,
        unreplicated=now.unreplicated,
        aside=now.aside,
        scrub=now.scrub,
        volumes=now.volumes,
        expiring_keys=now.expiring_keys,
    )


def living_leader(now: Situation) -> str | None:
    """The name of the leader: this node, or the one that it is connected to. None: not known."""
    if now.view.role == "leader":
        return now.me.name
    return now.mirror.leader if now.mirror is not None and now.mirror.connected else None


def recorded_leader(now: Situation) -> str | None:
    """The other node that leads, says a record that can be trusted."""
    record = now.view.record
    if now.view.role == "leader" or now.view.trouble is not None or record is None or not record.term:
        return None
    return record.leader.name if record.leader != now.me else None


def concerns(now: Situation) -> Iterator[Concern]:
    """Everything that an operator should look at, in no particular order."""
    yield from _of_leading(now)
    yield from _of_the_sync_set(now)
    yield from _of_copies(now)
    yield from _of_following(now)
    for name, text in now.health.failing.items():
        yield Concern("unhealthy", f"{name}: {text}", name)
    for text in now.health.warnings:
        yield Concern("nobody_can_log_in", text)
    for address in now.addresses:
        if (trouble := address.trouble()) is not None:
            claimed = address.wanted == "claimed"
            yield Concern("address_not_claimed" if claimed else "address_not_released", trouble, address.name)
    if now.rescued_refs:
        one = now.rescued_refs == 1
        values = "value that only this node had is" if one else "values that only this node had are"
        yield Concern("rescued_refs", f"{now.rescued_refs} {values} kept: see `stargate rescued list`")
    yield from scrub_concerns(now.scrub)
    yield from _of_differences(now)
    yield from _of_repositories(now)
    for volume in now.volumes:
        yield from shortages(volume, now.up_s)
    yield from _of_keys(now)
    for text in now.warnings:
        yield Concern("other", text, text)


def _of_leading(now: Situation) -> Iterator[Concern]:
    """Who leads, if anybody; at most one of these, and the lock."""
    view = now.view
    if living_leader(now) is not None:
        if view.trouble is not None:
            yield Concern("lock_unavailable", view.trouble)
        if view.role == "leader" and not now.ready:
            yield Concern("no_writes", view.reason or "it is stepping down")
        return
    if view.trouble is not None:
        last = f"; the record was read last {duration(view.record_age_s)} ago" if view.record_age_s else ""
        yield Concern("nobody_leads", f"{view.trouble}{last}")
    elif view.record is None:
        yield Concern("starting", view.reason)
    elif recorded_leader(now) is not None:
        why = _why_not_connected(now.mirror)
        if now.me in view.record.sync_set:  # it would lead if nobody else held the lock
            yield Concern("cannot_follow", why)
        else:
            yield Concern("cut_off", f"{why}; it does not take over either: it is not in the sync set")
    else:
        yield Concern("nobody_leads", aged(view.reason, "record read", view.record_age_s))


def _why_not_connected(mirror: MirrorStatus | None) -> str:
    if mirror is None or mirror.last_error is None:
        return "it has not connected yet"
    return aged(mirror.last_error, "tried", mirror.tried_s)


def _of_the_sync_set(now: Situation) -> Iterator[Concern]:
    record = now.view.record
    if now.view.role != "leader" or not now.cluster or record is None:
        return
    if not record.sync_set:
        alarm = "the sync set is empty: no other node can take over by itself"
        last = "".join(f"; {one.name}: {_last_heard(one.heard_s, None)}" for one in now.away[:MAX_AWAY])
        if now.mode == "sync":
            text = f"{alarm}; pushes are acknowledged on this node alone (mode sync){last}"
            yield Concern("sync_set_empty", text)
        elif now.mode == "strict":
            yield Concern("sync_set_empty", f"{alarm}; pushes are refused with 75 (mode strict){last}")
        else:
            yield Concern("alone_in_async", f"{alarm}{last}")
    yield from _of_absent_members(now, record)
    for standby in now.standbys:
        if standby.problem is not None:
            member = "" if standby.in_sync else f"{standby.name} is not in sync: "
            text = aged(f"{member}{standby.problem}", "tried", standby.tried_s)
            yield Concern("not_reached", text, standby.name)
        elif not standby.in_sync:
            text = aged(f"{standby.name} is not in sync: {standby_text(standby)}", "heard", standby.heard_s)
            yield Concern("not_in_sync", text, standby.name)


def _of_absent_members(now: Situation, record: ClusterRecord) -> Iterator[Concern]:
    """Members of the record that are not here: carried over, or kept by mode strict."""
    connected = {standby.name for standby in now.standbys}
    heard_s = {one.name: one.heard_s for one in now.away}
    absent = {
        member.name: _last_heard(heard_s.get(member.name), now.view.term_age_s)
        for member in record.sync_set
        if member.name not in connected
    }
    if not absent:
        return
    if now.mode == "strict" and len(absent) == len(record.sync_set):
        named = ", ".join(f"{name}: {when}" for name, when in absent.items())
        text = f"no member of the sync set is connected ({named}): pushes are refused with 75"
        yield Concern("sync_set_gone", f"{text} (mode strict)")
        return
    for name, when in absent.items():
        yield Concern("member_absent", f"{name} is in the sync set, and is not connected; {when}", name)


def _last_heard(heard_s: float | None, term_age_s: float | None) -> str:
    if heard_s is not None:
        return f"last heard {duration(heard_s)} ago"
    since = f", which began {duration(term_age_s)} ago" if term_age_s is not None else ""
    return f"never heard in this term{since}"


def _of_copies(now: Situation) -> Iterator[Concern]:
    """What is on fewer nodes than it should be."""
    alone = now.view.record is not None and not now.view.record.sync_set
    if now.view.role == "leader" and now.cluster:
        late = now.now - OPEN_S
        waiting = [one for one in now.unreplicated.repositories if alone or one.since <= late]
        here = [one for one in waiting if not one.elsewhere]
        if here:
            text = f"only {now.me.name} is known to have changes in {plural(len(here), 'repository')}"
            yield Concern("only_copy", f"{text}: {open_changes_text(here, now.now)}")
        if elsewhere := [one for one in waiting if one.elsewhere]:
            text = (
                f"changes in {plural(len(elsewhere), 'repository')} are not on every member of the sync set"
            )
            text = f"{text}: {open_changes_text(elsewhere, now.now)}"
            yield Concern("not_replicated", f"{text}; {_of_whom(now.standbys)}")
        if now.unreplicated.unknown and alone:
            text = f"what other nodes have of the pushes before this term is not known to {now.me.name}"
            yield Concern("only_copy", text, "before this term")
    refused = [one for one in now.aside if one.served != "normally" and now.view.role == "leader"]
    others = [one for one in now.aside if one not in refused]
    if refused:
        yield Concern("aside_refused", aside_text(refused, now.me.name, now.now))
    if others:
        text = aside_text(others, now.me.name, now.now)
        if now.view.role != "leader":
            text = aged(text, "record read", now.view.record_age_s)
        yield Concern("set_aside", text)


def _of_whom(standbys: tuple[StandbyStatus, ...]) -> str:
    return ", ".join(f"{one.name} heard {duration(one.heard_s or 0.0)} ago" for one in standbys)


def _of_following(now: Situation) -> Iterator[Concern]:
    mirror, record = now.mirror, now.view.record
    if mirror is None or not mirror.connected:
        return
    member = record is not None and now.me in record.sync_set
    if mirror.problem is not None:
        problem = mirror.problem if member else f"this node is not in sync: {mirror.problem}"
        yield Concern("not_reached", aged(problem, f"{mirror.leader} heard", mirror.heard_s))
    elif not member:
        text = f"this node is not in sync: it is {mirror_text(mirror, 0.0)}"
        yield Concern("not_in_sync", aged(text, "record read", now.view.record_age_s))
    if mirror.last_error is not None:
        yield Concern("mirror_error", f"mirror: {mirror.last_error}")


def _of_differences(now: Situation) -> Iterator[Concern]:
    """Values that should be the same on all connected nodes and are not."""
    for standby in now.standbys:
        for text in standby.differs:
            yield Concern("nodes_differ", aged(text, f"{standby.name} heard", standby.heard_s), text)
    if now.mirror is not None:
        for text in now.mirror.differs:
            said = aged(text, f"{now.mirror.leader} heard", now.mirror.heard_s)
            yield Concern("nodes_differ", said, text)


def _of_repositories(now: Situation) -> Iterator[Concern]:
    """Single repositories; what is said of the leader's is as old as what was heard from it last."""
    when = now.mirror.heard_s if now.mirror is not None else None
    for text in now.vanished:
        yield Concern("vanished", aged(text, "leader heard", when), text)
    for text in now.notes:
        yield Concern("repository_problem", aged(text, "leader heard", when), text)
    for text in now.not_served:
        yield Concern("not_served", text, text)
    for text in now.policies:
        yield Concern("settings_alone", text, text)
    for text in now.keys:
        yield Concern("keys_ignored", text, text)


def _of_keys(now: Situation) -> Iterator[Concern]:
    """Users whose last key ends soon, or has ended a short time ago."""
    soon = [one for one in now.expiring_keys if now.now - EXPIRED_S < one.at <= now.now + EXPIRES_SOON_S]
    if soon:
        ends = plural(len(soon), "user has", "users have")
        yield Concern("key_expires", f"{ends} no key that lasts: {keys_text(soon, now.now)}")
