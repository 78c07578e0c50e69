"""`git kv` against real nodes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, NodeProcess, running_cluster
from tests.support.kv import Kv, make_clone


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes: node-a leads, node-b is in its sync set."""
    with running_cluster(tmp_path / "cluster") as made:
        yield made


def client(cluster: Cluster, *nodes: NodeProcess, name: str = "client") -> Kv:
    """A repository whose remote is `state` on these nodes."""
    urls = [cluster.client.url(node, "state") for node in nodes]
    return make_clone(cluster.root / name, *urls, env=cluster.client.environment())


def test_the_first_set_makes_the_repository(cluster: Cluster) -> None:
    """create_on_push; and what was acknowledged is on the standby."""
    kv = client(cluster, cluster["node-a"])
    kv.ok("set", "k", "v")
    assert kv.ok("get", "k") == b"v"
    cluster.wait_equal()
    assert client(cluster, cluster["node-b"], name="reader").ok("get", "k") == b"v"


def test_a_push_straight_at_a_standby_is_9(cluster: Cluster) -> None:
    """When it has given up; the line says "not leader" and who leads."""
    client(cluster, cluster["node-a"]).ok("set", "k", "v")
    kv = client(cluster, cluster["node-b"], name="astray")
    line = kv.fails(9, "set", "k", "w", "--timeout", "1")
    assert line.startswith("not leader: node-b is a standby; the leader is node-a at ssh://")
    assert kv.fails(9, "del", "k", "--timeout", "1").startswith("not leader: ")
    assert kv.ok("get", "k") == b"v"


def test_the_leader_is_found_among_several_pushurls(cluster: Cluster) -> None:
    """In whatever order the user wrote them; the standby's word is not followed anywhere else."""
    kv = client(cluster, cluster["node-b"], cluster["node-a"])
    kv.ok("set", "k", "v")
    assert kv.ok("get", "k") == b"v"
    kv.ok("del", "k")
    assert kv.fails(1, "get", "k") == "no such key: k"
