"""What `make` runs, with programs that only say that they were called."""

import os
import subprocess
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
