"""Ends the process when its event loop hangs: a leader that cannot tell that it lost must not live.

Armed in C (`faulthandler`), so it fires while a thread of Python's could not run. When a process that
was stopped for longer (SIGSTOP) goes on, that thread and the loop wake up together, and the loop may
re-arm it before it fires (3 of 15, tried): so the loop looks at the clock as well. Either way the process
ends, and the kernel lets go of the lock.
"""

import asyncio
import contextlib
import faulthandler
import os
import socket
import time
from collections.abc import Callable
from typing import TextIO

STDERR = 2  # also where sys.stderr was replaced
HUNG = 1  # the exit status, the same as faulthandler's
FEEDS_PER_PERIOD = 4  # one late wake-up of the loop is no hang


async def feed_watchdog(
    watchdog_s: float, *, report: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> None:
    """Keep the watchdog armed until cancelled; also feeds systemd's, if it set one (sd_notify(3)).

    When the loop does not come round for `watchdog_s` seconds, all threads' stacks are written to
    `report` (default: the process's stderr) and the process ends with status 1. `clock` does not count
    the time a machine was suspended: its wake-up is no hang, and the lease knows of it.
    """
    file: TextIO | int = report if report is not None else STDERR
    try:
        while True:
            armed_at = clock()
            faulthandler.dump_traceback_later(watchdog_s, exit=True, file=file)
            notify_systemd("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / FEEDS_PER_PERIOD)
            if clock() - armed_at > watchdog_s:
                _end_process(file)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_process(file: TextIO | int) -> None:
    """What faulthandler was about to do: no clean-up, for nothing here may act on what it last knew."""
    with contextlib.suppress(OSError):
        os.write(file if isinstance(file, int) else file.fileno(), b"Timeout: the event loop came late\n")
        faulthandler.dump_traceback(file, all_threads=True)
    os._exit(HUNG)


def notify_systemd(message: str) -> None:
    """Tell the service manager something, if there is one. Never raises, never blocks."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.setblocking(False)
        notifier.sendto(message.encode(), address)
