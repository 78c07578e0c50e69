"""Lists all repositories from time to time, for what `status` shows.

It finds folders that are not served, with the reason, and repository settings that only this node has.
"""

import asyncio
from collections.abc import Sequence
from typing import NoReturn

import structlog

from stargate_gate.errors import StargateError
from stargate_gate.repos.store import Store

log = structlog.get_logger()

SURVEY_EVERY_S = 300.0
MAX_SHOWN = 5  # of a kind, in status; all are in the log


class RepositorySurvey:
    """One per node. `run` until cancelled; all else is from memory.

    alone  a single node: there is no other node that could lack a setting
    """

    def __init__(self, store: Store, *, alone: bool) -> None:
        self._store = store
        self._alone = alone
        self._told: set[str] = set()

    async def run(self) -> NoReturn:
        """Survey at once, and every SURVEY_EVERY_S seconds."""
        while True:
            try:
                await self._store.list()
            except (StargateError, OSError) as error:
                log.warning("repositories_not_listed", error=str(error))
            self._tell()
            await asyncio.sleep(SURVEY_EVERY_S)

    def not_served(self) -> tuple[str, ...]:
        """Folders that are not served, and why; a line each."""
        return tuple(_shown("not served: ", self._store.not_served, ""))

    def policies(self) -> tuple[str, ...]:
        """Repositories with settings that only this node has; a line each."""
        if self._alone:
            return ()
        what_to_do = (
            "; set them on every node, and stargate.setOnEveryNode=true beside them (see the runbook)"
        )
        return tuple(_shown("settings that a failover loses: ", self._policies(), what_to_do))

    def _policies(self) -> Sequence[str]:
        return self._store.local_policies

    def _tell(self) -> None:
        """Each line once."""
        if self._alone:
            return
        policies = set(self._policies())
        for line in sorted(policies - self._told):
            log.warning("repository_settings_on_this_node_alone", settings=line)
        self._told = policies


def _shown(before: str, lines: Sequence[str], after: str) -> list[str]:
    shown = [f"{before}{line}{after}" for line in lines[:MAX_SHOWN]]
    if len(lines) > MAX_SHOWN:
        shown.append(f"{before}{len(lines) - MAX_SHOWN} more repositories: see the log")
    return shown
