"""A process that was stopped ends when it goes on, even if its loop wakes up before the watchdog's thread."""

import subprocess
import sys

LOOP_COMES_FIRST = """
import asyncio, itertools
from stargate_gate.election.watchdog import feed_watchdog

late = itertools.chain([0.0, 0.1, 0.1], itertools.repeat(60.2))

async def main():
    async with asyncio.timeout(20):
        await feed_watchdog(10, clock=lambda: next(late))

asyncio.run(main())
"""


def test_a_loop_that_comes_late_ends_the_process_before_it_arms_the_watchdog_again() -> None:
    """The clock shows a stop of 60 s between two feeds, the thread has not fired: status 1, with stacks."""
    done = subprocess.run(
        [sys.executable, "-c", LOOP_COMES_FIRST], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "Timeout: the event loop came late" in done.stderr
    assert "most recent call first" in done.stderr
    assert "Error" not in done.stderr
