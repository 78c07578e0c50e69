"""A `StandbySession` by commands of text; see datadriven.py, and tests/replication/standby/testdata/.

    at 3.5                      what follows happens at that time
    session parallel=1          a new one, of node-b with node-a, in term 4; unsound=app:why is noted before
    unsound app why             that copy was found damaged
    begin, connected, sent, tick, ended REASON
    hear KIND …                 a message of the leader's
    done JOB …                  a step is done; then its answer
    failed JOB KIND MESSAGE     a step has failed
    progress JOB BYTES, bytes   objects have come

Repositories are called by their names: app has the id that stands for "app". Object ids are one digit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from stargate_gate.election.port import Member
from stargate_gate.errors import GitFailedError, NoSuchRepositoryError, UnavailableError
from stargate_gate.replication.illegal_event import IllegalEventError
from stargate_gate.replication.rescue.unreplicated import Kept
from stargate_gate.replication.rescue.values import COMMIT, Value
from stargate_gate.replication.standby import events, steps
from stargate_gate.replication.standby import instructions as do
from stargate_gate.replication.standby.answers import (
    Digest,
    Histories,
    LeaderCannotReadError,
    LeaderRepository,
    Occupant,
    OnDisk,
    TermOverError,
    Unsound,
    Walked,
)
from stargate_gate.replication.standby.core import StandbySession
from stargate_gate.replication.standby.intent import Intent
from stargate_gate.replication.wire.about import About, Profile, Reached
from stargate_gate.replication.wire.messages import (
    PROTOCOL,
    Changed,
    Compare,
    Deleted,
    Enroll,
    Gone,
    Heartbeat,
    ListBegin,
    Listed,
    ListEnd,
    ListPart,
    Refused,
    Welcome,
)
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.snapshot import RefSnapshot

TERM = 4
LEADER, ME = Member("node-a", "id-a"), Member("node-b", "id-b")
HEAD = "ref: refs/heads/main"
HEADS = "refs/heads/"


@dataclass(frozen=True)
class FakeCopy:
    """A repository here."""

    name: RepositoryName


@dataclass(frozen=True)
class FakeCensus:
    known: Mapping[str, FakeCopy]
    strays: tuple[FakeCopy, ...]


class SessionText:
    """Runs the commands of one file."""

    def __init__(self) -> None:
        self.now = 0.0
        self.session = StandbySession(ME, "instance", LEADER, TERM, parallel=2)

    def run(self, command: str) -> list[str]:
        word, *words = command.split()
        if word == "at":
            self.now = float(words[0])
            return []
        if word == "session":
            given = dict(one.split("=") for one in words)
            parallel = int(given.get("parallel", "2"))
            name, _, why = given.get("unsound", "").partition(":")
            unsound = {_id(name): Unsound(RepositoryName(name), why)} if name else {}
            self.session = StandbySession(ME, "instance", LEADER, TERM, parallel=parallel, unsound=unsound)
            return []
        try:
            return [line for event in self._events(word, words) for line in self._handle(event)]
        except IllegalEventError as error:
            return [f"IllegalEventError: {error}"]

    def _handle(self, event: events.Event) -> list[str]:
        """What is computed is not shown: it is done here, at once."""
        lines = []
        for one in self.session.handle(event):
            if isinstance(one, do.Do) and isinstance(one.step, steps.Compute):
                answer = one.step.function(*one.step.arguments)
                lines += self._handle(events.StepDone(self.now, one.job, answer))
            else:
                lines.append(_line(one))
        return lines

    def _events(self, word: str, words: list[str]) -> list[events.Event]:  # noqa: C901, PLR0911 - one case for each
        now = self.now
        match word:
            case "begin":
                return [events.Begun(now)]
            case "connected":
                return [events.Connected(now)]
            case "sent":
                return [events.Sent(now)]
            case "tick":
                return [events.Tick(now)]
            case "ended":
                return [events.ConnectionEnded(now, " ".join(words))]
            case "unsound":
                return [events.FoundUnsound(now, _id(words[0]), RepositoryName(words[0]), words[1])]
            case "bytes":
                return [events.BytesCame(now)]
            case "progress":
                return [events.MadeProgress(now, int(words[0]), int(words[1]))]
            case "done":
                return [events.StepDone(now, int(words[0]), _answer(*words[1:]))]
            case "failed":
                return [events.StepFailed(now, int(words[0]), _error(words[1], " ".join(words[2:])), 0.0)]
            case "hear":
                return [events.Heard(now, one) for one in _messages(*words)]
            case "measured":
                return [events.Measured(now, Profile(words[0]), int(words[1]))]
        raise ValueError(word)


# -- what is given ---------------------------------------------------------------------------------------


def _id(name: str) -> str:
    return name.encode().hex().ljust(32, "0")


def _oid(digit: str) -> str:
    return digit * 40


def _refs(words: tuple[str, ...]) -> dict[str, str]:
    return {HEADS + ref: _oid(digit) for ref, digit in (one.split("=") for one in words)}


def _change(word: str) -> RefChange:
    """main:1→2; "-" is no value."""
    ref, _, values = word.partition(":")
    old, new = (None if one == "-" else _oid(one) for one in values.split("→"))
    return RefChange(HEADS + ref, old, new)


def _numbers(words: tuple[str, ...]) -> tuple[dict[str, int], tuple[str, ...]]:
    """The words that are `seq=3` and the like, and the others."""
    known = {"seq", "check", "replicated", "at", "term", "count"}
    numbers = {key: int(value) for key, _, value in (one.partition("=") for one in words) if key in known}
    return numbers, tuple(one for one in words if one.partition("=")[0] not in known)


def _digest(text: str) -> str | None:
    """D is one; "?" is not known; `refs:main=1,topic=2` is that of such a repository."""
    if text == "?":
        return None
    if text.startswith("refs:"):
        return RefSnapshot("sha1", HEAD, _refs(tuple(text.removeprefix("refs:").split(",")))).digest
    return text * 64


def _messages(kind: str, *words: str) -> list[Any]:  # noqa: C901, PLR0911 - as above
    numbers, rest = _numbers(words)
    term, seq = numbers.get("term", TERM), numbers.get("seq", 0)
    name = RepositoryName(rest[0]) if rest and kind in {"changed", "compare", "deleted"} else None
    match kind:
        case "welcome":
            return [Welcome(PROTOCOL, term, LEADER, 1.0)]
        case "refused":
            return [Refused(" ".join(rest))]
        case "heartbeat":
            return [Heartbeat(term, seq, numbers.get("replicated", 0), numbers.get("at", 0))]
        case "list":
            pairs = [one.partition("=") for one in rest]
            listed = tuple(Listed(RepositoryName(one), _id(one), _digest(of)) for one, _, of in pairs)
            check = numbers["check"]
            end = ListEnd(term, check, numbers.get("count", len(listed)))
            return [ListBegin(term, check, seq), ListPart(term, check, listed), end]
        case "list-end":
            return [ListEnd(term, numbers["check"], numbers["count"])]
        case "changed" if name is not None:
            return [Changed(term, seq, name, _id(rest[0]), HEAD, tuple(map(_change, rest[1:])))]
        case "compare" if name is not None:
            return [Compare(term, seq, name, _id(rest[0]))]
        case "deleted" if name is not None:
            return [Deleted(term, seq, name, _id(rest[0]))]
        case "enroll":
            return [Enroll(term, rest[0])]
        case "about":
            return [About(term, rest[0], ())]
        case "reached":
            return [Reached(term, " ".join(rest))]
    raise ValueError(kind)


def _copy(name: str) -> FakeCopy:
    return FakeCopy(RepositoryName(name))


def _answer(kind: str = "ok", *words: str) -> Any:  # noqa: C901, PLR0911, PLR0912 - one case for each
    numbers, rest = _numbers(words)
    match kind:
        case "ok" | "none":
            return None
        case "yes" | "no":
            return kind == "yes"
        case "on-disk":
            return OnDisk(" ".join(words))
        case "copy":
            return _copy(rest[0])
        case "copies":
            return tuple(map(_copy, rest))
        case "adopted":
            return _copy(rest[0]), "unsafe" not in rest
        case "id" | "head" | "format":
            return _id(rest[0]) if kind == "id" else " ".join(rest)
        case "census":
            known = {_id(one): _copy(one) for one in rest if not one.startswith("stray:")}
            strays = [_copy(one.removeprefix("stray:")) for one in rest if one.startswith("stray:")]
            return FakeCensus(known, tuple(strays))
        case "moved-census":  # app-as-old: the repository app lies under the name old
            pairs = [one.split("-as-") for one in rest]
            return FakeCensus({_id(one): _copy(name) for one, name in pairs}, ())
        case "digests":
            return tuple(
                None if one == "none" else Digest(_digest(one.rstrip("!")) or "", one.endswith("!"))
                for one in rest
            )
        case "refs":
            broken = frozenset(HEADS + one.removeprefix("broken:") for one in rest if "=" not in one)
            return RefSnapshot("sha1", HEAD, _refs(tuple(one for one in rest if "=" in one)), broken)
        case "leader":
            identity, _, name = rest[0].partition("-as-")
            snapshot = RefSnapshot("sha1", HEAD, _refs(rest[1:]))
            return LeaderRepository(_id(identity), RepositoryName(name or identity), snapshot, numbers["seq"])
        case "gone":
            return Gone(TERM, numbers["seq"], _id(rest[0]), "deleted" in rest)
        case "occupant":
            return Occupant(_copy(rest[0]), _id(rest[1]) if len(rest) > 1 else None)
        case "kept":
            terms = {
                HEADS + ref: int(term) for ref, term in (one.split("=") for one in rest if "any" not in one)
            }
            anything = [int(one.removeprefix("any=")) for one in rest if one.startswith("any=")]
            return Kept(terms, anything[0] if anything else None)
        case "histories":
            oids = frozenset(_oid(one.removeprefix("beyond:")) for one in rest if "beyond:" in one)
            kinds = {_oid(one.removeprefix("beyond:")): COMMIT for one in rest}
            return Histories(kinds, oids)
        case "walked":
            return Walked(int(rest[0]), _git(" ".join(rest[1:])))
        case "intents":
            changes = tuple(map(_change, rest[1:]))
            return [Intent(_id(rest[0]), rest[0], (changes,), HEAD)] if rest else []
    raise ValueError(kind)


def _git(message: str) -> GitFailedError:
    return GitFailedError(["git", "something"], 1, message.encode())


def _error(kind: str, message: str) -> Exception:
    match kind:
        case "git":
            return _git(message)
        case "unavailable":
            return UnavailableError(message)
        case "disk":
            return OSError(message)
        case "no-repository":
            return NoSuchRepositoryError(message)
        case "unreadable":
            name, last, *reason = message.split()
            digest = None if last == "unknown" else _digest(last)
            return LeaderCannotReadError(RepositoryName(name), " ".join(reason), digest)
        case "term-over":
            return TermOverError(message)
    raise ValueError(kind)


# -- what is shown ---------------------------------------------------------------------------------------


def _line(instruction: do.Instruction) -> str:  # noqa: PLR0911 - one for each kind
    """One line."""
    match instruction:
        case do.Do():
            return f"do {instruction.job} {_show(instruction.step)}"
        case do.Cancel():
            return f"cancel {instruction.job}"
        case do.Send():
            after = "; ".join(one.what for one in instruction.after)
            said = ", ".join(map(_show, instruction.messages))
            return f"send {said}{f'   after: {after}' if after else ''}"
        case do.Wake():
            return f"wake at {instruction.at:g}"
        case do.End():
            return f"end: {instruction.reason}"
        case steps.Log():
            given = ", ".join(
                f"{key}={value}" for key, value in instruction.fields.items() if key != "remedy"
            )
            return f"log {instruction.level} {instruction.event} {given}"
        case _:
            return _show(instruction)


def _show(value: Any) -> str:  # noqa: PLR0911 - one for each kind
    match value:
        case FakeCopy() | Listed():
            return str(value.name)
        case RepositoryName():
            return str(value)
        case OnDisk():
            return f"«{value.what}»"
        case RefChange():
            old, new = (one[0] if one else "-" for one in (value.old, value.new))
            return f"{value.ref.removeprefix(HEADS)}:{old}→{new}"
        case Value():
            return f"{value.ref.removeprefix(HEADS)}={value.oid[0]}"
        case str():
            return _word(value)
        case tuple() | list():
            return "(" + " ".join(map(_show, value)) + ")"
        case frozenset() | set():
            return "{" + " ".join(sorted(map(_show, value))) + "}"
    if is_dataclass(value):
        given = " ".join(
            f"{field.name}={_show(getattr(value, field.name))}"
            for field in fields(value)
            if field.name not in {"term", "protocol"}
        )
        return f"{type(value).__name__}({given})"
    return getattr(value, "__name__", None) or str(value)


def _word(text: str) -> str:
    """An id by the name that it stands for, an object id by its digit."""
    if len(text) in {40, 64} and len(set(text)) == 1:
        return text[0]
    if len(text) == 32:
        return bytes.fromhex(text).rstrip(b"\0").decode("ascii", "replace")
    return text.removeprefix(HEADS)
