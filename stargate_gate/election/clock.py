"""The clock by which leases are measured."""

import time


def boottime() -> float:
    """Seconds since boot, time spent suspended included (CLOCK_BOOTTIME, clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
