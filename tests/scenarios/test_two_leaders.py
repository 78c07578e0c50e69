"""Two leaders are impossible: each accident that could make a second one, with real nodes.

A `Witness` asks both nodes all the while and fails the test if they ever say ready in the same term or
at the same time. Besides, each test pushes to whoever must refuse, and reads what an operator is told.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, NodeProcess, eventually
from tests.support.nodelog import log_lines, wait_logged
from tests.support.witness import Reign, Witness, two_leaders

LEASE_S = 2.5
WATCHDOG_S = 1.5
LONG_S = LEASE_S + 0.5  # longer than any wait after which a node might dare
TIMINGS = {"heartbeat_s": 0.3, "watchdog_s": WATCHDOG_S, "lease_s": LEASE_S, "handover_wait_s": 0.5}


@pytest.fixture
def hasty(unstarted: Callable[..., Cluster]) -> Cluster:
    """Two nodes with short times, not started; each reaches the shared volume by a path of its own."""
    cluster = unstarted()
    for node in cluster.nodes:
        mount = cluster.root / f"mount-of-{node.name}"
        mount.symlink_to(cluster.lock_path.parent)
        flock = {"path": str(mount / cluster.lock_path.name)}
        node.config["election"] = {**node.config["election"], **TIMINGS, "flock": flock}
    return cluster


@pytest.fixture
def watched(hasty: Cluster) -> Iterator[tuple[Cluster, Witness]]:
    """node-a leads and has node-b in its sync set, both hold one repository, and a witness looks on."""
    hasty.start()
    hasty.client.work_tree("app")
    push(hasty, hasty["node-a"], "first")
    hasty.wait_equal()
    with Witness(hasty) as witness:
        eventually(witness.reigns, "the witness to have seen the leader")
        yield hasty, witness


def push(
    cluster: Cluster, node: NodeProcess, branch: str, *, ok: bool = True
) -> subprocess.CompletedProcess[str]:
    """Push a new commit to a new branch at `node`."""
    client, tree = cluster.client, cluster.client.home / "app"
    client.commit(tree, f"{branch} at {node.name}")
    return client.git("push", "-q", client.url(node, "org/app"), f"HEAD:refs/heads/{branch}", cwd=tree, ok=ok)


def assert_refuses(cluster: Cluster, node: NodeProcess, branch: str) -> None:
    """A push to `node` is refused in one clear line, and leaves nothing there."""
    refused = push(cluster, node, branch, ok=False)
    assert refused.returncode == 128, refused
    assert f"not leader: {node.name}" in refused.stderr
    assert str(cluster.root) not in refused.stderr, "an operator's path is no client's business"
    assert not (node.repository("org/app") / "refs" / "heads" / branch).exists()


def assert_told(node: NodeProcess, *words: str) -> None:
    """`/status` warns of it, says that this node takes no writes, and the log has it as an error."""

    def warned() -> bool:
        status = node.status()
        return not status.get("ready", True) and any(
            all(word in warning for word in words) for warning in status["warnings"]
        )

    with contextlib.suppress(TimeoutError):
        eventually(warned, f"a warning of {words}", 10)
    assert warned(), f"{node.name} does not say {words}: {node.status()}"

    def said() -> bool:
        problems = [str(line["problem"]) for line in log_lines(node, "election_unavailable")]
        return any(all(word in problem for word in words) for problem in problems)

    eventually(said, f"{node.name} has logged {words}")


def replace_lock_file(cluster: Cluster, content: Path) -> None:
    """Put a copy of `content` in the place of the lock file: another inode under the same name."""
    beside = cluster.lock_path.with_name("beside")
    shutil.copyfile(content, beside)
    beside.rename(cluster.lock_path)


def saved_copy(cluster: Cluster) -> Path:
    """A copy of the lock file as it is now."""
    return Path(shutil.copyfile(cluster.lock_path, cluster.root / "saved.lock"))


def wait_leads_after(cluster: Cluster, term: int) -> tuple[NodeProcess, NodeProcess]:
    """The one node that leads in a larger term than `term` and takes a push, and the other, which refuses."""
    leader = cluster.leader()
    other = next(node for node in cluster.nodes if node is not leader)
    assert leader.status()["term"] > term
    push(cluster, leader, f"after-{term}")
    return leader, other


def test_a_node_without_the_shared_volume_does_not_lead(watched: tuple[Cluster, Witness]) -> None:
    """The path shows an empty directory: that is no first start, not even when the leader dies."""
    cluster, witness = watched
    a, b = cluster.nodes
    mount = cluster.root / "mount-of-node-b"
    assert b.terminate() == 0
    mount.unlink()
    mount.mkdir()
    b.start().wait_healthy()
    assert_told(b, "does not exist", "the file is not: mount the shared volume")
    assert_refuses(cluster, b, "at-b")
    push(cluster, a, "at-a")
    a.kill()
    witness.sees_nobody_ready([b], LONG_S)
    assert_refuses(cluster, b, "at-b-alone")
    assert list(mount.iterdir()) == [], "serve made something on a volume that is not there"

    mount.rmdir()
    mount.symlink_to(cluster.lock_path.parent)
    a.start()
    wait_leads_after(cluster, 1)


def test_a_replaced_lock_file_ends_the_leadership_before_the_next(watched: tuple[Cluster, Witness]) -> None:
    """Two inodes can be locked at once: the old leader notices within a heartbeat, the next one waits."""
    cluster, _witness = watched
    a, b = cluster.nodes
    replace_lock_file(cluster, cluster.lock_path)
    eventually(lambda: not a.ready(), "the leader on the old file to stop", LEASE_S)
    assert_told(a, "was replaced by another file", "waits")
    assert_told(b, "was replaced by another file", "waits")
    assert_refuses(cluster, b, "meanwhile")
    _, other = wait_leads_after(cluster, 1)
    assert_refuses(cluster, other, "afterwards")
    wait_logged(b, "lock_file_replaced")
    wait_logged(b, "election_unavailable")
    assert wait_logged(a, "leadership_lost")[-1]["reason"] == "the lock file was replaced"


def test_a_deleted_lock_file_leaves_nobody_leading(watched: tuple[Cluster, Witness]) -> None:
    """No node makes a new one; with the newest copy back, one node leads in a larger term."""
    cluster, witness = watched
    a, b = cluster.nodes
    saved = saved_copy(cluster)
    cluster.lock_path.unlink()
    eventually(lambda: not a.ready(), "the leader to stop", LEASE_S)
    for node in (a, b):
        assert_told(node, "does not exist", "put the newest copy back")
        assert_refuses(cluster, node, f"at-{node.name}")
    witness.sees_nobody_ready([a, b], LONG_S)
    assert not cluster.lock_path.exists()

    replace_lock_file(cluster, saved)
    _, other = wait_leads_after(cluster, 1)
    assert_refuses(cluster, other, "afterwards")


def test_a_lock_file_from_a_backup_is_not_believed(watched: tuple[Cluster, Witness]) -> None:
    """It names an older leader and its sync set: every node that has seen a larger term refuses it."""
    cluster, witness = watched
    a, b = cluster.nodes
    backup = saved_copy(cluster)
    a.kill()
    b.wait_ready()
    a.start()
    b.wait_in_sync_set("node-a")
    eventually(lambda: a.status()["term"] == 2, "node-a in term 2")
    newest = Path(shutil.copyfile(cluster.lock_path, cluster.root / "newest.lock"))

    replace_lock_file(cluster, backup)
    eventually(lambda: not b.ready(), "the leader to stop", LEASE_S)
    for node in (a, b):
        assert_told(node, "is at term 1", "has seen term 2", "an older copy was restored")
        assert_refuses(cluster, node, f"at-{node.name}")
    witness.sees_nobody_ready([a, b], LONG_S)

    replace_lock_file(cluster, newest)
    wait_leads_after(cluster, 2)


def test_a_backup_written_into_the_locked_file_changes_nothing(watched: tuple[Cluster, Witness]) -> None:
    """The inode stays, so the lock holds: the leader puts its record back and nobody else leads."""
    cluster, _witness = watched
    a, b = cluster.nodes
    backup = saved_copy(cluster)
    a.kill()
    b.wait_ready()
    a.start()
    b.wait_in_sync_set("node-a")
    eventually(lambda: a.status()["term"] == 2, "node-a in term 2")

    cluster.lock_path.write_bytes(backup.read_bytes())
    eventually(lambda: cluster.lock_path.read_bytes().count(b'"term":2') >= 2, "both copies mended")
    push(cluster, b, "still-here")
    assert_refuses(cluster, a, "not-here")
    assert b.status()["term"] == 2
    assert b.ready()


def test_a_recreated_volume_is_not_this_cluster(watched: tuple[Cluster, Witness]) -> None:
    """A fresh `bootstrap` at the same path has another cluster id: no node of the old cluster takes it."""
    cluster, witness = watched
    a, b = cluster.nodes
    aside = cluster.root / "old.lock"
    os.link(cluster.lock_path, aside)
    cluster.lock_path.unlink()
    eventually(lambda: not a.ready(), "the leader to stop", LEASE_S)
    assert b.terminate() == 0
    joined = cluster.bootstrap(b)
    assert joined.returncode == 64, joined
    assert "already joined cluster" in joined.stderr
    b.start().wait_healthy()
    stranger = NodeProcess("node-c", cluster.root / "c.yaml", dict(b.config), cluster.root / "c.log")
    stranger.config["node"] = {"name": "node-c", "data_dir": str(cluster.root / "node-c")}
    made = cluster.bootstrap(stranger)
    assert made.returncode == 0, made.stderr
    for node in (a, b):
        assert_told(node, "belongs to cluster", "but this data_dir joined", "mount the right volume")
        assert_refuses(cluster, node, f"at-{node.name}")
    witness.sees_nobody_ready([a, b], LONG_S)

    aside.rename(cluster.lock_path)
    wait_leads_after(cluster, 1)


def test_an_empty_data_dir_under_the_last_leaders_name_does_not_lead(
    watched: tuple[Cluster, Witness],
) -> None:
    """A name proves nothing: with its disk lost, the last leader would lead an empty server."""
    cluster, witness = watched
    a, b = cluster.nodes
    for node in (a, b):  # both at once: neither has the time to note that the other went
        node.signal(signal.SIGKILL)
    for node in (a, b):
        node.wait()
    a.data_dir.rename(cluster.root / "lost-disk")
    a.start().wait_healthy()
    eventually(lambda: "another data_dir" in a.status()["reason"], "why it does not lead")
    assert_refuses(cluster, a, "at-a")
    witness.sees_nobody_ready([a], LONG_S)

    b.start().wait_ready()
    b.wait_in_sync_set("node-a")
    assert "refs/heads/first" in cluster.wait_equal()["org/app.git"]


@contextlib.contextmanager
def frozen(node: NodeProcess) -> Iterator[None]:
    """The node's process is stopped, as by a paused machine; it goes on after."""
    node.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.signal(signal.SIGCONT)


def push_in_background(cluster: Cluster, node: NodeProcess, branch: str) -> subprocess.Popen[bytes]:
    """A push that begins while `node` is frozen; ended with the cluster."""
    client, tree = cluster.client, cluster.client.home / "app"
    client.commit(tree, branch)
    pushing = subprocess.Popen(
        ["git", "push", "-q", client.url(node, "org/app"), f"HEAD:refs/heads/{branch}"],
        cwd=tree,
        env=client.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    cluster.extra_processes.append(pushing)
    return pushing


def test_a_leader_that_wakes_up_acknowledges_nothing_on_old_proof(watched: tuple[Cluster, Witness]) -> None:
    """The kernel keeps a frozen leader's lock: nobody else leads. Awake, it ends, and then one leads."""
    cluster, witness = watched
    a, b = cluster.nodes
    with frozen(a):
        pushing = push_in_background(cluster, a, "into-the-freeze")
        witness.sees_nobody_ready([b], LONG_S)
        assert_refuses(cluster, b, "at-b")
    assert a.wait() == -signal.SIGALRM, "the watchdog ends what was frozen for longer than watchdog_s"
    assert pushing.wait(30) != 0
    b.wait_ready()
    assert b.status()["term"] == 2
    push(cluster, b, "at-last")
    a.start()
    b.wait_in_sync_set("node-a")
    assert_refuses(cluster, a, "at-a")
    assert "into-the-freeze" not in cluster.wait_equal()["org/app.git"]


def test_a_frozen_leader_whose_lock_file_was_replaced_wakes_up_powerless(
    watched: tuple[Cluster, Witness],
) -> None:
    """The other leads on the new file while the old lock is still held: the term decides."""
    cluster, witness = watched
    a, b = cluster.nodes
    with frozen(a):
        replace_lock_file(cluster, cluster.lock_path)
        pushing = push_in_background(cluster, a, "into-the-freeze")
        b.wait_ready()
        assert b.status()["term"] == 2
        push(cluster, b, "in-term-2")
    assert a.wait() == -signal.SIGALRM
    assert pushing.wait(30) != 0
    a.start()
    b.wait_in_sync_set("node-a")
    assert_refuses(cluster, a, "at-a")
    assert "into-the-freeze" not in cluster.wait_equal()["org/app.git"]
    assert {(reign.node, reign.term) for reign in witness.reigns()} == {("node-a", 1), ("node-b", 2)}


@pytest.mark.parametrize(
    "second", [Reign("node-b", 1, 9.0, 10.0), Reign("node-b", 2, 3.0, 5.0)], ids=["same term", "same time"]
)
def test_the_witness_knows_two_leaders_when_it_sees_them(second: Reign) -> None:
    """The other tests can fail: same term at any time, or same time in any terms."""
    assert two_leaders([Reign("node-a", 1, 1.0, 4.0), second]) is not None
