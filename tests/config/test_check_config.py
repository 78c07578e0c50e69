"""`stargate check-config FILE`, as an operator runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.cluster import make_cluster


def check_config(*args: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(
        [sys.executable, "-m", "stargate_gate.cli.main", "check-config", *map(str, args)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_good_file_is_summed_up(tmp_path: Path) -> None:
    """Who this node is, what it listens on, which cluster; exit 0."""
    node = make_cluster(tmp_path).nodes[0]
    node.write_config()
    done = check_config(node.config_file, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"ok: {node.config_file}\n")
    assert f"node-a, data in {node.data_dir}" in done.stdout
    assert "test at stargate.local:2222, mode sync" in done.stdout
    assert f"listens on 127.0.0.1:{node.ssh_port}" in done.stdout
    assert f"http on 127.0.0.1:{node.http_port}" in done.stdout
    assert "  address  moved by something else\n" in done.stdout


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Values, rules and files, one a line on stderr, exit 78, no traceback."""
    node = make_cluster(tmp_path).nodes[0]
    Path(node.config["ssh"]["host_keys"][0]).unlink()
    Path(node.config["cluster"]["key"]).chmod(0o644)
    (tmp_path / "shared").rmdir()
    node.config["limits"] = {"max_sessions": "many"}
    node.config["replication"] = {"ack_max_s": 1}
    node.write_config()
    done = check_config(node.config_file, cwd=tmp_path)
    assert done.returncode == 78
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert "Traceback" not in done.stderr
    for key in (
        "cluster.key: ",
        "ssh.host_keys[0]: ",
        "election.flock.path: ",
        "limits.max_sessions: ",
        "replication.ack_max_s: ",
    ):
        assert sum(f": {key}" in line for line in lines) == 1


PLACEHOLDERS = "ssh-ed25519 AAAA... alice\nrestrict ssh-ed25519 AAAAC3... bob\n"


def test_keys_that_can_be_used_are_counted(tmp_path: Path) -> None:
    """With what is wrong with the other lines."""
    node = make_cluster(tmp_path).nodes[0]
    keys = Path(node.config["ssh"]["authorized_keys"])
    keys.write_text(PLACEHOLDERS + keys.read_text())
    node.write_config()
    done = check_config(node.config_file, cwd=tmp_path)
    assert done.returncode == 0
    assert f"  users    1 usable key in 3 lines of {keys}\n" in done.stdout
    assert "! line 1: the key is damaged" in done.stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (PLACEHOLDERS, "2 lines, 0 usable keys, so nobody can log in"),
        ("", "0 lines, 0 usable keys, so nobody can log in"),
        ("# nobody yet\n", "0 lines, 0 usable keys"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXkt\n", "a private key begins here"),
        ("ssh-ed25519 AAAA\n".encode("utf-16"), "save it as UTF-8"),
    ],
)
def test_a_file_of_keys_that_lets_nobody_in_is_a_problem(
    tmp_path: Path, content: str | bytes, told: str
) -> None:
    """The README's own placeholders were "ok"."""
    node = make_cluster(tmp_path).nodes[0]
    Path(node.config["ssh"]["authorized_keys"]).write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    node.write_config()
    done = check_config(node.config_file, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert told in done.stderr
    assert "b3Blb" not in done.stderr


@pytest.mark.parametrize("content", ["", "- a\n", "a: [\n", "\x00"])
def test_what_is_no_configuration_is_told(tmp_path: Path, content: str) -> None:
    """One line, exit 78."""
    path = tmp_path / "node.yaml"
    path.write_text(content)
    done = check_config(path, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert str(path) in done.stderr


def test_without_a_file_it_checks_what_serve_would_use(tmp_path: Path) -> None:
    """$STARGATE_CONFIG, else the defaults."""
    done = check_config(cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: no file, all defaults\n")
    assert "none: a single node that leads by itself" in done.stdout
    path = tmp_path / "node.yaml"
    path.write_text(yaml.safe_dump({"node": {"name": "by-variable"}}))
    done = check_config(cwd=tmp_path, STARGATE_CONFIG=str(path))
    assert "by-variable" in done.stdout
