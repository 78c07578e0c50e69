"""The engine is there for whoever needs it, and only as long."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from integration.engine import DOCKERD, Own, engine

ROOT = Path(__file__).parent.parent


def with_engine(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m integration.engine ARGV…`."""
    return subprocess.run(
        [sys.executable, "-m", "integration.engine", *argv], cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_without_an_engine_the_exact_command_is_printed() -> None:
    """Where we may not start one, the command is not run, and the user reads what to do."""
    done = with_engine("touch", "/never", DOCKER_HOST="unix:///no/such/engine")
    assert done.returncode == 69
    assert "sudo apt-get install -y --no-install-recommends docker.io" in done.stderr
    assert not Path("/never").exists()


def test_the_exit_status_is_the_commands() -> None:
    """Also when a signal ended it, as a shell says it."""
    assert with_engine("sh", "-c", "exit 9").returncode == 9
    assert with_engine("sh", "-c", "kill -TERM $$").returncode == 128 + 15


def test_an_engine_that_we_started_is_stopped_by_its_last_user() -> None:
    """A real second engine: started for the first user, there for the second, gone after both.

    The pid that a killed one left behind is no obstacle, though another process has it now.
    """
    with tempfile.TemporaryDirectory(prefix="engine-", dir="/run") as folder:
        url = f"unix://{folder}/socket"
        places = [f"--{what}={folder}/{what}" for what in ("data-root", "exec-root", "pidfile")]
        pid_files = (
            ("dockerd", Path(folder) / "pidfile"),
            ("containerd", Path(folder) / "exec-root" / "containerd" / "containerd.pid"),
        )
        for _, file in pid_files:  # as after a kill -9, with the number of another process by now
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(str(os.getpid()))
        own = Own((*DOCKERD, *places, f"--host={url}"), Path(folder) / "state", url, pid_files)
        assert not own.answers()
        first, second = engine(own), engine(own)
        with first:
            assert own.answers()
            with second:
                pid = (own.state / "pid").read_text()
            assert own.answers()
            assert (own.state / "pid").read_text() == pid
        assert not own.answers()
        assert not (own.state / "pid").exists()
        with engine(own, keep=True):
            pid = int((own.state / "pid").read_text().split()[0])
        try:
            with engine(own):  # an ordinary user of it does not stop it either
                assert own.answers()
            assert own.answers()
        finally:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
