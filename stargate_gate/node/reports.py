"""The node's reports: status, health and readiness, put together from its parts.

Everything here is from memory. node/assessment.py decides what of it an operator should look at.
"""

import time
from dataclasses import dataclass, field, replace

from stargate_gate import __version__
from stargate_gate.address.floating import FloatingAddress
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.config.model import Config
from stargate_gate.control.rescued import vanished
from stargate_gate.election.elector import Elector
from stargate_gate.election.status import LeadershipView
from stargate_gate.health.checks import Checks
from stargate_gate.health.report import Health, Readiness, Status
from stargate_gate.health.volumes import Volumes
from stargate_gate.node.assessment import EXPIRES_SOON_S, Situation, status_of
from stargate_gate.node.leadership import NodeLeadership
from stargate_gate.node.listeners import Listeners
from stargate_gate.node.repositories import Repositories
from stargate_gate.node.settings import mode_in_force
from stargate_gate.replication.standby.mirror import Mirror
from stargate_gate.status import ALL_REPLICATED, MirrorStatus


@dataclass
class NodeReports:
    """health's `StatusSource`. `mirror` is None on a single node, which follows nobody."""

    config: Config
    elector: Elector
    leadership: NodeLeadership
    repositories: Repositories
    mirror: Mirror | None
    address: FloatingAddress
    listeners: Listeners
    checks: Checks
    volumes: Volumes
    started_s: float = field(default_factory=time.monotonic)

    def ready(self) -> Readiness:
        """Whether pushes are taken here, as of now."""
        view = self.elector.view()
        ready = self.leadership.view().accepting
        reason = "" if ready else _why_not(view)
        problems = (text for one in self.address.reports() if (text := one.trouble()) is not None)
        return Readiness(ready, view.role, view.term, reason, "; ".join(problems))

    def health(self) -> Health:
        """The checks' latest results."""
        locked_out = self.listeners.locked_out()
        return replace(self.checks.health(), warnings=() if locked_out is None else (locked_out,))

    def status(self) -> Status:
        """The whole report, as of now."""
        return status_of(self.situation())

    def situation(self) -> Situation:
        """All that `status` follows from, as of now."""
        parts, view, readiness = self.repositories, self.elector.view(), self.ready()
        changes = parts.led.changes if view.role == "leader" else None
        mirror = None if view.role == "leader" else self.mirror_status()
        cluster, now = self.config.cluster, time.time()
        return Situation(
            me=self.elector.me,
            view=view,
            ready=readiness.ready,
            mode=mode_in_force(self.config),
            cluster=cluster is not None,
            mirror=mirror,
            standbys=changes.standbys() if changes is not None else (),
            addresses=self.address.reports(),
            health=self.health(),
            rescued_refs=parts.rescues.count,
            warnings=parts.rescues.problems,
            away=changes.away(time.monotonic()) if changes is not None else (),
            unreplicated=changes.unreplicated() if changes is not None else ALL_REPLICATED,
            scrub=parts.scrub.status(),
            volumes=self.volumes.status(),
            expiring_keys=self.listeners.expiring_keys(now + EXPIRES_SOON_S),
            vanished=tuple(self.vanished()),
            notes=(*self._notes(), *parts.store.unsound.lines(leads=view.role == "leader")),
            not_served=parts.survey.not_served(),
            policies=parts.survey.policies(),
            keys=self.listeners.problems(),
            version=__version__,
            cluster_name=cluster.name if cluster is not None else None,
            address=str(cluster.address) if cluster is not None else None,
            reason=readiness.reason,
            position=mirror.position if mirror is not None else self._position(),
            up_s=time.monotonic() - self.started_s,
            now=now,
        )

    def mirror_status(self) -> MirrorStatus | None:
        """How this node follows, or followed last; None on a single node."""
        return self.mirror.status() if self.mirror is not None else None

    def vanished(self) -> list[str]:
        """Repositories that the leader has lost without a deletion; a line each."""
        mirror = self.mirror_status()
        orphans = mirror.orphans if mirror is not None else ()
        return vanished(self.repositories.store, orphans, leads=self.repositories.led.leads())

    def leader_address(self) -> Endpoint | None:
        """Where the node that leads takes SSH connections, this one included; None: none is known to live."""
        view = self.elector.view()
        leads = view.role == "leader" or followed(self.mirror) is not None
        ssh = view.record.ssh if view.record is not None else ""
        return Endpoint.parse(ssh) if leads and ssh else None

    def _position(self) -> int:
        feed = self.repositories.led.feed
        return feed.position if feed is not None else 0

    def _notes(self) -> tuple[str, ...]:
        """What is wrong with single repositories, here or on the leader."""
        if (feed := self.repositories.led.feed) is not None:
            return feed.notes.lines
        mirror = self.mirror_status()
        return mirror.notes if mirror is not None else ()


def followed(mirror: Mirror | None) -> str | None:
    """The leader that the mirror hears from now, if any."""
    status = mirror.status() if mirror is not None else None
    return status.leader if status is not None and status.connected else None


def _why_not(view: LeadershipView) -> str:
    if view.role == "leader":
        return view.reason or "stepping down"
    return view.trouble or view.reason or "a standby"
