"""The leader goes, in every way a process can go; the other node takes over and nothing is unequal."""

import signal

import pytest

from tests.support.cluster import Cluster, eventually


@pytest.mark.parametrize("how", ["kill -9", "SIGTERM"])
def test_pushes_go_on_at_the_other_node_when_the_leader_goes(cluster: Cluster, how: str) -> None:
    """Promise 1 and 5: one writer before and after, and reads never stop."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    cluster.wait_equal()

    if how == "kill -9":
        a.kill()
    else:
        assert a.terminate() == 0
    b.wait_ready()
    second = client.commit(tree, "second")
    client.git("push", "-q", client.url(b, "org/app"), "main", cwd=tree)
    assert b.status()["leader"] == "node-b"
    assert b.status()["term"] == 2

    a.start()
    b.wait_in_sync_set("node-a")
    contents = cluster.wait_equal()
    assert second in contents["org/app.git"]
    refused = client.git("push", client.url(a, "org/app"), "main:other", cwd=tree, ok=False)
    assert refused.returncode == 128
    assert "not leader: node-a is a standby; the leader is node-b" in refused.stderr


def test_leadership_goes_back_and_forth_and_the_term_only_grows(cluster: Cluster) -> None:
    """Promise 1: every new leadership has a larger term than any before."""
    client = cluster.client
    tree = client.work_tree("app")
    terms = []
    for turn in range(4):
        leader = cluster.leader()
        terms.append(leader.status()["term"])
        other = next(node for node in cluster.nodes if node is not leader)
        leader.wait_in_sync_set(other.name)
        client.commit(tree, f"turn {turn}")
        client.git("push", "-q", client.url(leader, "org/app"), "main", cwd=tree)
        cluster.wait_equal()
        leader.kill()
        other.wait_ready()
        leader.start()
        other.wait_in_sync_set(leader.name)
    assert terms == sorted(set(terms))
    cluster.wait_equal()


def test_a_clean_stop_hands_over_everything_that_was_acknowledged(cluster: Cluster) -> None:
    """SIGTERM: the standby has caught up before the lock is let go, and the record says so."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    oids = []
    for number in range(10):
        oids.append(client.commit(tree, f"commit {number}"))
        client.git("push", "-q", client.url(a, "org/app"), f"HEAD:refs/heads/b{number}", cwd=tree)
    assert a.terminate() == 0
    b.wait_ready()
    listed = client.git("ls-remote", client.url(b, "org/app")).stdout
    assert all(oid in listed for oid in oids)


def test_reads_go_on_at_the_standby_without_a_leader(cluster: Cluster) -> None:
    """Promise 5: a node serves fetches when nobody leads; its pushes are refused with "not leader"."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    cluster.wait_equal()
    a.signal(signal.SIGSTOP)
    client.git("clone", "-q", client.url(b, "org/app"), "copy")
    refused = client.git("push", client.url(b, "org/app"), "main:other", cwd=tree, ok=False)
    assert refused.returncode == 128
    assert "not leader" in refused.stderr
    assert not b.ready()
    a.signal(signal.SIGCONT)
    leader = cluster.leader()
    eventually(lambda: cluster.leader().status(), "a leader's status")
    assert leader.ready()


def test_the_only_node_left_leads_again_after_a_restart(cluster: Cluster) -> None:
    """The last leader is eligible: both nodes down, the leader back alone, pushes work."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    cluster.wait_equal()
    b.kill()
    eventually(lambda: not a.status()["sync_set"], "an empty sync set")
    client.commit(tree, "while b was away")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    a.kill()
    b.start()
    b.wait_healthy()
    a.start()
    a.wait_ready()
    a.wait_in_sync_set("node-b")
    cluster.wait_equal()


def test_a_standby_that_missed_pushes_does_not_take_over_by_itself(cluster: Cluster) -> None:
    """Promise 2's foundation: only the sync set or the last leader may lead on their own."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    cluster.wait_equal()
    b.kill()
    eventually(lambda: not a.status()["sync_set"], "an empty sync set")
    client.commit(tree, "only a has this")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    a.kill()
    b.start()
    b.wait_healthy()
    refused = client.git("push", client.url(b, "org/app"), "main:other", cwd=tree, ok=False)
    assert "not leader" in refused.stderr
    assert not b.ready()
