"""Waiting for a turn: the shell around admission.py."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stargate_gate.access.identity import Identity
from stargate_gate.errors import UnavailableError
from stargate_gate.gate.admission import Admission, Claim, Pool, Refusal, Shares


class Turns:
    """Gives each session its turn, or refuses it after `wait_s` seconds."""

    def __init__(self, shares: Shares, wait_s: float) -> None:
        self._admission = Admission(shares)
        self._wait_s = wait_s
        self._numbers = itertools.count()
        self._called: dict[int, asyncio.Event] = {}

    @property
    def running(self) -> int:
        """How many sessions have their turn."""
        return self._admission.running

    @asynccontextmanager
    async def turn(self, identity: Identity, pool: Pool) -> AsyncIterator[None]:
        """The scope of one session of `identity`.

        Raises:
            UnavailableError: on entering, if there is no room within the time, or too many wait already.
        """
        claim = Claim(next(self._numbers), pool, identity.fingerprint or identity.user, identity.source)
        verdict = self._admission.come(claim)
        if isinstance(verdict, Refusal):
            raise UnavailableError(verdict.text)
        try:
            if verdict == "wait":
                await self._wait(claim)
            yield
        finally:
            for called in self._admission.leave(claim):
                self._called[called.number].set()

    async def _wait(self, claim: Claim) -> None:
        called = self._called[claim.number] = asyncio.Event()
        try:
            async with asyncio.timeout(self._wait_s):
                await called.wait()
        except TimeoutError:
            if not called.is_set():
                text = self._admission.in_the_way(claim)
                raise UnavailableError(text or "too many sessions wait here, try again later") from None
        finally:
            del self._called[claim.number]
