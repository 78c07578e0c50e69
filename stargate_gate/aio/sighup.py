"""SIGHUP for a program that must not end by it, from its first moment to its last.

A plain signal handler, not asyncio's: asyncio takes its own away when the loop is closed, and the kernel's
default ends the process. Python does the same with plain handlers as it ends; so `ignore` comes last.
Knows no other room.
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
