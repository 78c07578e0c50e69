"""What `make` runs, with programs that only say that they were called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAYS = '#!/bin/sh\necho "$0 $*" >> "$CALLS"\ncase "$*" in *$FAILS*) exit 3;; esac\n'


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Where the fake programs write what they were called with."""
    return tmp_path / "calls"


def make(target: str, calls: Path, *words: str, fails: str = "never") -> subprocess.CompletedProcess[str]:
    """`make TARGET`, with a fake `pytest` and an engine that fails for the words `fails`."""
    fake = calls.parent / "fake"
    fake.write_text(SAYS)
    fake.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--old-file=.venv/.tests-ready", target, f"PYTEST={fake}", f"WITH_ENGINE={fake}", *words],
        cwd=ROOT, env={**environment, "CALLS": str(calls), "FAILS": fails}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("fails", "status"), [("never", 0), ("loadfile tests", 2), ("integration", 2)])
def test_all_tests_run_whatever_fails_and_a_failure_is_told_at_the_end(
    calls: Path, fails: str, status: int
) -> None:
    """A failing test does not hide what the container tests would have said."""
    done = make("test", calls, fails=fails)
    assert done.returncode == status, done.stderr
    first, second = calls.read_text().splitlines()
    assert first.endswith(" tests")
    assert second.endswith(" integration")


def test_a_part_of_the_tests_needs_no_containers(calls: Path) -> None:
    """`make test TESTS=tests/kv`."""
    assert make("test", calls, "TESTS=tests/kv").returncode == 0
    assert len(calls.read_text().splitlines()) == 1


def planned(target: str, venv: Path) -> str:
    """What `make TARGET` would run on a machine where nothing is installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    argv = ["make", "--dry-run", target, f"VENV={venv}"]
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("target", "extra"), [("run", "--editable ."), ("image", "--editable '.[image]'")])
def test_who_only_runs_it_gets_nothing_of_the_tests(tmp_path: Path, target: str, extra: str) -> None:
    """No test library in the environment, no test program on the machine."""
    commands = planned(target, tmp_path / "venv")
    assert f"install.py {tmp_path}/venv {extra}\n" in commands
    assert "[dev]" not in commands
    assert "system-packages tests" not in commands
    assert "system-packages tests" in planned("test", tmp_path / "venv")


def test_the_set_up_says_what_it_does_and_what_failed(tmp_path: Path) -> None:
    """A step a line, for people who wait; pip's own words when it fails."""
    done = subprocess.run(
        [sys.executable, ".ci/install.py", tmp_path / "venv", "--no-index", "no-such-package"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 69
    assert "set-up: making" in done.stderr
    assert "set-up: installing into" in done.stderr
    assert "No matching distribution found for no-such-package" in done.stderr
