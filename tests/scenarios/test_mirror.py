"""The mirror when things go wrong between leader and standby: it says so, and mends it by itself."""

import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Client, Cluster, NodeProcess, eventually
from tests.support.gitlog import GitLog
from tests.support.line import Line
from tests.support.opens import opens_of
from tests.support.small_disk import small_disk

Make = Callable[..., Cluster]

HEARTBEAT_S = 1
IDLE_REPOSITORIES = 150


@pytest.fixture
def behind_a_line(unstarted: Make) -> Iterator[tuple[Cluster, Line]]:
    """Two nodes; the standby reaches the leader through a line that the test can cut."""
    cluster = unstarted()
    leader = cluster["node-a"]
    with Line(leader.ssh_port) as line:
        leader.config["ssh"]["advertise"] = f"127.0.0.1:{line.port}"
        yield cluster.start(), line
        cluster.end()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB of its own."""
    with small_disk(tmp_path / "disk", megabytes=48) as path:
        yield path


def many_objects(client: Client, tree: Path, *, files: int, size_bytes: int) -> str:
    """A commit with so many objects that git keeps them in a pack; its oid."""
    noise = subprocess.run(
        ["head", "-c", str(files * size_bytes), "/dev/urandom"], check=True, capture_output=True, timeout=20
    ).stdout
    for number in range(files):
        (tree / f"noise-{number}").write_bytes(noise[number * size_bytes :][:size_bytes])
    return client.commit(tree, f"{files} files")


def leftovers(node: NodeProcess) -> list[Path]:
    """What only a git that was interrupted leaves behind."""
    patterns = ("tmp_pack*", "tmp_idx*", "tmp_objdir*", "tmp_obj_*", "*.lock")
    return [path for pattern in patterns for path in (node.data_dir / "repositories").rglob(pattern)]


def lag_of(leader: NodeProcess, standby: str) -> dict[str, Any]:
    """The standby as the leader's status shows it; {} if it does not."""
    return next((one for one in leader.status().get("standbys", ()) if one["name"] == standby), {})


def mirror_of(standby: NodeProcess) -> dict[str, Any]:
    """What the standby's status says of its mirror."""
    return standby.status().get("mirror") or {}


def push(cluster: Cluster, tree: Path, name: str, *refspecs: str) -> None:
    cluster.client.git(
        "push", "-q", cluster.client.url(cluster["node-a"], name), *(refspecs or ("main",)), cwd=tree
    )


def test_the_standby_follows_a_leader_that_was_killed_and_came_back(unstarted: Make) -> None:
    """kill -9 and a new start of the leader: the standby connects again, in the new term, and is equal."""
    cluster = unstarted(overrides={"election": {"watchdog_s": 50, "lease_s": 60}}).start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    push(cluster, tree, "org/app")
    cluster.wait_equal()
    b.signal(signal.SIGSTOP)  # or it would lead before the old leader is back
    a.kill()
    a.start().wait_ready()
    second = client.commit(tree, "second")
    push(cluster, tree, "org/app", "main", "main:refs/heads/new")
    b.signal(signal.SIGCONT)
    a.wait_in_sync_set("node-b")
    assert second in cluster.wait_equal()["org/app.git"]
    assert a.status()["term"] == 2
    assert b.status()["leader"] == "node-a"
    push(cluster, tree, "org/app", ":refs/heads/new")
    cluster.wait_equal()


def test_a_dead_line_is_noticed_reported_and_got_over(behind_a_line: tuple[Cluster, Line]) -> None:
    """Nothing gets through, no connection closes: both sides say so; once it is mended all is equal again."""
    cluster, line = behind_a_line
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    push(cluster, tree, "org/app")
    cluster.wait_equal()

    line.hold()
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push, cluster, tree, "org/app", "main:refs/heads/meanwhile")
        eventually(lambda: mirror_of(b).get("connected") is False, "the standby sees that the line is dead")
        eventually(lambda: mirror_of(b)["last_error"], "the standby says why")
        assert mirror_of(b)["behind_s"] > 0
        assert b.status()["leader"] is None
        eventually(lambda: not a.status()["sync_set"], "the leader sees that the line is dead")
        assert not lag_of(a, "node-b").get("in_sync", False)
        assert a.ready(), "a dead standby does not stop the leader"
        pushing.result(60)

    line.release()
    contents = cluster.wait_equal()
    assert "refs/heads/meanwhile" in contents["org/app.git"]
    a.wait_in_sync_set("node-b")
    assert mirror_of(b)["connected"]
    assert mirror_of(b)["last_error"] is None


def test_nothing_is_left_of_a_pack_that_was_half_written(behind_a_line: tuple[Cluster, Line]) -> None:
    """The standby is killed in the middle of a large fetch: it sweeps, fetches again and is equal."""
    cluster, line = behind_a_line
    b, client = cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    push(cluster, tree, "org/app")
    cluster.wait_equal()
    oid = many_objects(client, tree, files=150, size_bytes=40_000)

    def half_written() -> list[Path]:
        packs = b.repository("org/app") / "objects" / "pack"
        return [path for path in packs.glob("tmp_pack*") if path.stat().st_size > 500_000]

    line.slow(1_000_000)
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(push, cluster, tree, "org/app")
        eventually(half_written, "a pack that is half written")
        b.kill()
        pushing.result(60)
    line.slow(None)
    b.start()
    assert oid in cluster.wait_equal()["org/app.git"]
    cluster["node-a"].wait_in_sync_set("node-b")
    assert leftovers(b) == []
    client.git("--git-dir", str(b.repository("org/app")), "fsck", "--connectivity-only")


def test_a_full_disk_is_reported_on_both_nodes_and_got_over(unstarted: Make, disk: Path) -> None:
    """No space on the standby: both say what is wrong and how far behind; with space again it catches up."""
    cluster = unstarted()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    b.config["node"]["data_dir"] = str(disk / "data")
    cluster.start()
    try:
        tree = client.work_tree("app")
        push(cluster, tree, "org/app")
        cluster.wait_equal()

        free_bytes = shutil.disk_usage(disk).free
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (free_bytes - 512 * 1024))
        oid = many_objects(client, tree, files=150, size_bytes=20_000)
        push(cluster, tree, "org/app")
        mirror = eventually(
            lambda: mirror_of(b) if mirror_of(b).get("last_error") else None, "the standby says what is wrong"
        )
        assert mirror is not None
        assert "org/app" in mirror["last_error"]
        assert "o space left" in mirror["last_error"]
        assert mirror["behind_changes"] >= 1
        eventually(lambda: mirror_of(b).get("behind_s", 0) > 0, "the standby says how far behind it is")
        eventually(lambda: lag_of(a, "node-b").get("lag_changes"), "the leader says how far behind it is")
        assert lag_of(a, "node-b")["lag_s"] > 0
        assert a.ready()

        ballast.unlink()
        assert oid in cluster.wait_equal()["org/app.git"]
        eventually(lambda: mirror_of(b).get("last_error") is None, "the standby has nothing to complain of")
        eventually(lambda: lag_of(a, "node-b").get("lag_changes") == 0, "no lag on the leader")
        a.wait_in_sync_set("node-b")
        assert leftovers(b) == []
    finally:
        cluster.end()


def test_two_fetches_never_overlap_in_one_repository(unstarted: Make, tmp_path: Path) -> None:
    """News of a repository that is being fetched wait for that fetch, though workers are free."""
    cluster = unstarted()
    gits = GitLog(tmp_path / "gits")
    client, b = cluster.client, cluster["node-b"]
    start_with(cluster, gits)
    tree = client.work_tree("app")
    for name in ("one", "two"):  # of the four workers
        gits.hold(f"{name}.git")
        push(cluster, tree, name)
    eventually(lambda: running_fetches(gits) == Counter(["one.git", "two.git"]), "two fetches at once")
    for number in range(3):
        oid = client.commit(tree, f"commit {number}")
        for name in ("one", "two"):
            push(cluster, tree, name, f"main:refs/heads/b{number}")
    push(cluster, tree, "after")
    eventually(
        lambda: main_of(b, "after") == oid, "the standby has heard of all before and has done the last"
    )
    for name in ("one", "two"):
        gits.let_go(f"{name}.git")
    cluster.wait_equal()

    active: Counter[str] = Counter()
    for event in gits.events():
        if event.word == "fetch":
            active[event.repository] += 1 if event.kind == "start" else -1
            assert active[event.repository] <= 1, f"two fetches at once in {event.repository}"


def test_a_huge_repository_holds_up_no_other(unstarted: Make, tmp_path: Path) -> None:
    """While one fetch takes for ever, pushes into other repositories arrive; then so does the huge one."""
    cluster = unstarted()
    gits = GitLog(tmp_path / "gits")
    client, b = cluster.client, cluster["node-b"]
    start_with(cluster, gits)
    tree = client.work_tree("app")
    gits.hold("huge.git")
    push(cluster, tree, "huge")
    eventually(lambda: running_fetches(gits)["huge.git"] == 1, "the huge one is being fetched")
    for number in range(5):
        push(cluster, tree, f"small-{number}")
        push(cluster, tree, "huge", f"main:refs/heads/more-{number}")
    oid = client.git("rev-parse", "HEAD", cwd=tree).stdout.strip()
    for number in range(5):
        eventually(lambda name=f"small-{number}": main_of(b, name) == oid, f"small-{number} is here")
    eventually(lambda: mirror_of(b)["behind_changes"] == 1, "only the huge one is behind")
    assert running_fetches(gits)["huge.git"] == 1
    gits.let_go("huge.git")
    assert "refs/heads/more-4" in cluster.wait_equal()["huge.git"]


def test_an_idle_cluster_does_nothing_repository_by_repository(unstarted: Make, tmp_path: Path) -> None:
    """150 repositories, nothing to do: between two full checks no git runs in any, and no file is opened.

    The scrub is off: its first round over so many copies takes minutes, one copy after the other.
    """
    cluster = unstarted(overrides={"replication": {"full_check_s": 600}, "scrub": {"interval_days": 0}})
    gits = {node.name: GitLog(tmp_path / f"gits-{node.name}") for node in cluster.nodes}
    tree = cluster.client.work_tree("app")
    root = cluster["node-a"].data_dir / "repositories" / "many"
    cluster.client.git("clone", "-q", "--bare", str(tree), str(root / "app-0.git"))
    for number in range(1, IDLE_REPOSITORIES):
        shutil.copytree(root / "app-0.git", root / f"app-{number}.git")
    assert cluster.bootstrap().returncode == 0
    for node in cluster.nodes:
        node.start(env=gits[node.name].env)
    cluster["node-a"].wait_ready()
    eventually(
        lambda: "node-b" in cluster["node-a"].status().get("sync_set", ()), "all is mirrored", limit_s=90
    )
    assert len(cluster.wait_equal()) == IDLE_REPOSITORIES

    copies = [path for node in cluster.nodes for path in (node.data_dir / "repositories").glob("many/*")]
    assert len(copies) == IDLE_REPOSITORIES * len(cluster.nodes)
    with opens_of(copies) as opens:

        def over_heartbeats(count: int) -> tuple[int, list[Path]]:
            """Gits in repositories, and what was opened there, during `count` heartbeats."""
            opens.since_last_asked()
            before = sum(log.in_repositories() for log in gits.values())
            until_s = cluster["node-a"].status()["uptime_s"] + count * HEARTBEAT_S
            eventually(lambda: cluster["node-a"].status()["uptime_s"] > until_s, "some heartbeats")
            return sum(log.in_repositories() for log in gits.values()) - before, opens.since_last_asked()

        assert sum(log.in_repositories() for log in gits.values()) >= IDLE_REPOSITORIES, "git is counted"
        eventually(lambda: over_heartbeats(1) == (0, []), "the work of the first check is over")
        assert over_heartbeats(3) == (0, [])
        cluster.wait_equal()
        assert opens.since_last_asked(), "openings are seen"
    assert mirror_of(cluster["node-b"])["connected"]


def start_with(cluster: Cluster, gits: GitLog) -> None:
    """Start the cluster; `gits` sees what git does for the standby."""
    a, b = cluster["node-a"], cluster["node-b"]
    assert cluster.bootstrap().returncode == 0
    a.start().wait_ready()
    b.start(env=gits.env)
    a.wait_in_sync_set("node-b")


def running_fetches(gits: GitLog) -> Counter[str]:
    """How many fetches run now, by repository."""
    running: Counter[str] = Counter()
    for event in gits.events():
        if event.word == "fetch":
            running[event.repository] += 1 if event.kind == "start" else -1
    return +running


def main_of(node: NodeProcess, name: str) -> str:
    """The oid of `main` in a node's own copy; "" while there is none."""
    return subprocess.run(
        ["git", "--git-dir", str(node.repository(name)), "rev-parse", "--quiet", "--verify", "main"],
        capture_output=True, text=True, timeout=10, check=False,
    ).stdout.strip()  # fmt: skip
