"""What an old leader had and the new one has not is kept, counted, shown, and can be restored by name."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.cluster import STARGATE, Cluster, NodeProcess, content, eventually
from tests.support.nodelog import wait_logged
from tests.support.pushers import refs_of

Make = Callable[..., Cluster]

ASYNC = {"replication": {"mode": "async"}}
APP = "org/app"


def ask(node: NodeProcess, *words: str) -> subprocess.CompletedProcess[str]:
    """A command about that node."""
    return subprocess.run(
        [*STARGATE, *words, "-c", str(node.config_file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def rescued(node: NodeProcess) -> list[dict[str, object]]:
    """What `stargate rescued list --json` tells."""
    done = ask(node, "rescued", "list", "--json")
    assert done.returncode == 0, done
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def push(cluster: Cluster, tree: Path, node: NodeProcess, *refspecs: str, name: str = APP) -> None:
    cluster.client.git("push", "-q", cluster.client.url(node, name), *(refspecs or ("main",)), cwd=tree)


def alone(cluster: Cluster, tree: Path, *refspecs: str, name: str = APP) -> str:
    """node-a acknowledges a commit that node-b does not get, and dies; node-b leads. The commit's oid."""
    a, b = cluster["node-a"], cluster["node-b"]
    oid = cluster.client.commit(tree, "only node-a has it")
    b.signal(signal.SIGSTOP)
    push(cluster, tree, a, *refspecs, name=name)
    a.kill()
    b.signal(signal.SIGCONT)
    b.wait_ready()
    return oid


def follows(cluster: Cluster, node: NodeProcess) -> None:
    """The node was compared with the leader in full."""
    node.start()
    eventually(lambda: (node.status().get("mirror") or {}).get("connected"), "a connected mirror")
    cluster.wait_equal()


def lost_branch(cluster: Cluster) -> str:
    """node-b leads without the branch wip, which node-a had, and node-a follows it. The branch's commit."""
    a, tree = cluster["node-a"], cluster.client.work_tree("app")
    cluster.client.commit(tree, "one")
    push(cluster, tree, a)
    cluster.wait_equal()
    lost = alone(cluster, tree, "main:wip")
    follows(cluster, a)
    return lost


def known_replicated(leader: NodeProcess, *nodes: NodeProcess) -> None:
    """These nodes have noted that the whole sync set has everything."""
    status = leader.status()
    line = f'["replicated",{status["term"]},{status["position"]}]'.encode()
    for node in nodes:
        journal = node.data_dir / "state" / "unreplicated.log"
        eventually(lambda: line in journal.read_bytes(), f"{node.name} knows it to be replicated")  # noqa: B023


def test_what_only_the_old_leader_had_is_kept_shown_and_restored_by_name(unstarted: Make) -> None:
    """The new leader's value comes over it, and it is there all the same, until somebody brings it back."""
    cluster = unstarted(overrides=ASYNC).start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    first = client.commit(tree, "one")
    push(cluster, tree, a)
    cluster.wait_equal()
    lost = alone(cluster, tree)
    client.git("reset", "-q", "--hard", first, cwd=tree)
    client.commit(tree, "node-b has another")
    push(cluster, tree, b)
    follows(cluster, a)

    (one,) = rescued(a)
    term = one["term"]
    assert (one["repository"], one["oid"], one["ref"]) == (APP, lost, "refs/heads/main")
    assert one["leader"] == "node-b"
    assert refs_of(a, APP)[f"refs/stargate/rescued/{term}/{lost}"] == lost
    assert a.status()["rescued_refs"] == 1
    assert any("stargate rescued list" in line for line in a.status()["warnings"])
    assert b"stargate_rescued_refs 1.0" in a.get("/metrics")[1]
    wait_logged(a, "rescued")
    shown = ask(a, "rescued", "list").stdout
    assert APP in shown
    assert lost[:10] in shown
    assert "refs/heads/main" in shown
    assert "rescued" not in client.git("ls-remote", client.url(a, APP)).stdout
    assert not any("stargate" in ref for ref in refs_of(b, APP))

    taken = ask(a, "rescued", "restore", APP, lost[:8], "--as", "main")
    assert taken.returncode == 64
    assert "refs/heads/main is there already" in taken.stderr
    done = ask(a, "rescued", "restore", APP, lost[:8])
    assert done.returncode == 0, done
    restored = f"refs/heads/rescued/{term}/main"
    assert restored in done.stdout
    assert client.git("ls-remote", client.url(b, APP), restored).stdout.split() == [lost, restored]
    cluster.wait_equal()
    assert rescued(a) == []
    assert a.status()["rescued_refs"] == 0
    assert not any("stargate" in ref for ref in refs_of(a, APP))


def test_a_branch_that_was_deleted_properly_meanwhile_is_no_rescue(unstarted: Make) -> None:
    """The whole sync set had it, and its deletion: rescued is only what is really different."""
    cluster = unstarted().start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.commit(tree, "one")
    push(cluster, tree, a, "main", "main:gone")
    client.commit(tree, "two")
    push(cluster, tree, a, "main:unmerged")
    known_replicated(a, a)
    a.kill()
    b.wait_ready()
    push(cluster, tree, b, ":gone", ":unmerged")
    follows(cluster, a)
    assert rescued(a) == []
    assert list(refs_of(a, APP)) == ["refs/heads/main"]


def test_a_repository_that_only_the_old_leader_had_stays_in_its_trash(unstarted: Make) -> None:
    """It is put away as a whole, counted, and can be pushed back under its name."""
    cluster = unstarted(overrides={**ASYNC, "repositories": {"trash_days": 1e-6}}).start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    lost = alone(cluster, tree, name="org/new")
    follows(cluster, a)
    (one,) = rescued(a)
    assert (one["repository"], one["oid"], one["in_trash"]) == ("org/new", lost, True)
    assert "in the trash" in ask(a, "rescued", "list").stdout
    a.terminate()
    a.start()  # which empties the trash
    a.wait_healthy()
    eventually(lambda: (a.status().get("mirror") or {}).get("connected"), "a connected mirror")
    assert a.status()["rescued_refs"] == 1
    done = ask(a, "rescued", "restore", "org/new", lost, "--as", "main")
    assert done.returncode == 0, done
    assert client.git("ls-remote", client.url(b, "org/new"), "main").stdout.split()[0] == lost
    assert "org/new.git" in cluster.wait_equal()
    assert a.status()["rescued_refs"] == 0


def test_after_a_forced_leadership_nothing_counts_as_replicated(unstarted: Make) -> None:
    """The sync set is gone and an operator lets an empty node lead: what comes back keeps all it had."""
    cluster = unstarted(nodes=3)
    a, b, c = cluster.nodes
    assert cluster.bootstrap().returncode == 0
    for node in (a, b):
        node.start()
    a.wait_ready()
    a.wait_in_sync_set("node-b")
    tree = cluster.client.work_tree("app")
    lost = cluster.client.commit(tree, "acknowledged by both")
    push(cluster, tree, a)
    known_replicated(a, a, b)
    a.kill()
    b.kill()
    c.start()
    c.wait_healthy()
    refused = ask(c, "promote")
    assert refused.returncode == 64
    assert "node-c was never equal to a leader" in refused.stderr
    assert "node-b (in its sync set)" in refused.stderr
    assert not c.ready()
    assert ask(c, "promote", "--accept-data-loss").returncode == 0
    c.wait_ready()
    for node in (a, b):
        node.start()
        eventually(lambda node=node: node.status().get("rescued_refs"), f"{node.name} rescues")
        assert [one["oid"] for one in rescued(node)] == [lost]
    done = ask(a, "rescued", "restore", APP, lost, "--as", "main")
    assert done.returncode == 0, done
    assert lost in content(c)["org/app.git"]


def test_an_old_leader_that_leads_again_restores_to_itself(unstarted: Make) -> None:
    """What it rescued is in its own repository; it is pushed to the cluster like by anybody."""
    cluster = unstarted(overrides=ASYNC).start()
    a, b = cluster["node-a"], cluster["node-b"]
    lost = lost_branch(cluster)
    b.wait_in_sync_set("node-a")
    assert b.terminate() == 0
    a.wait_ready()
    assert [one["oid"] for one in rescued(a)] == [lost]
    done = ask(a, "rescued", "restore", APP, lost[:12], "--as", "found")
    assert done.returncode == 0, done
    assert refs_of(a, APP)["refs/heads/found"] == lost
    follows(cluster, b)
    assert refs_of(b, APP)["refs/heads/found"] == lost
    assert rescued(b) == []


def test_a_value_that_an_operator_gives_up_is_gone(unstarted: Make) -> None:
    """`drop` is for what nobody wants: no warning is left, and nothing keeps it from being pruned."""
    cluster = unstarted(overrides=ASYNC).start()
    a, b = cluster["node-a"], cluster["node-b"]
    lost = lost_branch(cluster)
    assert [one["oid"] for one in rescued(a)] == [lost]
    assert ask(a, "rescued", "drop", APP, "0000").returncode == 64
    assert ask(a, "rescued", "drop", "org/other", lost).returncode == 66
    assert ask(a, "rescued", "drop", APP, lost).returncode == 0
    assert ask(a, "rescued", "list").stdout == "no rescued refs on node-a\n"
    assert set(refs_of(a, APP)) == {"refs/heads/main"}
    assert b.ready()
