"""What is wrong with single repositories, for status and log. It stops nothing else.

Each problem is logged once in NOTE_PERIOD_S, however often it is found meanwhile.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection

import structlog

from stargate_gate.repos.names import RepositoryName

log = structlog.get_logger()

NOTE_PERIOD_S = 600.0  # before the same is said again
MAX_NOTES = 1000  # repositories; beyond that the one that was noted first is forgotten
SHOWN = 5  # of them in status; the others are counted


class Notes:
    """One line a repository. `now` gives the seconds of some clock."""

    def __init__(self, event: str, now: Callable[[], float]) -> None:
        self._event = event
        self._over = f"{event}_over"
        self._now = now
        self._lines: OrderedDict[RepositoryName, str] = OrderedDict()
        self._said: OrderedDict[tuple[RepositoryName, str], float] = OrderedDict()

    def say(self, name: RepositoryName, line: str) -> None:
        """That is wrong with the repository now."""
        self._lines[name] = line
        if len(self._lines) > MAX_NOTES:
            self._lines.popitem(last=False)
        now = self._now()
        if now - self._said.get((name, line), now - NOTE_PERIOD_S) >= NOTE_PERIOD_S:
            self._said[name, line] = now
            if len(self._said) > MAX_NOTES:
                self._said.popitem(last=False)
            log.warning(self._event, repository=str(name), problem=line)

    def clear(self, name: RepositoryName) -> None:
        """Nothing is wrong with it any more."""
        if self._lines.pop(name, None) is not None:
            log.info(self._over, repository=str(name))

    def clear_all_but(self, names: Collection[RepositoryName]) -> None:
        """Nothing is wrong with any other repository."""
        for name in [name for name in self._lines if name not in names]:
            self.clear(name)

    def get(self, name: RepositoryName) -> str | None:
        """What is wrong with that one."""
        return self._lines.get(name)

    @property
    def lines(self) -> tuple[str, ...]:
        """For status: the first few, and how many more."""
        lines = tuple(self._lines.values())
        if len(lines) <= SHOWN:
            return lines
        return (*lines[:SHOWN], f"and {len(lines) - SHOWN} more repositories: see the log")
