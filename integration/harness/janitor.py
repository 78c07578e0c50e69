"""Removes what a session made, also when the session was killed: a process of its own waits for its end."""

import contextlib
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
from docker import DockerClient
from docker.errors import APIError, DockerException, NotFound

from integration.engine import STATE, USERS, born

SESSION_LABEL = "org.stargate.session"
OWNER_LABEL = "org.stargate.owner"
CLUSTER_LABEL = "org.stargate.cluster"
CALL_LIMIT_S = 300
ROOT = Path(__file__).parent.parent.parent
WAIT = (
    "import sys; from integration.harness.janitor import wait_for_the_owners_end as wait; wait(sys.argv[1])"
)


class Janitor:
    """Outlives its owner by a moment. `dismiss` it when everything is removed already."""

    def __init__(self, prefix: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WAIT, prefix], stdin=subprocess.PIPE, start_new_session=True, cwd=ROOT
        )

    def dismiss(self) -> None:
        """It looks once more, and ends."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(CALL_LIMIT_S)


def remove_all(client: DockerClient, label: str) -> None:
    """Remove containers, networks and volumes that carry `label`; what is gone already is fine."""
    wanted = {"label": label}
    for container in client.containers.list(all=True, filters=wanted, ignore_removed=True):
        with _gone_is_fine():
            container.remove(force=True, v=True)
    for network in client.networks.list(filters=wanted):
        with _gone_is_fine():
            network.remove()
    for volume in client.volumes.list(filters=wanted):
        with _gone_is_fine():
            volume.remove(force=True)


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:  # somebody else is removing it
            raise


def remove_orphans(client: DockerClient) -> None:
    """Remove what a session left whose process is gone."""
    for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}, ignore_removed=True):
        pid, _, since = container.labels[OWNER_LABEL].partition(":")
        if born(int(pid)) != since:
            remove_all(client, f"{OWNER_LABEL}={pid}:{since}")


def wait_for_the_owners_end(prefix: str) -> None:
    """Hold the engine, so that it is not stopped too early; return from the end of stdin with all removed."""
    with contextlib.ExitStack() as stack:
        users = STATE / USERS
        if users.exists():
            fcntl.flock(stack.enter_context(users.open()), fcntl.LOCK_SH)
        sys.stdin.buffer.read()
        with contextlib.suppress(DockerException, OSError):
            client = docker.from_env(timeout=CALL_LIMIT_S)
            remove_all(client, f"{SESSION_LABEL}={prefix}")
