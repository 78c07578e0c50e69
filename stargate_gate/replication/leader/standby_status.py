"""The connected standbys, as the leader's status tells of them.."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.standby_link import Feeding
from stargate_gate.replication.leader.sync_rules import Stage
from stargate_gate.replication.wire.about import Refilling, Settings, differences


@dataclass(frozen=True)
class StandbyStatus:
    """A connected standby as the leader sees it. The lags are upper bounds; None: not known.

    level      it holds everything that it was told, and everything is told to it
    problem    why it is not found where it says that it is; None if it is, or nobody has looked yet
    refilling  how far it is, while it is being checked
    differs    values that should be the same on both nodes and are not, one line each
    """

    name: str
    data_dir_id: str
    in_sync: bool
    lag_changes: int | None
    lag_s: float
    level: bool = True
    problem: str | None = None
    refilling: Refilling | None = None
    differs: tuple[str, ...] = ()


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
        member.data_dir_id,
        in_sync,
        changes,
        seconds,
        level=feeding.stage is Stage.LEVEL,
        problem=feeding.problem or None,
        refilling=feeding.refilling,
        differs=differences(mine, about.settings, member.name, keys=feeding.keys.lasts(now)) if about else (),
    )
