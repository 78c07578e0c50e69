"""One repository that is damaged, on the leader or on the standby, costs only itself."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster import Client, Cluster, NodeProcess, content, eventually
from tests.support.nodelog import complete_log, wait_logged

Make = Callable[..., Cluster]

CHECKED = {"full_check_s": 2, "ack_timeout_s": 5}
GOOD, BAD = "org/good", "org/bad"
BACK_LIMIT_S = 60.0


def started(unstarted: Make, mode: str = "sync") -> tuple[Cluster, Path]:
    """Two nodes with a commit on main in both repositories; the client's work tree."""
    cluster = unstarted(overrides={"replication": {**CHECKED, "mode": mode}}).start()
    tree = cluster.client.work_tree("app")
    for name in (GOOD, BAD):
        push(cluster, cluster["node-a"], tree, name)
    cluster.wait_equal()
    return cluster, tree


def push(cluster: Cluster, node: NodeProcess, tree: Path, name: str, *, ok: bool = True) -> str:
    """Push what the tree has to main; what git says."""
    client = cluster.client
    return client.git("push", client.url(node, name), "HEAD:main", cwd=tree, ok=ok, limit_s=90).stderr


def damage(node: NodeProcess, name: str) -> None:
    """As after a power cut."""
    (node.repository(name) / "packed-refs").write_bytes(b"\0" * 300)


def restart(node: NodeProcess) -> None:
    node.kill()
    node.start().wait_healthy()


def warned(node: NodeProcess, *words: str) -> bool:
    """Whether a warning in its status has all of these words."""
    return any(all(word in line for word in words) for line in node.status().get("warnings", ()))


def is_in_sync(leader: NodeProcess) -> bool:
    """The standby is connected, and in the sync set."""
    return [one["in_sync"] for one in leader.status()["standbys"]] == [True]


def tip(client: Client, tree: Path) -> str:
    return client.git("rev-parse", "HEAD", cwd=tree).stdout.strip()


@pytest.mark.parametrize("mode", ["sync", "strict"])
def test_a_repository_that_only_the_standby_has_whole_keeps_nobody_out(unstarted: Make, mode: str) -> None:
    """The leader cannot read it: the standby comes back all the same, for its copy is what that was.

    Pushes to the others go on; to that one they are refused, with the cause. And the standby takes over with
    the whole copy, from which the old leader's is mended.
    """
    cluster, tree = started(unstarted, mode)
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    kept = content(b)[f"{BAD}.git"]
    damage(a, BAD)
    restart(b)
    eventually(lambda: warned(b, BAD, "cannot be read on the leader", "packed-refs"), "the standby names it")
    eventually(lambda: is_in_sync(a), "the standby in the sync set")
    assert warned(a, BAD, "cannot be read here", "packed-refs")
    client.commit(tree, "second")
    push(cluster, a, tree, GOOD)
    assert tip(client, tree) in content(b)[f"{GOOD}.git"]
    push(cluster, a, tree, BAD, ok=False)
    assert content(b)[f"{BAD}.git"] == kept
    assert is_in_sync(a)
    for node in cluster.nodes:
        assert "Traceback" not in complete_log(node)
    assert complete_log(a).count('"event": "repository_not_read"') < 5, "one line for each cause and period"
    a.kill()
    b.wait_ready()
    a.start().wait_healthy()
    eventually(lambda: is_in_sync(b), "the old leader's copy mended", BACK_LIMIT_S)
    push(cluster, b, tree, BAD)
    assert tip(client, tree) in cluster.wait_equal()[f"{BAD}.git"]


def test_a_standby_that_lacks_a_push_to_what_the_leader_cannot_read_stays_out(unstarted: Make) -> None:
    """It would lead with an old copy. It comes in once the leader's can be read again."""
    cluster, tree = started(unstarted)
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    b.kill()
    client.commit(tree, "acknowledged without it")
    push(cluster, a, tree, BAD)
    damage(a, BAD)
    b.start().wait_healthy()
    eventually(
        lambda: "cannot read" in str((b.status().get("mirror") or {}).get("last_error")), "it says why"
    )
    with pytest.raises(TimeoutError):
        eventually(lambda: a.status().get("sync_set"), "three full checks", 7.0)
    (a.repository(BAD) / "packed-refs").unlink()
    eventually(lambda: is_in_sync(a), "all is well again", BACK_LIMIT_S)
    assert tip(client, tree) in cluster.wait_equal()[f"{BAD}.git"]
    eventually(lambda: not warned(a, BAD) and not warned(b, BAD), "nothing is said any more")


def test_a_folder_that_lost_its_refs_on_the_leader_is_no_deletion(unstarted: Make) -> None:
    """A backup without empty folders was copied back: the standby's copy stays, and keeps nobody out."""
    cluster, tree = started(unstarted)
    a, b = cluster["node-a"], cluster["node-b"]
    before = content(b)[f"{BAD}.git"]
    shutil.rmtree(a.repository(BAD) / "refs")
    restart(b)
    eventually(lambda: is_in_sync(a), "the standby in the sync set")
    eventually(lambda: warned(a, BAD), "the leader names it")
    assert content(b)[f"{BAD}.git"] == before
    assert not list((b.data_dir / "trash").iterdir())
    assert tree


def test_a_damaged_copy_on_a_standby_heals_while_others_are_pushed_to(unstarted: Make) -> None:
    """Fetched anew by itself, and in the sync set again; what was there is in the trash."""
    cluster, tree = started(unstarted)
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    b.kill()
    damage(b, BAD)
    b.start().wait_healthy()
    client.commit(tree, "second")
    push(cluster, a, tree, GOOD)
    eventually(lambda: is_in_sync(a), "the standby in the sync set", BACK_LIMIT_S)
    push(cluster, a, tree, BAD)
    cluster.wait_equal()
    assert len(list((b.data_dir / "trash").glob("*/org/bad.git"))) == 1
    wait_logged(b, "repository_replaced")


def test_a_detached_head_is_mirrored_and_an_odd_one_stops_nothing(unstarted: Make) -> None:
    """Copied in on the leader, which serves them: one at a commit that no branch reaches, one at nothing."""
    cluster, tree = started(unstarted)
    a, client = cluster["node-a"], cluster.client
    heads = {}
    for name in ("detached", "dangling"):
        source = client.home / f"{name}.git"
        client.git("clone", "-q", "--bare", str(tree), str(source))
        made = client.git("commit-tree", "-p", "main", "-m", name, "main^{tree}", cwd=source).stdout.strip()
        heads[name] = made if name == "detached" else "1" * 40
        (source / "HEAD").write_text(f"{heads[name]}\n")
        shutil.copytree(source, a.repository(name))
    client.commit(tree, "later")
    for name in (GOOD, "detached"):
        push(cluster, a, tree, name)
    b = cluster["node-b"]
    eventually(lambda: "dangling.git" in content(b), "it is mirrored")
    eventually(lambda: is_in_sync(a), "the standby in the sync set")
    assert (b.repository("detached") / "HEAD").read_text().strip() == heads["detached"]
    assert client.git("cat-file", "-t", heads["detached"], cwd=b.repository("detached")).stdout == "commit\n"
    eventually(lambda: warned(b, "dangling", "HEAD is not mirrored"), "the standby names it")
    assert content(b)["dangling.git"].endswith("refs/heads/main")
