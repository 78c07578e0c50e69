"""A standby's side of joining the sync set: the offered incarnation is noted, and then confirmed."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from stargate_gate.aio.backoff import Backoff
from stargate_gate.errors import StargateError
from stargate_gate.replication.standby.acks import Answers

log = structlog.get_logger()

NOTE_BACKOFF = Backoff(0.2, 30.0, random.random)  # a full disk is not asked all the time


class Enrolling:
    """Of one session: the newest offer counts. `note` puts it on disk, or raises StargateError."""

    def __init__(self, leader: str, answers: Answers, note: Callable[[str], Awaitable[None]]) -> None:
        self._leader = leader
        self._answers = answers
        self._note = note
        self._task: asyncio.Task[None] | None = None

    def begin(self, group: asyncio.TaskGroup, incarnation: str) -> None:
        """Note it and say so. A disk that takes no writes keeps this node out of the sync set, no more."""
        if self._task is not None:
            self._task.cancel()
        self._task = group.create_task(self._enroll(incarnation), name="mirror-enroll")

    async def _enroll(self, incarnation: str) -> None:
        failures = 0
        while True:
            try:
                await self._note(incarnation)
            except StargateError as error:
                failures += 1
                if failures == 1:
                    log.warning("membership_not_noted", error=error.message, leader=self._leader)
                await asyncio.sleep(NOTE_BACKOFF.delay_s(failures))
            else:
                self._answers.enrolled(incarnation)
                return
