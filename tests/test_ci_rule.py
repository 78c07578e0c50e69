"""The rule of tests/conftest.py that makes a skipped test a failure under CI, tried on a small test run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WAYS = {
    "mark": "@pytest.mark.skip(reason='no such program')\ndef test_one(): pass\n",
    "call": "def test_one(): pytest.skip('no such program')\n",
    "fixture": "@pytest.fixture\ndef no(): pytest.skip('no such program')\ndef test_one(no): pass\n",
    "module": "pytest.importorskip('no_such_module')\ndef test_one(): pass\n",
}
PASSES = "def test_passes(): pass\n"


def run(folder: Path, *args: str, ci: bool) -> subprocess.CompletedProcess[str]:
    """A test run of `folder` under this suite's rules."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment.pop("STARGATE_CI", None)
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"),
            "--rootdir", str(folder), *args, str(folder),
        ],
        cwd=ROOT, env={**environment, **({"STARGATE_CI": "1"} if ci else {})},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_skipped_test_fails_the_run_under_ci(tmp_path: Path, workers: str) -> None:
    """However it was skipped, in one process or with workers; and nowhere else."""
    (tmp_path / "test_passes.py").write_text(PASSES)
    at_first = run(tmp_path, "-n", workers, ci=True)
    assert at_first.returncode == 0, at_first.stdout
    for way, text in WAYS.items():
        (tmp_path / f"test_{way}.py").write_text(f"import pytest\n{text}")
    under_ci = run(tmp_path, "-n", workers, ci=True)
    assert under_ci.returncode == 1, under_ci.stdout
    assert "skipped tests fail under CI" in under_ci.stdout
    assert f"1 passed, {len(WAYS)} skipped" in under_ci.stdout
    at_home = run(tmp_path, "-n", workers, ci=False)
    assert at_home.returncode == 0, at_home.stdout
