"""A process whose loop hangs, or that was frozen for too long, ends: it cannot tell whether it leads."""

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stargate_gate.node.watchdog import notify_systemd
from tests.support.cluster import eventually

LIMIT_S = 60.0
WATCHDOG_S = 0.5
PROGRAM = """
import asyncio, ctypes, itertools, mmap, threading, time
from stargate_gate.node.watchdog import feed_watchdog

def hang_in_the_loop():
    time.sleep(600)

def compute(depth):
    return sum(range(depth)) + compute(depth - 1) if depth else 0

def compute_for_ever():
    while True:
        compute(50)

async def count_for_ever(file):
    with open(file, "r+b") as opened:
        memory = mmap.mmap(opened.fileno(), 0)
    def count(place):
        for number in itertools.count(1):
            memory[place : place + 8] = number.to_bytes(8, "big")
            yield
    def count_in_thread(place):
        for _ in count(place):
            compute(20)
    for place in (8, 16, 24):
        threading.Thread(target=count_in_thread, args=[place], daemon=True).start()
    for _ in count(0):
        compute(20)
        await asyncio.sleep(0)

async def main():
    watchdog = asyncio.create_task(feed_watchdog({watchdog_s}))
    await asyncio.sleep(0)
    print("fed", flush=True)
    {then}
    watchdog.cancel()
    await asyncio.gather(watchdog, return_exceptions=True)
    {after}
    print("well", flush=True)

asyncio.run(main())
"""


@contextmanager
def child(
    then: str, after: str = "pass", *, watchdog_s: float = WATCHDOG_S, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a watchdog that was fed, and now does `then`."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(watchdog_s=watchdog_s, then=then, after=after)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"fed\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes]) -> tuple[bytes, str]:
    """What a process that its watchdog ended still wrote: its stdout and stderr."""
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGALRM, err
    return out, err.decode()


def test_a_hanging_loop_ends_the_process_with_every_stack() -> None:
    """The place where it hangs is on stderr, before the end."""
    with child("hang_in_the_loop()") as process:
        out, err = ended(process)
    assert "the event loop has hung" in err
    assert err.index("(the event loop)") < err.index("hang_in_the_loop")
    assert b"well" not in out


def test_a_loop_that_computes_for_ever_ends_too() -> None:
    """Pure Python, with threads that run at the same time; and the stack is a real one."""
    both = "threading.Thread(target=compute_for_ever).start(); compute_for_ever()"
    with child(both, watchdog_s=4) as process:  # a loaded machine gives a third thread its turn late
        _, err = ended(process)
    assert err.count("in compute_for_ever") == 2


def test_a_loop_that_hangs_in_c_with_the_gil_ends_too() -> None:
    """No Python thread can run then: PyDLL keeps the GIL. Nothing can tell where it was."""
    with child("ctypes.PyDLL(None).sleep(600)") as process:
        ended(process)


def test_a_stderr_that_nobody_reads_does_not_keep_a_hanging_process_alive() -> None:
    """A full pipe: a log collector that has stopped, a terminal after Ctrl-S."""
    ours, theirs = os.pipe()
    try:
        os.set_blocking(theirs, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(theirs, bytes(65536)):
                pass
        os.set_blocking(theirs, True)
        with child("hang_in_the_loop()", stderr=theirs) as process:
            assert process.wait(LIMIT_S) == -signal.SIGALRM
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_parent_that_ignores_or_blocks_the_alarm_changes_nothing() -> None:
    """Both are inherited by programs that it starts (execve(2))."""

    def inherit() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})

    with child("hang_in_the_loop()", preexec_fn=inherit) as process:
        ended(process)


def test_a_loop_that_comes_round_is_left_alone() -> None:
    """Busy for several periods, in pieces that are short enough; then cancelled, it does not fire later."""
    with child("[await asyncio.sleep(0.05) for _ in range(60)]", "time.sleep(3)", watchdog_s=2) as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out, err) == (0, b"well\n", b"")


@pytest.mark.parametrize("attempt", range(10))
def test_a_process_frozen_for_longer_does_nothing_more_when_it_wakes(tmp_path: Path, attempt: int) -> None:
    """SIGSTOP, SIGCONT: the kernel ends it before its loop or any of its threads runs again.

    It counts in a file that it has mapped: what it did is there however it ends.
    """
    file = tmp_path / "counter"
    file.write_bytes(bytes(mmap.PAGESIZE))
    with child(f"await count_for_ever({str(file)!r})") as process:
        eventually(lambda: file.read_bytes().strip(b"\0"), "it counts")
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        before = file.read_bytes()
        time.sleep(2 * WATCHDOG_S)  # this is the fault itself, not a wait for something
        process.send_signal(signal.SIGCONT)
        ended(process)
    assert file.read_bytes() == before


def test_a_process_frozen_for_a_moment_lives_on() -> None:
    """A pause within the period is no hang."""
    with child("await asyncio.sleep(1)", watchdog_s=10) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (0, b"well\n")


def test_systemd_is_told_and_its_absence_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """sd_notify(3): one datagram to $NOTIFY_SOCKET, by path or by abstract name; never an error."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify_systemd("READY=1")
    abstract = f"@stargate-test-{os.getpid()}"
    for address, bound in (
        (str(tmp_path / "notify"), str(tmp_path / "notify")),
        (abstract, f"\0{abstract[1:]}"),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(bound)
            manager.settimeout(LIMIT_S)
            monkeypatch.setenv("NOTIFY_SOCKET", address)
            notify_systemd("WATCHDOG=1")
            assert manager.recv(100) == b"WATCHDOG=1"
