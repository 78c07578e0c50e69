"""Pushes that wait for their replica: what their clients see, and who has to wait for whom."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.conftest import MakeCluster, MakeLine
from tests.support.cluster import Cluster, eventually
from tests.support.nodelog import complete_log, wait_logged
from tests.support.pushers import refs_of

PATIENT = {"ack_timeout_s": 30, "ack_max_s": 60}
STEADY = {"heartbeat_s": 5, "watchdog_s": 10, "lease_s": 15}  # a held line is not taken for a dead one
SLOW_BYTES_PER_S = 600_000  # more than 1 MiB in UNHURRIED_S: progress
TRICKLE_BYTES_PER_S = 40_000
TIMEOUT_S = 2.5  # progress is told once a second
UNHURRIED_S = 5.0  # a loaded machine is no trickle
LARGE_BYTES = 7_000_000  # more than two of these on that line, and of what takes three heartbeats
FAIR_BYTES_PER_S = 1_500_000  # a small fetch takes some round trips, each behind a window of the large one
HUGE_BYTES = 6_000_000


@contextmanager
def _pushing(
    cluster: Cluster, tree: Path, repository: str, oid: str, *options: str
) -> Iterator["subprocess.Popen[str]"]:
    """A push of that commit to main at node-a, that runs while the test goes on."""
    process = subprocess.Popen(
        [
            "git",
            "push",
            *options,
            cluster.client.url(cluster["node-a"], repository),
            f"{oid}:refs/heads/main",
        ],
        cwd=tree,
        env=cluster.client.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _said(push: "subprocess.Popen[str]") -> str:
    """What git says on stderr, once it has ended."""
    return push.communicate(timeout=60)[1]


def test_a_branch_at_a_commit_that_the_standby_has_makes_nobody_late(make: MakeCluster) -> None:
    """A fetch that finds everything there ends at once: it is the whole of the standby's work."""
    cluster = make().start()
    a, client = cluster["node-a"], cluster.client
    tree = client.work_tree("app")
    url = client.url(a, "org/app")
    client.git("push", "-q", url, "main", cwd=tree)
    for number in range(5):
        client.git("push", "-q", url, f"main:branch-{number}", cwd=tree)
    assert a.status()["sync_set"] == ["node-b"]
    assert "standby_late" not in complete_log(a)
    cluster.wait_equal()


def test_a_large_push_that_makes_progress_may_take_longer_than_the_timeout(
    make: MakeCluster, line_to: MakeLine
) -> None:
    """ack_timeout_s counts from the last sign of progress: the standby stays in the sync set, and has it."""
    cluster = make(replication={"ack_timeout_s": UNHURRIED_S})
    line = line_to(cluster["node-a"])
    cluster.start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    oid = client.commit(tree, "large", size_bytes=LARGE_BYTES)
    line.slow(SLOW_BYTES_PER_S)
    passed = line.passed("down")
    with _pushing(cluster, tree, "org/app", oid, "--progress") as push:
        said = _said(push)
        assert push.returncode == 0, said
    assert line.passed("down") - passed > LARGE_BYTES > 2 * UNHURRIED_S * SLOW_BYTES_PER_S
    assert "remote: waiting for node-b: " in said
    assert "remote: warning" not in said
    assert refs_of(b, "org/app")["refs/heads/main"] == oid
    assert a.status()["sync_set"] == ["node-b"]
    assert "standby_late" not in complete_log(a)


def test_a_byte_now_and_then_is_no_progress_and_the_pusher_is_told(
    make: MakeCluster, line_to: MakeLine
) -> None:
    """The standby leaves the sync set, and whoever pushed learns that one node has it."""
    cluster = make(replication={"ack_timeout_s": TIMEOUT_S}, election=STEADY)
    line = line_to(cluster["node-a"])
    cluster.start()
    a, client = cluster["node-a"], cluster.client
    tree = client.work_tree("app")
    oid = client.commit(tree, "large", size_bytes=LARGE_BYTES)
    line.slow(TRICKLE_BYTES_PER_S)
    with _pushing(cluster, tree, "org/app", oid) as push:
        said = _said(push)
        assert push.returncode == 0, said
    assert "remote: warning: stored on node-a only; node-b was late or gone" in said
    assert a.status()["sync_set"] == []
    wait_logged(a, "standby_late")


def test_small_pushes_do_not_wait_for_a_large_one_in_another_repository(
    make: MakeCluster, line_to: MakeLine
) -> None:
    """Acknowledgements are per repository: a small one is told "ok" while the large one is under way."""
    cluster = make(mode="strict", replication=PATIENT)
    line = line_to(cluster["node-a"])
    cluster.start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    large, small = client.work_tree("large"), client.work_tree("small")
    url = client.url(a, "org/small")
    client.git("push", "-q", url, "main", cwd=small)
    large_oid = client.commit(large, "large", size_bytes=HUGE_BYTES)
    line.slow(FAIR_BYTES_PER_S)
    with _pushing(cluster, large, "org/large", large_oid) as slow_push:
        eventually(lambda: refs_of(a, "org/large"), "its commit at the leader")
        oid = client.commit(small, "small")
        client.git("push", "-q", url, "main", cwd=small)
        assert refs_of(b, "org/small")["refs/heads/main"] == oid
        assert slow_push.poll() is None, "the large push is still on its way"
        said = _said(slow_push)
        assert slow_push.returncode == 0, said
    cluster.wait_equal()


def test_a_push_on_top_of_one_that_waits_is_not_told_ok_before_it(
    make: MakeCluster, line_to: MakeLine
) -> None:
    """The second sees the first's value in the advertisement: it waits as well, then both are "ok"."""
    cluster = make(mode="strict", replication=PATIENT, election=STEADY)
    line = line_to(cluster["node-a"])
    cluster.start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    line.hold()
    one = client.commit(tree, "one")
    with _pushing(cluster, tree, "org/app", one) as first:
        eventually(lambda: refs_of(a, "org/app")["refs/heads/main"] == one, "the first one's commit")
        two = client.commit(tree, "two")
        with (
            _pushing(cluster, tree, "org/app", two) as second,
            _pushing(cluster, tree, "org/app", one) as repeated,
        ):
            wait_logged(a, "logged_in", 5)
            assert [push.poll() for push in (first, second, repeated)] == [None] * 3
            line.release()
            for push in (first, second):
                said = _said(push)
                assert push.returncode == 0, said
            assert refs_of(b, "org/app")["refs/heads/main"] == two
            _said(repeated)  # up to date, or behind the second by then
    cluster.wait_equal()


def test_a_repeat_of_a_push_that_timed_out_is_no_acknowledgement_either(
    make: MakeCluster, line_to: MakeLine
) -> None:
    """Git would find "Everything up-to-date" and exit 0: not before the standby has the commit."""
    cluster = make(mode="strict", election=STEADY)
    line = line_to(cluster["node-a"])
    cluster.start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    url = client.url(a, "org/app")
    client.git("push", "-q", url, "main", cwd=tree)
    oid = client.commit(tree, "timed out")
    line.hold()
    for _ in range(2):
        done = client.git("push", url, f"{oid}:refs/heads/main", cwd=tree, ok=False)
        assert done.returncode != 0, done.stderr
        assert "not replicated in time" in done.stderr
        assert "Everything up-to-date" not in done.stderr
    assert refs_of(b, "org/app")["refs/heads/main"] != oid
    line.release()
    a.wait_in_sync_set("node-b")
    eventually(lambda: a.status()["standbys"][0]["lag_changes"] == 0, "the standby level again")
    done = client.git("push", url, f"{oid}:refs/heads/main", cwd=tree)
    assert "Everything up-to-date" in done.stderr
    assert refs_of(b, "org/app")["refs/heads/main"] == oid
