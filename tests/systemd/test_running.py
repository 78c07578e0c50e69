"""A node as systemd runs it: what it tells the service manager, and what the sandbox must let it do."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stargate_gate.share import shared_dir
from tests.support.cluster import NodeProcess, make_cluster
from tests.support.units import allowed, seconds, settings

UNIT = settings(shared_dir("systemd") / "stargate.service")
CALL = re.compile(r"^(?:\d+ +)?([a-z0-9_]+)\(")
PROCESS_S = 60.0


@pytest.fixture
def notifications(tmp_path: Path) -> Iterator[socket.socket]:
    """$NOTIFY_SOCKET's other end."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PROCESS_S)
        yield sock


def test_a_node_tells_systemd_how_it_is(tmp_path: Path, notifications: socket.socket) -> None:
    """Ready when it listens, alive several times within WatchdogSec, stopping when it steps down."""
    cluster = make_cluster(tmp_path / "c", nodes=1)
    cluster.bootstrap()
    node = cluster.nodes[0].start(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    try:
        assert notifications.recv(100) == b"READY=1"
        assert node.get("/healthz")[0] != 0, "it does not listen yet"
        notifications.settimeout(seconds(UNIT["WatchdogSec"][0]) / 2)
        for _ in range(3):
            assert notifications.recv(100) == b"WATCHDOG=1"
        node.signal(signal.SIGTERM)
        told = iter(lambda: notifications.recv(100), b"STOPPING=1")
        assert set(told) <= {b"WATCHDOG=1"}
        assert node.wait(seconds(UNIT["TimeoutStopSec"][0])) == 0
    finally:
        cluster.end()


def test_the_sandbox_lets_a_node_work(tmp_path: Path) -> None:
    """Every system call of a leader, a standby, their hooks and git, from start to stop, is an allowed one.

    Stands in for a running systemd: SystemCallFilter, MemoryDenyWriteExecute, RestrictAddressFamilies and
    RestrictNamespaces are filters on calls that strace sees.
    """
    cluster = make_cluster(tmp_path / "c", overrides={"election": {"watchdog_s": 30, "lease_s": 60}})
    trace = ("strace", "-f", "-qq", "-s", "0", "--signal=none", "-o")
    cluster.bootstrap()
    client, nodes = cluster.client, cluster.nodes
    try:
        for node in nodes:
            node.start(prefix=(*trace, str(tmp_path / f"{node.name}.strace")))
        nodes[0].wait_ready(PROCESS_S)
        nodes[0].wait_in_sync_set("node-b")
        tree = client.work_tree("app")
        client.git("push", "-q", client.url(nodes[0], "app"), "main", cwd=tree)
        client.git("clone", "-q", client.url(nodes[1], "app"), str(tmp_path / "copy"))
        assert client.ssh(nodes[0], "repo", "delete", "app").returncode == 0
        for node in nodes:
            _signal_traced(node, signal.SIGTERM)
            assert node.wait(PROCESS_S) == 0
    finally:
        for node in nodes:
            _signal_traced(node, signal.SIGKILL)
        cluster.end()
    text = "".join((tmp_path / f"{node.name}.strace").read_text() for node in nodes)
    called = {match[1] for line in text.splitlines() if (match := CALL.match(line))}
    assert called >= {"execve", "flock", "fsync", "accept4", "rename"}, "the trace is not whole"
    filters = UNIT["SystemCallFilter"]
    assert called - allowed(filters) == set()
    assert "mount" not in allowed(filters)
    families = set(re.findall(r"socket\((AF_[A-Z0-9_]+)", text))
    assert families <= set(UNIT["RestrictAddressFamilies"][0].split())
    assert not re.findall(r"mmap\([^)]*PROT_WRITE\|PROT_EXEC|m?protect\([^)]*PROT_EXEC", text)
    assert not re.findall(r"(?:clone|clone3|unshare|setns)\([^)]*CLONE_NEW", text)


def _signal_traced(node: NodeProcess, number: int) -> None:
    """To the node, strace's only child: strace hands nothing on, and what it traces outlives it."""
    if node.process is not None and node.process.poll() is None:
        for child in Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split():
            os.kill(int(child), number)
