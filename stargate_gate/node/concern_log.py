"""Logs when something begins that an operator should look at, and when it is over: what `status` counts.

So each kind of concern (health/concerns.py) has a line in the log, with the words of the status report.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import NoReturn

import structlog

from stargate_gate.health.concerns import Concern, Level
from stargate_gate.health.report import Status

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
MAX_KNOWN = 200  # concerns; more of them are not logged one by one

Key = tuple[str, str]  # kind and subject: what stays the same while the text changes with time


class ConcernLog:
    """One per node. `run` until cancelled. `status`: the report as of now."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status
        self._known: Mapping[Key, Concern] = {}

    async def run(self) -> NoReturn:
        """Look every LOOK_EVERY_S seconds."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self.look()
            except Exception:  # a bug in a report must not end the node
                log.exception("status_not_made")

    def look(self) -> None:
        """Log what is new, and what is over."""
        before, found = self._known, _by_key(self._status().concerns)
        self._known = found
        for key, one in found.items():
            if key not in before:
                report = log.error if one.level is Level.CRITICAL else log.warning
                report("concern", kind=one.kind, text=one.text, todo=one.about.todo)
        for key, one in before.items():
            if key not in found:
                log.info("concern_over", kind=one.kind, text=one.text)


def _by_key(concerns: tuple[Concern, ...]) -> dict[Key, Concern]:
    return {(one.kind, one.subject): one for one in concerns[:MAX_KNOWN]}
