"""Real git as a user runs it, for tests that block on it."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

LIMIT_S = 60.0


def git_run(
    *args: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run git to its end, whatever its status."""
    return subprocess.run(
        ["git", *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        input=given,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )


def git(*args: str | Path, cwd: Path | None = None, given: bytes = b"") -> str:
    """Run git, which has to succeed; its output without the last newline."""
    done = git_run(*args, cwd=cwd, given=given)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


def make_work(path: Path, *, commits: int = 1, object_format: str = "sha1", branch: str = "main") -> Path:
    """A working copy with some commits."""
    git("init", "-q", f"--object-format={object_format}", "-b", branch, path)
    for number in range(commits):
        (path / "file").write_text(f"{number}\n")
        git("add", "file", cwd=path)
        git("commit", "-q", "-m", f"commit {number}", cwd=path)
    return path


def open_descriptors() -> int:
    """How many this process has; one that leaks is a lock that stays."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def children() -> set[int]:
    """The numbers of this process's children that run or were not reaped."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def wait_until(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    """Wait for a state of another process that sends no event.

    Raises:
        TimeoutError: it did not come.
    """
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"not in {limit_s} s")
        time.sleep(0.005)


def bare_copy(work: Path, path: Path) -> Path:
    """A bare clone of `work`, as somebody copies it in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    git("clone", "-q", "--bare", work, path)
    return path
