"""The status report: one frozen value, and how it is written as JSON and as text. Pure.

node/reports.py fills in a `Status`; this module only formats it.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

from stargate_gate.health.concerns import Concern, Level, counted, level_of
from stargate_gate.health.scrub_text import scrub_text
from stargate_gate.health.sentences import mirror_text, standby_text
from stargate_gate.health.wording import aged, amount, duration
from stargate_gate.printable import printable
from stargate_gate.status import (
    ALL_REPLICATED,
    NO_SCRUB,
    AddressReport,
    AsideStatus,
    AwayStatus,
    ExpiringKey,
    MirrorStatus,
    ScrubStatus,
    StandbyStatus,
    UnreplicatedStatus,
    VolumeStatus,
)

TEXT_COLUMNS = 80  # what a plain terminal, a pager and a paste into a ticket all show unbroken
LABEL_COLUMNS = 11
WELL = "all is well"
UNBROKEN = WELL.replace(" ", "\N{NO-BREAK SPACE}")
IN_THE_HEADLINE = frozenset({"nobody_leads", "no_writes", "starting", "cannot_follow", "cut_off"})

ADDED = ("record_age_s", "away", "unreplicated", "aside", "volumes", "expiring_keys")

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
    record_age_s  how many seconds ago the cluster record was read; None: never
    away        standbys that are not connected to this leader: members, or heard in this term
    unreplicated  what of this leader's data other nodes may lack
    aside       repositories that not every node holds
    volumes     how much room there is
    expiring_keys  users whose last key ends soon
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
    record_age_s: float | None = None
    away: tuple[AwayStatus, ...] = ()
    unreplicated: UnreplicatedStatus = ALL_REPLICATED
    aside: tuple[AsideStatus, ...] = ()
    volumes: tuple[VolumeStatus, ...] = ()
    expiring_keys: tuple[ExpiringKey, ...] = ()

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
        value = asdict(replace(self, unreplicated=ALL_REPLICATED))
        moved = {key: value.pop(key) for key in ADDED}  # what came later stands last
        del value["now"], moved["unreplicated"]
        value["standbys"] = [_standby_json(one) for one in self.standbys]
        value["mirror"] = _mirror_json(self.mirror) if self.mirror is not None else None
        value["concerns"] = [_concern_json(one) for one in self.concerns]
        value["warnings"], value["level"] = self.warnings, self.level.word
        value.update(headline=self.headline(), **moved)
        report = json.dumps(_rounded(value), indent=2, allow_nan=False)
        # It may be long, and the encoder is ten times as fast without indentation.
        unreplicated = json.dumps(_unreplicated_json(self.unreplicated), allow_nan=False)
        return f'{report.removesuffix("}").rstrip()},\n  "unreplicated": {unreplicated}\n}}\n'

    def to_text(self) -> str:
        """For people: at most 80 columns; above the empty line, who leads and whether all is well."""
        body = [line for label, text in self._rows() for line in _row(label, text)]
        return "\n".join([*_wrapped(self.headline(), ""), "", *body]) + "\n"

    def headline(self) -> str:
        """Who leads, and is all well? One line, however long."""
        where = f" {self.cluster}" if self.cluster else ""
        well = counted(self.concerns)
        others = [one for one in self.concerns if one.kind not in IN_THE_HEADLINE]
        also = f"; also {counted(others)}" if others else ""
        if self.leader is not None:
            leads = f"{self.leader} leads{where} in term {self.term}"
            if self.role == "standby":
                heard_s = self.mirror.heard_s if self.mirror is not None else None
                age = f", heard {duration(heard_s)} ago" if heard_s is not None else ""
                return f"{leads}{age}; this is {self.node}, a standby; {well}"
            return f"{leads}; {well}" if self.ready else f"{leads} but takes no writes: {self.reason}{also}"
        why = next((one.text for one in self.concerns if one.kind in IN_THE_HEADLINE), self.reason)
        if self.recorded_leader is not None:
            read = f", read {duration(self.record_age_s)} ago" if self.record_age_s is not None else ""
            return (
                f"{self.recorded_leader} leads{where} in term {self.term} (says the record{read}); "
                f"this node, {self.node}, cannot follow it: {why or 'it has not connected yet'}{also}"
            )
        return f"nobody leads{where}: {why or 'no leader is known'}{also}"

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
            text = aged(standby_text(standby), "heard", standby.heard_s)
            yield "" if index else "standbys", f"{standby.name:{width}}  {state}  {text}"
        if self.mirror is not None:
            yield "mirror", mirror_text(self.mirror, self.now)
        if self.rescued_refs or self.cluster:
            yield "rescued", f"{self.rescued_refs} ref{'' if self.rescued_refs == 1 else 's'}"
        if self.scrub.on or self.scrub.total:
            yield "scrub", scrub_text(self.scrub)
        for index, volume in enumerate(self.volumes):
            yield "" if index else "room", _room_text(volume)
        yield from self._concern_rows()

    def _concern_rows(self) -> Iterator[tuple[str, str]]:
        """Each concern; what to do once for those of a kind that follow each other."""
        for number, concern in enumerate(self.concerns, start=1):
            if concern.kind not in IN_THE_HEADLINE:
                yield f"! {concern.level.word}", concern.text
            if number == len(self.concerns) or self.concerns[number].kind != concern.kind:
                yield "  do", f"{concern.about.todo} [runbook: {concern.about.runbook}]"

    def _sync_set(self) -> str:
        members = [f"{name} (this node)" if name == self.node else name for name in self.sync_set]
        text = ", ".join(members) or "empty"
        if self.role == "leader":
            return text
        if self.node not in self.sync_set and self.term:
            text = f"{text}; this node is not in it"
        return aged(text, "record read", self.record_age_s)


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

    def to_json(self, status: Status | None = None) -> str:
        """One JSON object with a final newline. With `status`: what that says in short, too."""
        said: dict[str, Any] = {
            "failing": self.failing,
            "warnings": list(self.warnings),
            "checks": sorted(self.checks),
        }
        if status is not None:
            concerns = [_concern_json(one) for one in status.concerns]
            said |= {"level": status.level.word, "headline": status.headline(), "concerns": concerns}
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


def _standby_json(standby: StandbyStatus) -> dict[str, Any]:
    """The documented keys. Differences between nodes are in the concerns."""
    value = asdict(standby)
    del value["differs"]
    return value


def _concern_json(concern: Concern) -> dict[str, Any]:
    return {
        "kind": concern.kind,
        "level": concern.level.word,
        "text": concern.text,
        "todo": concern.about.todo,
        "runbook": concern.about.runbook,
    }


def _unreplicated_json(unreplicated: UnreplicatedStatus) -> dict[str, Any]:
    """All of them, however many: people get the first few in a concern."""
    return {
        "unknown": unreplicated.unknown,
        "repositories": [
            {
                "repository": one.repository,
                "changes": one.changes,
                "since": round(one.since, 3),
                "elsewhere": one.elsewhere,
            }
            for one in unreplicated.repositories
        ],
    }


def _room_text(volume: VolumeStatus) -> str:
    if volume.free_bytes is None or volume.total_bytes is None or volume.measured_s is None:
        return f"{volume.what}: not measured yet"
    room = f"{amount(volume.free_bytes)} of {amount(volume.total_bytes)} free"
    return aged(f"{volume.what}: {room}", "measured", volume.measured_s)


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
        "heard_s": mirror.heard_s,
        "tried_s": mirror.tried_s,
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
    """Lines of TEXT_COLUMNS. The words that scripts search for stay on one of them."""
    lines = textwrap.wrap(
        printable(text, instead=" ").replace(WELL, UNBROKEN),
        TEXT_COLUMNS,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return [line.replace(UNBROKEN, WELL) for line in lines] or [indent]
