"""What the node says of itself: its status, its health, its readiness, put together from the rooms.

Everything here is from memory. node/assessment.py decides what of it an operator should look at. May import:
health (report, checks, concerns), election (port, views), replication (their status values), config, errors.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stargate_gate import __version__
from stargate_gate.config.model import Config
from stargate_gate.election.port import Member
from stargate_gate.election.status import LeadershipView
from stargate_gate.health.checks import Checks
from stargate_gate.health.concerns import worst_first
from stargate_gate.health.report import Health, Readiness, Status
from stargate_gate.node.assessment import Situation, concerns, living_leader, recorded_leader
from stargate_gate.replication.leader.sync_rules import Mode
from stargate_gate.status import AddressReport, MirrorStatus, StandbyStatus


def mode_in_force(config: Config) -> Mode:
    """What the file asks for; a single node has nobody to wait for."""
    return config.replication.mode if config.cluster is not None else "async"


@dataclass
class NodeReports:
    """The health room's `StatusSource`. The callables answer from memory.

    me          this node
    leadership  the election's view
    accepting   whether the gate lets writes in now
    standbys    as the leader's feed sees them; empty elsewhere
    position    of the feed, while this node leads; else 0
    mirror      how this standby follows; None while it leads
    differs     values that should be the same on all connected nodes and are not, one line each
    rescued_refs  how many values are kept here that only this node had
    addresses   where each floating address is, as far as this node moves it
    warnings    what an operator should look at besides
    locked_out  why nobody can log in, if so
    """

    config: Config
    me: Member
    leadership: Callable[[], LeadershipView]
    accepting: Callable[[], bool]
    standbys: Callable[[], tuple[StandbyStatus, ...]]
    position: Callable[[], int]
    mirror: Callable[[], MirrorStatus | None]
    differs: Callable[[], tuple[str, ...]]
    checks: Checks
    rescued_refs: Callable[[], int]
    addresses: Callable[[], tuple[AddressReport, ...]]
    warnings: Callable[[], tuple[str, ...]]
    locked_out: Callable[[], str | None]
    started_s: float = field(default_factory=time.monotonic)

    def ready(self) -> Readiness:
        """Whether pushes are taken here, as of now."""
        view = self.leadership()
        ready = self.accepting()
        reason = "" if ready else _why_not(view)
        problems = (text for one in self.addresses() if (text := one.trouble()) is not None)
        return Readiness(ready, view.role, view.term, reason, "; ".join(problems))

    def health(self) -> Health:
        """The checks' latest results."""
        locked_out = self.locked_out()
        return replace(self.checks.health(), warnings=() if locked_out is None else (locked_out,))

    def status(self) -> Status:
        """The whole report, as of now."""
        view, readiness, mirror = self.leadership(), self.ready(), self.mirror()
        standbys = self.standbys() if view.role == "leader" else ()
        known_sync_set = view.record.sync_set if view.record else ()
        situation = Situation(
            me=self.me,
            view=view,
            ready=readiness.ready,
            mode=mode_in_force(self.config),
            cluster=self.config.cluster is not None,
            mirror=mirror,
            standbys=standbys,
            addresses=self.addresses(),
            health=self.health(),
            rescued_refs=self.rescued_refs(),
            differs=self.differs(),
            warnings=self.warnings(),
        )
        return Status(
            node=view.node,
            role=view.role,
            term=view.term,
            leader=living_leader(situation),
            recorded_leader=recorded_leader(situation),
            mode=situation.mode,
            ready=readiness.ready,
            version=__version__,
            sync_set=tuple(member.name for member in known_sync_set),
            standbys=standbys,
            reason=readiness.reason,
            cluster=self.config.cluster.name if self.config.cluster else None,
            address=str(self.config.cluster.address) if self.config.cluster else None,
            position=mirror.position if mirror is not None else self.position(),
            uptime_s=time.monotonic() - self.started_s,
            mirror=mirror,
            rescued_refs=situation.rescued_refs,
            addresses=situation.addresses,
            concerns=worst_first(concerns(situation)),
            now=time.time(),
        )


def _why_not(view: LeadershipView) -> str:
    if view.role == "leader":
        return view.reason or "stepping down"
    return view.trouble or view.reason or "a standby"
