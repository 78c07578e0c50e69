"""Whether work on a repository makes progress. Pure.

A push waits for a standby only while that makes progress. A few bytes a second are no progress: with them a
push on a bad line would wait for the longest time allowed. So progress is one of these, since it was reported
last:

    PROGRESS_BYTES have come
    git has used PROGRESS_CPU_S of processor time: it resolves deltas, or writes very many refs
    a step was done: a batch of refs is in place

The same counts for the leader's git that works for a standby: it may search for a long time before it sends
the first byte.
"""

from collections.abc import Callable

PROGRESS_BYTES = 1024 * 1024  # per ack_timeout_s: below 2 Mbit/s a standby in sync holds everybody up
PROGRESS_CPU_S = 0.02  # two ticks of the kernel's clock; a git that waits for anything uses none


class Progress:
    """Of one try to make one repository what the leader's is.

    alive  called whenever anything has come: both sides live
    sign   called with the number of bytes that have come so far, when something has got on
    """

    def __init__(
        self, alive: Callable[[], None] = lambda: None, sign: Callable[[int], None] = lambda _: None
    ) -> None:
        self._alive = alive
        self._sign = sign
        self.received = 0  # bytes
        self._told_bytes = 0
        self._told_cpu_s = 0.0

    def came(self, count: int) -> None:
        """So many more bytes have come, and were taken."""
        self.received += count
        self._alive()
        if self.received - self._told_bytes >= PROGRESS_BYTES:
            self._tell()

    def started(self) -> None:
        """Another process of git's is about to run: its processor time begins at nothing."""
        self._told_cpu_s = 0.0

    def worked(self, cpu_s: float) -> None:
        """The running process of git's has used that much processor time so far, in seconds."""
        if cpu_s - self._told_cpu_s >= PROGRESS_CPU_S:
            self._told_cpu_s = cpu_s
            self._tell()

    def did(self) -> None:
        """A step is done."""
        self._alive()
        self._tell()

    def _tell(self) -> None:
        self._told_bytes = self.received
        self._sign(self.received)
