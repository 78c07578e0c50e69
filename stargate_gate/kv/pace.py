"""How long a command tries, and how long it waits between two attempts."""

import os
import time

SILENCE_LIMIT_S = 10.0  # a leader waits up to `ack_timeout_s` (5 s) for its standby before it answers
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0  # a failover takes about as long
LEAST_PATIENCE_S = 0.5  # for an attempt that begins just before the end


class Pace:
    """The time limit of one command. Made when it begins."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._until = time.monotonic() + timeout_s
        self._pauses = 0

    def left_s(self) -> float:
        """Seconds until the limit, at least 0."""
        return max(0.0, self._until - time.monotonic())

    def over(self) -> bool:
        """Whether the limit has been reached."""
        return self.left_s() == 0

    def patience_s(self) -> float:
        """How long a remote may send nothing now. One that sends something may go on beyond the limit."""
        return min(SILENCE_LIMIT_S, max(LEAST_PATIENCE_S, self.left_s()))

    def pause(self) -> None:
        """Wait, longer each time, at most until the limit; random, so that two clients part."""
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._pauses, self.left_s())
        self._pauses += 1
        time.sleep((1 + os.urandom(1)[0] % 4) / 4 * longest)
