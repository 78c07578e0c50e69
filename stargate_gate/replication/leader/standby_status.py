"""What the leader's status says about the connected standbys. Pure."""

from collections.abc import Collection, Mapping

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.link import Link
from stargate_gate.replication.wire.about import Settings, differences
from stargate_gate.status import AwayStatus, StandbyStatus


def standbys_of(
    links: Mapping[Member, Link], in_force: Collection[Member], mine: Settings, now: float
) -> tuple[StandbyStatus, ...]:
    """By name. `mine`: this node's own settings. `now`: the clock of the term."""
    return tuple(
        _standby(member, link, mine, now, in_sync=member in in_force)
        for member, link in sorted(links.items())
    )


def away_of(
    links: Collection[Member], in_force: Collection[Member], heard_at: Mapping[Member, float], now: float
) -> tuple[AwayStatus, ...]:
    """The members of the sync set that are not connected, by name. `heard_at`: see `LeaderTerm`."""
    away = sorted(member for member in in_force if member not in links)
    return tuple(
        AwayStatus(member.name, max(0.0, now - heard_at[member]) if member in heard_at else None)
        for member in away
    )


def _standby(member: Member, link: Link, mine: Settings, now: float, *, in_sync: bool) -> StandbyStatus:
    about = link.about
    changes, seconds = link.lag(now)
    return StandbyStatus(
        member.name,
        in_sync,
        changes,
        seconds,
        problem=link.problem or None,
        refill=link.refilling.status() if link.refilling is not None else None,
        differs=differences(mine, about.settings, member.name, keys=link.keys.lasts(now)) if about else (),
        heard_s=max(0.0, now - link.heard_at),
        tried_s=max(0.0, now - link.tried_at) if link.problem else None,
    )
