"""The path of one acknowledged push through the leader's code.

Whoever follows a push by reading stops at each module on the path. Counted on a real pair of nodes (how:
traced.py) are

modules  of stargate_gate in which a function is called between the client's exec request and the "ok"
returns  ways from one module to another that was visited before. The same way counts once, however often
         it is taken: a loop is read once. "all returns" counts every time

A node does other things meanwhile, such as a heartbeat. So only modules that every one of several pushes
visits count.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import note, some
from tests.support.cluster import eventually, make_cluster

PUSHES = 10
GOAL_MODULES = 30


def measure(folder: Path, share: float) -> None:
    """Small pushes, one after the other, into a repository that is there."""
    print(f"the modules that one acknowledged push visits in the leader (goal: at most {GOAL_MODULES})")
    written = folder / "calls"
    cluster = make_cluster(folder)
    leader, client = cluster.nodes[0], cluster.client
    try:
        assert cluster.bootstrap().returncode == 0
        leader.start(prefix=(sys.executable, "-m", "bench.traced", str(written)))
        leader.wait_ready()
        cluster.nodes[1].start()
        leader.wait_in_sync_set(cluster.nodes[1].name)
        tree = client.work_tree("app")
        for number in range(some(PUSHES, share) + 1):  # the first one creates the repository: not counted
            client.commit(tree, f"commit {number}")
            client.git("push", "-q", client.url(leader, "app"), "main", cwd=tree)
            eventually(lambda wanted=number + 1: len(_recorded(written)) == wanted, "the push's calls")
        cluster.wait_equal()
    finally:
        cluster.end()
    pushes = [[module for module, _ in calls] for calls in _recorded(written)[1:]]
    always = set.intersection(*map(set, pushes))
    paths = [_path([module for module in calls if module in always]) for calls in pushes]
    shown = min(paths, key=lambda path: path.returns)
    for module in shown.modules:
        note(module)
    note(f"modules {len(shown.modules)}, returns {shown.returns}, all returns {shown.all_returns}")


@dataclass(frozen=True)
class _Path:
    """The modules in the order of the first visit, and how often the path comes back to one."""

    modules: tuple[str, ...]
    returns: int
    all_returns: int


def _path(calls: Sequence[str]) -> _Path:
    visited: dict[str, None] = {}
    ways = Counter[tuple[str, str]]()
    last = ""
    for module in calls:
        if module != last and module in visited:
            ways[last, module] += 1
        visited[module] = None
        last = module
    return _Path(tuple(visited), len(ways), ways.total())


def _recorded(written: Path) -> list[list[tuple[str, str]]]:
    lines = written.read_text().splitlines() if written.exists() else []
    return [json.loads(line) for line in lines]
