"""What a check of one copy finds, and what counts as damage. Pure.

A check never holds a repository, so pushes and housekeeping change it meanwhile. A finding may come from
that: git lists the objects first and follows the refs later, and a pack may be replaced in between. Every
single file is replaced by a rename, so such a finding is gone at the next look. Therefore a finding counts
only if two looks in a row have it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stargate_gate.printable import printable

Kind = Literal["layout", "head", "config", "id", "ref", "object", "pack", "helper", "unpaired", "walk"]
Result = Literal["sound", "damaged", "unverified"]

MAX_FINDINGS = 20  # of one copy; what is wrong with the disk is clear by then
MAX_WHY = 300  # characters

# What an operator does if the copy does not heal by itself. `helper`: git makes these files itself.
REMEDIES: Mapping[Kind, str] = {
    "helper": "remove that file: git works without it, and makes it again",
    "id": "restart the node if it leads; else put the id of the leader's copy into the file",
    "config": "put config.before-stargate or the config of another node's copy in its place",
}
REMEDY = 'a standby replaces its copy by itself; for a leader see "a copy is damaged" in the runbook'

# What git says if the machine has too little of something; the copy may be whole.
_NO_RESOURCES = re.compile(
    r"out of memory|cannot allocate|too many open files|cannot fork|resource temporarily", re.IGNORECASE
)
_OID = r"[0-9a-f]{40}(?:[0-9a-f]{24})?"
_MISSING = re.compile(rf"missing (?P<type>\w+) (?P<oid>{_OID})")
_STORED_IN = re.compile(r"\(stored in (?:\./)?(?P<file>[^)]+)\)")
_OBJECT_FILE = re.compile(r"error: (?:object file )?(?:\./)?(?P<file>objects/[^ :]+)[ :]+(?P<why>.*)")
_REF = re.compile(r"error: (?P<ref>refs/[^:]+|HEAD): (?P<why>.*)")
_PACKED_REFS = re.compile(r"fatal: (?P<why>[^.]*(?:line|packed)[^.]*) (?:in|from) (?:\./)?packed-refs")
_CONFIG = re.compile(r"bad config|bad numeric config|bad boolean config", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    where  the file, relative to the repository; or the ref, or "object <oid>"
    why    in words, one line
    """

    kind: Kind
    where: str
    why: str

    def __str__(self) -> str:
        return f"{printable(self.where)}: {self.why}"

    @property
    def same(self) -> tuple[Kind, str]:
        """Equal for the same finding of two looks."""
        return self.kind, self.where

    @property
    def remedy(self) -> str:
        """What an operator can do."""
        return REMEDIES.get(self.kind, REMEDY)


@dataclass(frozen=True)
class Look:
    """One look at a whole copy.

    folder    inode of the repository's folder
    findings  at most MAX_FINDINGS
    undone    why a part could not be checked; None: all was
    """

    folder: int
    findings: tuple[Finding, ...] = ()
    undone: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What the looks at a copy say. `why`: one line; "" if it is sound."""

    result: Result
    findings: tuple[Finding, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Report:
    """The result of one check: what the node passes on to whoever has to know that a copy is unsound.

    key         the repository's id; "name:<name>" if it has none
    folder      inode of the folder that was checked
    at          when, in seconds since 1970
    read_bytes  that this took
    """

    key: str
    name: str
    folder: int
    at: float
    verdict: Verdict
    read_bytes: int = 0


def judge(before: Look | None, now: Look) -> Verdict | None:
    """What two looks in a row say; None: look once more."""
    if not now.findings:
        return Verdict("sound") if now.undone is None else Verdict("unverified", why=now.undone)
    if before is None or before.folder != now.folder:
        return None
    known = {one.same for one in before.findings}
    confirmed = tuple(one for one in now.findings if one.same in known)
    if not confirmed:
        return None
    return Verdict("damaged", confirmed, why=in_words(confirmed))


def in_words(findings: Sequence[Finding]) -> str:
    """The first of the findings, and how many more there are."""
    more = len(findings) - 1
    return f"{findings[0]}{f' (and {more} more)' if more > 0 else ''}"


def finding_of(value: Mapping[str, Any]) -> Finding:
    """What a line of the reader says.

    Raises:
        KeyError: it says something else.
    """
    return Finding(value["kind"], str(value["where"]), one_line(str(value["why"])))


def combined(read: Sequence[Finding], walked: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings of the reader and of git about the same copy, each thing once.

    A pack without its index, or the other way round, is damage only if objects are missing: a killed git may
    have left it.
    """
    alone = [one for one in read if one.kind == "unpaired"]
    first = [one for one in read if one.kind != "unpaired"] + (alone if walked else [])
    named = {one.where for one in first}
    rest = [one for one in walked if one.where not in named]
    return tuple([*first, *rest][:MAX_FINDINGS])


def walk_findings(status: int, stdout: str, stderr: str) -> tuple[tuple[Finding, ...], str | None]:
    """What `git fsck --connectivity-only` has found, and why it could not check everything (or None).

    status  its exit status; negative for a signal
    """
    if status == 0:
        return (), None
    if status < 0:
        return (), f"git was ended by signal {-status}"
    if _NO_RESOURCES.search(stderr):
        return (), f"git needs more than it may have: {_first_error(stderr)}"
    found = {one.same: one for one in (*_of_stdout(stdout), *_of_stderr(stderr))}
    if not found:
        return (Finding("walk", "objects", _first_error(stderr) or f"git fsck failed with {status}"),), None
    return tuple(found.values())[:MAX_FINDINGS], None


def _of_stdout(text: str) -> Iterator[Finding]:
    for line in text.splitlines():
        if (found := _MISSING.match(line)) is not None:
            yield Finding("object", f"object {found['oid']}", f"this {found['type']} is missing")


def _of_stderr(text: str) -> Iterator[Finding]:
    for line in text.splitlines():
        if (found := _STORED_IN.search(line)) is not None:
            kind: Kind = "pack" if found["file"].endswith(".pack") else "object"
            yield Finding(
                kind, found["file"], "an object in it is damaged" if kind == "pack" else "is damaged"
            )
        elif (found := _OBJECT_FILE.match(line)) is not None:
            yield Finding("object", found["file"], one_line(found["why"]))
        elif (found := _REF.match(line)) is not None:
            head = found["ref"] == "HEAD"
            yield Finding("head" if head else "ref", found["ref"], one_line(found["why"]))
        elif (found := _PACKED_REFS.match(line)) is not None:
            yield Finding("ref", "packed-refs", one_line(found["why"]))
        elif line.startswith("fatal: ") and _CONFIG.search(line):
            yield Finding("config", "config", one_line(line.removeprefix("fatal: ")))


def _first_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("error: ", "fatal: "))]
    return one_line(lines[0].partition(": ")[2]) if lines else ""


def one_line(text: str) -> str:
    """`text` in one line of at most MAX_WHY characters that is safe to print."""
    return printable(" ".join(text.split()), MAX_WHY)


def texts(findings: Iterable[Finding]) -> list[str]:
    """One line each."""
    return [str(one) for one in findings]
