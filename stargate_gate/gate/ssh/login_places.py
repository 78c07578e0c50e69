"""Whether one more connection may begin to log in, and which other one is closed for it. Pure.

A stranger who opens connections and sends nothing must not keep others out. Four rules:

1. There are `full` places, and each network may have `per_address` of them.
2. Early drop, as sshd's MaxStartups (sshd_config(5)): from `drop_from` places on, a new connection is under
   pressure with a probability that grows with the number of places taken. Under pressure it needs the place
   of another connection.
3. It gets a place of the network that has most places, if that has at least two more than its own network.
   So a user at another address gets in, whatever one attacker does.
4. Otherwise it gets the place of a connection that has had PATIENCE_S to log in, from a network that has most
   places. So under pressure the time to log in (otherwise limits.login_timeout_s) shrinks to PATIENCE_S, and
   users behind the attacker's address get places, too.

A connection without a place waits for a few seconds: see login_queue.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from stargate_gate.net.crowding import Place, most_frequent, place_to_free

PATIENCE_S = 3.0  # a login takes a tenth of it on a busy machine, and four round trips to the far side

T = TypeVar("T")


@dataclass(frozen=True)
class PlaceLimits:
    """limits.max_unauthenticated, max_unauthenticated_per_address, early_drop_from, early_drop_percent."""

    full: int = 50
    per_address: int = 20
    drop_from: int = 25
    drop_percent: int = 30


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """Whether a new connection gets a place.

    instead_of  the connection that is closed for it, if one has to be
    reason      why it gets none, or why another is closed: "per_address", "full", "early_drop"; "" if there
                was a free place
    """

    admitted: bool
    instead_of: T | None = None
    reason: str = ""


def judge(
    limits: PlaceLimits, places: Sequence[Place[T]], network: str, now_s: float, chance: float
) -> Verdict[T]:
    """May one more connection from `network` begin to log in?

    places  all that are taken
    chance  a random number, from 0 to less than 1
    """
    mine = sum(place.network == network for place in places)
    reason = _pressure(limits, mine, len(places), chance)
    if not reason:
        return Verdict(admitted=True)
    freed = _place_to_free(places, network, mine, reason, now_s)
    if freed is None:
        return Verdict(admitted=False, reason=reason)
    return Verdict(admitted=True, instead_of=freed.connection, reason=reason)


def drop_chance(limits: PlaceLimits, total: int) -> float:
    """The probability of early drop with `total` places taken, as sshd_config(5), MaxStartups."""
    if total < limits.drop_from:
        return 0.0
    if total >= limits.full:
        return 1.0
    rate = limits.drop_percent / 100
    return rate + (1 - rate) * (total - limits.drop_from) / (limits.full - limits.drop_from)


def _pressure(limits: PlaceLimits, mine: int, total: int, chance: float) -> str:
    if mine >= limits.per_address:
        return "per_address"
    if total >= limits.full:
        return "full"
    return "early_drop" if chance < drop_chance(limits, total) else ""


def _place_to_free(
    places: Sequence[Place[T]], network: str, mine: int, reason: str, now_s: float
) -> Place[T] | None:
    if reason == "per_address":
        return place_to_free(places, network, now_s - PATIENCE_S)
    largest, most = most_frequent(place.network for place in places)
    if most > mine + 1:
        return place_to_free(places, largest, now_s)
    counts = Counter(place.network for place in places)
    had_time = (place_to_free(places, one, now_s - PATIENCE_S) for one in counts if counts[one] == most)
    return min(
        (place for place in had_time if place),
        key=lambda place: (place.progress, place.since_s),
        default=None,
    )
