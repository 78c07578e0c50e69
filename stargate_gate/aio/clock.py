"""The event loop's clock, which cores and timeouts use."""

import asyncio


def now() -> float:
    """Seconds of the monotonic clock of the running event loop."""
    return asyncio.get_running_loop().time()
