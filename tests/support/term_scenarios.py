"""Scenarios of a leader's term as text: commands in, instructions out.

    python -m tests.support.term_scenarios --rewrite    writes down what comes out now; read the difference

A file is a list of blocks. A block is a comment (lines that begin with #), one command, a line `----`, and
what the term wants then, one instruction a line, up to an empty line. Commands (links are called as members
are; `b2` is another connection of `b` if `member=b` says so):

    term [mode=sync|strict|async] [members=b,c] [few=N]   a term begins; few: repositories in a backlog
    answer [sent] [reach] [list] [record]                 what is answered at once from here on
    join LINK [member=b] [dir=ID] [instance=X] [protocol=N]
    hear LINK KIND [field=value …]                        a message; KIND is its class
    listed LINK [NAME …] [known NAME …]                   names that are found; what is known by its id
    sent LINK | looked LINK [NAME=DIGEST …] | reached LINK [problem]
    ended LINK [reason]
    read N REPOSITORY PURPOSE                             PURPOSE as in Purpose
    refs N REPOSITORY [REF=OID …] | unreadable N REPOSITORY reason | digest N REPOSITORY DIGEST
    moved N | vanished N | disk N | given-up N
    push REPOSITORY [REF=OID …]                           read, refs and disk at once
    wait N REPOSITORY SEQ | gone N
    written | uncertain | lost                            what became of the record
    catch-up UNTIL | no-catch-up
    at SECONDS                                            time passes, and the term is woken
    close
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from stargate_gate.election.port import Member
from stargate_gate.replication.illegal_event import IllegalEventError
from stargate_gate.replication.leader import backlog, events, instructions
from stargate_gate.replication.leader.context import FeedSettings, Outside
from stargate_gate.replication.leader.sent_states import State
from stargate_gate.replication.leader.sync_rules import Limits
from stargate_gate.replication.leader.term import LeaderTerm
from stargate_gate.replication.wire import about, messages
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.snapshot import RefSnapshot

FOLDER = Path(__file__).parents[1] / "replication" / "leader" / "testdata"
TERM = 7
ME = Member("a", "dir-a")
KINDS = {name: getattr(module, name) for module in (messages, about) for name in dir(module)}


class Record:
    """A `TermRecord` in memory."""

    number = TERM

    def __init__(self, names: list[str]) -> None:
        self.members: dict[Member, str | None] = {Member(name, f"dir-{name}"): None for name in names}
        self.attempted: frozenset[Member] = frozenset()

    @property
    def in_force(self) -> frozenset[Member]:
        """The sync set."""
        return frozenset(self.members)

    @property
    def needed(self) -> frozenset[Member]:
        """Also those of a write whose outcome is unknown."""
        return self.in_force | self.attempted

    def valid(self) -> bool:
        """Always."""
        return True

    async def update_members(self, choose: Callable[[], Any], *, position: int) -> frozenset[Member]:
        """Nobody calls it: the scenario says what becomes of a write."""
        raise NotImplementedError


class Scenario:
    """Runs the commands of one file."""

    def __init__(self) -> None:
        self._now = 0.0
        self._links: dict[str, int] = {}
        self._answers: set[str] = set()
        self._joins: dict[int, Member] = {}
        self._reads = 1000
        self._incarnations = 0
        self._shown: list[str] = []
        self._begin(["mode=sync"])

    def run(self, line: str) -> list[str]:
        """What comes of one command."""
        command, *words = line.split()
        self._shown = []
        try:
            if command == "term":
                self._begin(words)
            elif command == "answer":
                self._answers = set(words)
            elif command == "push":
                self._push(words)
            else:
                self._handle(self._event(command, words))
        except IllegalEventError as error:
            self._shown.append(f"error: {error}")
        return self._shown

    # -- commands --------------------------------------------------------------------------------------

    def _begin(self, words: list[str]) -> None:
        given = _pairs(words)
        backlog.MAX_REPOSITORIES = int(given.get("few", "10000"))
        self._record = Record([name for name in given.get("members", "").split(",") if name])
        outside = Outside(
            profile=about.Profile,
            new_incarnation=self._new_incarnation,
            wall_s=lambda: 1000 + self._now,
            late_delay_s=lambda times: 1.0 * times,
            record_delay_s=lambda times: 0.5 * times,
            reach_delay_s=lambda times: 2.0 * times,
        )
        settings = FeedSettings(given.get("mode", "sync"), Limits(5.0, 60.0), 10.0, 100.0)  # type: ignore[arg-type]
        self._now = 0.0
        self.term = LeaderTerm(self._record, ME, settings, outside, 0.0)

    def _new_incarnation(self) -> str:
        self._incarnations += 1
        return f"{self._incarnations:032x}"

    def _push(self, words: list[str]) -> None:
        self._reads += 1
        number, repository = str(self._reads), words[0]
        self._handle(self._event("read", [number, repository, "send"]))
        self._handle(self._event("refs", [number, *words]))
        self._handle(self._event("disk", [number]))

    def _event(self, command: str, words: list[str]) -> events.Event:  # noqa: C901, PLR0912, PLR0911 - one line each
        now = self._now
        match command, words:
            case "at", [seconds]:
                self._now = float(seconds)
                return events.Tick(self._now)
            case "join", [name, *rest]:
                return self._join(name, _pairs(rest))
            case "hear", [name, kind, *rest]:
                return events.Heard(now, self._links.get(name, 0), self._message(kind, _pairs(rest)))
            case "sent", [name]:
                return events.Sent(now, self._links[name])
            case "listed", [name, *names]:
                return self._listed(name, names)
            case "looked", [name, *rest]:
                found = [messages.Listed(_name(n), _id(n), d) for n, d in _pairs(rest).items()]
                return events.LookedUp(now, self._links[name], tuple(found))
            case "reached", [name, *problem]:
                return events.ReachTried(now, self._links[name], " ".join(problem) or None)
            case "ended", [name, *reason]:
                return events.ConnectionEnded(now, self._links.get(name, 0), " ".join(reason))
            case "read", [number, name, purpose]:
                wanted = events.Purpose(purpose.replace("-", " "))
                return events.ReadWanted(now, int(number), _id(name), wanted, _name(name))
            case "refs", [number, name, *rest]:
                snapshot = RefSnapshot("sha1", "", _pairs(rest))
                return events.RefsRead(now, int(number), State(_id(name), _name(name), snapshot))
            case "digest", [number, name, digest]:
                return events.DigestRead(now, int(number), _name(name), digest, whole=True)
            case "unreadable", [number, name, *reason]:
                return events.RefsUnreadable(now, int(number), _name(name), " ".join(reason))
            case "wait", [number, name, seq]:
                return events.WaitBegan(now, int(number), _id(name), int(seq), name)
            case "written", []:
                self._record.members, self._record.attempted = self.term.wanted_members(), frozenset()
                return events.RecordWritten(now, self._record.in_force)
            case "uncertain", []:
                self._record.attempted |= frozenset(self.term.wanted_members())
                return events.RecordUncertain(now, "the volume is full")
            case "lost", []:
                return events.RecordLost(now)
            case "catch-up", [until]:
                return events.CatchUpWanted(now, float(until))
            case "no-catch-up", []:
                return events.CatchUpGivenUp(now)
            case "close", []:
                return events.Closed(now)
            case (("moved" | "vanished" | "disk" | "given-up" | "gone"), [number]):
                return _NUMBERED[command](now, int(number))
        raise ValueError(f"no command: {command} {' '.join(words)}")

    def _listed(self, link: str, words: list[str]) -> events.RepositoriesListed:
        at = words.index("known") if "known" in words else len(words)
        known = {_id(name): _name(name) for name in words[at + 1 :]}
        return events.RepositoriesListed(self._now, self._links[link], tuple(map(_name, words[:at])), known)

    def _join(self, name: str, given: Mapping[str, str]) -> events.Joined:
        of = given.get("member", name)
        member = Member(of, given.get("dir", f"dir-{of}"))
        number = self._links[name] = len(self._joins) + 1
        self._joins[number] = member
        protocol = int(given.get("protocol", messages.PROTOCOL))
        return events.Joined(
            self._now, number, messages.Join(protocol, member, given.get("instance", "1")), f"host-{name}"
        )

    def _message(self, kind: str, given: Mapping[str, str]) -> messages.Message:
        values: dict[str, Any] = {"term": TERM, **given}
        values |= {
            name: int(value)
            for name, value in values.items()
            if str(value).isdigit() and len(str(value)) < 32
        }
        if "id" in values:
            values["id"] = _id(values["id"])
        if kind == "About":
            values.setdefault("settings", ())
        message: messages.Message = KINDS[kind](**values)
        return message

    # -- what comes out --------------------------------------------------------------------------------

    def _handle(self, event: events.Event) -> None:
        for instruction in self.term.handle(event):
            answer = self._answer(instruction)
            if answer is None:
                self._shown.append(self._show(instruction))
            else:
                if isinstance(instruction, instructions.Send):
                    self._shown.append(self._show(instruction))
                self._handle(answer)

    def _answer(self, instruction: instructions.Instruction) -> events.Event | None:
        match instruction:
            case instructions.Send() if "sent" in self._answers:
                return events.Sent(self._now, instruction.link)
            case instructions.Reach() if "reach" in self._answers:
                return events.ReachTried(self._now, instruction.link, None)
            case instructions.ListRepositories() if "list" in self._answers:
                return events.RepositoriesListed(self._now, instruction.link, (), {})
            case instructions.WriteRecord() if "record" in self._answers:
                self._record.members, self._record.attempted = self.term.wanted_members(), frozenset()
                return events.RecordWritten(self._now, self._record.in_force)
        return None

    def _show(self, value: Any) -> str:  # noqa: PLR0911 - one for each kind
        """As its repr, without what every line would have."""
        if isinstance(value, instructions.Log):
            given = " ".join(f"{key}={self._show(one)}" for key, one in value.fields.items() if key != "term")
            return f"log {value.severity} {value.event} {given}"
        if isinstance(value, Member):
            return value.name
        if isinstance(value, RefChange):
            return f"{value.ref}:{value.old}→{value.new}"
        if isinstance(value, State):
            return f"{value.name}"
        if isinstance(value, RepositoryName):
            return str(value)
        if isinstance(value, tuple | list | frozenset):
            items = sorted(map(self._show, value)) if isinstance(value, frozenset) else map(self._show, value)
            return "(" + ", ".join(items) + ")"
        if is_dataclass(value) and not isinstance(value, type):
            return self._show_fields(value)
        return str(value)

    def _show_fields(self, value: Any) -> str:
        shown = []
        for field in fields(value):
            one = getattr(value, field.name)
            if field.name == "link":
                one = next(name for name, number in self._links.items() if number == one)
            if field.name in {"term", "protocol", "settings", "head"} or one in ((), None):
                continue
            if field.name in {"id", "incarnation"} or (isinstance(one, str) and len(one) == 32):
                one = one.strip("0") or "0"
            shown.append(f"{field.name}={self._show(one)}")
        return f"{type(value).__name__}({', '.join(shown)})"


_NUMBERED: Mapping[str, Callable[[float, int], events.Event]] = {
    "moved": events.NotThere,
    "vanished": events.Vanished,
    "disk": events.OnDisk,
    "given-up": events.ReadGivenUp,
    "gone": events.WaitGivenUp,
}


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words)  # type: ignore[misc]


def _name(text: str) -> RepositoryName:
    return parse_repository_name(text)


def _id(name: str) -> str:
    return f"id-{name}"


def rewritten(text: str) -> str:
    """The file with what comes out now."""
    scenario, lines, skipping = Scenario(), [], False
    with mock.patch.object(backlog, "MAX_REPOSITORIES", backlog.MAX_REPOSITORIES):
        for line in text.splitlines():
            if skipping and line:
                continue
            skipping = False
            lines.append(line)
            if line == "----":
                lines += scenario.run(lines[-2])
                skipping = True
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compare, or rewrite."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.term_scenarios", description=__doc__)
    parser.add_argument("--rewrite", action="store_true")
    options = parser.parse_args()
    different = 0
    for path in sorted(FOLDER.glob("*.txt")):
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        different += before != after
        if options.rewrite:
            path.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{different} files differ\n")
    return 0 if options.rewrite else min(different, 1)


if __name__ == "__main__":
    sys.exit(main())
