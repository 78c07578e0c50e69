"""Receives SIGHUP in a program that must never end by it, not even while it starts or stops.

This is a plain signal handler and not one of asyncio's. asyncio removes its handlers when the loop is closed,
and then the kernel's default action ends the process. Python removes plain handlers as well when it ends, so
the program calls `ignore` last.
"""

import asyncio
import contextlib
import signal


class Hangups:
    """Notes each SIGHUP of this process. One per process, made in the main thread."""

    def __init__(self) -> None:
        self._came = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def listen(self) -> None:
        """From now on they are noted."""
        signal.signal(signal.SIGHUP, lambda *_: self._note())

    async def next(self) -> None:
        """Return once one has come since the last call returned, or since `listen`; many count as one."""
        self._loop = asyncio.get_running_loop()
        while not self._came:
            await self._event.wait()
            self._event.clear()
        self._came = False

    def _note(self) -> None:
        """Runs between two instructions of the main thread."""
        self._came = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._event.set)


def ignore() -> None:
    """Nothing listens (yet, or any more): a SIGHUP has no effect."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
