"""Drives one address to where it belongs, and keeps it there, in a task of its own.

Nobody waits for it longer than they say: an address that cannot be moved is told of, and tried again.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import structlog

from stargate_gate.address.port import Address, Turn
from stargate_gate.address.steps import REMIND_S, Step, next_step, retry_s
from stargate_gate.errors import AddressError
from stargate_gate.status import AddressReport, AddressState

log = structlog.get_logger()

REST_S = 3600.0  # nothing to do until something changes; looked at again that often


class Keeper:
    """One address and what is wanted of it. `run` does it; `want` and `report` come from outside.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, address: Address, turn: Turn, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._address = address
        self._clock = clock
        self._wanted = turn
        self._proved: Callable[[], bool] = lambda: False
        self._done: Turn | None = None
        self._problem: str | None = None
        self._said_at = 0.0
        self._failures = 0
        self._changed = asyncio.Event()
        self._tried = asyncio.Event()

    @property
    def limit_s(self) -> float:
        """One attempt takes no longer."""
        return self._address.limit_s

    def want(self, turn: Turn, proved: Callable[[], bool]) -> None:
        """From now on; an attempt at anything else is cancelled. `proved`: see `next_step`."""
        self._wanted, self._proved = turn, proved
        self._failures = 0
        self._tried.clear()
        self._changed.set()

    async def tried(self) -> None:
        """Return once what is wanted is in force, or one attempt at it has failed."""
        await self._tried.wait()

    def report(self) -> AddressReport:
        """As of now, from memory."""
        leads = self._wanted.role == "leader"
        if self._done is not None and (self._done.role == "leader") == leads:
            state: AddressState = "claimed" if leads else "released"
        else:
            state = "claiming" if leads else "releasing"
        return AddressReport(self._address.name, state, self._problem)

    async def run(self) -> NoReturn:
        """Until cancelled."""
        while True:
            self._changed.clear()
            wanted = self._wanted
            step = next_step(wanted, self._done, proved=self._proved())
            pause_s = REST_S if wanted.role == "standby" else self._address.keep_s
            if step == "rest":
                self._tried.set()
            elif not await self._attempt(step, wanted):
                continue  # something else is wanted meanwhile
            elif self._problem is not None:
                pause_s = retry_s(self._failures)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def _attempt(self, step: Step, wanted: Turn) -> bool:
        """One step; False if it was given up because something else is wanted."""
        turn = wanted
        if step == "release" and wanted.role == "leader":
            turn = replace(wanted, role="standby", reason="lost")
        if step != "keep":
            self._done = None
        work = asyncio.create_task(self._carry_out(step, turn), name=f"address-{step}")
        changed = asyncio.create_task(self._changed.wait(), name="address-changed")
        try:
            await asyncio.wait({work, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not work.done():
                self._done = None
            for task in (work, changed):
                task.cancel()
            await asyncio.gather(work, changed, return_exceptions=True)
        if work.cancelled():
            return False
        self._note(step, turn, work.result())
        if not self._changed.is_set():
            self._tried.set()
        return True

    async def _carry_out(self, step: Step, turn: Turn) -> str | None:
        """None, or what failed."""
        method = {"claim": self._address.claim, "keep": self._address.keep}.get(step, self._address.release)
        try:
            async with asyncio.timeout(self._address.limit_s):
                await method(turn)
        except AddressError as error:
            return error.message
        except TimeoutError:
            return f"no result within {self._address.limit_s:g} s"
        except Exception as error:
            log.exception("address_failed", address=self._address.name, step=step)
            return f"unexpected {type(error).__name__}"
        return None

    def _note(self, step: Step, turn: Turn, problem: str | None) -> None:
        before, self._problem = self._problem, problem
        about = {"address": self._address.name, "term": turn.term, "reason": turn.reason}
        if problem is None:
            self._failures = 0
            self._done = turn
            if step != "keep" or before is not None:
                log.info("address_released" if step == "release" else "address_claimed", **about)
            return
        self._failures += 1
        self._done = None
        if problem != before or self._clock() - self._said_at >= REMIND_S:
            self._said_at = self._clock()
            event = "address_not_released" if step == "release" else "address_not_claimed"
            log.error(event, **about, problem=problem, failures=self._failures)
