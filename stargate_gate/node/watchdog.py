"""Ends the process when its event loop hangs: it could not notice that it does not lead any more.

There are two parts.

The *kernel* ends the process. The loop sets an alarm (setitimer(2)) that sends SIGALRM after `watchdog_s`,
and sets it again before it runs out. SIGALRM keeps its default action, which is the end of the process. So
nothing of the process has to run for that: no Python, no thread, no lock, no write to a stderr that nobody
reads. It works while a C extension holds the GIL, and while the process is stopped (SIGSTOP, a paused
container): then the signal waits, and the kernel acts on it before any instruction of the process runs again.

A *thread* writes where the loop hangs, shortly before. It may fail: it needs the GIL, and its write may
block. Then the end comes without the stacks. It reads the stacks as any Python code does, with the GIL. The
alternative, `faulthandler.dump_traceback_later(exit=True)`, reads them from C without the GIL. That crashed
when the other threads ran at that moment (signal 11 after SIGCONT, tried), and with a full pipe on stderr it
waited for ever instead of ending the process (tried).
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

STDERR = 2  # also where sys.stderr was replaced
FEEDS_PER_PERIOD = 4  # one late wake-up of the loop must not count as a hang
WRITE_AT = 0.75  # of the period: the rest is time to write the stacks
MAX_FRAMES = 100  # of one thread: what is written stays readable, and short enough for a pipe


async def feed_watchdog(watchdog_s: float, *, report: TextIO | None = None) -> None:
    """Keep the watchdog armed until cancelled; also feeds systemd's, if it set one (sd_notify(3)).

    When the loop does not come round for `watchdog_s` seconds, SIGALRM ends the process. Before that, at
    WRITE_AT of the time, all threads' stacks are written to `report` (default: the process's stderr), if the
    GIL is free. The time that a machine was suspended does not count (CLOCK_MONOTONIC); the lease knows of
    it. Only the main thread may run this (signal(2) by Python).
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the parent may have left it ignored,
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # or blocked
    writer = _StackWriter(watchdog_s, STDERR if report is None else report.fileno())
    writer.start()
    try:
        while True:
            signal.setitimer(signal.ITIMER_REAL, watchdog_s)
            writer.fed()
            notify_systemd("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / FEEDS_PER_PERIOD)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        writer.end()


class _StackWriter:
    """Writes every thread's stack once for each hang. Made in the loop's thread."""

    def __init__(self, watchdog_s: float, fd: int) -> None:
        self._watchdog_s = watchdog_s
        self._fd = fd
        self._loop_thread = threading.get_ident()
        self._fed_at_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def fed(self) -> None:
        """The loop has come round."""
        self._fed_at_s = time.monotonic()

    def end(self) -> None:
        """Write nothing more. Does not wait for a write that blocks."""
        self._ended.set()

    def _run(self) -> None:
        write_after_s = self._watchdog_s * WRITE_AT
        written_for = 0.0
        wait_s = write_after_s
        while not self._ended.wait(wait_s):
            fed_at_s = self._fed_at_s
            wait_s = fed_at_s + write_after_s - time.monotonic()
            if wait_s <= 0:
                wait_s = write_after_s
                if written_for != fed_at_s:
                    written_for = fed_at_s
                    self._write(time.monotonic() - fed_at_s)

    def _write(self, hangs_s: float) -> None:
        headline = (
            f"watchdog: the event loop has hung for {hangs_s:.1f} s; at {self._watchdog_s:g} s "
            "(election.watchdog_s) the node is ended. Stacks, most recent call first:"
        )
        text = "\n".join((headline, *_stacks(self._loop_thread), ""))
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode(errors="backslashreplace"))


def _stacks(loop_thread: int) -> Iterator[str]:
    """Lines for every thread but the caller's, the loop's first. Reads no source files: a disk may hang."""
    frames = sys._current_frames()  # noqa: SLF001 # the documented way to see other threads' stacks
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames.pop(threading.get_ident(), None)
    for ident in sorted(frames, key=lambda ident: ident != loop_thread):
        what = " (the event loop)" if ident == loop_thread else ""
        yield f"thread {names.get(ident, ident)}{what}:"
        yield from _stack(frames[ident])


def _stack(frame: FrameType | None) -> Iterator[str]:
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        code = frame.f_code
        yield f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}'
        frame = frame.f_back
    yield "  ..."


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
