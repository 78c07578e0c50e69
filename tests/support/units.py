"""Reading unit files, and sets of system calls, as systemd does."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

LIMIT_S = 60.0
SECONDS = {"s": 1.0, "min": 60.0, "ms": 0.001, "": 1.0}


def settings(file: Path) -> Mapping[str, Sequence[str]]:
    """All values of each setting, in order; sections do not matter here."""
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        if "=" in line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def seconds(span: str) -> float:
    """A time span of one number: systemd.time(7)."""
    match = re.fullmatch(r"([0-9.]+)([a-z]*)", span)
    assert match, span
    return float(match[1]) * SECONDS[match[2]]


@cache
def system_calls(name: str) -> frozenset[str]:
    """A system call, or those of a set like "@system-service"."""
    if not name.startswith("@"):
        return frozenset({name})
    text = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", name],
        capture_output=True, text=True, check=True, timeout=LIMIT_S,
    ).stdout  # fmt: skip
    words = [
        line.strip() for line in text.splitlines()[1:] if line.strip() and not line.strip().startswith("#")
    ]
    return frozenset().union(*(system_calls(word) for word in words))


def allowed(filters: Sequence[str]) -> frozenset[str]:
    """What several SystemCallFilter= lines leave: systemd.exec(5)."""
    left: frozenset[str] = frozenset()
    for line in filters:
        listed = frozenset().union(*(system_calls(word) for word in line.removeprefix("~").split()))
        left = left - listed if line.startswith("~") else left | listed
    return left
