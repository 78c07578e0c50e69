"""Peak memory of the node process while 500 MB go through it, with a slow and a fast git behind it.

A slow git is the real git with its pipe throttled: a wrapper named `git` on the node's PATH copies
stdin (push) or stdout (clone) of the service at a bounded rate. Goal: VmHWM below 120 MB.
"""

import os
import sys
import time
from pathlib import Path

from bench.figures import note, row, title
from tests.support.cluster import Cluster, NodeProcess, make_cluster

SIZE_BYTES = 500 * 10**6
SLOW_BYTES_PER_S = 25 * 10**6
GOAL_MB = 120

THROTTLE = '''#!{python}
"""git, with the bulk of a service's data copied at {rate} bytes a second."""
import os, subprocess, sys, time
args = sys.argv[1:]
side = "stdin" if "receive-pack" in args else "stdout" if "upload-pack" in args else None
if side is None:
    os.execv({git!r}, ["git", *args])
piped = {{side: subprocess.PIPE}}
child = subprocess.Popen([{git!r}, *args], close_fds=False, **piped)
source, sink = (0, child.stdin.fileno()) if side == "stdin" else (child.stdout.fileno(), 1)
started, copied = time.monotonic(), 0
while data := os.read(source, 65536):
    while data:
        data = data[os.write(sink, data):]
    copied += 65536
    ahead = copied / {rate} - (time.monotonic() - started)
    if ahead > 0:
        time.sleep(ahead)
if side == "stdin":
    child.stdin.close()
sys.exit(child.wait())
'''


def measure(folder: Path, share: float) -> None:
    """Push and clone 500 MB; one fresh node per figure, as VmHWM only grows."""
    size_bytes = round(SIZE_BYTES * share)
    title(f"peak memory of the node process, {size_bytes // 10**6} MB through it (goal: below {GOAL_MB} MB)")
    cluster = make_cluster(folder, nodes=1)
    node, client = cluster.nodes[0], cluster.client
    cluster.bootstrap()
    tree = client.work_tree("big")
    client.commit(tree, "big", size_bytes=size_bytes)
    slow = {"PATH": f"{_slow_git(folder)}:{os.environ['PATH']}"}
    try:
        row("idle", [_peak_mb(node, {}, lambda: None)], "MB")
        for speed, env in (("fast", {}), ("slow", slow)):
            name = f"big-{speed}"
            url = client.url(node, name)
            push = _peak_mb(
                node, env, lambda url=url: client.git("push", "-q", url, "main", cwd=tree, limit_s=600)
            )
            row(f"push, {speed} git", [push], "MB")
            clone = _peak_mb(node, env, lambda url=url: _clone(cluster, url))
            row(f"clone, {speed} git", [clone], "MB")
    finally:
        cluster.end()
    note(f"slow: the service's data at {SLOW_BYTES_PER_S // 10**6} MB/s")


def _clone(cluster: Cluster, url: str) -> None:
    target = cluster.client.home / f"clone-{time.monotonic_ns()}"
    cluster.client.git("clone", "-q", "--bare", url, str(target), limit_s=600)


def _peak_mb(node: NodeProcess, env: dict[str, str], work: object) -> float:
    node.start(env=env).wait_ready()
    try:
        assert callable(work)
        work()
        status = Path(f"/proc/{node.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1000
    finally:
        node.terminate()


def _slow_git(folder: Path) -> Path:
    real = next(f"{path}/git" for path in os.environ["PATH"].split(":") if os.access(f"{path}/git", os.X_OK))
    path = folder / "slow" / "git"
    path.parent.mkdir()
    path.write_text(THROTTLE.format(python=sys.executable, git=real, rate=SLOW_BYTES_PER_S))
    path.chmod(0o755)
    return path.parent
