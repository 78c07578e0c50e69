"""A transfer costs a window of memory and not its size, with asyncssh as it is."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stargate_gate.gate.ssh import backpressure
from tests.support.cluster import make_key

UPLOAD_MB = 150
ROOT = Path(__file__).parents[2]


def upload(directory: Path, mode: str) -> dict[str, Any]:
    """Push zeros through a real ssh into the slow reader; what the server measured."""
    make_key(directory / "host_key")
    make_key(directory / "user_key")
    (directory / "authorized_keys").write_bytes((directory / "user_key.pub").read_bytes())
    with subprocess.Popen(
        [sys.executable, "-m", "tests.gate.slow_reader", str(directory), mode],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().decode().strip()
            with subprocess.Popen(
                ["head", "-c", f"{UPLOAD_MB}M", "/dev/zero"], stdout=subprocess.PIPE
            ) as zeros:
                sent = subprocess.run(
                    [
                        *(
                            "ssh",
                            "-F",
                            "none",
                            "-p",
                            port,
                            "-i",
                            directory / "user_key",
                            "-o",
                            "BatchMode=yes",
                        ),
                        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
                        *("-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR", "git@127.0.0.1", "upload"),
                    ],
                    stdin=zeros.stdout,
                    capture_output=True,
                    timeout=60,
                    check=True,
                )
            assert int(sent.stdout) == UPLOAD_MB * 1024 * 1024
            measured: dict[str, Any] = json.loads(server.stdout.readline())
            return measured
        finally:
            server.kill()


def test_an_upload_costs_a_window_of_memory(tmp_path: Path) -> None:
    """150 MB into a slow reader: the buffer stays within the window, and so does the process."""
    measured = upload(tmp_path, "paced")
    assert measured["buffered"] <= backpressure.WINDOW_BYTES
    assert measured["grown_mb"] < 24


def test_asyncssh_alone_forgets_back_pressure(tmp_path: Path) -> None:
    """The reason for backpressure.py. If this fails, asyncssh may have mended it: simplify it then."""
    assert upload(tmp_path, "stock")["grown_mb"] > 60


def test_asyncssh_is_the_one_that_was_checked() -> None:
    """If this fails: read what source_digest() lists again, adapt backpressure.py, then CHECKED_SOURCE."""
    assert backpressure.source_digest() == backpressure.CHECKED_SOURCE


def test_another_asyncssh_is_not_overridden_and_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that nobody has read is not overridden. A warning tells operators the effect."""
    monkeypatch.setattr(backpressure, "CHECKED_SOURCE", "another")
    backpressure.asyncssh_is_as_checked.cache_clear()
    try:
        with capture_logs() as logs:
            assert not backpressure.asyncssh_is_as_checked()
    finally:
        backpressure.asyncssh_is_as_checked.cache_clear()
    assert logs[0]["event"] == "asyncssh_not_as_checked"
    assert logs[0]["log_level"] == "warning"
