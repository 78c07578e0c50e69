"""A process whose loop hangs, or that was frozen for too long, ends: it cannot tell whether it leads."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stargate_gate.election.watchdog import notify_systemd

LIMIT_S = 20.0
WATCHDOG_S = 0.5
PROGRAM = """
import asyncio, sys, time
from stargate_gate.election.watchdog import feed_watchdog

def hang_in_the_loop():
    time.sleep(60)

async def main():
    watchdog = asyncio.create_task(feed_watchdog({watchdog_s}))
    await asyncio.sleep(0.1)
    print("fed", flush=True)
    {then}
    watchdog.cancel()
    await asyncio.gather(watchdog, return_exceptions=True)
    {after}
    print("well", flush=True)

asyncio.run(main())
"""


@contextmanager
def child(then: str, after: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """A process with a watchdog that was fed, and now does `then`."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(watchdog_s=WATCHDOG_S, then=then, after=after)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "fed\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_hanging_loop_ends_the_process_with_every_stack():
    """Status 1, and the place where it hangs is on stderr."""
    with child("hang_in_the_loop()") as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "hang_in_the_loop" in err
    assert "Timeout" in err
    assert "well" not in out


def test_a_loop_that_comes_round_is_left_alone():
    """Busy for several periods, in pieces that are short enough; then cancelled, it does not fire later."""
    with child("[await asyncio.sleep(0.05) for _ in range(30)]", "time.sleep(1.5)") as process:
        out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out, err) == (0, "well\n", "")


@pytest.mark.parametrize("attempt", range(5))
def test_a_process_frozen_for_longer_ends_when_it_wakes(attempt: int):
    """SIGSTOP, SIGCONT: it does nothing more, whichever of its threads wakes first."""
    with child("await asyncio.sleep(30)") as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        time.sleep(2 * WATCHDOG_S)  # this is the fault itself, not a wait for something
        process.send_signal(signal.SIGCONT)
        woken = time.monotonic()
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert time.monotonic() - woken < 10
    assert "Timeout" in err
    assert "most recent call first" in err


def test_a_process_frozen_for_a_moment_lives_on():
    """A pause within the period is no hang."""
    with child("await asyncio.sleep(1)") as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out) == (0, "well\n")


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
