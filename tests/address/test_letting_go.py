"""Clients at the floating address when it goes: each is told, or at least cut off; none hangs."""

import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cluster import eventually
from tests.support.namespaced import SSH_PORT, LinkedCluster, NamespacedNode, linked_cluster
from tests.support.nodelog import log_lines, wait_logged
from tests.support.slow_push import SlowPush

VIP = "10.77.0.100"
ITEM = {"kind": "vip", "address": VIP, "interface": "eth0", "lifetime_s": 3}
LEASE_S = 5.0
SOON_S = 30.0  # far below what a client waits by itself, and enough for a loaded machine


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LinkedCluster]:
    """Two nodes with a VIP, started; node-a leads and has it, and there is something to fetch."""
    with linked_cluster(tmp_path, [[ITEM], [ITEM]]) as made:
        for one in made.nodes:
            one.config["election"]["drain_s"] = 24
        made.start()
        a = made["node-a"]
        assert isinstance(a, NamespacedNode)
        eventually(lambda: a.has(VIP), "node-a has the address")
        tree = made.client.work_tree("app")
        eventually(lambda: made.push(VIP, "HEAD:main", tree).returncode == 0, "a push through the address")
        yield made


def ssh(cluster: LinkedCluster) -> list[str]:
    """From the desk to the floating address."""
    assert cluster.desk is not None
    return [*cluster.desk.prefix, *cluster.client.ssh_argv(), "-p", str(SSH_PORT), f"git@{VIP}"]


def slow_push(cluster: LinkedCluster, branch: str = "slow") -> SlowPush:
    """Some of it is with the leader, and the client only waits."""
    return SlowPush(cluster.client, ssh(cluster), cluster.client.work_tree(branch), branch).begin(
        cluster["node-a"]
    )


def told_in_order(node: NamespacedNode) -> None:
    """The end of its term: a session's last word, its connection's end, and only then the address."""
    wait_logged(node, "address_released")
    lines = [line["event"] for line in log_lines(node)]
    begin = next(i for i, event in enumerate(lines) if event in {"stepping_down", "leadership_lost"})
    first = [lines.index(event, begin) for event in ("session", "connections_ended", "address_released")]
    assert first == sorted(first)


def test_a_lost_lock_file_lets_a_pusher_go_before_the_address_goes(cluster: LinkedCluster) -> None:
    """It hears at once why, and that nothing was changed; the address comes to nobody afterwards."""
    a = cluster["node-a"]
    assert isinstance(a, NamespacedNode)
    with slow_push(cluster) as slow:
        cluster.lock_path.rename(cluster.lock_path.with_suffix(".away"))
        status, report, said = slow.end(SOON_S)
    assert (status, report) == (9, b"")
    assert said.startswith("not leader: node-a has lost its leadership; nothing was changed, push again")
    eventually(lambda: not a.has(VIP), "node-a has let go of the address")
    told_in_order(a)


def test_readers_are_told_at_a_planned_stop(cluster: LinkedCluster) -> None:
    """A clone that runs, and a connection that idles, end with a word and do not wait for an answer."""
    a, b = cluster["node-a"], cluster["node-b"]
    assert isinstance(a, NamespacedNode)
    with subprocess.Popen(
        [*ssh(cluster), "git-upload-pack 'org/app'"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as reading:  # fmt: skip
        try:
            assert reading.stdout is not None
            assert reading.stdout.read(4)
            assert a.terminate() == 0
            _, err = reading.communicate(timeout=SOON_S)
        finally:
            reading.kill()
    assert (reading.returncode, err) == (69, b"this node's address moves to another node; try again\n")
    told_in_order(a)
    b.wait_ready()


def test_a_push_that_begins_at_the_last_moment_of_a_planned_stop_comes_to_the_next_leader(
    cluster: LinkedCluster,
) -> None:
    """The gate has closed, the address is still here: the client waits without knowing, and succeeds."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("late")
    with slow_push(cluster, "first") as first:
        a.signal(signal.SIGTERM)
        wait_logged(a, "stepping_down")
        with slow_push(cluster, "second") as second:
            assert first.finish()[0] == 0
            eventually(lambda: not a.ready(), "node-a takes no new pushes")
            with ThreadPoolExecutor() as pool:
                late = pool.submit(cluster.push, VIP, "HEAD:late", tree)
                assert cluster.desk is not None
                eventually(lambda: "SYN-SENT" in connections(cluster), "a connection that is put off")
                assert second.finish()[0] == 0
                done = late.result()
    assert (done.returncode, done.stderr) == (0, "")
    assert a.wait() == 0
    b.wait_ready()
    assert (b.repository("org/app") / "refs/heads/late").exists()


def connections(cluster: LinkedCluster) -> str:
    """TCP connections of the users' machine, as ss(8) lists them."""
    assert cluster.desk is not None
    return cluster.desk.run("ss", "-tanH", "dst", VIP).stdout


@pytest.mark.parametrize("how", ["thawed", "killed"])
def test_a_frozen_leader_lets_its_clients_go_when_it_ends(cluster: LinkedCluster, how: str) -> None:
    """The kernel has dropped the address by then, and the client only waits for an answer."""
    a = cluster["node-a"]
    assert isinstance(a, NamespacedNode)
    with slow_push(cluster) as slow:
        a.signal(signal.SIGSTOP)
        frozen_since = time.monotonic()
        eventually(lambda: not a.has(VIP), "the kernel has dropped the address")
        if how == "thawed":
            eventually(lambda: time.monotonic() - frozen_since > LEASE_S, "the lease has run out")
            a.signal(signal.SIGCONT)
        else:
            a.kill()
        status, report, _ = slow.end(SOON_S)
    assert status != 0
    assert report == b""
    cluster.leader()
