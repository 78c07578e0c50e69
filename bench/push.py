"""The price of a small push in each mode, side by side; and how far the standby is behind under load.

Three pairs of nodes run at once, one in each mode, and take turns. Goals: `sync` adds less than 30 ms
to `async` on loopback; under 50 pushes a second the median lag is below 50 ms.
"""

import concurrent.futures
import contextlib
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.figures import note, row, some, title
from tests.support.cluster import Client, Cluster, NodeProcess, eventually, running_cluster

MODES = ("async", "sync", "strict")
ROUNDS = 40
GOAL_ADDED_MS = 30
LOAD_S = 10
PUSHES_PER_S = 50
REPOSITORIES = 10  # each takes its pushes one after the other
GOAL_LAG_MS = 50


def measure(folder: Path, share: float) -> None:
    """Small pushes in turns; then many, in one mode after the other."""
    with contextlib.ExitStack() as at_end:
        clusters = {
            mode: at_end.enter_context(
                running_cluster(
                    folder / mode, overrides={"replication": {"mode": mode}, "log": {"level": "info"}}
                )
            )
            for mode in MODES
        }
        _price(clusters, some(ROUNDS, share))
        print()
        _lag(clusters, some(LOAD_S, share))


def _price(clusters: dict[str, Cluster], rounds: int) -> None:
    title(f"a push of one small commit, by mode, in turns (goal: sync adds below {GOAL_ADDED_MS} ms)")
    trees = {mode: cluster.client.work_tree("app") for mode, cluster in clusters.items()}
    leaders = {mode: cluster.leader() for mode, cluster in clusters.items()}
    took: dict[str, list[float]] = {mode: [] for mode in clusters}
    for number in range(rounds + 1):
        first = number % len(
            MODES
        )  # who follows on whom changes, so that no mode always has the quiet moment
        for mode in (*MODES[first:], *MODES[:first]):
            client, tree = clusters[mode].client, trees[mode]
            client.commit(tree, f"commit {number}")
            started = time.monotonic()
            client.git("push", "-q", client.url(leaders[mode], "app"), "main", cwd=tree)
            if number:  # the first round makes the repository
                took[mode].append((time.monotonic() - started) * 1000)
    for mode, values in took.items():
        row(f"push, replication.mode {mode}", values, "ms")
    for mode in MODES[1:]:
        added = [a - b for a, b in zip(took[mode], took["async"], strict=True)]
        note(f"{mode} adds to async, round by round: median {statistics.median(added):.1f} ms")
    _tell_modes_in_force(leaders)


def _lag(clusters: dict[str, Cluster], duration_s: int) -> None:
    title(
        f"from the leader's ref to the standby's, {PUSHES_PER_S} pushes a second offered for "
        f"{duration_s} s (goal: median below {GOAL_LAG_MS} ms)"
    )
    reached = {}
    for mode, cluster in clusters.items():
        leader, standby = cluster.leader(), cluster.standby()
        reached[mode], pushes = _load(cluster.client, leader, duration_s)
        cluster.wait_equal()
        row(f"lag, replication.mode {mode}", list(_lags_ms(leader, standby, pushes)), "ms")
    for mode, per_s in reached.items():
        slow = (
            ""
            if per_s > 0.95 * PUSHES_PER_S
            else ": no more was possible, and this is the lag of an overload"
        )
        note(f"replication.mode {mode}: {per_s:.0f} pushes a second were reached{slow}")


def _tell_modes_in_force(leaders: dict[str, NodeProcess]) -> None:
    for mode, leader in leaders.items():
        if (in_force := leader.status()["mode"]) != mode:
            note(
                f"replication.mode {mode} was asked for, but the node runs as {in_force}: no price of {mode}"
            )


@dataclass(frozen=True)
class _Pusher:
    """A repository on the leader, and what its client sends: one request of receive-pack a push."""

    repository: str
    requests: tuple[bytes, ...]


def _load(client: Client, leader: NodeProcess, duration_s: int) -> tuple[float, int]:
    """Push at the rate of PUSHES_PER_S; the rate that was reached, and the pushes to each repository.

    The client is as cheap as can be, since it shares the machine: its packs are made before, and one
    connection serves all.
    """
    pushes = duration_s * PUSHES_PER_S // REPOSITORIES
    pushers = [_pusher(client, leader, f"load-{index}", pushes) for index in range(REPOSITORIES)]
    with _one_connection(client, leader) as mux, concurrent.futures.ThreadPoolExecutor(REPOSITORIES) as pool:
        started = time.monotonic()

        def push_all(index: int) -> None:
            for number, request in enumerate(pushers[index].requests):
                due = started + (number * REPOSITORIES + index) / PUSHES_PER_S
                time.sleep(max(0.0, due - time.monotonic()))
                command = f"git-receive-pack '{pushers[index].repository}'"
                done = client.ssh(leader, command, stdin=request, options=("-S", str(mux)))
                assert b"unpack ok" in done.stdout, done.stderr.decode()

        list(pool.map(push_all, range(REPOSITORIES)))
        took_s = time.monotonic() - started
    return pushes * REPOSITORIES / took_s, pushes


def _pusher(client: Client, leader: NodeProcess, repository: str, pushes: int) -> _Pusher:
    tree = client.work_tree(repository)
    client.git("push", "-q", client.url(leader, repository), "main", cwd=tree)
    return _Pusher(repository, tuple(_request(client, tree, number) for number in range(pushes)))


def _request(client: Client, tree: Path, number: int) -> bytes:
    """A new commit on a branch of its own, so that its ref's file keeps the time at which it came.

    As gitprotocol-pack(5): a command, a flush, a pack.
    """
    oid = client.git(
        "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", f"push {number}", cwd=tree
    ).stdout.strip()
    command = f"{'0' * 40} {oid} refs/heads/{_branch(number)}\0report-status".encode()
    pack = subprocess.run(
        ["git", "pack-objects", "-q", "--stdout"], input=f"{oid}\n".encode(), cwd=tree,
        env=client.environment(), capture_output=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    return b"%04x%s0000%s" % (len(command) + 4, command, pack)


@contextlib.contextmanager
def _one_connection(client: Client, leader: NodeProcess) -> Iterator[Path]:
    """A connection to the leader whose control socket other ssh processes share."""
    mux = client.home / "mux"
    master = subprocess.Popen(
        [*client.ssh_argv("-S", str(mux)), "-M", "-N", "-p", str(leader.ssh_port), "git@127.0.0.1"],
        stdin=subprocess.DEVNULL,
    )
    try:
        eventually(mux.exists, "the shared connection")
        yield mux
    finally:
        master.terminate()
        master.wait(10)


def _branch(number: int) -> str:
    return f"push-{number}"


def _lags_ms(leader: NodeProcess, standby: NodeProcess, pushes: int) -> Iterator[float]:
    """By the times of the refs' files; both are on this machine, so one clock serves."""
    for index in range(REPOSITORIES):
        for number in range(pushes):
            ref = f"refs/heads/{_branch(number)}"
            there, here = (
                (node.repository(f"load-{index}") / ref).stat().st_mtime for node in (leader, standby)
            )
            yield (here - there) * 1000
