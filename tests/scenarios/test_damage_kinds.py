"""All kinds of damage at once in different repositories of a standby: each heals, and costs only itself."""

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.cluster import STARGATE, Client, Cluster, NodeProcess, eventually
from tests.support.damages import DAMAGES, SEEN_BY_A_LOOK, SEEN_BY_COMPARISON

Make = Callable[..., Cluster]

GOOD = "org/good"
HEAL_LIMIT_S = 90.0
CHECK_LIMIT_S = 120.0
NOTES = "state/unsound.json"
WHY = "a check found a bad object"


def started(unstarted: Make, kinds: Iterable[str]) -> tuple[Cluster, Path, list[str]]:
    """Two nodes with a repository for each kind, and a good one; the client's work tree."""
    cluster = unstarted(overrides={"replication": {"full_check_s": 5, "ack_timeout_s": 20}}).start()
    client, leader = cluster.client, cluster["node-a"]
    tree = client.work_tree("app")
    client.commit(tree, "second", size_bytes=3000)
    names = [GOOD, *(f"org/{kind}" for kind in kinds)]
    for name in names:
        push(client, leader, tree, name)
    cluster.wait_equal()
    return cluster, tree, names


def push(client: Client, node: NodeProcess, tree: Path, name: str) -> None:
    client.git("push", "-q", client.url(node, name), "HEAD:main", cwd=tree, limit_s=90)


def git(path: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["git", "--git-dir", str(path), *words], capture_output=True, timeout=30, check=False
    )


def is_as_on(leader: NodeProcess, standby: NodeProcess, name: str) -> bool:
    """Whole, with the leader's refs, HEAD and id."""
    here, there = standby.repository(name), leader.repository(name)
    if not here.is_dir() or git(here, "fsck", "--full", "--no-dangling").returncode:
        return False
    try:
        same = all((here / one).read_text() == (there / one).read_text() for one in ("HEAD", "stargate-id"))
    except OSError:
        return False
    return same and git(here, "for-each-ref").stdout == git(there, "for-each-ref").stdout


def wait_healed(leader: NodeProcess, standby: NodeProcess, names: Iterable[str]) -> None:
    left = set(names)

    def healed() -> bool:
        left.difference_update([name for name in left if is_as_on(leader, standby, name)])
        return not left

    try:
        eventually(healed, "each copy healed", HEAL_LIMIT_S)
    except TimeoutError as error:
        raise TimeoutError(f"{sorted(left)}: {error}\n{standby.log()[-6000:]}") from None


def events(node: NodeProcess, event: str) -> list[Mapping[str, Any]]:
    lines = (line for line in node.log().splitlines() if line.startswith("{"))
    return [one for one in map(json.loads, lines) if one.get("event") == event]


def in_trash(node: NodeProcess) -> set[str]:
    trash = node.data_dir / "trash"
    return {
        str(path.relative_to(trash)).partition("/")[2].removesuffix(".git") for path in trash.glob("*/org/*")
    }


def test_damage_that_a_comparison_sees_heals_while_the_standby_runs(unstarted: Make) -> None:
    """Nobody pushes to them. Each is named and replaced, the good one goes on, and then it fails over."""
    cluster, tree, names = started(unstarted, SEEN_BY_COMPARISON)
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    for kind, damage in SEEN_BY_COMPARISON.items():
        damage(b.repository(f"org/{kind}"))
    client.commit(tree, "third")
    push(client, a, tree, GOOD)
    wait_healed(a, b, names)
    assert not events(a, "standby_late")
    found = {one["repository"] for one in events(b, "repository_damaged_here")}
    by_adoption = {"org/config-empty"}  # is written anew in its place
    without_trace = {"org/id-missing", "org/ref-folder", "org/folder-empty"}
    assert found == set(names) - {GOOD} - by_adoption - without_trace
    assert found <= in_trash(b)
    eventually(lambda: not json.loads((b.data_dir / NOTES).read_text())["copies"], "no note is left")
    assert "Traceback" not in b.log() + a.log()
    eventually(lambda: a.status().get("sync_set") == ["node-b"], "the standby in the sync set")
    a.kill()
    b.wait_ready()
    for name in names:
        push(client, b, tree, name)


def test_copies_that_were_noted_as_damaged_heal_after_a_restart(unstarted: Make) -> None:
    """As after a check: the note is on disk. Refs are right and objects are not; each copy is replaced."""
    cluster, tree, names = started(unstarted, SEEN_BY_A_LOOK)
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    b.kill()
    ids = {name: (a.repository(name) / "stargate-id").read_text().strip() for name in names}
    for kind, damage in SEEN_BY_A_LOOK.items():
        damage(b.repository(f"org/{kind}"))
    bad = set(names) - {GOOD}
    copies = {ids[name]: {"name": name, "why": WHY, "at": 1_700_000_000} for name in bad}
    (b.data_dir / NOTES).write_text(json.dumps({"copies": copies}))
    client.commit(tree, "third")
    push(client, a, tree, GOOD)
    b.start().wait_healthy()
    wait_healed(a, b, names)
    assert in_trash(b) == bad
    eventually(lambda: a.status().get("sync_set") == ["node-b"], "the standby in the sync set")
    assert json.loads((b.data_dir / NOTES).read_text())["copies"] == {}
    assert {one["repository"] for one in events(b, "copy_sound_again")} == bad


def test_damage_that_a_check_finds_heals_while_the_standby_runs(unstarted: Make) -> None:
    """The operator has all copies checked: damaged objects are found, and each copy is replaced at once."""
    cluster, tree, names = started(unstarted, SEEN_BY_A_LOOK)
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    for kind, damage in SEEN_BY_A_LOOK.items():
        damage(b.repository(f"org/{kind}"))
    bad = set(names) - {GOOD}
    verify = [*STARGATE, "repo", "verify", "-c", str(b.config_file), "--all"]
    found = subprocess.run(verify, capture_output=True, text=True, timeout=CHECK_LIMIT_S, check=False)
    assert found.returncode == 69
    assert {name for name in bad if f"{name}: damaged" in found.stdout} == bad
    client.commit(tree, "third")
    push(client, a, tree, GOOD)
    wait_healed(a, b, names)
    assert in_trash(b) == bad
    assert {one["repository"] for one in events(b, "copy_unsound")} == bad
    eventually(lambda: not json.loads((b.data_dir / NOTES).read_text())["copies"], "no note is left")
    assert not events(a, "standby_late")
    eventually(lambda: not b.status()["scrub"]["damaged"], "status names no damage any more", HEAL_LIMIT_S)
    for name in names:
        push(client, a, tree, name)
    cluster.wait_equal()


def test_a_damaged_copy_is_not_served_before_it_is_replaced(unstarted: Make) -> None:
    """Without a leader to fetch it from: all access is refused with the reason, and others are served."""
    cluster, tree, _ = started(unstarted, ["loose-flipped"])
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    bad = "org/loose-flipped"
    identity = (a.repository(bad) / "stargate-id").read_text().strip()
    a.kill()
    b.kill()
    DAMAGES["loose-flipped"](b.repository(bad))
    note = {"name": bad, "why": WHY, "at": 1_700_000_000}
    (b.data_dir / NOTES).write_text(json.dumps({"copies": {identity: note}}))
    b.start().wait_healthy()
    b.wait_ready()
    for command in ("git-upload-pack", "git-receive-pack"):
        refused = client.ssh(b, f"{command} '{bad}'")
        assert refused.returncode == 69
        assert WHY in refused.stderr.decode() + refused.stdout.decode()
    assert client.git("ls-remote", client.url(b, GOOD)).stdout
    warnings = b.status()["warnings"]
    assert any(bad in line and WHY in line and "not served" in line for line in warnings)
    push(client, b, tree, GOOD)
    a.start().wait_healthy()
    eventually(lambda: b.status().get("sync_set") == ["node-a"], "the other node follows")
    b.terminate()
    a.wait_ready()
    b.start().wait_healthy()
    wait_healed(a, b, [GOOD, bad])
    assert client.git("ls-remote", client.url(b, bad)).stdout
