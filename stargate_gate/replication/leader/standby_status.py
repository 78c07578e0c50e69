"""What the leader's status says about the connected standbys. Pure."""

from collections.abc import Collection, Mapping

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.link import Link
from stargate_gate.replication.wire.about import Settings, differences
from stargate_gate.status import StandbyStatus


def standbys_of(
    links: Mapping[Member, Link], in_force: Collection[Member], mine: Settings, now: float
) -> tuple[StandbyStatus, ...]:
    """By name. `mine`: this node's own settings. `now`: the clock of the term."""
    return tuple(
        _standby(member, link, mine, now, in_sync=member in in_force)
        for member, link in sorted(links.items())
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
    )
