"""The status report: one frozen value, and how it reads as JSON and on a terminal.

Pure: no clock, no I/O. Whoever fills in a `Status` decides what is true; this module only says it.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

TEXT_COLUMNS = 80  # what a plain terminal, a pager and a paste into a ticket all show unbroken
LABEL_COLUMNS = 11
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400

Role = Literal["leader", "standby"]


@dataclass(frozen=True)
class StandbyReport:
    """A standby as the leader sees it. Lags are upper bounds; None: not known, as for one never seen."""

    name: str
    in_sync: bool
    lag_changes: int | None = None
    lag_s: float | None = None


@dataclass(frozen=True)
class MirrorReport:
    """A standby's own view of how it follows. None: not known."""

    connected: bool
    leader: str | None = None
    behind_changes: int | None = None
    behind_s: float | None = None
    last_error: str | None = None


@dataclass(frozen=True)
class AddressReport:
    """One floating address, as far as this node moves it.

    state    "claimed": it leads here; "released": it does not; "claiming", "releasing": not known to
             be so yet
    problem  what failed last; None once it is as it should be
    """

    name: str
    state: Literal["claimed", "claiming", "released", "releasing"]
    problem: str | None = None

    def trouble(self) -> str | None:
        """What an operator should know, in one line."""
        if self.problem is None:
            return None
        wanted = "claimed" if self.state in {"claimed", "claiming"} else "released"
        return f"{self.name} is not {wanted}: {self.problem}"


@dataclass(frozen=True)
class Status:
    """What a node says about itself and its cluster. `/status` has these fields under these names.

    leader      name of the node that leads, or None while nobody is known to
    term        the number of the leadership; 0: none known
    sync_set    the standbys that hold every acknowledged push
    standbys    as the leader sees them; empty on a standby
    mode        "sync", "strict" or "async", as in force
    ready       this node leads and takes writes; `reason` says why not, or "" if it does
    cluster     the cluster's name; None: a single node
    address     what users put in their URLs
    position    the feed position: the newest change of this term; 1 before the first
    mirror      how this standby follows; None on a leader
    addresses   the floating addresses that this node moves
    warnings    what an operator should look at: one line each, worst first
    """

    node: str
    role: Role
    term: int
    leader: str | None
    mode: str
    ready: bool
    version: str
    sync_set: tuple[str, ...] = ()
    standbys: tuple[StandbyReport, ...] = ()
    rescued_refs: int = 0
    reason: str = ""
    cluster: str | None = None
    address: str | None = None
    position: int = 0
    uptime_s: float = 0.0
    mirror: MirrorReport | None = None
    addresses: tuple[AddressReport, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One JSON object with a final newline; numbers are finite, seconds have three decimals."""
        return json.dumps(_rounded(asdict(self)), indent=2, allow_nan=False) + "\n"

    def to_text(self) -> str:
        """For people: at most 80 columns, the first line says who leads and whether all is well."""
        body = [line for label, text in self._rows() for line in _row(label, text)]
        return "\n".join([*_wrapped(self.headline(), ""), "", *body]) + "\n"

    def headline(self) -> str:
        """Who leads, and is all well? One line, however long."""
        where = f" {self.cluster}" if self.cluster else ""
        count = len(self.warnings)
        well = f"{count} warning{'s' if count > 1 else ''}" if count else "all is well"
        if self.leader is None:
            return f"nobody leads{where}: {self.reason or 'no leader is known'}"
        leads = f"{self.leader} leads{where} in term {self.term}"
        if self.role == "standby":
            follows = self.mirror is not None and self.mirror.connected
            well = well if follows or self.warnings else "not connected to it"
            return f"{leads}; this is {self.node}, a standby; {well}"
        return f"{leads}; {well}" if self.ready else f"{leads} but takes no writes: {self.reason}"

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "node", f"{self.node}, {self.role}, up {duration(self.uptime_s)}, stargate {self.version}"
        if self.address:
            yield "address", self.address
        for one in self.addresses:
            yield "", f"{one.name}: {one.state}"
        yield "mode", f"{self.mode}, position {self.position}"
        if self.cluster:
            yield "sync set", ", ".join(self.sync_set) or "empty"
        width = max((len(standby.name) for standby in self.standbys), default=0)
        for index, standby in enumerate(self.standbys):
            state = "in sync    " if standby.in_sync else "not in sync"
            lag = behind(standby.lag_changes, standby.lag_s)
            yield "" if index else "standbys", f"{standby.name:{width}}  {state}  {lag}"
        if self.mirror is not None:
            yield from self._mirror_rows(self.mirror)
        if self.rescued_refs or self.cluster:
            yield "rescued", f"{self.rescued_refs} ref{'' if self.rescued_refs == 1 else 's'}"
        for warning in self.warnings:
            yield "! warning", warning

    @staticmethod
    def _mirror_rows(mirror: MirrorReport) -> Iterator[tuple[str, str]]:
        who = mirror.leader or "no leader"
        link = f"connected to {who}" if mirror.connected else f"not connected to {who}"
        yield "mirror", f"{link}, {behind(mirror.behind_changes, mirror.behind_s)}"
        if mirror.last_error:
            yield "! mirror", f"last error: {mirror.last_error}"


@dataclass(frozen=True)
class Health:
    """Whether the node works: each check by name, with None or what is wrong in one line.

    warnings  what does not make the node fail, one line each: that nobody can log in, for one. A stranger
              who could turn this answer to 503 could have the node restarted by what watches it
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

    def status_text(self) -> str:
        """The report for people."""
        return self._source.status().to_text()

    def status_json(self) -> str:
        """The report for programs."""
        return self._source.status().to_json()


def duration(seconds: float) -> str:
    """A length of time in its two largest units: "42 s", "3 min 5 s", "2 d 7 h"."""
    whole = max(0, int(seconds))
    for size_s, name, smaller_s, smaller in ((DAY_S, "d", HOUR_S, "h"), (HOUR_S, "h", MINUTE_S, "min")):
        if whole >= size_s:
            return f"{whole // size_s} {name} {whole % size_s // smaller_s} {smaller}"
    return f"{whole // MINUTE_S} min {whole % MINUTE_S} s" if whole >= MINUTE_S else f"{whole} s"


def behind(changes: int | None, seconds: float | None) -> str:
    """How far somebody is behind: "up to date", "3 changes behind", "3 changes, 1.2 s behind"."""
    if changes is None:
        return "not known how far behind"
    if changes == 0:
        return "up to date"
    age = "" if seconds is None else f", {seconds:.1f} s"
    return f"{changes} change{'' if changes == 1 else 's'}{age} behind"


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
    printable = "".join(char if char.isprintable() else " " for char in text)
    lines = textwrap.wrap(
        printable,
        TEXT_COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return lines or [indent]
