"""The compose file is what it says: a pair with a floating address that outlives its leader."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.compose_tool import compose_tool
from integration.harness import Session, eventually
from integration.harness.image import PRODUCT, built_image

FILE = Path(__file__).parent / "compose.yaml"
LIMIT_S = 240
START_LIMIT_S = 120.0  # until both are healthy; the health check comes every 10 s


class Compose:
    """docker compose, or docker-compose, on our file with a project of its own."""

    def __init__(self, session: Session) -> None:
        self._argv = [*compose_tool(), "-p", f"{session.prefix}-compose", "-f", str(FILE)]
        subnet = session.free_subnet()
        product = built_image(session.client, PRODUCT)  # what `make image` makes: no tests' tools
        own = {"STARGATE_IMAGE": product, "STARGATE_SESSION": session.prefix, "STARGATE_SUBNET": subnet}
        self._environment = {**os.environ, **own}
        self._session = session

    def __call__(self, *words: str, ok: bool = True) -> str:
        """Run one of its commands; what it wrote."""
        done = subprocess.run(
            [*self._argv, *words], env=self._environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        if done.returncode and ok:
            logs = self("logs", "--no-color", ok=False)
            raise AssertionError(f"{words} exited {done.returncode}\n{done.stdout}{done.stderr}\n{logs}")
        return done.stdout + done.stderr

    def state(self, service: str) -> dict[str, object]:
        """The engine's word on a service's container."""
        found = self._session.client.containers.list(
            all=True,
            filters={
                "label": [
                    f"com.docker.compose.project={self._session.prefix}-compose",
                    f"com.docker.compose.service={service}",
                ]
            },
        )
        return dict(found[0].attrs["State"])

    def healthy(self, service: str) -> bool:
        """Whether the image's own health check says so."""
        health = self.state(service).get("Health")
        return isinstance(health, dict) and health.get("Status") == "healthy"


@pytest.fixture
def compose(session: Session) -> Iterator[Compose]:
    """The pair of the compose file, up; gone afterwards."""
    made = Compose(session)
    try:
        made("up", "--detach")
        yield made
    finally:
        with contextlib.suppress(AssertionError):
            made("down", "--volumes", "--timeout", "1")


def test_the_pair_of_the_compose_file_outlives_its_leader(compose: Compose) -> None:
    """Healthy by the image's check; a push through stargate.local before and after a stop, which is clean."""

    def in_client(script: str) -> str:
        return compose("exec", "-T", "client", "sh", "-euc", script)

    for service in ("node-a", "node-b"):
        eventually(lambda service=service: compose.healthy(service), f"{service} healthy", START_LIMIT_S)
    in_client("git init -q -b main app; cd app; git commit -q --allow-empty -m first")
    push = "cd app; git push -q ssh://git@stargate.local:2222/app main"
    in_client(push)
    ready = ("exec", "-T", "node-a", "sh", "-c", "stargate status || true")
    eventually(lambda: "node-b" in compose(*ready), "node-b in the status of node-a")
    compose("stop", "node-a")
    assert compose.state("node-a")["ExitCode"] == 0
    in_client("cd app; git commit -q --allow-empty -m second")
    in_client(push)
    compose("start", "node-a")
    eventually(lambda: compose.healthy("node-a"), "node-a healthy again", START_LIMIT_S)
