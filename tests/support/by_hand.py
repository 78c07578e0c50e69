"""What an operator does by hand to the repositories of a node, and looking at the result."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.cluster import STARGATE, Cluster, NodeProcess

Make = Callable[..., Cluster]

LOOKS_OFTEN = {"replication": {"full_check_s": 0.5}}
LOOKS_SELDOM = {"replication": {"full_check_s": 3600}}
NO_WATCHDOG = {"election": {"watchdog_s": 50, "lease_s": 60}}  # for a node that a test stops for a while
GONE = "repository was deleted (or moved) during the push"
APP, FORK, RENAMED = "org/app", "org/fork", "org/renamed"
OLD, FIRST, SECOND = "old", "first", "second"


def push(cluster: Cluster, tree: Path, name: str, text: str, node: NodeProcess | None = None) -> str:
    """One more commit, acknowledged by the leader; its oid."""
    oid = cluster.client.commit(tree, text)
    url = cluster.client.url(node or cluster.leader(), name)
    cluster.client.git("push", "-q", url, "+main", cwd=tree)
    return oid


def folder(node: NodeProcess, name: str) -> Path:
    return node.repository(name)


def rename(node: NodeProcess, name: str, other: str) -> None:
    """`mv`, of a repository."""
    folder(node, other).parent.mkdir(parents=True, exist_ok=True)
    folder(node, name).rename(folder(node, other))


def copy(node: NodeProcess, name: str, other: str) -> None:
    """`cp -a`, to a hidden name first: the node finds it as a whole."""
    hidden = node.data_dir / "repositories" / ".copying"
    shutil.copytree(folder(node, name), hidden, symlinks=True)
    hidden.rename(folder(node, other))


def id_of(node: NodeProcess, name: str) -> str:
    return (folder(node, name) / "stargate-id").read_text().strip()


def trash(node: NodeProcess) -> list[str]:
    """What lies in its trash, by name."""
    root = node.data_dir / "trash"
    return sorted(
        str(path.relative_to(entry))
        for entry in root.iterdir()
        for path in entry.rglob("*.git")
        if path.is_dir()
    )


def rescued(node: NodeProcess) -> list[dict[str, object]]:
    """What `stargate rescued list --json` tells."""
    argv = [*STARGATE, "rescued", "list", "--json", "-c", str(node.config_file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def served(cluster: Cluster, node: NodeProcess, name: str) -> str:
    """What users see there."""
    return cluster.client.git("ls-remote", cluster.client.url(node, name), ok=False).stdout


def fails_over(cluster: Cluster) -> None:
    """The leader is killed, the standby leads, and the old leader follows it until both are equal."""
    a, b = cluster["node-a"], cluster["node-b"]
    a.kill()
    b.wait_ready()
    a.start()
    b.wait_in_sync_set("node-a")
    cluster.wait_equal()


def nothing_was_put_away(nodes: Iterable[NodeProcess]) -> None:
    """And nobody has to look for anything."""
    for node in nodes:
        assert trash(node) == []
        assert rescued(node) == []
        assert node.status()["rescued_refs"] == 0


def before_the_pack(tree: Path, command: str) -> None:
    """Run `command` in the midst of the next push: git has shown its refs, and no pack has come."""
    hook = tree / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nrm -f {hook}\n{command} </dev/null >&2\n")
    hook.chmod(0o755)
