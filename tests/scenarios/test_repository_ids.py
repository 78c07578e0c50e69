"""Repositories are what they are by their ids, whatever operators do to the folders of the leader.

`mv`, `cp -a` and `rm -rf` in repositories/, deletions and new ones of the same name, each with the leader
killed right behind: what was acknowledged is on the node that leads then, and on both in the end.
"""

import os
import signal

import pytest

from tests.support.by_hand import (
    APP,
    FORK,
    LOOKS_OFTEN,
    LOOKS_SELDOM,
    NO_WATCHDOG,
    RENAMED,
    Make,
    before_the_pack,
    copy,
    fails_over,
    folder,
    id_of,
    nothing_was_put_away,
    push,
    rename,
    rescued,
    served,
    trash,
)
from tests.support.cluster import content, eventually
from tests.support.nodelog import complete_log
from tests.support.pushers import refs_of

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
    a.wait_in_sync_set("node-b")  # which it may leave for a moment, until it has confirmed what it has moved
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
