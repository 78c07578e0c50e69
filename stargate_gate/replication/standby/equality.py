"""When this standby was last equal to a leader: on disk, so that it is known after a restart.

`stargate promote` uses it to say what may be lost, and `stargate status` to say how old the data of a standby
is that is not connected. The time is that of the leader's heartbeat at which this standby lacked nothing.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import structlog

from stargate_gate.aio.tasks import HeldTasks
from stargate_gate.datadir.files import read_json, write_json_durably
from stargate_gate.formats import IN_STEP
from stargate_gate.status import Equality

log = structlog.get_logger()

FILE_NAME = "in_step.json"
WRITE_EVERY_S = 10.0  # a node that is killed says a time that is so much too early, at most


class InStep:
    """Remembers the newest equality. `note` is for the event loop; the disk is written in a thread.

    now  a clock in seconds, that of the bounded rate
    """

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._now = now
        self._newest = self._written = _read(path)
        self._wrote_at: float | None = None
        self._tasks = HeldTasks()  # one at most

    @property
    def newest(self) -> Equality | None:
        """The last one; None if there was none, ever."""
        return self._newest

    def note(self, equality: Equality) -> None:
        """It is equal now. On disk within WRITE_EVERY_S, if this is called again, or by `flush`."""
        before = self._newest
        if before is not None and (equality.term, equality.position) == (before.term, before.position):
            equality = Equality(equality.term, equality.position, max(equality.at, before.at))
        self._newest = equality
        due = self._wrote_at is None or self._now() - self._wrote_at >= WRITE_EVERY_S
        new_term = before is None or before.term != equality.term
        if (due or new_term) and not self._tasks and equality != self._written:
            self._tasks.start(self._write(equality), "note-in-step")

    async def flush(self) -> None:
        """Put the newest on disk now."""
        await self._tasks.ended()
        if self._newest is not None and self._newest != self._written:
            await self._write(self._newest)

    async def _write(self, equality: Equality) -> None:
        self._wrote_at = self._now()
        try:
            await asyncio.to_thread(write_json_durably, self._path, asdict(equality), IN_STEP)
            self._written = equality
        except OSError as error:
            log.warning("in_step_not_noted", path=str(self._path), reason=error.strerror)


def _read(path: Path) -> Equality | None:
    """What is not there, or damaged, is not known. Raises NewerFormatError."""
    try:
        found = read_json(path, IN_STEP)
        if found is None:
            return None
        return Equality(int(found["term"]), int(found["position"]), int(found["at"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("in_step_not_read", path=str(path), reason=str(error))
        return None
