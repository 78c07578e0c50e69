"""Nothing is left behind, however a session ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from integration.harness import Session, eventually
from integration.harness.janitor import SESSION_LABEL

ROOT = Path(__file__).parent.parent
HOLD = """
import sys
from integration.harness import Session
with Session() as session, session.cluster() as cluster:
    print(session.prefix, flush=True)
    sys.stdin.read()
"""


def left_of(prefix: str) -> list[str]:
    """Names of all that carries the session's label."""
    client, wanted = docker.from_env(), {"label": f"{SESSION_LABEL}={prefix}"}
    try:
        containers = client.containers.list(all=True, filters=wanted, ignore_removed=True)
        found = [*containers, *client.networks.list(filters=wanted), *client.volumes.list(filters=wanted)]
        return [thing.name for thing in found]
    finally:
        client.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_session_that_is_interrupted_or_killed_leaves_nothing(
    session: Session, how: signal.Signals
) -> None:
    """Ctrl-C unwinds it; after kill -9 its janitor removes everything."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        prefix = process.stdout.readline().strip()
        assert len(left_of(prefix)) == 7  # three containers, a network, three volumes
        os.kill(process.pid, how)
        process.wait(120)
        eventually(lambda: not left_of(prefix), f"nothing left of {prefix}", 120)
    assert process.returncode != 0
