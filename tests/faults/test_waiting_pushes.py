"""Pushes that wait for their replica: what their clients see, and who has to wait for whom."""

from tests.faults.conftest import MakeCluster


def test_a_branch_at_a_commit_that_the_standby_has_makes_nobody_late(make: MakeCluster) -> None:
    """A fetch that finds everything there ends at once: it is the whole of the standby's work."""
    cluster = make().start()
    a, client = cluster["node-a"], cluster.client
    tree = client.work_tree("app")
    url = client.url(a, "org/app")
    client.git("push", "-q", url, "main", cwd=tree)
    for number in range(5):
        client.git("push", "-q", url, f"main:branch-{number}", cwd=tree)
    assert a.status()["sync_set"] == ["node-b"]
    assert "standby_late" not in a.log()
    cluster.wait_equal()
