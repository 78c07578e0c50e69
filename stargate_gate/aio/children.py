"""Waiting for a child process to end without a thread for each: pidfd_open(2), Linux 5.3."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable


async def exited(pid: int) -> None:
    """Return when the child `pid` has ended. It is not reaped: its number stays its own until then.

    May be cancelled and awaited again. Only for a child that nobody else reaps.
    """
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def done() -> None:
        if not ended.done():
            ended.set_result(None)

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel or a sandbox without it
        _in_thread(pid, loop, done)
        await ended
        return
    try:
        loop.add_reader(pidfd, done)
        await ended
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def _in_thread(pid: int, loop: asyncio.AbstractEventLoop, done: Callable[[], None]) -> None:
    """Block in waitid(2) elsewhere. A daemon: it must not keep a stopping node from its exit."""

    def wait() -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed meanwhile: nobody waits
            loop.call_soon_threadsafe(done)

    threading.Thread(target=wait, name=f"wait-{pid}", daemon=True).start()
