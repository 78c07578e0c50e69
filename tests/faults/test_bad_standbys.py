"""A standby that is slow, dead, full or flapping, in each mode.

    sync    "ok", once the standby has left the sync set; then the leader goes on alone, under an alarm
    strict  75: nothing is acknowledged without a standby that has it
    async   "ok", at once

In each of them it comes back by itself, and the nodes end equal.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import MakeCluster, MakeLine
from tests.support.cluster import Cluster, NodeProcess, eventually
from tests.support.nodelog import wait_logged, wait_sessions
from tests.support.pushers import damage, refs_of, wait_until_tidy
from tests.support.small_disk import small_disk

MODES = ("sync", "strict", "async")
REPOSITORY = "org/app"
BACK_LIMIT_S = 90.0  # what fails is tried again after 30 s at most
SMALL_DISK_MB = 12
TOO_MUCH_BYTES = 16 * 1024 * 1024

each_mode = pytest.mark.parametrize("mode", MODES)


@dataclass
class _Scene:
    """A leader, its standby, and a developer who pushes one branch after the other."""

    mode: str
    cluster: Cluster
    tree: Path
    count: int = 0

    @property
    def a(self) -> NodeProcess:
        return self.cluster["node-a"]

    @property
    def b(self) -> NodeProcess:
        return self.cluster["node-b"]

    @property
    def ref(self) -> str:
        return f"refs/heads/branch-{self.count}"

    def push(self, *, size_bytes: int = 0) -> subprocess.CompletedProcess[str]:
        """A new commit to a new branch, `ref`."""
        client = self.cluster.client
        self.count += 1
        client.commit(self.tree, f"commit {self.count}", size_bytes=size_bytes)
        return self.push_again()

    def push_again(self) -> subprocess.CompletedProcess[str]:
        url = self.cluster.client.url(self.a, REPOSITORY)
        return self.cluster.client.git("push", url, f"HEAD:{self.ref}", cwd=self.tree, ok=False)

    def push_without_standby(self, *, size_bytes: int = 0) -> None:
        """What the client of a push is told whose commit the standby does not get."""
        done = self.push(size_bytes=size_bytes)
        assert self.ref not in refs_of(self.b, REPOSITORY)
        if self.mode == "strict":
            assert done.returncode != 0
            held = "not replicated in time; outcome unknown"
            before_the_pack = "not replicated in time: no standby has confirmed it; nothing new was pushed"
            assert held in done.stderr or before_the_pack in done.stderr, done.stderr
            wait_sessions(self.a, exit=75)
        else:
            assert done.returncode == 0, done.stderr
        if self.mode == "sync":
            self.assert_alarm()

    def assert_alarm(self) -> None:
        """Status, metrics and log say that no other node can take over."""
        status = self.a.status()
        assert status["sync_set"] == []
        assert "the sync set is empty" in status["warnings"][0]
        assert b"stargate_sync_set_size 0.0" in self.a.get("/metrics")[1]
        wait_logged(self.a, "sync_set_empty")

    def assert_back(self) -> None:
        """It is in the sync set again, has everything, and the next push needs it."""
        eventually(lambda: self.a.status()["sync_set"] == ["node-b"], "it is back", BACK_LIMIT_S)
        # mode strict keeps it in the record while it is away: it has to be connected besides, and compared
        eventually(lambda: _follows(self.b), "it is level", BACK_LIMIT_S)
        self.cluster.wait_equal()
        assert self.push_again().returncode == 0, "a repeat of what is there by now"
        done = self.push()
        assert done.returncode == 0, done.stderr
        if self.mode != "async":
            assert self.ref in refs_of(self.b, REPOSITORY), "acknowledged"
        self.cluster.wait_equal()
        assert not [line for line in self.a.status()["warnings"] if "sync set" in line]
        for node in self.cluster.nodes:
            wait_until_tidy(node)
            assert damage(node) == []


def _follows(node: NodeProcess) -> bool:
    """Whether that standby knows to have everything; one that starts says nothing yet."""
    mirror = node.status().get("mirror")
    return bool(mirror) and mirror["connected"] and mirror["behind_s"] == 0.0


def _begin(mode: str, cluster: Cluster) -> _Scene:
    cluster.start()
    scene = _Scene(mode, cluster, cluster.client.work_tree("app"))
    assert scene.push().returncode == 0
    cluster.wait_equal()
    return scene


@each_mode
def test_a_slow_standby(make: MakeCluster, line_to: MakeLine, mode: str) -> None:
    """Nothing comes through to it for longer than ack_timeout_s."""
    cluster = make(mode=mode, election={"heartbeat_s": 5, "watchdog_s": 10, "lease_s": 15})
    line = line_to(cluster["node-a"])
    scene = _begin(mode, cluster)
    line.hold()
    scene.push_without_standby()
    if mode == "sync":
        wait_logged(scene.a, "standby_late")
    line.release()
    scene.assert_back()


@each_mode
def test_a_dead_standby(make: MakeCluster, mode: str) -> None:
    """Its process is gone, and comes back later."""
    scene = _begin(mode, make(mode=mode))
    scene.b.kill()
    scene.push_without_standby()
    scene.b.start()
    scene.assert_back()


@each_mode
def test_a_standby_that_flaps(make: MakeCluster, line_to: MakeLine, mode: str) -> None:
    """Its line breaks again and again: each push is told what is true at its time."""
    cluster = make(mode=mode)
    line = line_to(cluster["node-a"])
    scene = _begin(mode, cluster)
    for _ in range(3):
        line.cut()
        eventually(lambda: not scene.a.status()["standbys"], "the broken line seen")
        scene.push_without_standby()
        line.mend()
        eventually(lambda: scene.a.status()["standbys"], "the standby connected")
        done = scene.push()
        if mode == "strict" and done.returncode:
            assert "not replicated in time" in done.stderr
    scene.assert_back()


@each_mode
def test_a_standby_whose_disk_is_full(make: MakeCluster, tmp_path: Path, mode: str) -> None:
    """A push does not fit there. The standby says so, and goes on when there is room."""
    with small_disk(tmp_path / "small", megabytes=SMALL_DISK_MB) as disk:
        cluster = make(mode=mode)
        cluster["node-b"].config["node"]["data_dir"] = str(disk / "data")
        scene = _begin(mode, cluster)
        scene.push_without_standby(size_bytes=TOO_MUCH_BYTES)
        eventually(
            lambda: REPOSITORY in str(scene.b.status()["mirror"]["last_error"]), "status says what it lacks"
        )
        if mode == "async":
            assert scene.push().returncode == 0
        subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True, timeout=10)
        scene.assert_back()
        cluster.end()


def test_one_dead_standby_of_two(make: MakeCluster) -> None:
    """It leaves the sync set; the other one goes on being waited for, and nothing is an alarm."""
    cluster = make(nodes=3).start()
    tree = cluster.client.work_tree("app")
    a, c = cluster["node-a"], cluster["node-c"]
    cluster["node-b"].kill()
    cluster.client.git("push", "-q", cluster.client.url(a, REPOSITORY), "main", cwd=tree)
    assert a.status()["sync_set"] == ["node-c"]
    assert "refs/heads/main" in refs_of(c, REPOSITORY)
    assert not [line for line in a.status()["warnings"] if "sync set" in line]
    cluster["node-b"].start()
    a.wait_in_sync_set("node-b")
    cluster.wait_equal()
