"""Passes on what the scrub finds: a damaged copy of a standby is noted as unsound, and so replaced.

A leader's copy is not noted: nobody has a newer one to replace it, and the note alone would refuse all access
to a repository of which most may be readable. The scrub names it in the status. It is noted with the next
check after another node has taken over.
"""

from collections.abc import Callable

import structlog

from stargate_gate.errors import StargateError
from stargate_gate.repos.repository import Repository, is_id
from stargate_gate.repos.store import Store
from stargate_gate.scrub.findings import Report

log = structlog.get_logger()


class UnsoundFindings:
    """One per node of a cluster. `leads`: whether this node leads now."""

    def __init__(self, store: Store, leads: Callable[[], bool]) -> None:
        self._store = store
        self._leads = leads

    async def hear(self, report: Report) -> None:
        """The result of one check."""
        if report.verdict.result != "damaged" or self._leads() or not is_id(report.key):
            return
        try:
            copy = await self._store.register.by_id(report.key, search=True)
            if copy is not None and _is_folder(copy, report.folder):
                await self._store.unsound.note(report.key, str(copy.name), report.verdict.why)
        except (StargateError, OSError) as error:
            log.warning("copy_not_noted_as_unsound", repository=report.name, id=report.key, error=str(error))


def _is_folder(copy: Repository, inode: int) -> bool:
    """Whether that folder was checked; another one may have come to its place since. Raises OSError."""
    return copy.path.lstat().st_ino == inode
