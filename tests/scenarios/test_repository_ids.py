"""Repositories are what they are by their ids, whatever operators do to the folders of the leader.

`mv`, `cp -a` and `rm -rf` in repositories/, deletions and new ones of the same name, each with the leader
killed right behind: what was acknowledged is on the node that leads then, and on both in the end.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.cluster import STARGATE, Cluster, NodeProcess, content, eventually
from tests.support.line import Line
from tests.support.nodelog import complete_log, wait_sessions
from tests.support.pushers import refs_of
from tests.support.trap import Trap, ref_lock

Make = Callable[..., Cluster]

LOOKS_OFTEN = {"replication": {"full_check_s": 0.5}}
LOOKS_SELDOM = {"replication": {"full_check_s": 3600}}
NO_WATCHDOG = {"election": {"watchdog_s": 50, "lease_s": 60}}  # for a node that a test stops for a while
GONE = "repository was deleted (or moved) during the push"
APP, FORK, RENAMED = "org/app", "org/fork", "org/renamed"
OLD, FIRST, SECOND = "old", "first", "second"


def push(cluster: Cluster, tree: Path, name: str, text: str, node: NodeProcess | None = None) -> str:
    """One more commit, acknowledged by the leader; its oid."""
    oid = cluster.client.commit(tree, text)
    url = cluster.client.url(node or cluster.leader(), name)
    cluster.client.git("push", "-q", url, "+main", cwd=tree)
    return oid


def folder(node: NodeProcess, name: str) -> Path:
    return node.repository(name)


def rename(node: NodeProcess, name: str, other: str) -> None:
    """`mv`, of a repository."""
    folder(node, other).parent.mkdir(parents=True, exist_ok=True)
    folder(node, name).rename(folder(node, other))


def copy(node: NodeProcess, name: str, other: str) -> None:
    """`cp -a`, to a hidden name first: the node finds it as a whole."""
    hidden = node.data_dir / "repositories" / ".copying"
    shutil.copytree(folder(node, name), hidden, symlinks=True)
    hidden.rename(folder(node, other))


def id_of(node: NodeProcess, name: str) -> str:
    return (folder(node, name) / "stargate-id").read_text().strip()


def trash(node: NodeProcess) -> list[str]:
    """What lies in its trash, by name."""
    root = node.data_dir / "trash"
    return sorted(
        str(path.relative_to(entry))
        for entry in root.iterdir()
        for path in entry.rglob("*.git")
        if path.is_dir()
    )


def rescued(node: NodeProcess) -> list[dict[str, object]]:
    """What `stargate rescued list --json` tells."""
    argv = [*STARGATE, "rescued", "list", "--json", "-c", str(node.config_file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def served(cluster: Cluster, node: NodeProcess, name: str) -> str:
    """What users see there."""
    return cluster.client.git("ls-remote", cluster.client.url(node, name), ok=False).stdout


def fails_over(cluster: Cluster) -> None:
    """The leader is killed, the standby leads, and the old leader follows it until both are equal."""
    a, b = cluster["node-a"], cluster["node-b"]
    a.kill()
    b.wait_ready()
    a.start()
    b.wait_in_sync_set("node-a")
    cluster.wait_equal()


def nothing_was_put_away(nodes: Iterable[NodeProcess]) -> None:
    """And nobody has to look for anything."""
    for node in nodes:
        assert trash(node) == []
        assert rescued(node) == []
        assert node.status()["rescued_refs"] == 0


# -- mv --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noticed", [False, True])
def test_a_renamed_repository_is_moved_and_never_missing(unstarted: Make, *, noticed: bool) -> None:
    """Killed before the standby has heard of it, or after: it has all of it, under one name or the other."""
    cluster = unstarted(overrides=LOOKS_OFTEN if noticed else LOOKS_SELDOM).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    oid = push(cluster, tree, APP, "acknowledged")
    cluster.wait_equal()
    inode = folder(b, APP).stat().st_ino
    rename(a, APP, RENAMED)
    if noticed:
        eventually(lambda: folder(b, RENAMED).exists(), "the standby follows the name")
        assert folder(b, RENAMED).stat().st_ino == inode, "moved, and not fetched"
        assert not folder(b, APP).exists()
        assert a.status()["sync_set"] == ["node-b"]
    fails_over(cluster)
    assert oid in served(cluster, b, RENAMED if noticed else APP)
    assert len(content(a)) == 1
    nothing_was_put_away(cluster.nodes)


def test_two_repositories_that_change_names_change_them_on_the_standby(unstarted: Make) -> None:
    """a ↔ b, and three in a circle: nothing is fetched, nothing is put away."""
    cluster = unstarted(overrides=LOOKS_OFTEN).start()
    a, b = cluster["node-a"], cluster["node-b"]
    trees = {name: cluster.client.work_tree(name) for name in ("a", "b", "x", "y", "z")}
    oids = {name: push(cluster, tree, name, f"in {name}") for name, tree in trees.items()}
    cluster.wait_equal()
    inodes = {name: folder(b, name).stat().st_ino for name in trees}
    for one, other in [("a", "t"), ("b", "a"), ("t", "b"), ("x", "t"), ("y", "x"), ("z", "y"), ("t", "z")]:
        rename(a, one, other)
    now = {"a": "b", "b": "a", "x": "y", "y": "z", "z": "x"}
    eventually(
        lambda: all(folder(b, name).stat().st_ino == inodes[was] for name, was in now.items()),
        "the standby has the same names",
    )
    fails_over(cluster)
    for name, was in now.items():
        assert oids[was] in served(cluster, b, name)
    nothing_was_put_away(cluster.nodes)


def test_a_folder_of_repositories_is_renamed(unstarted: Make) -> None:
    """`mv org org2`: each of them is moved."""
    cluster = unstarted(overrides=LOOKS_OFTEN).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    names = [f"org/r{number}" for number in range(5)]
    oids = {name: push(cluster, tree, name, name) for name in names}
    cluster.wait_equal()
    root = a.data_dir / "repositories"
    (root / "org").rename(root / "org2")
    eventually(lambda: content(a) == content(b), "the standby has the same names")
    assert not (b.data_dir / "repositories" / "org").exists()
    fails_over(cluster)
    for name, oid in oids.items():
        assert oid in served(cluster, b, name.replace("org/", "org2/"))
    nothing_was_put_away(cluster.nodes)


def test_a_push_to_the_old_name_makes_another_repository(unstarted: Make) -> None:
    """Right behind the mv, and before anybody has looked: both are on the standby when it is acknowledged."""
    cluster = unstarted(overrides=LOOKS_SELDOM).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree, other = cluster.client.work_tree("app"), cluster.client.work_tree("other")
    first = push(cluster, tree, APP, "before the rename")
    cluster.wait_equal()
    rename(a, APP, RENAMED)
    second = push(cluster, other, APP, "after the rename")
    fails_over(cluster)
    assert second in served(cluster, b, APP)
    assert first in served(cluster, b, RENAMED)
    assert first not in served(cluster, b, APP)
    nothing_was_put_away(cluster.nodes)


def test_a_push_to_the_new_name_is_one_into_the_same_repository(unstarted: Make) -> None:
    """It is acknowledged under its new name, on both nodes."""
    cluster = unstarted(overrides=LOOKS_SELDOM).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    push(cluster, tree, APP, "before the rename")
    identity = id_of(a, APP)
    rename(a, APP, RENAMED)
    oid = push(cluster, tree, RENAMED, "after the rename")
    assert id_of(b, RENAMED) == identity
    fails_over(cluster)
    assert oid in served(cluster, b, RENAMED)
    nothing_was_put_away(cluster.nodes)


def test_a_repository_that_is_renamed_during_a_push_gets_it(unstarted: Make) -> None:
    """Git goes on in its folder, wherever that is by then; what it has written there is acknowledged."""
    cluster = unstarted(overrides=LOOKS_SELDOM).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    push(cluster, tree, APP, "there before")
    moves = f"mkdir -p {folder(a, RENAMED).parent} && mv {folder(a, APP)} {folder(a, RENAMED)}"
    before_the_pack(tree, moves)
    oid = push(cluster, tree, APP, "in between")
    assert refs_of(b, RENAMED)["refs/heads/main"] == oid
    fails_over(cluster)
    assert oid in served(cluster, b, RENAMED)
    nothing_was_put_away(cluster.nodes)


# -- cp --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [LOOKS_OFTEN, LOOKS_SELDOM])
@pytest.mark.parametrize("renamed_first", [False, True])
def test_a_push_into_a_copy_is_acknowledged_as_one_into_the_copy(
    unstarted: Make, looks: dict[str, dict[str, float]], *, renamed_first: bool
) -> None:
    """Killed right behind: the standby has the copy with the commit, and the original without."""
    cluster = unstarted(overrides=looks).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    first = push(cluster, tree, APP, "in the original")
    cluster.wait_equal()
    identity = id_of(a, APP)
    original = APP
    if renamed_first:
        original = RENAMED
        rename(a, APP, RENAMED)
    copy(a, original, FORK)
    second = push(cluster, tree, FORK, "in the copy")
    assert id_of(a, original) == identity != id_of(a, FORK)
    fails_over(cluster)
    assert second in served(cluster, b, FORK)
    kept = next(name for name in (APP, RENAMED) if folder(b, name).exists())
    assert id_of(b, kept) == identity
    assert first in served(cluster, b, kept)
    assert second not in served(cluster, b, kept)
    nothing_was_put_away(cluster.nodes)


def test_a_copy_made_while_the_node_was_down_is_the_copy(unstarted: Make) -> None:
    """With another owner set on everything, which makes all files look new. It leads again."""
    cluster = unstarted(overrides={**LOOKS_SELDOM, **NO_WATCHDOG}).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    first = push(cluster, tree, APP, "in the original")
    cluster.wait_equal()
    identity = id_of(a, APP)
    b.signal(signal.SIGSTOP)  # it would lead
    a.kill()
    copy(a, APP, FORK)
    for path in folder(a, APP).rglob("*"):
        os.chown(path, -1, -1)
        path.chmod(path.stat().st_mode)
    a.start().wait_ready()
    b.signal(signal.SIGCONT)
    second = push(cluster, tree, FORK, "in the copy", a)
    a.wait_in_sync_set("node-b")
    cluster.wait_equal()
    assert [id_of(node, APP) for node in cluster.nodes] == [identity, identity]
    fails_over(cluster)
    assert first in served(cluster, b, APP)
    assert second not in served(cluster, b, APP)
    assert second in served(cluster, b, FORK)
    nothing_was_put_away(cluster.nodes)


def test_a_copy_that_only_the_old_leader_has_is_rescued(unstarted: Make) -> None:
    """Nobody has looked at it before the node died, so it has no id of its own; it is put away and shown."""
    cluster = unstarted(overrides=LOOKS_SELDOM).start()
    a, b = cluster["node-a"], cluster["node-b"]
    tree = cluster.client.work_tree("app")
    oid = push(cluster, tree, APP, "in the original")
    cluster.wait_equal()
    copy(a, APP, FORK)
    fails_over(cluster)
    assert trash(a) == [f"{FORK}.git"]
    assert [(one["repository"], one["oid"], one["in_trash"]) for one in rescued(a)] == [(FORK, oid, True)]
    assert a.status()["rescued_refs"] == 1
    assert oid in served(cluster, b, APP)
    assert trash(b) == []


def test_what_is_copied_into_a_standby_is_rescued_and_gets_no_id(unstarted: Make) -> None:
    """Only the leader gives one. Its own copy of the original stays what it is."""
    cluster = unstarted(overrides=LOOKS_OFTEN).start()
    b = cluster["node-b"]
    tree = cluster.client.work_tree("app")
    push(cluster, tree, APP, "acknowledged")
    cluster.wait_equal()
    identity = id_of(b, APP)
    copy(b, APP, FORK)
    eventually(lambda: rescued(b), "the copy rescued")
    cluster.wait_equal()
    assert id_of(b, APP) == identity
    assert trash(b) == [f"{FORK}.git"]
    assert "repository_copy_got_its_own_id" not in complete_log(b)
    assert cluster.leader().status()["sync_set"] == ["node-b"]


# -- deletion and disappearance ----------------------------------------------------------------------


def before_the_pack(tree: Path, command: str) -> None:
    """Run `command` in the midst of the next push: git has shown its refs, and no pack has come."""
    hook = tree / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nrm -f {hook}\n{command} </dev/null >&2\n")
    hook.chmod(0o755)


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
