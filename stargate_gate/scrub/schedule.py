"""Which copy is checked next, and when; and how many are verified. Pure.

The order: first what may have been written when the node before this one ended uncleanly, then what was never
checked (also a folder that was fetched anew), then by the age of the last check. A copy is verified while its
last check has found nothing and is not older than the interval.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stargate_gate.scrub.findings import Finding, Report, Result

DAMAGED_AGAIN_S = 3600.0  # somebody may have repaired it
UNVERIFIED_AGAIN_S = 1800.0  # it was replaced, or the machine had no memory
LATE_FACTOR = 2  # a check that is due for a whole further interval is late: the scrub cannot keep up


@dataclass(frozen=True)
class Copy:
    """One copy that is on this node's disk.

    key     the repository's id; "name:<name>" if it has none
    folder  inode of its folder
    """

    key: str
    name: str
    folder: int


@dataclass(frozen=True)
class Entry:
    """What is known of one copy. Times in seconds since 1970; 0: never.

    seen      since when it is known
    tried     when it was last checked, whatever came of it
    verified  when the last whole check of it ended: sound or damaged
    folder    inode of the folder that was checked
    why       one line, if it is not sound
    suspect   not 0: it may have been written when a node ended uncleanly, and was not checked since. The
              smaller number comes first
    """

    key: str
    name: str
    seen: float = 0.0
    tried: float = 0.0
    verified: float = 0.0
    folder: int = 0
    result: Result = "unverified"
    why: str = ""
    findings: tuple[Finding, ...] = ()
    suspect: int = 0

    def to_json(self) -> list[Any]:
        """As a list of JSON values."""
        found = [[one.kind, one.where, one.why] for one in self.findings]
        times = [round(one) for one in (self.seen, self.tried, self.verified)]
        return [self.key, self.name, *times, self.folder, self.result, self.why, found, self.suspect]

    @classmethod
    def from_json(cls, value: list[Any]) -> "Entry":
        """The reverse of `to_json`.

        Raises:
            ValueError, TypeError: it is something else.
        """
        key, name, seen, tried, verified, folder, result, why, found, suspect = value
        if result not in {"sound", "damaged", "unverified"} or not isinstance(key, str):
            raise ValueError("no entry of the scrub")
        findings = tuple(Finding(*(str(part) for part in one)) for one in found)  # type: ignore[arg-type]
        times = float(seen), float(tried), float(verified)
        return cls(key, str(name), *times, int(folder), result, str(why), findings, int(suspect))


@dataclass(frozen=True)
class Summary:
    """Counts, and what of them changes with time. `oldest`: time of the check that is longest ago."""

    total: int = 0
    verified: int = 0
    suspects: int = 0
    damaged: tuple[Entry, ...] = ()
    oldest: float | None = None


class Schedule:
    """What is known of all copies. `interval_s`: how old a check may become (inf: the scrub is off)."""

    def __init__(self, interval_s: float, entries: Iterable[Entry] = ()) -> None:
        self._interval_s = interval_s
        self._entries = {one.key: one for one in entries}
        self._here: dict[str, Copy] = {}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """By key; also of copies that are not here now."""
        return self._entries

    def get(self, key: str) -> Entry | None:
        """What is known of one copy."""
        return self._entries.get(key)

    def refresh(self, copies: Iterable[Copy], now: float) -> tuple[list[Entry], list[str]]:
        """Take over which copies are here; returns entries that have changed, and keys that are gone."""
        self._here = {one.key: one for one in copies}
        changed = [self._seen(copy, now) for copy in self._here.values()]
        gone = [key for key in self._entries if key not in self._here]
        for key in gone:
            del self._entries[key]
        return [one for one in changed if one is not None], gone

    def suspect(self, copies: Iterable[tuple[str, str]], now: float) -> list[Entry]:
        """These (key and name) may have been written when a node ended uncleanly: they come first."""
        number = max((one.suspect for one in self._entries.values()), default=0)
        changed = []
        for key, name in copies:
            number += 1
            before = self._entries.get(key, Entry(key, name, seen=now))
            entry = replace(before, tried=0.0, suspect=before.suspect or number)
            self._entries[key] = entry
            changed.append(entry)
        return changed

    def checked(self, report: Report) -> Entry:
        """Take over the result of a check."""
        before = self._entries.get(report.key, Entry(report.key, report.name, seen=report.at))
        verdict = report.verdict
        if verdict.result == "unverified" and before.result == "damaged" and before.folder == report.folder:
            entry = replace(before, name=report.name, tried=report.at)  # nothing says that it is whole now
            self._entries[report.key] = entry
            return entry
        entry = replace(
            before,
            name=report.name,
            tried=report.at,
            folder=report.folder,
            result=verdict.result,
            why=verdict.why,
            findings=verdict.findings,
        )
        if verdict.result != "unverified":
            entry = replace(entry, verified=report.at, suspect=0)
        self._entries[report.key] = entry
        self._here.setdefault(report.key, Copy(report.key, report.name, report.folder))
        return entry

    def next(self, now: float) -> tuple[Copy | None, float]:
        """The copy to check now; or None, and for how many seconds nothing is due (inf: no copies)."""
        urgencies = ((self._urgency(copy, now), copy) for copy in self._here.values())
        first = min(urgencies, default=None, key=lambda one: one[0])
        if first is None:
            return None, math.inf
        (_, due), copy = first
        return (copy, 0.0) if due <= now else (None, due - now)

    def summary(self, now: float) -> Summary:
        """Counts of the copies that are here."""
        known = [self._entries[copy.key] for copy in self._here.values()]
        return Summary(
            total=len(known),
            verified=sum(self._is_verified(one, now) for one in known),
            suspects=sum(one.suspect > 0 for one in known),
            damaged=tuple(
                one for one in known if one.result == "damaged" and one.folder == self._here[one.key].folder
            ),
            oldest=min((one.verified or one.seen for one in known), default=None),
        )

    def is_late(self, oldest: float | None, now: float) -> bool:
        """Whether the scrub cannot keep up."""
        return oldest is not None and now - oldest > LATE_FACTOR * self._interval_s

    # -- inside ----------------------------------------------------------------------------------------

    def _seen(self, copy: Copy, now: float) -> Entry | None:
        before = self._entries.get(copy.key)
        if before is None:
            entry = Entry(copy.key, copy.name, seen=now)
        elif before.name != copy.name:
            entry = replace(before, name=copy.name)
        else:
            return None
        self._entries[copy.key] = entry
        return entry

    def _urgency(self, copy: Copy, now: float) -> tuple[int, float]:
        """Its class, and when it is due; in the past if it is due already. Class 9: not due yet."""
        entry, due = self._entries[copy.key], self._due(copy, now)
        if due > now:
            return 9, due
        if entry.suspect:
            return 0, float(entry.suspect) - now  # in their own order, and due
        return (1 if not entry.verified else 2), due

    def _due(self, copy: Copy, now: float) -> float:
        """When it is to be checked; in the past if it is due."""
        entry = self._entries[copy.key]
        fresh = bool(entry.folder) and entry.folder != copy.folder  # the copy was replaced
        if not entry.tried or fresh or entry.tried > now:  # or the clock was set back
            return 0.0
        if entry.result == "sound" and not entry.suspect:
            return entry.verified + self._interval_s
        again_s = DAMAGED_AGAIN_S if entry.result == "damaged" else UNVERIFIED_AGAIN_S
        return entry.tried + min(again_s, self._interval_s)

    def _is_verified(self, entry: Entry, now: float) -> bool:
        copy = self._here[entry.key]
        return (
            entry.result == "sound"
            and not entry.suspect
            and entry.folder == copy.folder
            and now - entry.verified <= self._interval_s
        )
