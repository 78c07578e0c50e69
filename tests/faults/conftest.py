"""Clusters with short limits, for tests of what happens when they run out."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster, NodeProcess, make_cluster
from tests.support.line import Line

ACK_TIMEOUT_S = 1.5
ACK_MAX_S = 20.0

MakeCluster = Callable[..., Cluster]
MakeLine = Callable[[NodeProcess], Line]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes clusters that are not started yet, with short limits; ends whatever of them was started."""
    made: list[Cluster] = []

    def build(*, mode: str = "sync", nodes: int = 2, **sections: dict[str, Any]) -> Cluster:
        replication = {"mode": mode, "ack_timeout_s": ACK_TIMEOUT_S, "ack_max_s": ACK_MAX_S}
        overrides = {**sections, "replication": {**replication, **sections.get("replication", {})}}
        made.append(make_cluster(tmp_path / f"cluster-{len(made)}", nodes=nodes, overrides=overrides))
        return made[-1]

    yield build
    for one in made:
        one.end()


@pytest.fixture
def line_to(make: MakeCluster) -> Iterator[MakeLine]:
    """Puts a line of the test's own before a node that is not started yet; peers then use it."""
    with ExitStack() as stack:

        def put(node: NodeProcess) -> Line:
            line = stack.enter_context(Line(node.ssh_port))
            node.config["ssh"]["advertise"] = f"127.0.0.1:{line.port}"
            return line

        yield put
