"""What the scrub costs: processor time and reads for one small copy, and for a node with 10,000 of them.

The copies are of one small repository, each with an id of its own, put on the node's disk while it is
stopped. A sample of them is checked through the control socket, as `stargate repo verify` does. From the
costs of one check follows what the background costs with the defaults: each copy once in
`scrub.interval_days`.
"""

import os
import resource
import secrets
import shutil
import time
from pathlib import Path

from bench.figures import note, row, some, title
from stargate_gate.control.client import ask
from stargate_gate.repos.repository import HOME_FILE, ID_FILE
from stargate_gate.scrub.copies import find_copies
from stargate_gate.scrub.scrubber import DAY_S, REFRESH_S
from tests.support.cluster import NodeProcess, eventually, make_cluster

COPIES = 10_000
SAMPLE = 100
INTERVAL_S = 7 * DAY_S
IDLE_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def measure(folder: Path, share: float) -> None:
    """One node; first what a check costs, then what listing costs, then an idle node."""
    copies, sample = some(COPIES, share), some(SAMPLE, share)
    title(f"the scrub of a node with {copies} small copies")
    cluster = make_cluster(folder, nodes=1, overrides={"scrub": {"interval_days": 0}})
    cluster.bootstrap()
    node, client = cluster.nodes[0], cluster.client
    try:
        node.start().wait_ready()
        tree = client.work_tree("app")
        client.git("push", "-q", client.url(node, "org/c0"), "main", cwd=tree)
        node.terminate()
        _copy(node.repository("org/c0"), copies)
        node.start().wait_ready()
        eventually(lambda: node.status().get("scrub", {}).get("total") == copies, "all are listed", 120.0)
        checks, walls, read = _check(node, sample)
        row("one check, processor", [one * 1000 for one in checks], "ms")
        row("one check, from the request to the answer", [one * 1000 for one in walls], "ms")
        row("one check, read", [read / sample / 1000], "kB")
        listing = [_listing(node) for _ in range(some(5, share))]
        row(f"listing all copies, every {REFRESH_S:g} s", [one * 1000 for one in listing], "ms")
        before = _cpu_s(node)
        time.sleep(IDLE_S)
        row("idle node, scrub off", [(_cpu_s(node) - before) / IDLE_S * 100], "% of a core")
    finally:
        cluster.end()
    mean_s = sum(checks) / len(checks)
    background = copies * mean_s / INTERVAL_S + min(listing) / REFRESH_S
    note(f"in the background, each copy every 7 days: {background * 100:.3f} % of a core,")
    note(f"and {copies * read / sample / INTERVAL_S:.0f} bytes a second read")


def _copy(template: Path, copies: int) -> None:
    for number in range(1, copies):
        path = template.with_name(f"c{number}.git")
        shutil.copytree(template, path)
        (path / ID_FILE).write_text(secrets.token_hex(16) + "\n")
        (path / HOME_FILE).write_text(f"{path.stat().st_ino}\n")


def _check(node: NodeProcess, sample: int) -> tuple[list[float], list[float], int]:
    """Processor time and duration of each check, in seconds, and what all of them have read."""
    socket, before = node.data_dir / "run/control.sock", node.status()["scrub"]["read_bytes"]
    checks, walls = [], []
    for number in range(sample):
        cpu, began = _cpu_s(node), time.monotonic()
        answer = ask(socket, "repo-verify", {"name": f"org/c{number}"}, limit_s=60.0)
        assert answer.exit == 0, answer
        walls.append(time.monotonic() - began)
        checks.append(_cpu_s(node) - cpu)
    return checks, walls, node.status()["scrub"]["read_bytes"] - before


def _listing(node: NodeProcess) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    find_copies(node.data_dir / "repositories")
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cpu_s(node: NodeProcess) -> float:
    """Processor time of the node and of all its children that have ended."""
    fields = Path(f"/proc/{node.pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S
