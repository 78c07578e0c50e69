"""A data_dir that is put back from a backup or a snapshot may lack acknowledged pushes: it does not lead."""

import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import STARGATE, Cluster, NodeProcess, eventually

Make = Callable[..., Cluster]
APP = "org/app"


@pytest.fixture
def pair(unstarted: Make) -> Cluster:
    """node-a leads, node-b is in its sync set, and both have one commit."""
    cluster = unstarted().start()
    push(cluster, cluster["node-a"], cluster.client.work_tree("app"))
    cluster.wait_equal()
    return cluster


def push(cluster: Cluster, node: NodeProcess, tree: Path) -> str:
    """A commit that is acknowledged by `node`."""
    oid = cluster.client.commit(tree, f"acknowledged {secrets.token_hex(4)}")
    cluster.client.git("push", "-q", cluster.client.url(node, APP), "main", cwd=tree)
    return oid


def put_aside(cluster: Cluster, node: NodeProcess) -> Callable[[], None]:
    """A backup of the stopped node's data_dir; call it to put it back."""
    backup = cluster.root / f"backup of {node.name}"
    shutil.copytree(node.data_dir, backup, symlinks=True)

    def put_back() -> None:
        shutil.rmtree(node.data_dir)
        shutil.copytree(backup, node.data_dir, symlinks=True)

    return put_back


def stays_behind(node: NodeProcess) -> None:
    """It says that it was rolled back, and takes no writes."""
    eventually(lambda: "was rolled back" in node.status().get("reason", ""), "the reason in /status")
    assert not node.ready()
    assert "promote --accept-data-loss" in node.status()["reason"]


def served(cluster: Cluster, node: NodeProcess) -> str:
    """What a client is shown of the repository there."""
    return cluster.client.git("ls-remote", cluster.client.url(node, APP)).stdout


def test_the_last_leader_from_an_earlier_term_does_not_lead(pair: Cluster) -> None:
    """The machine of the last leader was reset; the node that has everything leads when it comes."""
    a, b, tree = pair["node-a"], pair["node-b"], pair.client.home / "app"
    b.terminate()
    a.terminate()
    put_back = put_aside(pair, a)
    a.start().wait_ready()
    b.start()
    a.wait_in_sync_set("node-b")
    oid = push(pair, a, tree)
    a.signal(signal.SIGSTOP)  # both at once: node-b stays in the sync set
    b.kill()
    a.kill()
    put_back()
    a.start()
    stays_behind(a)
    b.start().wait_ready()
    assert oid in served(pair, b)
    b.wait_in_sync_set("node-a")
    pair.wait_equal()
    b.terminate()
    a.wait_ready()
    assert oid in served(pair, a)


def test_a_standby_from_an_earlier_membership_of_the_same_term_does_not_lead(pair: Cluster) -> None:
    """It was in the sync set before and is again: the term says nothing, its incarnation does."""
    a, b, tree = pair["node-a"], pair["node-b"], pair.client.home / "app"
    b.terminate()
    eventually(lambda: a.status()["sync_set"] == [], "node-b out of the sync set")
    put_back = put_aside(pair, b)
    b.start()
    a.wait_in_sync_set("node-b")
    oid = push(pair, a, tree)
    a.kill()
    b.kill()
    put_back()
    b.start()
    stays_behind(b)
    a.start().wait_ready()
    assert oid in served(pair, a)


def test_an_operator_may_have_it_lead_and_what_it_lacked_is_rescued(pair: Cluster) -> None:
    """If there is nothing better; the other node's commits are kept when it comes back after all."""
    a, b, tree = pair["node-a"], pair["node-b"], pair.client.home / "app"
    b.terminate()
    put_back = put_aside(pair, b)
    b.start()
    a.wait_in_sync_set("node-b")
    oid = push(pair, a, tree)
    a.kill()
    b.kill()
    put_back()
    b.start()
    stays_behind(b)
    command = [*STARGATE, "promote", "--accept-data-loss", "-c", str(b.config_file)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    b.wait_ready()
    assert oid not in served(pair, b)
    a.start()
    eventually(lambda: a.status().get("rescued_refs") == 1, "the commit is rescued on node-a")
