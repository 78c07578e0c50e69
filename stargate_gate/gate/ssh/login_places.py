"""Whether one more connection may begin to log in, and at whose cost. Pure.

Four rules, so that a stranger who opens connections and says nothing keeps nobody out:

- A full pool, and a cap for each address well below it.
- Early drop, as sshd's MaxStartups (sshd_config(5)): the fuller the pool, the likelier a newcomer is pressed.
- A newcomer that is pressed takes the place of a connection from the address that has most, if that has at
  least two more than the newcomer's own. So a user at another address gets in, whatever one attacker does.
- Among equals it takes the place of one that has had PATIENCE_S to log in. So the time to log in, which is
  limits.login_timeout_s else, shrinks to that while there is pressure: users who share the attacker's
  address get places, too.

Who finds no place waits in front of the door for a few seconds; see connection_registry.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from stargate_gate.net.crowding import Standing, first_to_go, heaviest

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
    """Whether it may come in, and who goes for it.

    reason  why it may not, or why somebody goes: "per_address", "full", "early_drop"; "" if there is room
    """

    admitted: bool
    instead_of: T | None = None
    reason: str = ""


def judge(
    limits: PlaceLimits, standing: Sequence[Standing[T]], block: str, now_s: float, chance: float
) -> Verdict[T]:
    """May one more from `block` begin to log in? `chance` is random, from 0 to less than 1."""
    mine = sum(one.block == block for one in standing)
    reason = _pressure(limits, mine, len(standing), chance)
    if not reason:
        return Verdict(admitted=True)
    victim = _victim(standing, block, mine, reason, now_s)
    if victim is None:
        return Verdict(admitted=False, reason=reason)
    return Verdict(admitted=True, instead_of=victim.connection, reason=reason)


def drop_chance(limits: PlaceLimits, total: int) -> float:
    """How likely early drop is with `total` connections: sshd_config(5), MaxStartups start:rate:full."""
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


def _victim(
    standing: Sequence[Standing[T]], block: str, mine: int, reason: str, now_s: float
) -> Standing[T] | None:
    if reason != "per_address":
        most, count = heaviest(one.block for one in standing)
        if count > mine + 1:
            return first_to_go(standing, most, now_s)
        counts = Counter(one.block for one in standing)
        patient = (first_to_go(standing, one, now_s - PATIENCE_S) for one in counts if counts[one] == count)
        return min((one for one in patient if one), key=lambda one: (one.progress, one.since_s), default=None)
    return first_to_go(standing, block, now_s - PATIENCE_S)
