"""What the node says of itself: its status, its health, its readiness, put together from the rooms.

Everything here is from memory. May import: health (report, checks), election (views), replication (their
status values), config, errors.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stargate_gate import __version__
from stargate_gate.config.model import Config
from stargate_gate.election.views import LeadershipView
from stargate_gate.health.checks import Checks
from stargate_gate.health.report import AddressReport, Health, MirrorReport, Readiness, StandbyReport, Status
from stargate_gate.replication.syncset import Mode


def mode_in_force(config: Config) -> Mode:
    """What the file asks for; a single node has nobody to wait for."""
    return config.replication.mode if config.cluster is not None else "async"


@dataclass
class NodeReports:
    """The health room's `StatusSource`. The callables answer from memory.

    leadership  the election's view
    accepting   whether the gate lets writes in now
    standbys    as the leader's feed sees them; empty elsewhere
    position    the feed position; 0 where there is no feed
    mirror      how this standby follows; None while it leads
    rescued_refs  how many values are kept here that only this node had
    addresses   where each floating address is, as far as this node moves it
    warnings    what an operator should look at besides
    locked_out  why nobody can log in, if so
    """

    config: Config
    leadership: Callable[[], LeadershipView]
    accepting: Callable[[], bool]
    standbys: Callable[[], tuple[StandbyReport, ...]]
    position: Callable[[], int]
    mirror: Callable[[], MirrorReport | None]
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
        reason = "" if ready else self._why_not(view)
        return Readiness(ready, view.role, view.term, reason, "; ".join(self._address_problems()))

    def _address_problems(self) -> tuple[str, ...]:
        return tuple(text for one in self.addresses() if (text := one.trouble()) is not None)

    def _why_not(self, view: LeadershipView) -> str:
        if view.role == "leader":
            return view.reason or "stepping down"
        return view.trouble or view.reason or "a standby"

    def health(self) -> Health:
        """The checks' latest results."""
        locked_out = self.locked_out()
        return replace(self.checks.health(), warnings=() if locked_out is None else (locked_out,))

    def status(self) -> Status:
        """The whole report, as of now."""
        view, readiness, mirror = self.leadership(), self.ready(), self.mirror()
        leads = view.role == "leader"
        standbys = self.standbys() if leads else ()
        if leads:
            leader: str | None = view.node
        else:
            leader = mirror.leader if mirror is not None and mirror.connected else None
        known_sync_set = view.record.sync_set if view.record else ()
        return Status(
            node=view.node,
            role=view.role,
            term=view.term,
            leader=leader,
            mode=mode_in_force(self.config),
            ready=readiness.ready,
            version=__version__,
            sync_set=tuple(member.name for member in known_sync_set),
            standbys=standbys,
            reason=readiness.reason,
            cluster=self.config.cluster.name if self.config.cluster else None,
            address=str(self.config.cluster.address) if self.config.cluster else None,
            position=self.position(),
            uptime_s=time.monotonic() - self.started_s,
            mirror=mirror,
            rescued_refs=self.rescued_refs(),
            addresses=self.addresses(),
            warnings=self._warnings(view),
        )

    def _warnings(self, view: LeadershipView) -> tuple[str, ...]:
        found = [*self._address_problems(), *self.warnings()]
        if (count := self.rescued_refs()) > 0:
            values = (
                "value that only this node had is" if count == 1 else "values that only this node had are"
            )
            found.insert(0, f"{count} {values} kept: see `stargate rescued list`")
        if (locked_out := self.locked_out()) is not None:
            found.insert(0, locked_out)
        if view.trouble:
            found.insert(0, view.trouble)
        if view.role == "leader" and self.config.cluster and view.record and not view.record.sync_set:
            found.insert(0, _empty_sync_set(mode_in_force(self.config)))
        return tuple(found)


def _empty_sync_set(mode: Mode) -> str:
    alarm = "the sync set is empty: no other node can take over by itself"
    if mode == "sync":
        return f"{alarm}; pushes are acknowledged on this node alone (mode sync)"
    return f"{alarm}; pushes are refused with 75 (mode strict)" if mode == "strict" else alarm
