"""How long to wait before trying again: doubling, bounded, and different for everybody. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

SPREAD = 0.5  # each wait is shortened by up to this share, at random: nodes that failed together try apart
MAX_DOUBLINGS = 30  # keeps 2 ** failures a number that a float can hold


@dataclass(frozen=True)
class Backoff:
    """Waits of `first_s` after the first failure, twice that after the second, and so on up to `most_s`.

    chance  a random number from 0 to 1: random.random in the product, a seeded one in the simulator
    """

    first_s: float
    most_s: float
    chance: Callable[[], float]

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after `failures` (1, 2, …) failures in a row."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(max(failures, 1) - 1, MAX_DOUBLINGS))
        return whole * (1 - SPREAD * self.chance())
