"""Telling processes apart."""

import os
import signal
import subprocess  # noqa: TC003 - an alias names it
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stargate_gate.datadir.procs import ProcessId, boot_id, holders_of, process_id

Start = Callable[..., "subprocess.Popen[str]"]
WAIT = "print('ready', flush=True); input()"
OPEN = "import os, sys; os.open(sys.argv[1], os.O_RDONLY); print('ready', flush=True); input()"


def test_a_process_is_known_by_number_start_and_boot(other_process: Start) -> None:
    """The same number with another start time, or of another boot, is another process and never hit."""
    child = other_process(WAIT)
    who = process_id(child.pid)
    assert who is not None
    assert who.boot == boot_id()
    for other in (replace(who, start=who.start - 1), replace(who, boot="another")):
        assert not other.alive()
        assert not other.send(signal.SIGKILL)
        assert not other.send_group(signal.SIGKILL)
    assert who.alive()
    assert who.send_group(signal.SIGKILL)
    child.wait()
    assert not who.alive()
    assert not who.send(signal.SIGKILL)


def test_a_zombie_is_gone(other_process: Start) -> None:
    """It holds nothing and does nothing."""
    child = other_process(WAIT)
    who = process_id(child.pid)
    assert who is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process_id(child.pid) is None
    assert not who.alive()


def test_a_name_with_brackets_is_no_obstacle(tmp_path: Path, other_process: Start) -> None:
    """The name in /proc/PID/stat may hold anything."""
    child = other_process("import ctypes; ctypes.CDLL(None).prctl(15, b') R 1 (x', 0, 0, 0);" + WAIT)
    who = process_id(child.pid)
    assert who is not None
    assert who.start > 0


def test_whoever_has_a_file_open_is_found(tmp_path: Path, other_process: Start) -> None:
    """Other processes only, and only that file."""
    path = tmp_path / "lock"
    assert holders_of(path) == []
    path.touch()
    with path.open():
        assert holders_of(path) == []
        child = other_process(OPEN, path)
        other_process(OPEN, tmp_path)
        assert holders_of(path) == [process_id(child.pid)]


def test_a_process_of_somebody_else_can_be_named() -> None:
    """Process 1 is there, whoever we are."""
    assert isinstance(process_id(1), ProcessId)
