"""Durable means on disk: every sync that an acknowledgement rests on comes before it, on every node.

Real nodes, seen from outside: once by the order of their system calls, once by making one sync after the
other fail. Both fail if a sync is left out: then there is nothing to find, or nothing to fail.
"""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import MakeCluster
from tests.support.cluster import Cluster, NodeProcess, eventually
from tests.support.pushers import Told, told
from tests.support.tracer import Call, Tracer, on_disk

REPOSITORY = "org/app"
REF = "refs/heads/traced"
SILENT = {"heartbeat_s": 20, "watchdog_s": 30, "lease_s": 60}  # nothing but the push is in the trace
REPEAT_LIMIT_S = 90.0  # a standby that has failed tries again after a while that grows
PATIENT = {"ack_timeout_s": 30, "ack_max_s": 40}  # a traced node is slow, and nobody is to get late


def _begin(cluster: Cluster) -> Path:
    """Nodes in sync that have `main`; the working copy it came from, with one commit more."""
    cluster.start()
    client = cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(cluster["node-a"], REPOSITORY), "main", cwd=tree)
    cluster.wait_equal()
    client.commit(tree, "traced")
    return tree


def _push(cluster: Cluster, tree: Path) -> tuple[Told, str]:
    """The newest commit to REF; what the client was told."""
    client = cluster.client
    url = client.url(cluster["node-a"], REPOSITORY)
    done = client.git("push", url, f"HEAD:{REF}", cwd=tree, ok=False)
    return told(done.returncode, done.stderr), done.stderr


def _files(cluster: Cluster, tree: Path, node: NodeProcess) -> list[Path]:
    """Where `node` keeps what the push has brought: its objects, and then the ref."""
    listed = cluster.client.git("rev-list", "--objects", "--no-object-names", "HEAD", "^HEAD~1", cwd=tree)
    root = node.repository(REPOSITORY)
    objects = [root / "objects" / oid[:2] / oid[2:] for oid in listed.stdout.split()]
    assert len(objects) == 3, "a commit, its tree, a file"
    return [*objects, root / REF]


def _synced_s(cluster: Cluster, tree: Path, node: NodeProcess, calls: list[Call]) -> tuple[float, float]:
    """When the ref was in its place, and when everything of the push was on disk.

    The objects were, before the ref that names them was put there.
    """
    root = node.repository(REPOSITORY)
    *objects, ref = [on_disk(calls, path, root) for path in _files(cluster, tree, node)]
    for one in objects:
        assert one.placed_s <= ref.placed_s, f"{one.path} came after the ref"
    return ref.placed_s, max(one.s for one in [*objects, ref])


def _first_sent_s(calls: list[Call], connection: str, after_s: float) -> float:
    """When the node first sent anything over that connection after that moment."""
    sent = [call.begun_s for call in calls if _sends(call) and call.file == connection]
    later = [begun_s for begun_s in sent if begun_s > after_s]
    assert later, f"nothing was sent over {connection}"
    return min(later)


def _last_sent_s(calls: list[Call], connection: str, before_s: float) -> float:
    """When the node last sent anything over that connection before that moment."""
    sent = [call.begun_s for call in calls if _sends(call) and call.file == connection]
    earlier = [begun_s for begun_s in sent if begun_s < before_s]
    assert earlier, f"nothing was sent over {connection}"
    return max(earlier)


def _clients(calls: list[Call], port: int) -> str:
    """The leader's connection to the client: the one to its port that began while it was traced."""
    (connection,) = {
        call.file for call in calls if _sends(call) and "SSH-2.0-" in call.args and f":{port}->" in call.file
    }
    return connection


def _peers(calls: list[Call], port: int) -> str:
    """The standby's connection to the leader's port."""
    (connection,) = {call.file for call in calls if _sends(call) and call.file.endswith(f":{port}]")}
    return connection


def _sends(call: Call) -> bool:
    return call.name in {"sendto", "sendmsg"}


def test_everything_is_on_disk_before_it_is_said(make: MakeCluster) -> None:
    """Standby: objects, ref, folders, then "applied". Leader: the same, and that, then the report."""
    cluster = make(replication=PATIENT, election=SILENT)
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    with Tracer(a) as leader, Tracer(b) as standby:
        assert _push(cluster, tree)[0] is Told.OK
    on_leader, on_standby = leader.calls(), standby.calls()
    there_s, standby_s = _synced_s(cluster, tree, b, on_standby)
    moved_s, leader_s = _synced_s(cluster, tree, a, on_leader)
    report_s = _first_sent_s(on_leader, _clients(on_leader, a.ssh_port), moved_s)
    assert leader_s <= report_s, "the leader spoke before its disk had it"
    # Signs of progress come earlier; the last word before the report is "applied".
    applied_s = _last_sent_s(on_standby, _peers(on_standby, a.ssh_port), report_s)
    assert there_s < applied_s, "the leader spoke before its standby"
    assert standby_s <= applied_s, "the standby spoke before its disk had it"


SYNCS: dict[str, Callable[[Path], list[str]]] = {
    "the ref": lambda root: [f"{root}/{REF}.lock"],
    "the folder of the ref": lambda root: [f"{root}/refs/heads"],
    "the folder of objects": lambda root: [f"{root}/objects"],
}


@pytest.mark.parametrize("name", ["node-a", "node-b"])
@pytest.mark.parametrize("sync", SYNCS.values(), ids=SYNCS)
def test_a_sync_that_fails_is_an_acknowledgement_that_does_not_come(
    make: MakeCluster, name: str, sync: Callable[[Path], list[str]]
) -> None:
    """On the leader and on the standby; once the disk works again, the same push is acknowledged."""
    strict = {"mode": "strict", "ack_timeout_s": 3, "ack_max_s": 6}
    cluster = make(replication=strict, election=SILENT)
    tree = _begin(cluster)
    only = [word for path in sync(cluster[name].repository(REPOSITORY)) for word in ("-P", path)]
    failing = ("-e", "trace=fsync", "-e", "inject=fsync:error=EIO", *only)
    with Tracer(cluster[name], *failing) as tracer:
        answer, message = _push(cluster, tree)
        assert answer is Told.UNKNOWN, message
    assert tracer.injected()
    eventually(lambda: _push(cluster, tree)[0] is Told.OK, "the same push again", REPEAT_LIMIT_S)
    cluster.wait_equal()


def test_the_record_is_on_disk_before_anything_is_acknowledged_without_a_standby(make: MakeCluster) -> None:
    """Written, synced, and only then the report: else the standby that lacks the push might lead."""
    cluster = make(replication={"ack_timeout_s": 2, "ack_max_s": 4}, election=SILENT)
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    with Tracer(a) as leader:
        b.signal(signal.SIGSTOP)
        assert _push(cluster, tree)[0] is Told.OK
    assert a.status()["sync_set"] == []
    calls = leader.calls()
    moved_s, _ = _synced_s(cluster, tree, a, calls)
    report_s = _first_sent_s(calls, _clients(calls, a.ssh_port), moved_s)
    record = [call for call in calls if call.file == str(cluster.lock_path)]
    written = [call for call in record if call.name == "pwrite64" and '\\"sync_set\\":[]' in call.args]
    assert written, "the record still names the standby"
    synced = [call for call in record if call.name == "fsync" and call.begun_s >= written[0].done_s]
    assert synced, "the record was not synced"
    assert synced[0].done_s <= report_s
