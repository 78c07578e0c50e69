"""The floating address with real nodes on a real link: it is where the leader is, whatever happens."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import STARGATE, eventually
from tests.support.namespaced import LinkedCluster, NamespacedNode, linked_cluster
from tests.support.nodelog import complete_log, log_lines, wait_logged

VIP = "10.77.0.100"
ITEM = {"kind": "vip", "address": VIP, "interface": "eth0", "lifetime_s": 3}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LinkedCluster]:
    """Two nodes with a VIP, started; node-a leads."""
    with linked_cluster(tmp_path, [[ITEM], [ITEM]]) as made:
        made.start()
        yield made


def node(cluster: LinkedCluster, name: str) -> NamespacedNode:
    """One of them."""
    found = cluster[name]
    assert isinstance(found, NamespacedNode)
    return found


def pushes(cluster: LinkedCluster, tree: Path, host: str = VIP) -> bool:
    """Whether a push to the address is accepted now."""
    cluster.client.commit(tree, f"at {time.monotonic()}")
    return cluster.push(host, "HEAD:main", tree).returncode == 0


def release(which: NamespacedNode, *options: str) -> subprocess.CompletedProcess[str]:
    """`stargate address release`, as a service manager runs it on the node's machine."""
    assert which.machine is not None
    argv = [*STARGATE, "address", "release", "-c", str(which.config_file), *options]
    return which.machine.run(*argv, ok=False)


def test_the_address_follows_the_leader_that_is_killed(cluster: LinkedCluster) -> None:
    """The next push to it goes to the new leader, although nobody has tidied up after the old one."""
    a, b = node(cluster, "node-a"), node(cluster, "node-b")
    tree = cluster.client.work_tree("app")
    eventually(lambda: a.has(VIP), "node-a has the address")
    assert not b.has(VIP)
    eventually(lambda: pushes(cluster, tree), "a push through the address")
    cluster.wait_equal()
    a.kill()
    b.wait_ready()
    eventually(lambda: b.has(VIP), "node-b has the address")
    eventually(lambda: pushes(cluster, tree), "a push through the address")
    eventually(lambda: not a.has(VIP), "the kernel has dropped it where the leader was killed")
    a.start()
    b.wait_in_sync_set("node-a")
    assert not a.has(VIP)
    eventually(lambda: pushes(cluster, tree), "a push through the address")
    assert b.repository("org/app").exists()


def test_stepping_down_releases_the_address_before_the_lock(cluster: LinkedCluster) -> None:
    """The next leader finds it free, and a client never finds it at both."""
    a, b = node(cluster, "node-a"), node(cluster, "node-b")
    assert a.terminate() == 0
    assert not a.has(VIP)
    order = a.events("stepped_down", "address_released", "leadership_ended")
    assert order == ["address_released", "address_released", "stepped_down", "leadership_ended"]
    b.wait_ready()
    eventually(lambda: b.has(VIP), "node-b has the address")
    wait_logged(b, "leading")
    wait_logged(b, "address_claimed")
    assert b.events("leadership_won", "address_claimed", "leading") == [
        "leadership_won",
        "address_claimed",
        "leading",
    ]


def test_a_leader_that_was_frozen_wakes_up_without_the_address(cluster: LinkedCluster) -> None:
    """The kernel has dropped it meanwhile, and it is claimed again in a new term only.

    Mostly the watchdog ends the node as soon as it wakes up; else it finds that its lease has run out.
    """
    a = node(cluster, "node-a")
    a.signal(signal.SIGSTOP)
    before = len(log_lines(a))
    eventually(lambda: not a.has(VIP), "the kernel has dropped it")
    lease_s = 5.0
    frozen_since = time.monotonic()
    eventually(lambda: time.monotonic() - frozen_since > lease_s, "the lease has run out")
    a.signal(signal.SIGCONT)
    eventually(lambda: cluster.leader() is not None and cluster.leader().status()["term"] == 2, "term 2")
    complete_log(a)
    since = log_lines(a)[before:]
    assert not [line for line in since if line["event"] == "address_claimed" and line["term"] == 1]
    leader = cluster.leader()
    assert isinstance(leader, NamespacedNode)
    eventually(lambda: leader.has(VIP), "the leader has the address")


def test_what_a_crashed_node_left_is_released_when_it_starts(cluster: LinkedCluster) -> None:
    """Before it listens."""
    a, b = node(cluster, "node-a"), node(cluster, "node-b")
    a.kill()
    b.wait_ready()
    assert a.machine is not None
    a.machine.run("ip", "address", "replace", f"{VIP}/32", "dev", "eth0")  # for ever
    a.start().wait_healthy()
    assert not a.has(VIP)
    eventually(lambda: b.has(VIP), "node-b has the address")


def test_a_service_manager_releases_it_after_a_crash(cluster: LinkedCluster) -> None:
    """Not while a node runs here, unless somebody insists; then the node puts it right."""
    a = node(cluster, "node-a")
    done = release(a)
    assert (done.returncode, done.stdout) == (69, "")
    assert "it moves the address itself; stop it first" in done.stderr
    eventually(lambda: a.has(VIP), "node-a has the address")
    assert release(a, "--force").returncode == 0
    eventually(lambda: a.has(VIP), "the node has put it back")
    a.kill()
    assert a.machine is not None
    a.machine.run("ip", "address", "replace", f"{VIP}/32", "dev", "eth0")
    done = release(a)
    assert (done.returncode, done.stderr) == (0, "")
    assert not a.has(VIP)


def test_a_claim_that_fails_is_loud_and_takes_nothing_hostage(tmp_path: Path) -> None:
    """The node leads and takes pushes at its own address; all there is to see says what is wrong."""
    items = [{**ITEM, "interface": "eth9"}]
    with linked_cluster(tmp_path, [items, items]) as cluster:
        cluster.start()
        a = node(cluster, "node-a")
        assert a.machine is not None
        code, body = a.get("/readyz")
        ready = json.loads(body)
        assert (code, ready["ready"], ready["reason"]) == (200, True, "")
        assert ready["address"].startswith(
            f"vip {VIP} on eth9 is not claimed: ip exited 1: Cannot find device"
        )
        status = a.status()
        assert status["addresses"][0]["state"] == "claiming"
        assert ready["address"] in status["warnings"]
        metrics = a.get("/metrics")[1].decode()
        label = f'{{address="vip {VIP} on eth9"}}'
        assert f"stargate_address_claimed{label} 0.0" in metrics
        assert f"stargate_address_failing{label} 1.0" in metrics
        assert len(wait_logged(a, "address_not_claimed")) == 1
        tree = cluster.client.work_tree("app")
        assert pushes(cluster, tree, a.machine.address)
        a.machine.run("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "nine")
        a.machine.run("ip", "link", "set", "eth9", "up")
        eventually(lambda: json.loads(a.get("/readyz")[1])["address"] == "", "the address is claimed")
        assert f"stargate_address_claimed{label} 1.0" in a.get("/metrics")[1].decode()
