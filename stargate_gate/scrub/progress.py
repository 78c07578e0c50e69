"""What the scrub knows of each copy, on disk: state/scrub.log. It survives a restart.

After the first line, one fact a line (datadir/checked_lines.py); the last fact about a copy counts:

    ["copy", ...]          schedule.Entry.to_json
    ["gone", key]          the copy is not here any more
    ["unclean", since]     a node ended uncleanly, and it is not known which copies it wrote after `since`
    ["listed"]             the copies that this is about have been marked as suspect

Nothing rests on this file: a line that is damaged or missing means that a copy is checked once more.
Therefore a line is synced only if losing it would hide something: a suspect, a damaged copy.

It also has the mark of a running node, state/running.json. A node that is stopped in order removes it, so who
finds it at its start knows that the last one was not.
"""

import contextlib
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import structlog

from stargate_gate.datadir.checked_lines import checked_line, read_checked_line
from stargate_gate.datadir.files import fsync_dir, read_json, write_durably, write_json_durably
from stargate_gate.datadir.layout import DataDir
from stargate_gate.formats import RUNNING, SCRUB
from stargate_gate.repos.names import SUFFIX
from stargate_gate.scrub.copies import copy_of
from stargate_gate.scrub.schedule import Entry, Schedule

log = structlog.get_logger()

FILE_NAME = "scrub.log"
RUNNING_NAME = "running.json"
FILE_MODE = 0o600
SPARE_LINES = 1000  # more than twice the copies and this: the file is written anew
ALIVE_EVERY_S = 300.0  # how often a node notes that it runs; see RunningMark
SLACK_S = 2 * ALIVE_EVERY_S  # file times and the node's clock may differ

Fact = list[Any]


class Progress:
    """The file. One per node; its methods block for the disk."""

    def __init__(self, path: Path, entries: dict[str, Entry], unclean: float | None, lines: int) -> None:
        self._path = path
        self._lines = lines
        self._stale = False  # the file has to be written anew
        self.entries = entries
        self.unclean = unclean

    @classmethod
    def open(cls, path: Path) -> "Progress":
        """Read it; what is damaged is left out.

        Raises:
            NewerFormatError: a newer version has written it.
        """
        entries: dict[str, Entry] = {}
        unclean: float | None = None
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            log.warning("scrub_progress_not_read", path=str(path), error=str(error))
            content = b""
        lines = SCRUB.body(content, path).splitlines()
        damaged = 0
        for line in lines:
            try:
                fact = read_checked_line(line)
                if fact[0] == "copy":
                    entry = Entry.from_json(fact[1:])
                    entries[entry.key] = entry
                elif fact[0] == "gone":
                    entries.pop(fact[1], None)
                elif fact[0] == "unclean":
                    unclean = float(fact[1]) if unclean is None else min(unclean, float(fact[1]))
                elif fact[0] == "listed":
                    unclean = None
            except (ValueError, TypeError, IndexError, KeyError):
                damaged += 1
        if damaged:
            log.warning("scrub_progress_damaged", path=str(path), lines=damaged)
        progress = cls(path, entries, unclean, len(lines))
        progress._stale = bool(damaged) or not content.startswith(SCRUB.header)
        return progress

    def add(self, facts: Iterable[Fact], *, durably: bool = False) -> None:
        """Append. If it cannot be written, that is logged: the copies are checked again after a restart."""
        content = [checked_line(fact) for fact in facts]
        if not content:
            return
        try:
            if self._stale or self._lines + len(content) > 2 * len(self.entries) + SPARE_LINES:
                self._rewrite()
            else:
                self._append(b"".join(content), durably=durably)
                self._lines += len(content)
        except OSError as error:
            self._stale = True
            log.warning("scrub_progress_not_written", path=str(self._path), error=str(error))

    def put(self, entries: Iterable[Entry], *, durably: bool = False) -> None:
        """Note what is known now of these copies."""
        changed = list(entries)
        self.entries.update((one.key, one) for one in changed)
        self.add((["copy", *one.to_json()] for one in changed), durably=durably)

    def forget(self, keys: Iterable[str]) -> None:
        """These are not here any more."""
        gone = list(keys)
        for key in gone:
            self.entries.pop(key, None)
        self.add(["gone", key] for key in gone)

    def listed(self) -> None:
        """What was written at an unclean end is marked."""
        self.unclean = None
        self.add([["listed"]], durably=True)

    def ended_uncleanly(self, since: float) -> None:
        """A node ended uncleanly: what it wrote after `since` is suspect. Durable."""
        self.unclean = since if self.unclean is None else min(since, self.unclean)
        self.add([["unclean", round(since)]], durably=True)

    def _append(self, content: bytes, *, durably: bool) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(fd, "ab", buffering=0) as file:
            file.write(content)
            if durably:
                os.fsync(file.fileno())

    def _rewrite(self) -> None:
        facts = [["copy", *one.to_json()] for one in self.entries.values()]
        if self.unclean is not None:
            facts.append(["unclean", round(self.unclean)])
        write_durably(self._path, SCRUB.header + b"".join(map(checked_line, facts)), mode=FILE_MODE)
        self._stale, self._lines = False, len(facts)


class RunningMark:
    """state/running.json: that a node runs, and until when it is known to have run (`alive_at`)."""

    def __init__(self, datadir: DataDir) -> None:
        self._path = datadir.state / RUNNING_NAME

    def alive_at(self) -> float | None:
        """When the node that left the mark was last known to run; None: the last one was stopped in order.

        Raises:
            NewerFormatError: a newer version has written it.
        """
        try:
            value = read_json(self._path, RUNNING)
            return None if value is None else float(value["alive_at"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0  # it was there

    def set(self, now: float) -> None:
        """A node runs, and does so `now`."""
        try:
            write_json_durably(self._path, {"alive_at": round(now)}, RUNNING)
        except OSError as error:
            log.warning("running_not_noted", path=str(self._path), error=str(error))

    def clear(self) -> None:
        """It was stopped in order: nothing is being written."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            fsync_dir(self._path.parent)


def note_unclean_end(datadir: DataDir, paths: frozenset[Path] | None, now: float) -> None:
    """A starting node calls this while nobody writes, before anything is swept. Blocks for the disk.

    paths  the repositories that were written to when the node before it ended; None: that is not known

    Raises:
        NewerFormatError: a newer version has written the files.
    """
    mark = RunningMark(datadir)
    alive_at = mark.alive_at()
    if alive_at is not None:
        progress = Progress.open(datadir.state / FILE_NAME)
        if paths is None:
            progress.ended_uncleanly(max(0.0, alive_at - SLACK_S))
        else:
            _note_writers(datadir, progress, paths, now)
    mark.set(now)


def _note_writers(datadir: DataDir, progress: Progress, paths: frozenset[Path], now: float) -> None:
    found = []
    for path in sorted(paths):
        with contextlib.suppress(OSError, ValueError):  # it is gone, or was being made
            name = str(path.relative_to(datadir.repositories)).removesuffix(SUFFIX)
            found.append((copy_of(path, name).key, name))
    schedule = Schedule(math.inf, progress.entries.values())
    progress.put(schedule.suspect(found, now), durably=True)
