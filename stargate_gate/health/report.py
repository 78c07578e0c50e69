"""The status report: one frozen value, and how it reads as JSON and on a terminal.

Pure: no clock, no I/O. Whoever fills in a `Status` decides what is true; this module only says it.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from stargate_gate.health.concerns import Concern, Level, counted, level_of
from stargate_gate.health.wording import behind, catching_up, duration, time_of_day
from stargate_gate.printable import printable

TEXT_COLUMNS = 80  # what a plain terminal, a pager and a paste into a ticket all show unbroken
LABEL_COLUMNS = 11
IN_THE_HEADLINE = frozenset({"nobody_leads", "no_writes", "starting", "cannot_follow", "cut_off"})

Role = Literal["leader", "standby"]


@dataclass(frozen=True)
class RefillReport:
    """How far a standby is with the first list of a connection.

    done, total     repositories that differed from the leader's; both 0 while it compares
    received_bytes  of this connection
    bytes_per_s     of the last seconds
    """

    done: int
    total: int
    received_bytes: int
    bytes_per_s: int

    def text(self) -> str:
        """In words."""
        return catching_up(self.done, self.total, self.received_bytes, self.bytes_per_s)


@dataclass(frozen=True)
class StandbyReport:
    """A standby as the leader sees it. Lags are upper bounds; None: not known, as for one never seen.

    refill   how far it is, while it is being checked
    problem  why this node does not find it where it says that it is; None if it does
    """

    name: str
    in_sync: bool
    lag_changes: int | None = None
    lag_s: float | None = None
    refill: RefillReport | None = None
    problem: str | None = None

    def text(self) -> str:
        """How far it is, in words."""
        if self.refill is not None:
            return self.refill.text()
        if self.lag_changes == 0 and not self.in_sync:
            return (
                "has everything, joins soon" if self.problem is None else "has everything, cannot be reached"
            )
        return behind(self.lag_changes, self.lag_s)


@dataclass(frozen=True)
class MirrorReport:
    """A standby's own view of how it follows. None: not known.

    leader            whom it follows, or tries to
    behind_changes    what it knows to lack
    behind_s          for how long it has not been equal to its leader
    level             connected, and everything that the leader has told of is here
    position          of the leader's feed, up to which everything is here
    not_connected_s   for how long; None while it is connected
    in_step_at        when it was last equal to a leader: seconds since 1970, by the leader's clock
    in_step_position  and at which position of the feed of `in_step_term`
    refill            how far it is, while it is being checked
    problem           why the leader does not find this node where it says that it is; None if it does
    """

    connected: bool
    leader: str | None = None
    behind_changes: int | None = None
    behind_s: float | None = None
    last_error: str | None = None
    level: bool = False
    position: int = 0
    not_connected_s: float | None = None
    in_step_at: int | None = None
    in_step_position: int = 0
    in_step_term: int = 0
    refill: RefillReport | None = None
    problem: str | None = None

    def text(self, now: float) -> str:
        """How it follows, in words; `now` in seconds since 1970."""
        if not self.connected:
            since = f" for {duration(self.not_connected_s)}" if self.not_connected_s is not None else ""
            return f"not connected{since}; {self._in_step(now)}"
        link = f"connected to {self.leader}"
        if self.level:
            return f"{link}, up to date"
        if self.refill is not None:
            return f"{link}, {self.refill.text()}"
        return f"{link}, {behind(self.behind_changes, self.behind_s)}"

    def _in_step(self, now: float) -> str:
        if self.in_step_at is None:
            return "never in step with a leader"
        place = f"term {self.in_step_term}, position {self.in_step_position}"
        if not self.in_step_at:
            return f"last in step at an unknown time ({place})"
        return f"last in step {time_of_day(self.in_step_at, now)} ({place})"


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

    @property
    def wanted(self) -> Literal["claimed", "released"]:
        """What it should be."""
        return "claimed" if self.state in {"claimed", "claiming"} else "released"

    def trouble(self) -> str | None:
        """What an operator should know, in one line."""
        return None if self.problem is None else f"{self.name} is not {self.wanted}: {self.problem}"


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
    standbys: tuple[StandbyReport, ...] = ()
    rescued_refs: int = 0
    reason: str = ""
    cluster: str | None = None
    address: str | None = None
    position: int = 0
    uptime_s: float = 0.0
    mirror: MirrorReport | None = None
    addresses: tuple[AddressReport, ...] = ()
    concerns: tuple[Concern, ...] = ()
    recorded_leader: str | None = None
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
            yield "" if index else "standbys", f"{standby.name:{width}}  {state}  {standby.text()}"
        if self.mirror is not None:
            yield "mirror", self.mirror.text(self.now)
        if self.rescued_refs or self.cluster:
            yield "rescued", f"{self.rescued_refs} ref{'' if self.rescued_refs == 1 else 's'}"
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

    def status(self, *, as_json: bool = False) -> tuple[int, str]:
        """The exit status of `status` (see `concerns.Level`), and the report for people or as JSON."""
        status = self._source.status()
        return int(status.level), status.to_json() if as_json else status.to_text()


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
