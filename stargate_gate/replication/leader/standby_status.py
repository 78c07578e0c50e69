"""The connected standbys, as the leader's status tells of them. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.link import Link
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
        member.data_dir_id,
        in_sync,
        changes,
        seconds,
        level=link.stage is Stage.LEVEL,
        problem=link.problem or None,
        refilling=link.refilling,
        differs=differences(mine, about.settings, member.name, keys=link.keys.lasts(now)) if about else (),
    )
