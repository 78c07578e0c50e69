"""What Prometheus scrapes of real nodes moves when something happens."""

from collections.abc import Callable

from tests.support.cluster import Cluster, NodeProcess, eventually


def sample(node: NodeProcess, series: str) -> float:
    """The value of one series; 0 while it is not there."""
    for line in node.get("/metrics")[1].decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name == series:
            return float(value)
    return 0.0


def rises(node: NodeProcess, series: str) -> Callable[[], bool]:
    """Whether it has risen by one since this was called."""
    before = sample(node, series)
    return lambda: sample(node, series) == before + 1


def test_sessions_and_refusals_are_counted(cluster: Cluster) -> None:
    """An alert on refused pushes fires on a node that refuses, and a push that succeeds is seen."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    pushed = rises(a, 'stargate_sessions_total{command="git-receive-pack",exit="0"}')
    timed = rises(a, 'stargate_session_seconds_count{command="git-receive-pack"}')
    client.git("push", "-q", client.url(a, "app"), "main", cwd=tree)
    eventually(pushed, "a push that was counted")
    eventually(timed, "a push that was timed")

    refused = rises(b, 'stargate_pushes_refused_total{reason="not_leader"}')
    ended = rises(b, 'stargate_sessions_total{command="git-receive-pack",exit="9"}')
    client.git("push", client.url(b, "app"), "main:other", cwd=tree, ok=False)
    eventually(refused, "a refusal that was counted")
    eventually(ended, "its session")
