"""A leader is stopped on purpose while people push: who loses what, and what they are told."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Client, Cluster, NodeProcess, eventually, make_cluster
from tests.support.nodelog import log_lines, wait_logged
from tests.support.slow_push import SlowPush

DRAIN_S = 24.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes with time for a slow machine: node-a leads, node-b is in its sync set."""
    made = make_cluster(tmp_path, overrides={"election": _election(tmp_path, drain_s=DRAIN_S)})
    try:
        yield made.start()
    finally:
        made.end()


def _election(root: Path, **timings: float) -> dict[str, object]:
    return {"flock": {"path": str(root / "shared" / "leader.lock")}, **timings}


def slow_push(client: Client, node: NodeProcess, tree: Path, branch: str) -> SlowPush:
    """Over the node's own port."""
    ssh = [*client.ssh_argv(), "-p", str(node.ssh_port), "git@127.0.0.1"]
    return SlowPush(client, ssh, tree, branch)


class Background:
    """A `git push` in a thread of its own."""

    def __init__(self, client: Client, node: NodeProcess, tree: Path, refspec: str) -> None:
        self.done: subprocess.CompletedProcess[str] | None = None
        self._thread = threading.Thread(target=self._run, args=(client, node, tree, refspec), daemon=True)
        self._thread.start()

    def _run(self, client: Client, node: NodeProcess, tree: Path, refspec: str) -> None:
        self.done = client.git("push", client.url(node, "org/app"), refspec, cwd=tree, ok=False)

    def result(self) -> subprocess.CompletedProcess[str]:
        """Once it has ended."""
        self._thread.join(60)
        assert self.done is not None
        return self.done


def test_pushes_are_taken_while_a_long_one_is_finished(cluster: Cluster) -> None:
    """One long push does not make the others fail, or wait; all of it is on the next leader."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    with slow_push(client, a, client.work_tree("slow"), "slow").begin(a) as slow:
        a.signal(signal.SIGTERM)
        wait_logged(a, "stepping_down")
        oids = {"slow": slow.oid}
        for number in range(3):
            oids[f"b{number}"] = client.commit(tree, f"during {number}")
            client.git("push", "-q", client.url(a, "org/app"), f"HEAD:refs/heads/b{number}", cwd=tree)
        assert a.ready()
        status, report, said = slow.finish()
    assert (status, said) == (0, "")
    assert b"ok refs/heads/slow" in report
    assert a.wait() == 0
    b.wait_ready()
    listed = client.git("ls-remote", client.url(b, "org/app")).stdout
    assert all(f"{oid}\trefs/heads/{branch}" in listed for branch, oid in oids.items())


def test_a_push_that_comes_after_the_gate_has_closed_waits_for_the_next_leader(cluster: Cluster) -> None:
    """It is not refused before the other node leads, and then it is told where to go."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    with slow_push(client, a, client.work_tree("first"), "first").begin(a) as first:
        a.signal(signal.SIGTERM)
        wait_logged(a, "stepping_down")
        with slow_push(client, a, client.work_tree("second"), "second").begin(a) as second:
            assert first.finish()[0] == 0
            eventually(lambda: not a.ready(), "node-a takes no new pushes")
            held = Background(client, a, tree, "main:held")
            wait_logged(a, "push_waits_for_leader")
            assert second.finish()[0] == 0
    refused = held.result()
    assert refused.returncode == 128
    assert f"not leader: node-a is a standby; the leader is node-b at {_url(b)}" in refused.stderr
    b.wait_ready()
    client.git("push", "-q", client.url(b, "org/app"), "main:held", cwd=tree)
    assert a.wait() == 0


def test_a_push_that_outlasts_the_drain_is_told_that_nothing_was_changed(
    unstarted: Callable[..., Cluster], tmp_path: Path
) -> None:
    """Its pack was not complete. New pushes that keep coming do not keep the node from stopping."""
    cluster = unstarted()
    for node in cluster.nodes:
        node.config["election"]["drain_s"] = 2
    cluster.start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    told = []
    with slow_push(client, a, client.work_tree("slow"), "slow").begin(a) as slow:
        a.signal(signal.SIGTERM)
        while not log_lines(a, "drain_limit_reached"):
            refspec = f"main:b{len(told)}"
            told.append(client.git("push", client.url(a, "org/app"), refspec, cwd=tree, ok=False))
        status, report, said = slow.end()
    assert (status, report) == (9, b"")
    assert said.startswith("not leader: node-a is stepping down; nothing was changed, push again")
    assert a.wait() == 0
    b.wait_ready()
    refused = [push for push in told if push.returncode]
    taken = told[: len(told) - len(refused)]
    assert [push.stderr for push in taken if push.returncode] == [], "one was refused before the limit"
    listed = client.git("ls-remote", client.url(b, "org/app")).stdout
    assert all(f"refs/heads/b{number}\n" in listed for number in range(len(taken)))
    assert "refs/heads/slow" not in listed


def _url(node: NodeProcess) -> str:
    return f"ssh://git@127.0.0.1:{node.ssh_port}"
