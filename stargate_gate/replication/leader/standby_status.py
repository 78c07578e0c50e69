"""What the leader's status says about the connected standbys. Pure."""

import math
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
    """Who is not connected, by name: members of the sync set, and the others that were heard in this term.

    heard_at  see `LeaderTerm`. Of several data_dirs with one name, the one that was heard last counts
    """
    away: dict[str, AwayStatus] = {}
    connected = {member.name for member in links}
    for member in sorted({*in_force, *heard_at}, key=lambda one: heard_at.get(one, -math.inf)):
        if member not in links and (member in in_force or member.name not in connected):
            heard_s = max(0.0, now - heard_at[member]) if member in heard_at else None
            away[member.name] = AwayStatus(member.name, heard_s, member in in_force)
    return tuple(away[name] for name in sorted(away))


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
