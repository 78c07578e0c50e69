"""What stock OpenSSH starts for a key, `stargate-shell`, against real nodes and with real git."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Client, Cluster, NodeProcess, running_cluster
from tests.support.nodelog import wait_sessions

SHELL = (sys.executable, "-m", "stargate_gate.cli.shell")
LIMIT_S = 30


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all of these."""
    with running_cluster(tmp_path_factory.mktemp("forced")) as cluster:
        yield cluster


def through_sshd(folder: Path, node: NodeProcess, *, access: str) -> Path:
    """A program in place of ssh that does as sshd with a forced command: the last word is the request."""
    program = folder / f"as-sshd-{node.name}-{access}"
    words = " ".join((*SHELL, "-c", str(node.config_file), "--user", "alice", "--access", access))
    program.write_text(
        f'#!/bin/sh\nfor word; do :; done\nexport SSH_ORIGINAL_COMMAND="$word"\nexec {words}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def git(
    client: Client, ssh: Path, *args: str, cwd: Path | None = None, ok: bool = True
) -> subprocess.CompletedProcess[str]:
    """Git over that program."""
    return client.git(*args, cwd=cwd, ok=ok, GIT_SSH_COMMAND=str(ssh), GIT_SSH_VARIANT="ssh")


def asked(ssh: Path, command: str) -> subprocess.CompletedProcess[bytes]:
    """A command without git around it."""
    return subprocess.run([ssh, command], input=b"", capture_output=True, timeout=LIMIT_S, check=False)


def test_a_push_and_a_clone_go_through_the_node(shared: Cluster, tmp_path: Path) -> None:
    """The same gate, the same replication, the same log line with the user that sshd names."""
    client, leader = shared.client, shared.leader()
    ssh = through_sshd(tmp_path, leader, access="write")
    tree = client.work_tree("forced")
    git(client, ssh, "push", "-q", "ssh://git@host/forced/app", "main", cwd=tree)
    assert "forced/app.git" in shared.wait_equal()
    git(client, ssh, "clone", "-q", "ssh://git@host/forced/app", str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "file").read_bytes() == (tree / "file").read_bytes()
    wait_sessions(leader, 2, user="alice")


def test_a_standby_refuses_with_nine(shared: Cluster, tmp_path: Path) -> None:
    """Scripts see 9, git users the line."""
    client = shared.client
    ssh = through_sshd(tmp_path, shared.standby(), access="write")
    refused = asked(ssh, "git-receive-pack 'forced/other'")
    assert refused.returncode == 9
    assert b"not leader" in refused.stderr
    tree = client.work_tree("forced-standby")
    pushed = git(client, ssh, "push", "ssh://git@host/forced/other", "main", cwd=tree, ok=False)
    assert pushed.returncode == 128
    assert "not leader" in pushed.stderr


def test_the_access_that_sshd_names_counts(shared: Cluster, tmp_path: Path) -> None:
    """A key that may read may not push, whatever the client's environment says."""
    ssh = through_sshd(tmp_path, shared.leader(), access="read")
    refused = subprocess.run(
        [ssh, "git-receive-pack 'forced/app'"],
        env={**os.environ, "STARGATE_ACCESS": "admin"}, input=b"", capture_output=True,
        timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert refused.returncode == 77
    assert b"alice has read access" in refused.stderr
    assert asked(ssh, "health").returncode == 0
