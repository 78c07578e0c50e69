"""A node's knowledge that a test can set, behind the real servers."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from stargate_gate.config.endpoint import Endpoint
from stargate_gate.health.http import HealthServer
from stargate_gate.health.metrics import Metrics
from stargate_gate.health.report import Health, Readiness, Status
from stargate_gate.status import StandbyStatus


class Source:
    """A StatusSource whose answers a test sets."""

    def __init__(self) -> None:
        self.value = Status(
            node="node-a",
            role="leader",
            term=7,
            leader="node-a",
            mode="async",
            ready=True,
            version="1.2.3",
            sync_set=("node-b",),
            standbys=(StandbyStatus("node-b", in_sync=True, lag_changes=0, lag_s=0.0),),
            cluster="prod",
            address="stargate.local:2222",
            position=1042,
            uptime_s=12_345.6789,
        )
        self.checks: dict[str, str | None] = {"data_dir": None, "git": None, "ssh": None}
        self.broken = False

    def set(self, **fields: Any) -> None:
        """Change fields of the status."""
        self.value = replace(self.value, **fields)

    def status(self) -> Status:
        if self.broken:
            raise RuntimeError("a bug in the node")
        return self.value

    def health(self) -> Health:
        return Health(self.checks)

    def ready(self) -> Readiness:
        return Readiness(self.value.ready, self.value.role, self.value.term, self.value.reason)


@pytest.fixture
def source() -> Source:
    """What the node knows."""
    return Source()


@pytest.fixture
def metrics(source: Source) -> Iterator[Metrics]:
    """Metrics over that source."""
    return Metrics(source)


@pytest.fixture
async def server(source: Source, metrics: Metrics) -> AsyncIterator[Endpoint]:
    """The HTTP endpoints on a real socket; their address."""
    http = HealthServer(source, metrics, [Endpoint("127.0.0.1", 0)])
    (endpoint,) = await http.start()
    yield endpoint
    await http.close()
