"""How long to wait before trying again: doubling, bounded, and never in step with others. Pure."""

import random
from collections.abc import Callable
from dataclasses import dataclass

SPREAD = 0.5  # each wait is cut by up to that share, at random
MAX_DOUBLINGS = 30  # so that the number stays one


@dataclass(frozen=True)
class Backoff:
    """`first_s` after the first failure, twice that after the second, and so on up to `most_s`."""

    first_s: float
    most_s: float
    chance: Callable[[], float] = random.random

    def delay_s(self, failures: int) -> float:
        """What to wait after `failures` (1, 2, …) in a row, in seconds."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(max(failures, 1) - 1, MAX_DOUBLINGS))
        return whole * (1 - SPREAD * self.chance())
