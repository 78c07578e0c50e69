"""Which sessions run now, which wait, and which are refused.

Theory. A session costs a git process, so a node runs a bounded number of sessions. What one client uses,
others cannot have. So there are shares below that bound:

- Pushes and reads have a pool each, and neither can use the other's.
- One key, and one address, may have `per_key` and `per_address` sessions of both pools together, and one key
  `pushes_per_key` pushes: a push whose client does not go on keeps its share for as long as relay.py allows.
- A request over one of these bounds waits for a few seconds, in a queue that is bounded, too. A free share
  goes to the waiting key that has the fewest sessions running, and among equals to the request that came
  first. So a key with a hundred waiting requests is served as often as a key with one.

Peers are not counted here: the sync set depends on them.

`Admission` decides, and is pure; `AdmissionQueue` lets sessions wait for its decisions.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stargate_gate.access.identity import Identity
from stargate_gate.errors import UnavailableError
from stargate_gate.net.addresses import network_of

Pool: TypeAlias = Literal["push", "read"]


@dataclass(frozen=True)
class Shares:
    """How many sessions may run at a time. Each is at least 1.

    reads, pushes            by pool
    per_key, per_address     of both pools together
    pushes_per_key           of the pushes
    """

    reads: int = 150
    pushes: int = 50
    per_key: int = 50
    per_address: int = 100
    pushes_per_key: int = 25

    @property
    def may_wait(self) -> int:
        """How many requests may wait: as many as may run."""
        return self.reads + self.pushes


@dataclass(frozen=True)
class Claim:
    """One request for a session.

    number   unique; later requests have larger numbers
    key      whose: a fingerprint, or a user's name
    address  of the client; a text that is not an address is not counted by address
    """

    number: int
    pool: Pool
    key: str
    address: str


@dataclass(frozen=True)
class Refusal:
    """The request may neither run nor wait. `text` is for the client."""

    text: str


Verdict: TypeAlias = Literal["run", "wait"] | Refusal


class Admission:
    """The claims that run and wait now. Every claim that `enter` did not refuse must `leave`. Pure."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._running: dict[int, Claim] = {}
        self._waiting: dict[int, Claim] = {}  # in the order in which they came
        self._by_pool: Counter[str] = Counter()
        self._by_key: Counter[str] = Counter()
        self._pushes_by_key: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()
        self._waiting_by_key: Counter[str] = Counter()

    def enter(self, claim: Claim) -> Verdict:
        """A new claim. It runs or waits from now on, unless it is refused."""
        reason = self.exceeded(claim)
        if reason is None:
            self._run(claim)
            return "run"
        if (
            len(self._waiting) >= self._shares.may_wait
            or self._waiting_by_key[claim.key] >= self._shares.per_key
        ):
            return Refusal(reason)
        self._waiting[claim.number] = claim
        self._waiting_by_key[claim.key] += 1
        return "wait"

    def leave(self, claim: Claim) -> tuple[Claim, ...]:
        """A claim no longer runs or waits. Returns the waiting claims that run from now on instead."""
        if self._running.pop(claim.number, None) is not None:
            self._count(claim, -1)
        elif self._waiting.pop(claim.number, None) is not None:
            self._waiting_by_key[claim.key] -= 1
        started: list[Claim] = []
        while (following := self._next()) is not None:
            del self._waiting[following.number]
            self._waiting_by_key[following.key] -= 1
            self._run(following)
            started.append(following)
        self._forget_zeros()
        return tuple(started)

    def exceeded(self, claim: Claim) -> str | None:
        """The bound that `claim` would exceed if it ran now, in words for the client; None: it may run."""
        shares = self._shares
        most = shares.pushes if claim.pool == "push" else shares.reads
        if self._by_pool[claim.pool] >= most:
            return "this node serves as many sessions as it may, try again later"
        if self._by_key[claim.key] >= shares.per_key:
            return f"{shares.per_key} sessions of your key run here already, as many as may: try again later"
        if claim.pool == "push" and self._pushes_by_key[claim.key] >= shares.pushes_per_key:
            return f"{shares.pushes_per_key} pushes of your key run here already: try again later"
        network = network_of(claim.address)
        if network is not None and self._by_network[network] >= shares.per_address:
            return (
                f"{shares.per_address} sessions run from {network} already, as many as may: try again later"
            )
        return None

    def _next(self) -> Claim | None:
        able = (claim for claim in self._waiting.values() if self.exceeded(claim) is None)
        return min(able, key=lambda claim: (self._by_key[claim.key], claim.number), default=None)

    def _run(self, claim: Claim) -> None:
        self._running[claim.number] = claim
        self._count(claim, 1)

    def _count(self, claim: Claim, change: int) -> None:
        self._by_pool[claim.pool] += change
        self._by_key[claim.key] += change
        if claim.pool == "push":
            self._pushes_by_key[claim.key] += change
        if (network := network_of(claim.address)) is not None:
            self._by_network[network] += change

    def _forget_zeros(self) -> None:
        """Without this the counters would grow for months, by each key and network that ever came."""
        for counter in (self._by_key, self._pushes_by_key, self._by_network, self._waiting_by_key):
            for name in [name for name, count in counter.items() if count <= 0]:
                del counter[name]


class AdmissionQueue:
    """Lets a session run within its shares, or refuses it after `wait_s` seconds."""

    def __init__(self, shares: Shares, wait_s: float) -> None:
        self._admission = Admission(shares)
        self._wait_s = wait_s
        self._numbers = itertools.count()
        self._may_run: dict[int, asyncio.Event] = {}  # by number of the waiting claim

    @asynccontextmanager
    async def session(self, identity: Identity, pool: Pool) -> AsyncIterator[None]:
        """The scope of one session of `identity`: entered when it may run.

        Raises:
            UnavailableError: on entering, if no share became free in time, or too many wait already.
        """
        claim = Claim(next(self._numbers), pool, identity.fingerprint or identity.user, identity.source)
        verdict = self._admission.enter(claim)
        if isinstance(verdict, Refusal):
            raise UnavailableError(verdict.text)
        try:
            if verdict == "wait":
                await self._wait(claim)
            yield
        finally:
            for started in self._admission.leave(claim):
                self._may_run[started.number].set()

    async def _wait(self, claim: Claim) -> None:
        may_run = self._may_run[claim.number] = asyncio.Event()
        try:
            async with asyncio.timeout(self._wait_s):
                await may_run.wait()
        except TimeoutError:
            if not may_run.is_set():
                text = self._admission.exceeded(claim)
                raise UnavailableError(text or "too many sessions wait here, try again later") from None
        finally:
            del self._may_run[claim.number]
