"""The connected standbys, as the leader's status tells of them.."""

import asyncio
from collections.abc import Collection, Mapping

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.standby_link import Feeding
from stargate_gate.replication.wire.about import Settings, differences
from stargate_gate.status import StandbyStatus


def standbys_of(
    feedings: Mapping[Member, Feeding], in_force: Collection[Member], mine: Settings
) -> tuple[StandbyStatus, ...]:
    """By name; `mine` are this node's own settings."""
    return tuple(_standby(member, one, member in in_force, mine) for member, one in sorted(feedings.items()))


def _standby(member: Member, feeding: Feeding, in_sync: bool, mine: Settings) -> StandbyStatus:  # noqa: FBT001
    about = feeding.about
    changes, seconds = feeding.lag()
    now = asyncio.get_running_loop().time()
    return StandbyStatus(
        member.name,
        in_sync,
        changes,
        seconds,
        problem=feeding.problem or None,
        refill=feeding.refilling.status() if feeding.refilling is not None else None,
        differs=differences(mine, about.settings, member.name, keys=feeding.keys.lasts(now)) if about else (),
    )
