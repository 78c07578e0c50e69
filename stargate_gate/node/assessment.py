"""What an operator should look at: turns the state of a node into `Concern`s. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.status import LeadershipView
from stargate_gate.health.concerns import Concern
from stargate_gate.health.report import Health, mirror_text, standby_text
from stargate_gate.health.scrub_text import scrub_concerns
from stargate_gate.replication.leader.sync_rules import Mode
from stargate_gate.status import NO_SCRUB, AddressReport, MirrorStatus, ScrubStatus, StandbyStatus


@dataclass(frozen=True)
class Situation:
    """All that a node knows of itself at one moment. Filled by `reports.NodeReports.status`."""

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
    differs: tuple[str, ...]
    warnings: tuple[str, ...]
    scrub: ScrubStatus = NO_SCRUB


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
    yield from _of_following(now)
    for name, text in now.health.failing.items():
        yield Concern("unhealthy", f"{name}: {text}")
    for text in now.health.warnings:
        yield Concern("nobody_can_log_in", text)
    for address in now.addresses:
        if (trouble := address.trouble()) is not None:
            claimed = address.wanted == "claimed"
            yield Concern("address_not_claimed" if claimed else "address_not_released", trouble)
    if now.rescued_refs:
        one = now.rescued_refs == 1
        values = "value that only this node had is" if one else "values that only this node had are"
        yield Concern("rescued_refs", f"{now.rescued_refs} {values} kept: see `stargate rescued list`")
    yield from scrub_concerns(now.scrub)
    for text in now.differs:
        yield Concern("nodes_differ", text)
    for text in now.warnings:
        yield Concern("other", text)


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
        yield Concern("nobody_leads", view.trouble)
    elif view.record is None:
        yield Concern("starting", view.reason)
    elif recorded_leader(now) is not None:
        why = (now.mirror.last_error if now.mirror is not None else None) or "it has not connected yet"
        if now.me in view.record.sync_set:  # it would lead if nobody else held the lock
            yield Concern("cannot_follow", why)
        else:
            yield Concern("cut_off", f"{why}; it does not take over either: it is not in the sync set")
    else:
        yield Concern("nobody_leads", view.reason)


def _of_the_sync_set(now: Situation) -> Iterator[Concern]:
    record = now.view.record
    if now.view.role != "leader" or not now.cluster or record is None:
        return
    if not record.sync_set:
        alarm = "the sync set is empty: no other node can take over by itself"
        if now.mode == "sync":
            text = f"{alarm}; pushes are acknowledged on this node alone (mode sync)"
            yield Concern("sync_set_empty", text)
        elif now.mode == "strict":
            yield Concern("sync_set_empty", f"{alarm}; pushes are refused with 75 (mode strict)")
        else:
            yield Concern("alone_in_async", alarm)
    yield from _of_absent_members(now, record)
    for standby in now.standbys:
        if standby.problem is not None:
            member = "" if standby.in_sync else f"{standby.name} is not in sync: "
            yield Concern("not_reached", f"{member}{standby.problem}")
        elif not standby.in_sync:
            yield Concern("not_in_sync", f"{standby.name} is not in sync: {standby_text(standby)}")


def _of_absent_members(now: Situation, record: ClusterRecord) -> Iterator[Concern]:
    """Members of the record that are not here: carried over, or kept by mode strict."""
    connected = {standby.name for standby in now.standbys}
    absent = [member.name for member in record.sync_set if member.name not in connected]
    if not absent:
        return
    if now.mode == "strict" and len(absent) == len(record.sync_set):
        text = f"no member of the sync set is connected ({', '.join(absent)}): pushes are refused with 75"
        yield Concern("sync_set_gone", f"{text} (mode strict)")
        return
    for name in absent:
        yield Concern("member_absent", f"{name} is in the sync set, and is not connected")


def _of_following(now: Situation) -> Iterator[Concern]:
    mirror, record = now.mirror, now.view.record
    if mirror is None or not mirror.connected:
        return
    member = record is not None and now.me in record.sync_set
    if mirror.problem is not None:
        yield Concern(
            "not_reached", mirror.problem if member else f"this node is not in sync: {mirror.problem}"
        )
    elif not member:
        yield Concern("not_in_sync", f"this node is not in sync: it is {mirror_text(mirror, 0.0)}")
    if mirror.last_error is not None:
        yield Concern("mirror_error", f"mirror: {mirror.last_error}")
