"""Fixtures for tests with real nodes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, make_cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes: node-a leads, node-b is in its sync set."""
    made = make_cluster(tmp_path)
    try:
        yield made.start()
    finally:
        made.end()


@pytest.fixture
def unstarted(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters that are not started; ends whatever of them the test started."""
    made: list[Cluster] = []

    def make(**options: object) -> Cluster:
        made.append(make_cluster(tmp_path / f"cluster-{len(made)}", **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.end()
