"""From the leader's commit to the standby's ref. Goal: median below 100 ms.

The clock starts when the ref's file changes on the leader's disk and stops when it is there on the
standby's; both are on this machine, so one clock serves.
"""

import time
from pathlib import Path

from bench.figures import row, some, title
from tests.support.cluster import running_cluster

ROUNDS = 60
LIMIT_S = 10.0


def measure(folder: Path, share: float) -> None:
    """Small pushes, one after the other, into an idle pair."""
    title("from the leader's ref to the standby's ref (goal: median below 100 ms)")
    with running_cluster(folder) as cluster:
        leader, standby, client = cluster.leader(), cluster.standby(), cluster.client
        tree = client.work_tree("app")
        url = client.url(leader, "app")
        client.git("push", "-q", url, "main", cwd=tree)
        cluster.wait_equal()
        lags, pushes = [], []
        for number in range(some(ROUNDS, share)):
            oid = client.commit(tree, f"commit {number}")
            ref = "refs/heads/main"
            started = time.monotonic()
            client.git("push", "-q", url, "main", cwd=tree)
            pushes.append((time.monotonic() - started) * 1000)
            lags.append(
                (_arrived(standby.repository("app") / ref, oid) - _changed(leader.repository("app") / ref))
                * 1000
            )
    row("lag", lags, "ms")
    row("the push itself, for comparison", pushes, "ms")


def _arrived(path: Path, oid: str) -> float:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists() or path.read_text().strip() != oid:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{oid} not at {path} within {LIMIT_S} s")
        time.sleep(0.0005)
    return path.stat().st_mtime


def _changed(path: Path) -> float:
    return path.stat().st_mtime
