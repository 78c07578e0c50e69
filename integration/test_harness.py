"""The smallest scenario, and that the harness itself keeps its word."""

from integration.harness import Cluster


def test_a_push_goes_through_the_leader_and_is_refused_at_the_standby(pair: Cluster) -> None:
    """One writer: the name leads to the leader; the standby refuses with 9 and "not leader"."""
    leader, standby = pair.settle()
    client = pair.client
    client.work_tree("app")
    client.push("app")
    oid = client.commit("app", "second")
    client.push("app")
    assert standby.refs("app")["refs/heads/main"] == oid
    refused = client.push("app", standby, ok=False)
    assert refused.status == 128
    assert f"not leader: {standby.name} is a standby; the leader is {leader.name}" in refused.err
    raw = client.ssh("git-receive-pack", "'app'", where=standby, ok=False)
    assert raw.status == 9
    assert "not leader" in raw.err
