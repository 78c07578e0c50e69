"""Repositories that are deleted, or vanish from the leader's disk, also during a push.

What was acknowledged is on the node that leads then, and on both in the end.
"""

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.by_hand import (
    APP,
    FORK,
    GONE,
    LOOKS_OFTEN,
    LOOKS_SELDOM,
    NO_WATCHDOG,
    Make,
    before_the_pack,
    fails_over,
    folder,
    id_of,
    push,
    rescued,
    served,
    trash,
)
from tests.support.cluster import STARGATE, Cluster, content, eventually
from tests.support.line import Line
from tests.support.nodelog import wait_sessions
from tests.support.pushers import refs_of
from tests.support.trap import Trap, ref_lock


def over_ssh(cluster: Cluster, *words: str) -> str:
    """A shell command that an administrator gives the leader."""
    ssh = " ".join(cluster.client.ssh_argv())
    return f"{ssh} -p {cluster['node-a'].ssh_port} git@127.0.0.1 {' '.join(words)}"


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_push_into_a_repository_that_was_deleted_before_the_pack_is_refused(
    unstarted: Make, *, made_anew: bool
) -> None:
    """With the true cause, and nothing was changed; the next push makes it anew."""
    cluster = unstarted(overrides=LOOKS_SELDOM).start()
    b = cluster["node-b"]
    tree = cluster.client.work_tree("app")
    push(cluster, tree, APP, "there before")
    oid = cluster.client.commit(tree, "into the void")
    commands = [over_ssh(cluster, "repo", "delete", APP)]
    if made_anew:
        commands.append(over_ssh(cluster, "repo", "create", APP))
    before_the_pack(tree, " && ".join(commands))
    url = cluster.client.url(cluster["node-a"], APP)
    done = cluster.client.git("push", url, "main", cwd=tree, ok=False)
    assert done.returncode != 0
    assert f"{GONE}; nothing was changed, try again" in done.stderr
    assert "disk" not in done.stderr
    assert oid not in served(cluster, cluster["node-a"], APP)
    cluster.client.git("push", "-q", url, "main", cwd=tree)
    fails_over(cluster)
    assert oid in served(cluster, b, APP)
    assert [trash(node) for node in cluster.nodes] == [[f"{APP}.git"], [f"{APP}.git"]]
    assert [rescued(node) for node in cluster.nodes] == [[], []]


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_push_fails_if_its_repository_is_deleted_while_the_pack_comes(
    unstarted: Make, *, made_anew: bool
) -> None:
    """Git has nowhere to put it; and the new one of that name has nothing of it."""
    cluster = unstarted(overrides=LOOKS_SELDOM).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    push(cluster, tree, APP, "there before")
    old = id_of(a, APP)
    oid = cluster.client.commit(tree, "large", size_bytes=4_000_000)
    with Line(a.ssh_port) as line, ThreadPoolExecutor(1) as pool:
        url = f"ssh://git@127.0.0.1:{line.port}/{APP}"
        line.slow(500_000)
        sent = line.passed("up")
        pushing = pool.submit(cluster.client.git, "push", url, "main", cwd=tree, ok=False)
        eventually(lambda: line.passed("up") - sent > 1_000_000, "a part of the pack")
        assert cluster.client.ssh(a, "repo", "delete", APP).returncode == 0
        if made_anew:
            assert cluster.client.ssh(a, "repo", "create", APP).returncode == 0
        line.slow(None)
        done = pushing.result(60)
    assert done.returncode != 0
    assert oid not in served(cluster, a, APP)
    fails_over(cluster)
    assert oid not in served(cluster, b, APP)
    assert (APP + ".git" in content(b)) == made_anew
    for node in cluster.nodes:
        (entry,) = (node.data_dir / "trash").iterdir()
        assert entry.name.endswith(old)


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_push_is_not_acknowledged_if_its_repository_is_deleted_when_git_has_taken_it(
    unstarted: Make, *, made_anew: bool
) -> None:
    """Git has moved the ref, and says so; the client is told `ng …; outcome unknown`."""
    cluster = unstarted(overrides={**LOOKS_SELDOM, **NO_WATCHDOG}).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    push(cluster, tree, APP, "there before")
    oid = cluster.client.commit(tree, "in between")
    with ThreadPoolExecutor(1) as pool:
        with Trap(a, "rename", ref_lock(a, APP, "refs/heads/main"), "STOP") as trap:
            url = cluster.client.url(a, APP)
            pushing = pool.submit(cluster.client.git, "push", url, "main", cwd=tree, ok=False)
            trap.wait_sprung()
            (stopped,) = [line for line in trap.log.read_text().splitlines() if "stopped by" in line]
        assert refs_of(a, APP)["refs/heads/main"] == oid
        assert cluster.client.ssh(a, "repo", "delete", APP).returncode == 0
        if made_anew:
            assert cluster.client.ssh(a, "repo", "create", APP).returncode == 0
        os.kill(int(stopped.split()[0]), signal.SIGCONT)
        done = pushing.result(60)
    assert done.returncode == 1
    assert f"main -> main ({GONE}; outcome unknown)" in done.stderr
    wait_sessions(a, exit=75)
    fails_over(cluster)
    assert oid not in served(cluster, b, APP)
    assert trash(b) == [f"{APP}.git"]


def test_a_push_that_waits_for_its_replica_is_not_acknowledged_once_its_repository_is_deleted(
    unstarted: Make,
) -> None:
    """The deletion was confirmed before anybody was told "ok": so nobody is."""
    patient = {"replication": {"full_check_s": 3600, "ack_timeout_s": 20}, **NO_WATCHDOG}
    cluster = unstarted(overrides=patient).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    push(cluster, tree, APP, "there before")
    cluster.wait_equal()
    cluster.client.commit(tree, "waits")
    b.signal(signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        url = cluster.client.url(a, APP)
        pushing = pool.submit(cluster.client.git, "push", url, "main", cwd=tree, ok=False)
        eventually(lambda: sum(s["lag_changes"] for s in a.status()["standbys"]) >= 1, "the change told")
        deleting = pool.submit(cluster.client.ssh, a, "repo", "delete", APP)
        eventually(lambda: trash(a), "the deletion on the leader")
        b.signal(signal.SIGCONT)
        pushed, deleted = pushing.result(60), deleting.result(60)
    assert deleted.returncode == 0
    assert pushed.returncode != 0
    assert f"{GONE}; outcome unknown" in pushed.stderr
    cluster.wait_equal()
    assert content(b) == {}


def test_what_was_deleted_while_a_node_was_away_is_deleted_there_too(unstarted: Make) -> None:
    """It is told so of that id, and the repository of that name by now is another one."""
    cluster = unstarted(overrides=LOOKS_SELDOM).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree, other = cluster.client.work_tree("app"), cluster.client.work_tree("other")
    push(cluster, tree, APP, "to be deleted")
    push(cluster, tree, FORK, "to be deleted, too")
    cluster.wait_equal()
    b.kill()
    for name in (APP, FORK):
        assert cluster.client.ssh(a, "repo", "delete", name).returncode == 0
    oid = push(cluster, other, APP, "another one")
    b.start()
    a.wait_in_sync_set("node-b")
    cluster.wait_equal()
    assert oid in content(b)[f"{APP}.git"]
    assert trash(b) == [f"{APP}.git", f"{FORK}.git"]
    assert rescued(b) == []


def test_what_vanishes_from_the_leaders_disk_stays_on_the_standby(unstarted: Make) -> None:
    """`rm -rf`, or a disk: that is no deletion. The standby says so, and serves it when it leads."""
    cluster = unstarted(overrides=LOOKS_OFTEN).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    oid = push(cluster, tree, APP, "acknowledged")
    cluster.wait_equal()
    shutil.rmtree(folder(a, APP))
    eventually(lambda: any(APP in line for line in b.status().get("warnings", ())), "the standby says so")
    eventually(lambda: any(APP in line for line in a.status().get("warnings", ())), "the leader says so")
    assert folder(b, APP).exists()
    assert trash(b) == []
    listed = subprocess.run(
        [*STARGATE, "rescued", "list", "-c", str(b.config_file)],
        capture_output=True, text=True, timeout=60, check=False,
    ).stdout  # fmt: skip
    assert APP in listed
    fails_over(cluster)
    assert oid in served(cluster, b, APP)
    assert oid in content(a)[f"{APP}.git"]
    assert trash(b) == []


def test_a_new_repository_in_the_place_of_one_that_vanished_does_not_bury_it(unstarted: Make) -> None:
    """The standby needs the name: the last copy of the old one is rescued as a whole."""
    cluster = unstarted(overrides=LOOKS_SELDOM).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree, other = cluster.client.work_tree("app"), cluster.client.work_tree("other")
    lost = push(cluster, tree, APP, "acknowledged")
    cluster.wait_equal()
    shutil.rmtree(folder(a, APP))
    oid = push(cluster, other, APP, "another one")
    cluster.wait_equal()
    assert oid in content(b)[f"{APP}.git"]
    assert [(one["repository"], one["oid"], one["in_trash"]) for one in rescued(b)] == [(APP, lost, True)]


def test_a_new_repository_is_not_seen_on_the_standby_before_it_is_whole(unstarted: Make) -> None:
    """It is fetched beside, and comes to its name at once; killed in between, there is nothing half-made."""
    cluster = unstarted(overrides=LOOKS_SELDOM)
    a, b = cluster["node-a"], cluster["node-b"]
    with Line(a.ssh_port) as line:
        a.config["ssh"]["advertise"] = f"127.0.0.1:{line.port}"
        cluster.start()
        tree = cluster.client.work_tree("app")
        b.kill()
        oid = cluster.client.commit(tree, "large", size_bytes=4_000_000)
        cluster.client.git("push", "-q", cluster.client.url(a, APP), "main", cwd=tree)
        line.slow(500_000)
        b.start()
        root = b.data_dir / "repositories"
        eventually(lambda: [*root.glob(".new-*/app.git/objects/*/tmp_*")], "a fetch that has begun")
        assert not folder(b, APP).exists()
        b.kill()
        line.slow(None)
        b.start()
        a.wait_in_sync_set("node-b")
        assert oid in cluster.wait_equal()[f"{APP}.git"]
        assert list((b.data_dir / "repositories").glob(".*")) == []
