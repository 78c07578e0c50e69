"""Intents on disk: data_dir/state/intents/, one file for each repository that is being changed."""

import asyncio
import contextlib
from pathlib import Path

import structlog

from stargate_gate.aio.tasks import finish
from stargate_gate.datadir.files import fsync_dir, write_durably
from stargate_gate.formats import INTENT
from stargate_gate.replication.standby.intent import DamagedIntentError, Intent, decode, encode

log = structlog.get_logger()

FOLDER = "intents"


class Intents:
    """One per node. The caller lets only one task at a time work on a repository.

    A cancelled call raises only when its write has ended: no intent appears after its mirror has ended.
    """

    def __init__(self, folder: Path) -> None:
        """For a starting node: looks at what is in `folder`, which need not exist.

        Raises:
            NewerFormatError: a newer version has written an intent.
            OSError: one cannot be read.
        """
        self._folder = folder
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            INTENT.body(path.read_bytes(), path)

    async def put(self, intent: Intent) -> None:
        """Durable when this returns, and not before: then the first transaction may begin.

        Raises:
            OSError: it is not; the refs must stay as they are.
        """
        await finish(asyncio.to_thread(self._put, intent))

    async def remove(self, repository_id: str) -> None:
        """It is done, durably: an intent that came back later would undo what followed it.

        Raises:
            OSError: it may come back; nothing may be acknowledged.
        """
        await finish(asyncio.to_thread(self._remove, repository_id))

    async def all(self) -> list[Intent]:
        """Those that were not removed. A damaged one was never acted upon, and is removed loudly.

        Raises:
            OSError: they cannot be read.
        """
        return await asyncio.to_thread(self._all)

    def _put(self, intent: Intent) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700)
            fsync_dir(self._folder.parent)
        write_durably(self._folder / intent.repository_id, INTENT.header + encode(intent))

    def _remove(self, repository_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._folder / repository_id).unlink()
            fsync_dir(self._folder)

    def _all(self) -> list[Intent]:
        if not self._folder.is_dir():
            return []
        fsync_dir(self._folder)  # one whose removal was cut must not come back, either
        found = []
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):
                path.unlink()  # half-written: nothing was changed for it
                continue
            try:
                found.append(decode(INTENT.body(path.read_bytes(), path)))
            except DamagedIntentError as error:
                log.error("intent_damaged", path=str(path), error=str(error))  # noqa: TRY400 - no bug of ours
                path.unlink()
        return found
