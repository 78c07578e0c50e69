"""A real cluster on a link of its own: each node in a network namespace, and a client in another."""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cluster import Client, Cluster, NodeProcess, make_cluster
from tests.support.netns import Machine, machines
from tests.support.nodelog import log_lines

SSH_PORT = 2222
HTTP_PORT = 8080


@dataclass
class NamespacedNode(NodeProcess):
    """A node on a machine of the link; `/readyz` and the others are asked from within."""

    machine: Machine | None = None

    def start(
        self, *, prefix: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> "NamespacedNode":
        assert self.machine is not None
        super().start(prefix=(*self.machine.prefix, *prefix), env=env)
        return self

    def get(self, path: str, limit_s: float = 5.0) -> tuple[int, bytes]:
        assert self.machine is not None
        ask = super().get
        return self.machine.inside(lambda: ask(path, limit_s))

    def has(self, address: str) -> bool:
        """Whether its machine has the address now."""
        assert self.machine is not None
        return any(found.startswith(f"{address}/") for found in self.machine.addresses())

    def events(self, *wanted: str) -> list[str]:
        """The events of its log that are among `wanted`, in order."""
        return [line["event"] for line in log_lines(self) if line["event"] in wanted]


@dataclass
class LinkedCluster(Cluster):
    """The cluster, and the machine where its users are."""

    desk: Machine | None = None

    def push(self, host: str, refspec: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """`git push` from the client's machine to whoever has the address `host`."""
        assert self.desk is not None
        url = f"ssh://git@{host}:{SSH_PORT}/org/app"
        return subprocess.run(
            [*self.desk.prefix, "git", "push", "-q", url, refspec], cwd=cwd, check=False,
            env=self.client.environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip


@contextlib.contextmanager
def linked_cluster(
    root: Path, items: Sequence[Sequence[Mapping[str, Any]]], **overrides: Mapping[str, Any]
) -> Iterator[LinkedCluster]:
    """Two nodes, not started; `items` is each node's `address`."""
    with machines(3) as (*places, desk):
        cluster = make_cluster(root, overrides=overrides)
        nodes: list[NodeProcess] = []
        for node, machine, its in zip(cluster.nodes, places, items, strict=True):
            node.config["address"] = [dict(one) for one in its]
            node.config["ssh"] |= {
                "listen": f"0.0.0.0:{SSH_PORT}", "advertise": f"{machine.address}:{SSH_PORT}",
            }  # fmt: skip
            node.config["health"] = {"listen": f"0.0.0.0:{HTTP_PORT}"}
            nodes.append(
                NamespacedNode(node.name, node.config_file, node.config, node.log_file, machine=machine)
            )
        linked = LinkedCluster(
            cluster.root, nodes, cluster.client, bootstrap_options=("--local-volume",), desk=desk
        )
        try:
            yield linked
        finally:
            linked.end()


__all__ = ["Client", "LinkedCluster", "NamespacedNode", "linked_cluster"]
