"""No part of a push waits for an acknowledgement that the kernel holds back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, make_cluster
from tests.support.namespaced import NamespacedNode
from tests.support.netns import Machine, machines

PUSHES = 15


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A network of its own, because the kernel counts for a whole network."""
    with machines(1) as (one,):
        yield one


@pytest.fixture
def cluster(tmp_path: Path, machine: Machine) -> Iterator[Cluster]:
    """Two nodes, both on `machine`."""
    made = make_cluster(tmp_path, overrides={"replication": {"mode": "sync"}})
    made.nodes = [
        NamespacedNode(node.name, node.config_file, node.config, node.log_file, machine=machine)
        for node in made.nodes
    ]
    try:
        yield made.start()
    finally:
        made.end()


def test_no_acknowledgement_of_a_push_is_held_back(cluster: Cluster, machine: Machine) -> None:
    """Neither between client and leader nor between the nodes: each costs a push 40 ms.

    Counted, not timed. A machine under load may hold back one that nothing waits for, since a node that
    does not get the processor does not read: so what counts is that most pushes have none. Without
    TCP_QUICKACK nearly all have one or two.
    """
    client = cluster.client
    tree = client.work_tree("app")
    url = client.url(cluster.leader(), "app")
    counts = []
    for number in range(PUSHES + 1):
        client.commit(tree, f"commit {number}")
        before = _held_back(machine)
        _push(cluster, machine, url, tree)
        counts.append(_held_back(machine) - before)
    first, *others = counts  # the first makes the repository
    assert sum(count > 0 for count in others) < PUSHES / 2, (first, others)


def _push(cluster: Cluster, machine: Machine, url: str, tree: Path) -> None:
    environment = [f"{name}={value}" for name, value in cluster.client.environment().items()]
    machine.run("env", "-C", str(tree), *environment, "git", "push", "-q", url, "main")


def _held_back(machine: Machine) -> int:
    """How many acknowledgements were sent on that machine only when the kernel's timer ran out."""
    lines = machine.run("cat", "/proc/net/netstat").stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("TcpExt:"))
    return int(values[names.index("DelayedACKs")])
