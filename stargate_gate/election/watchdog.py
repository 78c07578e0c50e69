"""Ends the process when its event loop hangs: a leader that cannot tell that it lost must not live.

Armed in C (`faulthandler`), so it fires while a thread of Python's could not run, and it fires at
once when a process that was stopped for longer (SIGSTOP) goes on. The kernel then lets go of the lock.
"""

import asyncio
import contextlib
import faulthandler
import os
import socket
from typing import TextIO

STDERR = 2  # also where sys.stderr was replaced
FEEDS_PER_PERIOD = 4  # one late wake-up of the loop is no hang


async def feed_watchdog(watchdog_s: float, *, report: TextIO | None = None) -> None:
    """Keep the watchdog armed until cancelled; also feeds systemd's, if it set one (sd_notify(3)).

    When the loop does not come round for `watchdog_s` seconds, all threads' stacks are written to
    `report` (default: the process's stderr) and the process ends with status 1.
    """
    file: TextIO | int = report if report is not None else STDERR
    try:
        while True:
            faulthandler.dump_traceback_later(watchdog_s, exit=True, file=file)
            notify_systemd("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / FEEDS_PER_PERIOD)
    finally:
        faulthandler.cancel_dump_traceback_later()


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
