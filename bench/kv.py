"""`git kv` with 1,000, 10,000 and 100,000 keys: a table of growth.

Against the leader of a pair in mode `sync`, over ssh on loopback, from a warm clone; once with a new ssh
connection for each command, and once over one that ssh keeps (ControlMaster). What plain git needs there
for the smallest push and for a fetch of nothing is shown as well: git kv cannot be faster than that.
Goals at 100,000 keys: `set`, `get`, `list --prefix` below 150 ms each; `mset` of 10,000 keys below 3 s.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import note, row, some, title
from tests.support.cluster import Client, NodeProcess, eventually, running_cluster
from tests.support.kv import Kv, make_clone

SIZES = (1_000, 10_000, 100_000)
BATCH = 10_000
TEAMS = 100  # keys begin with a team's name: at 100,000 keys, a folder of the index has a thousand
LISTED_PREFIX = "t042:user:000000"  # ten keys
ROUNDS = 15
GOAL_MS = 150
GOAL_MSET_S = 3


def measure(folder: Path, share: float) -> None:
    """Grow from size to size; measure at each."""
    sizes = SIZES if share == 1 else (1_000, 2 * BATCH)
    rounds = some(ROUNDS, share)
    with running_cluster(folder / "cluster", overrides={"log": {"level": "info"}}) as cluster:
        client, leader = cluster.client, cluster.leader()
        url = client.url(leader, "state")
        anew = make_clone(folder / "kv", url, env=client.environment())
        mux = client.home / "mux"
        kept = Kv(anew.path, {**anew.env, "GIT_SSH_COMMAND": " ".join(client.ssh_argv("-S", str(mux)))})
        title(f"git kv by number of keys (goal at 100,000: below {GOAL_MS} ms each)")
        batches, size = [], 0  # how many keys a batch had, and how long it took
        with _Connection(client, leader, mux):
            for wanted in sizes:
                while size < wanted:
                    batches.append(_mset_s(anew, size, min(wanted - size, BATCH)))
                    size += min(wanted - size, BATCH)
                _measure_at(size, {"new ssh": anew, "kept ssh": kept}, rounds)
            _plain_git(client, leader, rounds, mux)
        print()
        title(f"mset of {BATCH:,} keys, each on top of the last (goal: below {GOAL_MSET_S} s)")
        row(f"mset of {BATCH:,} keys, new ssh", [took for keys, took in batches if keys == BATCH], "s")
        note(f"the replica had all of it: {bool(cluster.wait_equal(120))}")


def _measure_at(size: int, ways: dict[str, Kv], rounds: int) -> None:
    """The commands in turns, so that a noisy moment is everybody's."""
    took: dict[str, list[float]] = {}
    for number in range(rounds):
        for way, kv in ways.items():
            key = f"t{number % TEAMS:03}:user:{number % 10:07}"
            for label, args in {
                "set": ("set", key, f"value {size} {number} {way}"),
                "get": ("get", key),
                "list --prefix (10 keys)": ("list", "--prefix", LISTED_PREFIX),
            }.items():
                started = time.monotonic()
                kv.ok(*args)
                took.setdefault(f"{size:>7,} keys, {way}: {label}", []).append(
                    (time.monotonic() - started) * 1000
                )
    for label, values in sorted(took.items()):
        row(label, values, "ms")


def _mset_s(kv: Kv, first: int, count: int) -> tuple[int, float]:
    lines = "".join(f"{json.dumps(line)}\n" for line in _lines(first, count))
    started = time.monotonic()
    kv.ok("mset", "--file", "-", "--timeout", "5m", given=lines.encode())
    return count, time.monotonic() - started


def _lines(first: int, count: int) -> Iterator[dict[str, str]]:
    for number in range(first, first + count):
        key = f"t{number % TEAMS:03}:user:{number // TEAMS:07}"
        yield {"op": "set", "key": key, "value": f"value of {key}"}


def _plain_git(client: Client, leader: NodeProcess, rounds: int, mux: Path) -> None:
    tree = client.work_tree("app")
    url = client.url(leader, "app")
    client.git("push", "-q", url, "main", cwd=tree)
    for way, options in {"new ssh": (), "kept ssh": ("-S", str(mux))}.items():
        ssh = " ".join(client.ssh_argv(*options))
        push, fetch = [], []
        for number in range(rounds):
            client.commit(tree, f"{way} {number}")
            for values, args in ((push, ("push", "-q", url, "main")), (fetch, ("fetch", "-q", url, "main"))):
                started = time.monotonic()
                client.git(*args, cwd=tree, GIT_SSH_COMMAND=ssh)
                values.append((time.monotonic() - started) * 1000)
        row(f"plain git, {way}: push of one commit", push, "ms")
        row(f"plain git, {way}: fetch of nothing", fetch, "ms")


class _Connection:
    """A connection to the leader whose control socket other ssh processes share."""

    def __init__(self, client: Client, leader: NodeProcess, mux: Path) -> None:
        self._argv = [
            *client.ssh_argv("-S", str(mux)),
            "-M",
            "-N",
            "-p",
            str(leader.ssh_port),
            "git@127.0.0.1",
        ]
        self._mux = mux

    def __enter__(self) -> None:
        self._master = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL)
        eventually(self._mux.exists, "the shared connection")

    def __exit__(self, *_: object) -> None:
        self._master.terminate()
        self._master.wait(10)
