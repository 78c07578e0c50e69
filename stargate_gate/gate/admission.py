"""Who may run now, who waits, and who is refused: the shares of a node's sessions. Pure.

Theory. A session costs a git process, so a node runs a bounded number of them. What one client holds,
others lack; so three rules stand below that bound:

- pushes and reads have a pool each, and neither can take what belongs to the other;
- of both pools together one key, and one address, holds its share at most, and one key has a share of the
  pushes as well: a push that its client does not go on with holds its place for as long as relay.py allows;
- who comes over a bound waits for a short while, in a queue that is bounded too. A free place goes to the
  waiting key that has the fewest sessions running; among equals, to whoever came first. So a key that
  waits a hundred times is served as often as a key that waits once.

Peers do not come here: the sync set depends on them.
"""

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import Literal, TypeAlias

Pool: TypeAlias = Literal["push", "read"]

IPV6_CLIENT_BITS = 64  # whoever has one IPv6 address has all of its /64


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
        """How many requests wait at most: as many as may run."""
        return self.reads + self.pushes


@dataclass(frozen=True)
class Claim:
    """One request for a turn. `number` tells it from all others, and is larger for who came later.

    key      whose: a fingerprint, or a user's name
    address  from where; "" if that is not known, which is never too many
    """

    number: int
    pool: Pool
    key: str
    address: str


@dataclass(frozen=True)
class Refusal:
    """It may not run, and not wait either. `text` is for the client."""

    text: str


Verdict: TypeAlias = Literal["run", "wait"] | Refusal


class Admission:
    """Who runs and who waits at this moment. Every claim that came must leave."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._running: dict[int, Claim] = {}
        self._waiting: dict[int, Claim] = {}  # in the order in which they came
        self._by_pool: Counter[str] = Counter()
        self._by_key: Counter[str] = Counter()
        self._pushes_by_key: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self._waiting_by_key: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """How many run."""
        return len(self._running)

    def come(self, claim: Claim) -> Verdict:
        """A new claim: it runs, or waits, or is refused, and then it need not leave."""
        why_not = self.in_the_way(claim)
        if why_not is None:
            self._run(claim)
            return "run"
        if (
            len(self._waiting) >= self._shares.may_wait
            or self._waiting_by_key[claim.key] >= self._shares.per_key
        ):
            return Refusal(why_not)
        self._waiting[claim.number] = claim
        self._waiting_by_key[claim.key] += 1
        return "wait"

    def leave(self, claim: Claim) -> tuple[Claim, ...]:
        """A claim ran or waited, and does no more; the claims whose turn has come by that: they run now."""
        if self._running.pop(claim.number, None) is not None:
            self._count(claim, -1)
        elif self._waiting.pop(claim.number, None) is not None:
            self._waiting_by_key[claim.key] -= 1
        called: list[Claim] = []
        while (following := self._next()) is not None:
            del self._waiting[following.number]
            self._waiting_by_key[following.key] -= 1
            self._run(following)
            called.append(following)
        self._forget_zeros()
        return tuple(called)

    def in_the_way(self, claim: Claim) -> str | None:
        """Which bound `claim` would exceed if it ran now, in words for the client; None: it may run."""
        shares = self._shares
        most = shares.pushes if claim.pool == "push" else shares.reads
        if self._by_pool[claim.pool] >= most:
            return "this node serves as many sessions as it may, try again later"
        if self._by_key[claim.key] >= shares.per_key:
            return f"{shares.per_key} sessions of your key run here already, as many as may: try again later"
        if claim.pool == "push" and self._pushes_by_key[claim.key] >= shares.pushes_per_key:
            return f"{shares.pushes_per_key} pushes of your key run here already: try again later"
        network = network_of(claim.address)
        if network and self._by_address[network] >= shares.per_address:
            return (
                f"{shares.per_address} sessions run from {network} already, as many as may: try again later"
            )
        return None

    def _next(self) -> Claim | None:
        able = (claim for claim in self._waiting.values() if self.in_the_way(claim) is None)
        return min(able, key=lambda claim: (self._by_key[claim.key], claim.number), default=None)

    def _run(self, claim: Claim) -> None:
        self._running[claim.number] = claim
        self._count(claim, 1)

    def _count(self, claim: Claim, change: int) -> None:
        self._by_pool[claim.pool] += change
        self._by_key[claim.key] += change
        if claim.pool == "push":
            self._pushes_by_key[claim.key] += change
        self._by_address[network_of(claim.address)] += change

    def _forget_zeros(self) -> None:
        """A node runs for months, and clients come from everywhere."""
        for counter in (self._by_key, self._pushes_by_key, self._by_address, self._waiting_by_key):
            for name in [name for name, count in counter.items() if count <= 0]:
                del counter[name]


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, the /64 of an IPv6 address, "" for what is neither."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, IPV6_CLIENT_BITS), strict=False))
