"""What stops a node at its start, or lets it start and do little: one line each, with what to do."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cluster import STARGATE, Cluster, NodeProcess, eventually
from tests.support.nodelog import wait_logged
from tests.support.small_disk import small_disk

Make = Callable[..., Cluster]
NOBODY = 65534
AS_NOBODY = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")


def as_host(name: str) -> tuple[str, ...]:
    """Before a command line: the machine is called that, for this command only."""
    return ("unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh")


def refuses(node: NodeProcess, *words: str, prefix: tuple[str, ...] = ()) -> None:
    """The node ends by itself with 78, and one line that has all of `words`."""
    before = len(node.log())
    assert node.start(prefix=prefix).wait() == 78, node.log()
    (line,) = node.log()[before:].splitlines()
    assert [word for word in words if word not in line] == [], line


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """The folder as a file system that the kernel has made read-only."""
    for argv in (["mount", "--bind", path, path], ["mount", "-o", "remount,ro,bind", path]):
        subprocess.run(argv, check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True, timeout=30)


@pytest.fixture
def node(unstarted: Make) -> NodeProcess:
    """Of a cluster that was bootstrapped; it has led, and is stopped."""
    cluster = unstarted()
    node = cluster.nodes[0]
    assert cluster.bootstrap().returncode == 0
    node.start().wait_ready()
    assert node.terminate() == 0
    return node


def test_a_read_only_data_dir_is_told(node: NodeProcess) -> None:
    """As after an error of the disk; was a traceback and "unexpected OSError"."""
    with read_only(node.data_dir):
        refuses(node, f"node.data_dir: {node.data_dir} is read-only", "mount it writable")
    node.start().wait_ready()


def test_repositories_on_another_file_system_are_told(node: NodeProcess) -> None:
    """Every deletion would fail: was "internal error" and a traceback at the first one."""
    repositories = node.data_dir / "repositories"
    repositories.rmdir()
    with small_disk(node.data_dir.parent / "disk", megabytes=4) as disk:
        repositories.symlink_to(disk)
        refuses(node, "are on different file systems", "put the whole data_dir on one")
        assert [path.name for path in disk.iterdir()] == []


def test_a_data_dir_that_is_a_link_to_another_file_system_is_fine(unstarted: Make) -> None:
    """The whole of it is there, so everything can be moved."""
    cluster = unstarted()
    node = cluster.nodes[0]
    with small_disk(cluster.root / "disk", megabytes=16) as disk:
        node.data_dir.symlink_to(disk)
        assert cluster.bootstrap().returncode == 0
        node.start().wait_ready()
        assert cluster.client.ssh(node, "repo create app").returncode == 0
        assert cluster.client.ssh(node, "repo delete app").returncode == 0
        assert node.terminate() == 0


def test_another_user_is_told_who_to_run_it_as(node: NodeProcess) -> None:
    """`chown it` was the advice, also to root: then the right user could not start it any more."""
    subprocess.run(["chown", "-R", str(NOBODY), node.data_dir], check=True, timeout=30)
    refuses(node, "belongs to nobody (uid 65534), and this is root (uid 0)", "runuser -u nobody -- stargate")


def test_a_lock_that_belongs_to_somebody_else_is_told_with_both_names(
    unstarted: Make, tmp_path: Path
) -> None:
    """The shared volume knows users by number; these are not the same."""
    cluster = unstarted()
    node = cluster.nodes[0]
    assert cluster.bootstrap().returncode == 0
    cluster.lock_path.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(0o755)
    for path in (node.data_dir, *(cluster.root / "keys").iterdir()):
        subprocess.run(["chown", "-R", str(NOBODY), path], check=True, timeout=30)
    node.start(prefix=AS_NOBODY)
    wanted = "belongs to root (uid 0), and this is nobody (uid 65534): run stargate as the owner"
    eventually(lambda: wanted in node.log(), "the line about the lock", 120)


def test_a_host_that_was_renamed_is_told_the_name_to_write(unstarted: Make) -> None:
    """node.name was the host name. The cluster knows the data_dir by the old one, so nobody would lead."""
    cluster = unstarted()
    node = cluster.nodes[0]
    del node.config["node"]["name"]
    node.write_config()
    argv = [*as_host("web-1"), *STARGATE, "bootstrap", "-c", str(node.config_file)]
    assert subprocess.run(argv, check=False, timeout=60).returncode == 0
    node.start(prefix=as_host("web-1")).wait_ready()
    node.terminate()
    refuses(
        node,
        "this data_dir belongs to 'web-1'",
        "'web-2' now",
        "write node.name: web-1",
        prefix=as_host("web-2"),
    )
    node.config["node"]["name"] = "web-1"
    node.start(prefix=as_host("web-2")).wait_ready()


def test_a_first_start_without_keys_says_how_to_add_one(tmp_path: Path, unstarted: Make) -> None:
    """A single node: nobody can log in yet, and no keys were read before that could stay in force."""
    node = unstarted(nodes=1).nodes[0]
    for section in ("cluster", "election"):
        del node.config[section]
    del node.config["ssh"]["authorized_keys"]
    node.start().wait_ready()
    keys = str(node.data_dir / "authorized_keys")
    (line,) = map(str, wait_logged(node, "authorized_keys_unreadable"))
    assert "nobody can log in: put public keys there, one a line" in line
    assert keys in line
    assert "stay in force" not in line


def test_bootstrap_says_everything_that_is_to_be_copied(unstarted: Make) -> None:
    """The users' keys too: a node with older ones lets the wrong people in after a failover."""
    cluster = unstarted()
    said = cluster.bootstrap().stdout
    ssh = cluster.nodes[0].config["ssh"]
    for path in (cluster.nodes[0].config["cluster"]["key"], *ssh["host_keys"], ssh["authorized_keys"]):
        assert f"       {path}\n" in said


def test_proxies_that_may_be_anybody_are_warned_of(unstarted: Make) -> None:
    """It is allowed: a firewall may be in front."""
    cluster = unstarted()
    node = cluster.nodes[0]
    node.config["ssh"]["proxy_protocol_from"] = ["10.0.0.5", "0.0.0.0/0"]
    cluster.bootstrap()
    node.start().wait_ready()
    (line,) = wait_logged(node, "configuration_doubtful")
    assert "ssh.proxy_protocol_from[1]" in str(line)
    argv = [*STARGATE, "check-config", str(node.config_file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "warning: ssh.proxy_protocol_from[1]: 0.0.0.0/0 is nearly everybody" in done.stderr
