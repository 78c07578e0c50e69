"""How fast bytes came in during the last seconds. Pure."""

from collections import deque

SAMPLES = 11  # one a heartbeat: ten seconds, with the usual heartbeat_s of 1


class Throughput:
    """Fed with a running count now and then. Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)

    def sample(self, now: float, count_bytes: int) -> None:
        """So much had come in by `now`."""
        self._samples.append((now, count_bytes))

    def bytes_per_s(self) -> int:
        """Between the oldest sample and the newest; 0 while there are fewer than two."""
        if not self._samples:
            return 0
        (then, before), (now, after) = self._samples[0], self._samples[-1]
        return int((after - before) / (now - then)) if now > then else 0
