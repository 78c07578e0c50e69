"""Brings one address to where it belongs and keeps it there, in a task of its own.

`FloatingAddress` says what is wanted and may wait for it, with a time limit. An address that cannot be moved
is reported in status and log, and tried again for as long as it is wanted.
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
from stargate_gate.aio.tasks import run_until
from stargate_gate.errors import AddressError
from stargate_gate.status import AddressReport, AddressState

log = structlog.get_logger()

REST_S = 3600.0  # how often the loop runs while there is nothing to do


class Reconciler:
    """One address and its wanted state. `run` is the loop; `FloatingAddress` calls `want` and `report`.

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
        """The time limit of one attempt."""
        return self._address.limit_s

    def want(self, turn: Turn, proved: Callable[[], bool]) -> None:
        """Set the wanted state. An attempt at anything else is cancelled. `proved`: see `next_step`."""
        self._wanted, self._proved = turn, proved
        self._failures = 0
        self._tried.clear()
        self._changed.set()

    async def tried(self) -> None:
        """Return when the wanted state is in force, or one attempt at it has failed."""
        await self._tried.wait()

    def report(self) -> AddressReport:
        """The state now, from memory."""
        leads = self._wanted.role == "leader"
        if self._done is not None and (self._done.role == "leader") == leads:
            state: AddressState = "claimed" if leads else "released"
        else:
            state = "claiming" if leads else "releasing"
        return AddressReport(self._address.name, state, self._problem)

    async def run(self) -> NoReturn:
        """Run until cancelled."""
        while True:
            self._changed.clear()
            wanted = self._wanted
            step = next_step(wanted, self._done, proved=self._proved())
            pause_s = REST_S if wanted.role == "standby" else self._address.keep_s
            if step == "rest":
                self._tried.set()
            elif not await self._attempt(step, wanted):
                continue  # something else is wanted now
            elif self._problem is not None:
                pause_s = retry_s(self._failures)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def _attempt(self, step: Step, wanted: Turn) -> bool:
        """Take one step. False if it was cancelled because something else is wanted now."""
        turn = wanted
        if step == "release" and wanted.role == "leader":
            turn = replace(wanted, role="standby", reason="lost")
        if step != "keep":
            self._done = None  # from here until the step succeeds, it is not known which state is in force
        finished = False

        async def attempt() -> None:
            nonlocal finished
            problem = await self._carry_out(step, turn)
            finished = True
            self._note(step, turn, problem)

        try:
            await run_until(self._changed.wait(), attempt())
        finally:
            if not finished:
                self._done = None  # how far it got is not known
        if finished and not self._changed.is_set():
            self._tried.set()
        return finished

    async def _carry_out(self, step: Step, turn: Turn) -> str | None:
        """Call the address. Returns what failed, None if nothing did."""
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
