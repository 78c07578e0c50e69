"""The status report: one frozen value, and how it is written as JSON and as text. Pure.

node/reports.py fills in a `Status`; this module only formats it.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from stargate_gate.health.concerns import Concern, Level, counted, level_of
from stargate_gate.health.scrub_text import scrub_text
from stargate_gate.health.wording import behind, catching_up, duration, time_of_day
from stargate_gate.printable import printable
from stargate_gate.status import (
    NO_SCRUB,
    AddressReport,
    Equality,
    MirrorStatus,
    Refill,
    ScrubStatus,
    StandbyStatus,
)

TEXT_COLUMNS = 80  # what a plain terminal, a pager and a paste into a ticket all show unbroken
LABEL_COLUMNS = 11
IN_THE_HEADLINE = frozenset({"nobody_leads", "no_writes", "starting", "cannot_follow", "cut_off"})

Role = Literal["leader", "standby"]


@dataclass(frozen=True)
class Status:
    """What a node says about itself and its cluster. `/status` has these fields under these names.

    leader      name of the node that leads, or None while no living one is known
    recorded_leader  name of the other node that leads, says the record; None: it names none
    term        the number of the leadership; 0: none known
    sync_set    the standbys that hold every acknowledged push
    standbys    as the leader sees them; empty on a standby
    mode        "sync", "strict" or "async", as in force
    ready       this node leads and takes writes; `reason` says why not, or "" if it does
    cluster     the cluster's name; None: a single node
    address     what users put in their URLs
    position    the feed position: the newest change of this term (1 before the first); on a standby, up
                to which everything is here (0: not known)
    mirror      how this standby follows; None on a leader
    addresses   the floating addresses that this node moves
    concerns    what an operator should look at, worst first
    scrub       what is known of this node's own copies
    now         seconds since 1970
    """

    node: str
    role: Role
    term: int
    leader: str | None
    mode: str
    ready: bool
    version: str
    sync_set: tuple[str, ...] = ()
    standbys: tuple[StandbyStatus, ...] = ()
    rescued_refs: int = 0
    reason: str = ""
    cluster: str | None = None
    address: str | None = None
    position: int = 0
    uptime_s: float = 0.0
    mirror: MirrorStatus | None = None
    addresses: tuple[AddressReport, ...] = ()
    concerns: tuple[Concern, ...] = ()
    recorded_leader: str | None = None
    scrub: ScrubStatus = NO_SCRUB
    now: float = 0.0

    @property
    def level(self) -> Level:
        """How bad the worst of the concerns is."""
        return level_of(self.concerns)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of the concerns."""
        return tuple(one.text for one in self.concerns)

    def to_json(self) -> str:
        """One JSON object with a final newline; numbers are finite, seconds have three decimals."""
        value = asdict(self)
        del value["now"]
        value["standbys"] = [_standby_json(one) for one in self.standbys]
        value["mirror"] = _mirror_json(self.mirror) if self.mirror is not None else None
        value["concerns"] = [
            {"kind": one.kind, "level": one.level.word, "text": one.text} for one in self.concerns
        ]
        value["warnings"], value["level"] = self.warnings, self.level.word
        return json.dumps(_rounded(value), indent=2, allow_nan=False) + "\n"

    def to_text(self) -> str:
        """For people: at most 80 columns, the first line says who leads and whether all is well."""
        body = [line for label, text in self._rows() for line in _row(label, text)]
        return "\n".join([*_wrapped(self.headline(), ""), "", *body]) + "\n"

    def headline(self) -> str:
        """Who leads, and is all well? One line, however long."""
        where = f" {self.cluster}" if self.cluster else ""
        well = counted(self.concerns)
        if self.leader is not None:
            leads = f"{self.leader} leads{where} in term {self.term}"
            if self.role == "standby":
                return f"{leads}; this is {self.node}, a standby; {well}"
            return f"{leads}; {well}" if self.ready else f"{leads} but takes no writes: {self.reason}"
        why = next((one.text for one in self.concerns if one.kind in IN_THE_HEADLINE), self.reason)
        if self.recorded_leader is not None:
            return (
                f"{self.recorded_leader} leads{where} in term {self.term} (says the record); this node, "
                f"{self.node}, cannot follow it: {why or 'it has not connected yet'}"
            )
        return f"nobody leads{where}: {why or 'no leader is known'}"

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "node", f"{self.node}, {self.role}, up {duration(self.uptime_s)}, stargate {self.version}"
        if self.address:
            yield "address", self.address
        for one in self.addresses:
            yield "", f"{one.name}: {one.state}"
        yield "mode", f"{self.mode}, position {self.position}"
        if self.cluster:
            yield "sync set", self._sync_set()
        width = max((len(standby.name) for standby in self.standbys), default=0)
        for index, standby in enumerate(self.standbys):
            state = "in sync    " if standby.in_sync else "not in sync"
            yield "" if index else "standbys", f"{standby.name:{width}}  {state}  {standby_text(standby)}"
        if self.mirror is not None:
            yield "mirror", mirror_text(self.mirror, self.now)
        if self.rescued_refs or self.cluster:
            yield "rescued", f"{self.rescued_refs} ref{'' if self.rescued_refs == 1 else 's'}"
        if self.scrub.on or self.scrub.total:
            yield "scrub", scrub_text(self.scrub)
        for concern in self.concerns:
            if concern.kind not in IN_THE_HEADLINE:
                yield f"! {concern.level.word}", concern.text

    def _sync_set(self) -> str:
        members = [f"{name} (this node)" if name == self.node else name for name in self.sync_set]
        text = ", ".join(members) or "empty"
        if self.role == "standby" and self.node not in self.sync_set and self.term:
            return f"{text}; this node is not in it"
        return text


@dataclass(frozen=True)
class Health:
    """Whether the node works: each check by name, with None or what is wrong in one line.

    warnings  problems for which /healthz still answers 200, one line each. Example: nobody can log in.
              Clients without a login can cause that; if it gave 503, they could have the node restarted
    """

    checks: Mapping[str, str | None]
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """No check fails."""
        return not any(self.checks.values())

    @property
    def failing(self) -> dict[str, str]:
        """The checks that fail, with what is wrong."""
        return {name: text for name, text in self.checks.items() if text}

    def line(self) -> str:
        """One line for people."""
        if self.ok:
            return "; but ".join(["healthy", *self.warnings])
        return "not healthy: " + "; ".join(f"{name}: {text}" for name, text in self.failing.items())

    def to_json(self) -> str:
        """One JSON object with a final newline."""
        said = {"failing": self.failing, "warnings": list(self.warnings), "checks": sorted(self.checks)}
        return json.dumps({"healthy": self.ok, **said}) + "\n"


@dataclass(frozen=True)
class Readiness:
    """Whether this node leads and takes writes, and if not, why, in one line.

    address   what is wrong with the floating address, "" if nothing is: a leader takes writes at its
              own address all the same
    """

    ready: bool
    role: Role
    term: int
    reason: str = ""
    address: str = ""

    def line(self) -> str:
        """One line for people; the words "not leader" are in every refusal."""
        if self.ready:
            trouble = f"; but {self.address}" if self.address else ""
            return f"ready: leads in term {self.term} and takes writes{trouble}"
        return self.reason if "not leader" in self.reason else f"not leader: {self.reason}"

    def to_json(self) -> str:
        """One JSON object with a final newline."""
        return json.dumps(asdict(self)) + "\n"


class StatusSource(Protocol):
    """What a node knows about itself, from memory: no method waits for anything."""

    def status(self) -> Status:
        """The status report, as of now."""

    def health(self) -> Health:
        """The checks' latest results."""

    def ready(self) -> Readiness:
        """Whether pushes are taken here, as of now."""


class Reports:
    """The three reports as text and yes or no, as SSH and the control socket give them."""

    def __init__(self, source: StatusSource) -> None:
        self._source = source

    def healthy(self) -> tuple[bool, str]:
        """Whether the node works, and a line that says so."""
        health = self._source.health()
        return health.ok, health.line()

    def ready(self) -> tuple[bool, str]:
        """Whether this node takes writes, and a line that says so."""
        readiness = self._source.ready()
        return readiness.ready, readiness.line()

    def status(self, *, as_json: bool = False) -> tuple[int, str]:
        """The exit status of `status` (see `concerns.Level`), and the report for people or as JSON."""
        status = self._source.status()
        return int(status.level), status.to_json() if as_json else status.to_text()


def standby_text(standby: StandbyStatus) -> str:
    """How far a standby is, in words."""
    if standby.refill is not None:
        return _refill_text(standby.refill)
    if standby.lag_changes == 0 and not standby.in_sync:
        return (
            "has everything, joins soon" if standby.problem is None else "has everything, cannot be reached"
        )
    return behind(standby.lag_changes, standby.lag_s)


def mirror_text(mirror: MirrorStatus, now: float) -> str:
    """How a standby follows, in words; `now` in seconds since 1970."""
    if not mirror.connected:
        since = f" for {duration(mirror.not_connected_s)}" if mirror.not_connected_s is not None else ""
        return f"not connected{since}; {_in_step_text(mirror.in_step, now)}"
    link = f"connected to {mirror.leader}"
    if mirror.level:
        return f"{link}, up to date"
    if mirror.refill is not None:
        return f"{link}, {_refill_text(mirror.refill)}"
    return f"{link}, {behind(mirror.behind_changes, mirror.behind_s)}"


def _in_step_text(in_step: Equality | None, now: float) -> str:
    if in_step is None:
        return "never in step with a leader"
    place = f"term {in_step.term}, position {in_step.position}"
    if not in_step.at:
        return f"last in step at an unknown time ({place})"
    return f"last in step {time_of_day(in_step.at, now)} ({place})"


def _refill_text(refill: Refill) -> str:
    return catching_up(refill.done, refill.total, refill.received_bytes, refill.bytes_per_s)


def _standby_json(standby: StandbyStatus) -> dict[str, Any]:
    """The documented keys. Differences between nodes are in the concerns."""
    value = asdict(standby)
    del value["differs"]
    return value


def _mirror_json(mirror: MirrorStatus) -> dict[str, Any]:
    """The documented keys, in their order."""
    in_step = mirror.in_step
    return {
        "connected": mirror.connected,
        "leader": mirror.leader,
        "behind_changes": mirror.behind_changes,
        "behind_s": mirror.behind_s,
        "last_error": mirror.last_error,
        "level": mirror.level,
        "position": mirror.position,
        "not_connected_s": mirror.not_connected_s,
        "in_step_at": in_step.at if in_step is not None else None,
        "in_step_position": in_step.position if in_step is not None else 0,
        "in_step_term": in_step.term if in_step is not None else 0,
        "refill": asdict(mirror.refill) if mirror.refill is not None else None,
        "problem": mirror.problem,
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _row(label: str, text: str) -> list[str]:
    indent = " " * LABEL_COLUMNS
    first, *rest = _wrapped(text, indent)
    return [f"{label:{LABEL_COLUMNS}}{first.removeprefix(indent)}", *rest]


def _wrapped(text: str, indent: str) -> list[str]:
    lines = textwrap.wrap(
        printable(text, instead=" "),
        TEXT_COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return lines or [indent]
