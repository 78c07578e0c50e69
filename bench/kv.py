"""`git kv` with 1,000, 10,000 and 100,000 keys: a table of growth.

Against the leader of a pair in mode `sync`, over ssh on loopback, from a warm clone; once with a new ssh
connection for each command, and once over one that ssh keeps (ControlMaster). What plain git needs there
for the smallest push and for a fetch of nothing is shown as well: git kv cannot be faster than that.
Goals at 100,000 keys: `set`, `get`, `list --prefix` below 150 ms each; `mset` of 10,000 keys below 3 s.
"""

import json
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
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
        plain = _PlainGit(client, leader)
        batches, size = [], 0  # how many keys a batch had, and how long it took
        with _Connection(client, leader, mux):
            for wanted in sizes:
                while size < wanted:
                    batches.append(_mset_s(anew, size, min(wanted - size, BATCH)))
                    size += min(wanted - size, BATCH)
                _measure_at(size, {"new ssh": anew, "kept ssh": kept}, plain, rounds)
        print()
        title(f"mset of {BATCH:,} keys, each on top of the last (goal: below {GOAL_MSET_S} s)")
        row(f"mset of {BATCH:,} keys, new ssh", [took for keys, took in batches if keys == BATCH], "s")
        note(f"the replica had all of it: {bool(cluster.wait_equal(120))}")


def _measure_at(size: int, ways: dict[str, Kv], plain: "_PlainGit", rounds: int) -> None:
    """Everything in turns, so that a noisy moment is everybody's."""
    took: dict[str, list[float]] = {}
    burnt: dict[str, list[float]] = {}

    def measured(label: str, command: Callable[[], object]) -> None:
        cpu, started = _cpu_ms(), time.monotonic()
        command()
        took.setdefault(label, []).append((time.monotonic() - started) * 1000)
        burnt.setdefault(label, []).append(_cpu_ms() - cpu)

    for number in range(rounds):
        for way, kv in ways.items():
            key = f"t{number % TEAMS:03}:user:{number % 10:07}"
            value = f"value {size} {number} {way}"
            measured(f"{way}, set", lambda kv=kv, key=key, value=value: kv.ok("set", key, value))  # type: ignore[misc]
            measured(f"{way}, get", lambda kv=kv, key=key: kv.ok("get", key))  # type: ignore[misc]
            measured(f"{way}, list of 10", lambda kv=kv: kv.ok("list", "--prefix", LISTED_PREFIX))  # type: ignore[misc]
            plain.commit()
            measured(f"{way}, plain git push", lambda kv=kv: plain.push(kv))  # type: ignore[misc]
            measured(f"{way}, plain git fetch", lambda kv=kv: plain.fetch(kv))  # type: ignore[misc]
    for label, values in sorted(took.items()):
        row(f"{size:>7,} keys, {label}", values, "ms")
    cpu = "; ".join(f"{label} {statistics.median(values):.0f}" for label, values in sorted(burnt.items()))
    note(f"median CPU time of the client, ms: {cpu}")


def _cpu_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def _mset_s(kv: Kv, first: int, count: int) -> tuple[int, float]:
    lines = "".join(f"{json.dumps(line)}\n" for line in _lines(first, count))
    started = time.monotonic()
    kv.ok("mset", "--file", "-", "--timeout", "5m", given=lines.encode())
    return count, time.monotonic() - started


def _lines(first: int, count: int) -> Iterator[dict[str, str]]:
    for number in range(first, first + count):
        key = f"t{number % TEAMS:03}:user:{number // TEAMS:07}"
        yield {"op": "set", "key": key, "value": f"value of {key}"}


class _PlainGit:
    """A repository beside it: what git itself needs for a commit pushed, and for a fetch of nothing."""

    def __init__(self, client: Client, leader: NodeProcess) -> None:
        self._client = client
        self._url = client.url(leader, "app")
        self._tree = client.work_tree("app")
        self._commits = 0
        client.git("push", "-q", self._url, "main", cwd=self._tree)

    def commit(self) -> None:
        """One more, not measured."""
        self._commits += 1
        self._client.commit(self._tree, f"commit {self._commits}")

    def push(self, like: Kv) -> None:
        """Over the ssh that `like` uses."""
        ssh = like.env["GIT_SSH_COMMAND"]
        self._client.git("push", "-q", self._url, "main", cwd=self._tree, GIT_SSH_COMMAND=ssh)

    def fetch(self, like: Kv) -> None:
        """As `push`."""
        ssh = like.env["GIT_SSH_COMMAND"]
        self._client.git("fetch", "-q", self._url, "main", cwd=self._tree, GIT_SSH_COMMAND=ssh)


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
