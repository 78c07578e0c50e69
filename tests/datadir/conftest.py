"""A data_dir for each test, and programs that hold its locks."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from stargate_gate.datadir.layout import DataDir, open_data_dir


@pytest.fixture
def datadir(tmp_path: Path) -> DataDir:
    return open_data_dir(tmp_path / "data")


@pytest.fixture
def other_process() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a Python program elsewhere; returns once it has printed its first line. Ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *args: str | Path, pass_fds: Sequence[int] = ()) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
