"""Real nodes check their own copies: damage is named, what was being written is first, others go on."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster import STARGATE, Cluster, NodeProcess, eventually
from tests.support.nodelog import complete_log
from tests.support.slow_push import SlowPush

Make = Callable[..., Cluster]
CHECK_LIMIT_S = 120.0
APP, BAD = "org/app", "org/bad"


def scrub(node: NodeProcess) -> dict[str, Any]:
    """What its status says of its copies."""
    return dict(node.status().get("scrub", {}))


def verify(node: NodeProcess, *words: str) -> subprocess.CompletedProcess[str]:
    """`stargate repo verify …` on the node's machine."""
    return subprocess.run(
        [*STARGATE, "repo", "verify", "-c", str(node.config_file), *words],
        capture_output=True, text=True, timeout=CHECK_LIMIT_S, check=False,
    )  # fmt: skip


def wait_all_checked(node: NodeProcess, total: int, damaged: int = 0) -> None:
    """Wait until every copy of the node is verified, or known to be damaged."""
    eventually(
        lambda: (
            (now := scrub(node)).get("total") == total
            and now["verified"] == total - damaged
            and len(now["damaged"]) == damaged
        ),
        f"{total} copies checked, {damaged} damaged",
        CHECK_LIMIT_S,
    )


def restart(node: NodeProcess) -> None:
    """In order: the copies are listed at the start."""
    node.terminate()
    node.start().wait_healthy()


def test_both_nodes_check_their_copies_and_name_what_is_damaged(cluster: Cluster) -> None:
    """In the background, on leader and standby. Pushes to all go on, and both stay in the sync set."""
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    for name in (APP, BAD):
        client.git("push", "-q", client.url(a, name), "main", cwd=tree)
    cluster.wait_equal()
    b.terminate()
    oid = client.git("rev-parse", "HEAD^{tree}", cwd=tree).stdout.strip()
    lost = b.repository(BAD) / "objects" / oid[:2] / oid[2:]
    lost.unlink()
    b.start().wait_healthy()
    wait_all_checked(b, 2, damaged=1)
    (found,) = scrub(b)["damaged"]
    assert found["name"] == BAD
    assert f"object {oid}: this tree is missing" in found["why"]
    assert "remedy" in found
    assert any(BAD in line and "damaged" in line for line in b.status()["warnings"])
    assert b.status()["level"] == "warning"
    code, metrics = b.get("/metrics")
    assert code == 200
    assert b'stargate_scrub_repositories{state="damaged"} 1.0' in metrics
    assert b'stargate_scrub_repositories{state="verified"} 1.0' in metrics
    client.commit(tree, "second")
    client.git("push", "-q", client.url(a, APP), "main", cwd=tree)
    a.wait_in_sync_set("node-b")
    said = [json.loads(line) for line in complete_log(b).splitlines() if "copy_found_damaged" in line]
    assert [(line["repository"], line["level"]) for line in said] == [(BAD, "error")]
    restart(a)
    wait_all_checked(a, 2)
    for node in cluster.nodes:
        assert "Traceback" not in complete_log(node)


def test_pushes_meanwhile_are_no_damage_on_either_node(cluster: Cluster) -> None:
    """Both nodes check the repository again and again while users push to it."""
    a, client = cluster["node-a"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, APP), "main", cwd=tree)
    cluster.wait_equal()
    done = threading.Event()
    found: list[tuple[int, str]] = []

    def check(node: NodeProcess) -> None:
        while not done.is_set():
            said = verify(node, APP)
            found.append((said.returncode, said.stdout))

    checks = [threading.Thread(target=check, args=(node,)) for node in cluster.nodes]
    for thread in checks:
        thread.start()
    try:
        for number in range(12):
            client.commit(tree, f"change {number}")
            client.git("push", "-q", client.url(a, APP), "main", f"main:refs/heads/b{number}", cwd=tree)
    finally:
        done.set()
        for thread in checks:
            thread.join()
    assert len(found) >= 2
    assert {status for status, _ in found} <= {0, 75}, found


def test_an_operator_checks_one_or_all(unstarted: Make) -> None:
    """Also while the scrub is off: 0, 69 and 66; each finding and what to do; JSON for programs."""
    cluster = unstarted(nodes=1, overrides={"scrub": {"interval_days": 0}})
    node, client = cluster.start().nodes[0], cluster.client
    tree = client.work_tree("app")
    for name in (APP, BAD):
        client.git("push", "-q", client.url(node, name), "main", cwd=tree)
    assert scrub(node)["on"] is False
    done = verify(node, APP)
    assert (done.returncode, done.stdout) == (0, f"{APP}: sound\n")
    (node.repository(BAD) / "refs/heads/main").write_bytes(b"\0" * 41)
    done = verify(node, BAD)
    assert done.returncode == 69
    assert done.stdout.startswith(f"{BAD}: damaged\n  refs/heads/main: has only zero bytes\n")
    assert "what to do: " in done.stdout
    done = verify(node, "--all", "--json")
    assert done.returncode == 69
    results = {one["name"]: one["result"] for one in json.loads(done.stdout)["repositories"]}
    assert results == {APP: "sound", BAD: "damaged"}
    assert [one["name"] for one in scrub(node)["damaged"]] == [BAD]
    assert verify(node, "org/none").returncode == 66
    assert verify(node).returncode == 64
    head = (node.repository(APP) / "HEAD").read_bytes()
    (node.repository(APP) / "HEAD").write_bytes(b"")
    assert verify(node, APP).returncode == 69
    (node.repository(APP) / "HEAD").write_bytes(head)
    (node.repository(BAD) / "refs/heads/main").unlink()
    done = verify(node, "--all")
    assert (done.returncode, done.stdout) == (0, f"{APP}: sound\n{BAD}: sound\n")
    assert scrub(node)["damaged"] == []
    assert "Traceback" not in complete_log(node)


def test_after_kill_9_what_was_being_written_is_checked_first(unstarted: Make) -> None:
    """All were checked before. After the kill only the repository of the running push is checked again."""
    cluster = unstarted(nodes=1)
    node, client = cluster.start().nodes[0], cluster.client
    tree = client.work_tree("app")
    for name in (APP, "org/other", "org/third"):
        client.git("push", "-q", client.url(node, name), "main", cwd=tree)
    assert verify(node, "--all").returncode == 0
    restart(node)
    wait_all_checked(node, 3)
    assert scrub(node)["read_bytes"] == 0, "what was checked before the restart is not checked again"
    ssh = [*client.ssh_argv(), "-p", str(node.ssh_port), "git@127.0.0.1"]
    with SlowPush(client, ssh, tree, "slow", repository=APP) as push:
        push.begin(node)
        node.kill()
    before = time.time()
    node.start().wait_healthy()
    eventually(lambda: scrub(node).get("read_bytes"), "a check", CHECK_LIMIT_S)
    wait_all_checked(node, 3)
    assert scrub(node)["suspects"] == 0
    said = [json.loads(line) for line in complete_log(node).splitlines() if "scrub_after" in line]
    assert [line["repositories"] for line in said] == [1]
    assert checked_since(node, before - 1) == {APP}
    assert "Traceback" not in complete_log(node)


def test_after_an_orderly_stop_nothing_is_suspect(unstarted: Make) -> None:
    """And with after_unclean_stop: false nothing is, whatever happened."""
    cluster = unstarted(nodes=1, overrides={"scrub": {"after_unclean_stop": False}})
    node, client = cluster.start().nodes[0], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(node, APP), "main", cwd=tree)
    assert verify(node, "--all").returncode == 0
    assert not (node.data_dir / "state/running.json").exists()
    node.kill()
    node.config["scrub"]["after_unclean_stop"] = True
    node.start().wait_healthy()
    wait_all_checked(node, 1)
    assert (node.data_dir / "state/running.json").exists()
    restart(node)
    wait_all_checked(node, 1)
    assert "scrub_after_unclean_end" not in complete_log(node)


@pytest.mark.parametrize("what", ["config", "HEAD", "packed-refs"])
def test_a_damaged_copy_of_the_leader_is_named_there(unstarted: Make, what: str) -> None:
    """The files that git and the node need to find a repository at all."""
    cluster = unstarted(nodes=1)
    node, client = cluster.start().nodes[0], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(node, APP), "main", cwd=tree)
    node.terminate()
    (node.repository(APP) / what).write_bytes(b"\0" * 100)
    node.start().wait_healthy()
    wait_all_checked(node, 1, damaged=1)
    (found,) = scrub(node)["damaged"]
    assert (found["name"], what in found["why"]) == (APP, True)


def test_an_id_that_is_damaged_is_named_or_given_anew(unstarted: Make) -> None:
    """Whichever comes first: the check, or the leader's first look at the repository, which gives an id."""
    cluster = unstarted(nodes=1)
    node, client = cluster.start().nodes[0], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(node, APP), "main", cwd=tree)
    node.terminate()
    id_file = node.repository(APP) / "stargate-id"
    id_file.write_bytes(b"\0" * 33)
    node.start().wait_ready()
    eventually(
        lambda: (
            id_file.read_bytes().strip(b"\0")
            or any("stargate-id" in one["why"] for one in scrub(node)["damaged"])
        ),
        "it is named, or mended",
        CHECK_LIMIT_S,
    )
    client.git("ls-remote", client.url(node, APP))  # a request: now it has an id
    assert verify(node, APP).returncode == 0


def checked_since(node: NodeProcess, since: float) -> set[str]:
    """The names of what was checked since then, by what the node has written to its disk."""
    lines = (node.data_dir / "state/scrub.log").read_text().splitlines()[1:]
    facts = [json.loads(line[9:]) for line in lines]
    return {fact[2] for fact in facts if fact[0] == "copy" and fact[4] >= since and fact[7] == "sound"}
