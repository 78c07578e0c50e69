"""What running nodes and their git processes ask of the kernel, in the order in which it happened.

strace(1) from outside, so the product has no code for it. A call that is listed with its time was not
begun before, and had not ended before `done_s`: the traced thread is held at both moments. So the times
of two tracers tell what came first wherever one thing had to wait for the other.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster import NodeProcess
from tests.support.strace import Strace

ATTACH_LIMIT_S = 30.0
WATCHED = "fsync,fdatasync,syncfs,link,linkat,rename,renameat,renameat2,pwrite64,sendto,sendmsg,exit_group"

_CALL = re.compile(r"(\d+) +([\d.]+) (\w+)\((.*)\) += (-?\d+|\?).*?(?:<([\d.]+)>)?$")
_BEGUN = re.compile(r"(\d+) +([\d.]+) (\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"(\d+) +([\d.]+) <\.\.\. (\w+) resumed>(.*)\) += (-?\d+|\?).*$")
_FD = re.compile(r"\d+<(.*?)>(?:,|$)")
_NAMES = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """One system call: when it was begun and had ended (seconds), its arguments as strace shows them."""

    pid: int
    name: str
    begun_s: float
    done_s: float
    args: str
    result: str

    @property
    def file(self) -> str:
        """What its first argument, a descriptor, is open on."""
        found = _FD.match(self.args)
        return found[1] if found else ""

    @property
    def names(self) -> list[str]:
        """The paths among its arguments."""
        return _NAMES.findall(self.args)


class Tracer(Strace):
    """Attached to a running node and everything it starts. A context manager."""

    def __init__(self, node: NodeProcess, *options: str) -> None:
        watched = options or ("-e", f"trace={WATCHED}")
        super().__init__(node, ".calls", ["-ttt", "-T", "-yy", "-s", "4096", *watched])

    def calls(self) -> list[Call]:
        """All that has ended, by the time at which it did. Ask for it after the tracer has gone."""
        return sorted(_parse(self.log.read_text(errors="replace")), key=lambda call: call.done_s)

    def injected(self) -> bool:
        """Whether a call was made to fail."""
        return "(INJECTED)" in self.log.read_text(errors="replace")


def _parse(text: str) -> Iterator[Call]:
    begun: dict[str, tuple[float, str]] = {}
    for line in text.splitlines():
        if found := _BEGUN.match(line):
            begun[found[1]] = float(found[2]), found[4]
        elif found := _RESUMED.match(line):
            at, args = begun.pop(found[1], (float(found[2]), ""))
            yield Call(int(found[1]), found[3], at, float(found[2]), args + found[4], found[5])
        elif found := _CALL.match(line):
            at = float(found[2])
            done = at + float(found[6] or 0)
            yield Call(int(found[1]), found[3], at, done, found[4], found[5])


@dataclass(frozen=True)
class Written:
    """How a file came to its place on disk: `s` is when nothing of it could be lost any more."""

    path: Path
    placed_s: float
    s: float


def on_disk(calls: Sequence[Call], path: Path, cwd: Path) -> Written:
    """When `path` was on disk: its content synced, then put in its place, then its folder synced.

    `cwd` is where git works, for names that it gives relative to it.

    Raises:
        AssertionError: one of them is missing, or in another order.
    """
    synced = {_absolute(call.file, cwd): call.done_s for call in reversed(calls) if call.name == "fsync"}
    placed = [call for call in calls if _moves(call) and _absolute(call.names[-1], cwd) == path]
    assert placed, f"nothing was put at {path}"
    place = placed[-1]
    source = _absolute(place.names[0], cwd)
    while (
        source not in synced
    ):  # an object is moved twice: out of its temporary name, and into the repository
        earlier = [call for call in calls if _moves(call) and _absolute(call.names[-1], cwd) == source]
        assert earlier, f"{path} was never synced before it was put there"
        source = _absolute(earlier[-1].names[0], cwd)
    assert synced[source] <= place.begun_s, f"{path} was put there before it was synced"
    folder = [
        call.done_s
        for call in calls
        if call.name == "fsync" and call.file == str(path.parent) and call.begun_s >= place.begun_s
    ]
    assert folder, f"{path.parent} was not synced after {path.name} was put there"
    return Written(path, place.done_s, folder[0])


def _moves(call: Call) -> bool:
    return call.name in {"link", "linkat", "rename", "renameat", "renameat2"} and call.result == "0"


def _absolute(name: str, cwd: Path) -> Path:
    return Path(os.path.normpath(cwd / name))
