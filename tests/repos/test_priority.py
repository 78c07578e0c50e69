"""Processes that must not be in the way."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from stargate_gate.repos.priority import LOWEST, bounded_memory, ends_with_parent, idle_priority
from tests.support.git import wait_until

PARENT = """
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:] + ["sleep", "600"], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_stopped_process_ends_with_its_parent() -> None:
    """A node that is killed while it holds up a git of its own leaves nothing behind."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *idle_priority(LOWEST), *ends_with_parent()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    command = Path(f"/proc/{child}/cmdline")
    wait_until(lambda: command.read_bytes().startswith(b"sleep\0"))
    os.kill(child, signal.SIGSTOP)
    parent.kill()
    parent.communicate()
    try:
        wait_until(lambda: not command.exists() or not command.read_bytes())
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        raise


def test_a_process_of_lowest_priority_with_bounded_memory() -> None:
    """Nice 19, and an allocation beyond the bound fails."""
    said = "import os; print(os.nice(0)); bytearray(400_000_000)"
    prefix = [*idle_priority(LOWEST), *bounded_memory(200_000_000)]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", said], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "19\n"
    assert "MemoryError" in done.stderr
