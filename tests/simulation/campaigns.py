"""Many episodes in a row, and what they came to."""

import time
from collections import Counter
from dataclasses import dataclass, field

from stargate_gate.replication.leader.sync_rules import Mode
from tests.simulation.episode import make_plan, run_episode
from tests.simulation.rules import Rules
from tests.simulation.shrinking import explain

# What has to happen in every run of a million steps; a simulator in which one of these never happens
# proves less than it says.
REQUIRED = frozenset(
    {
        "a carried standby does not come",
        "a change does not fit",
        "a change is applied",
        "a clean record is not written",
        "a client is told ok",
        "a client is told refused",
        "a client is told unknown",
        "a full check is not noted",
        "a full list is sent",
        "a heartbeat fails",
        "a held report is dropped",
        "a step fails: ConnectionResetError",
        "a step fails: FullError",
        "a forced leadership is distrusted",
        "a leader speaks of another term",
        "a leader steps down",
        "a leadership is forced",
        "a message of another term turns up",
        "a push is acknowledged with 0 standbys",
        "a push is acknowledged with 1 standbys",
        "a push is acknowledged with 2 standbys",
        "a push is not replicated: no standby has confirmed it",
        "a record write fails",
        "a record write hangs",
        "a record write lands late",
        "a record write tears",
        "a record's outcome is unknown",
        "a ref is refused",
        "a push's repository is gone",
        "a copy gets an id",
        "a folder gets an id",
        "a new repository is told of",
        "a repository is moved by the mirror",
        "a repository stays that the leader lacks",
        "a stray is put away",
        "two repositories change places",
        "fault: chain of mv",
        "fault: cp -a",
        "fault: folder appears",
        "fault: mv",
        "fault: mv and cp -a",
        "fault: mv away and back",
        "fault: read",
        "fault: rm",
        "fault: swap by mv",
        "a repository goes to the trash",
        "a repository is compared",
        "a repository is created",
        "a repository is created by the mirror",
        "a repository is deleted",
        "a session ends",
        "a standby is connected twice",
        "a standby is far behind",
        "a standby is fully checked",
        "a standby is late",
        "a standby is not reached",
        "a standby speaks of another term",
        "a standby's connection ends",
        "a successor is named",
        "a sync set is carried over",
        "a sync set is recorded",
        "a term opens",
        "a value is rescued",
        "an intent is completed",
        "an older list is confirmed",
        "an older record is distrusted",
        "catching up → checking",
        "catching up → level",
        "checking → catching up",
        "level → checking",
        "everything is up to date",
        "fault: backup",
        "fault: blackout",
        "fault: broken connection",
        "fault: crash in the journal",
        "fault: full check",
        "fault: full disk",
        "fault: half-broken connection",
        "fault: isolation",
        "fault: kill",
        "fault: late write is lost",
        "fault: late write lands",
        "fault: lost journal",
        "fault: lost lock",
        "fault: old copy of the record",
        "fault: override",
        "fault: override and crash",
        "fault: partition",
        "fault: pause",
        "fault: power loss",
        "fault: reinstallation",
        "fault: rollback",
        "fault: slow network",
        "fault: step down",
        "fault: volume gone",
        "fault: volume out of reach",
        "fault: write fails",
        "fault: write hangs",
        "fault: write tears",
        "leadership lost: by another's record",
        "leadership lost: no proof in time",
        "no term begins: ElectionUnavailableError",
        "no term begins: LeadershipLostError",
        "nobody is named",
        "recovered",
        "the election is unavailable",
        "the sync set is empty",
        "the volume hangs",
    }
)


@dataclass
class Report:
    """What many episodes came to. `failure`: the first that failed, shrunk and told; None: none did."""

    seed: int
    episodes: int = 0
    steps: int = 0
    terms: int = 0
    acknowledgements: int = 0
    seconds: float = 0.0
    coverage: Counter[str] = field(default_factory=Counter)
    failure: str | None = None

    def missing(self) -> list[str]:
        """What should have happened and did not."""
        return sorted(what for what in REQUIRED if not self.coverage[what])

    def __str__(self) -> str:
        lines = [f"{count:9}  {what}" for what, count in sorted(self.coverage.items())]
        lines += [f"{0:9}  {what}" for what in self.missing()]
        rate = self.steps / max(self.seconds, 0.001)
        lines.append(
            f"seeds {self.seed} to {self.seed + self.episodes - 1}: {self.episodes} episodes, {self.steps} "
            f"steps ({rate:.0f} a second), {self.terms} terms, {self.acknowledgements} acknowledgements"
        )
        return "\n".join(lines)


def run_many(
    seed: int,
    steps: int | None = None,
    *,
    episodes: int | None = None,
    nodes: int | None = None,
    mode: Mode | None = None,
) -> Report:
    """One episode after the other, until there were so many steps or episodes, or one has failed."""
    rules = Rules()
    report = Report(seed)
    began = time.monotonic()
    while report.failure is None:
        if steps is not None and report.steps >= steps:
            break
        if episodes is not None and report.episodes >= episodes:
            break
        plan = make_plan(seed + report.episodes, nodes=nodes, mode=mode)
        outcome = run_episode(plan, rules, report.coverage)
        report.episodes += 1
        report.steps += outcome.steps
        report.terms += outcome.terms
        report.acknowledgements += outcome.acknowledgements
        report.seconds = time.monotonic() - began
        if outcome.violation is not None:
            report.failure = explain(plan, rules, outcome)
    return report
