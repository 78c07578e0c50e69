"""The files of the demo: made in a new temp dir when it starts, removed when it ends."""

import contextlib
import fcntl
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stargate_gate.cli.bootstrap import bootstrap_cluster
from stargate_gate.config.load import load_config
from stargate_gate.errors import GitFailedError, UnavailableError

PREFIX = "stargate-demo-"
LOOPBACK = "127.0.0.1"
NAMES = ("node-a", "node-b")
SSH_PORTS = (2201, 2202)
HTTP_PORTS = (8081, 8082)
REPOSITORY = "hello"
COMMAND_LIMIT_S = 30.0
PORT_STEP, PORT_ATTEMPTS = 10, 20  # other demos or programs may use some
HIGHEST_PORT = 65535

README = """\
# hello

Pushed to one node, held by two.
"""


@dataclass(frozen=True)
class NodeFiles:
    """One node: its name, its YAML file, its ports on loopback."""

    name: str
    config_file: Path
    ssh_port: int
    http_port: int

    @property
    def log_file(self) -> Path:
        """The file for its log, which would hide the demo's own lines on the terminal."""
        return self.config_file.with_suffix(".log")

    @property
    def url(self) -> str:
        """The URL to clone from and to push to."""
        return f"ssh://git@{LOOPBACK}:{self.ssh_port}/{REPOSITORY}"


@dataclass(frozen=True)
class DemoFiles:
    """The temp dir and what is in it."""

    root: Path
    ssh_config: Path
    nodes: tuple[NodeFiles, ...]

    @property
    def git_ssh_command(self) -> str:
        """The value for GIT_SSH_COMMAND: ssh with the demo's key and host key, and no file of the user."""
        return f"ssh -F {shlex.quote(str(self.ssh_config))}"

    def other(self, node: NodeFiles) -> NodeFiles:
        """The node that is not `node`."""
        first, second = self.nodes
        return second if node is first else first


@contextlib.contextmanager
def demo_files() -> Iterator[DemoFiles]:
    """Make everything, and remove it at the end. Also removes what killed demos left.

    Raises:
        UnavailableError: a program is missing, or no port is free.
    """
    _remove_left_behind()
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    with contextlib.ExitStack() as at_end:
        at_end.callback(shutil.rmtree, root, ignore_errors=True)
        at_end.enter_context(_owned(root))
        ssh_ports, http_ports = ([_port(port, at_end) for port in ports] for ports in (SSH_PORTS, HTTP_PORTS))
        yield _make(root, ssh_ports, http_ports)


@contextlib.contextmanager
def _owned(root: Path) -> Iterator[bool]:
    """Hold the lock of a running demo; yields False if another demo holds it."""
    with (root / ".running").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _remove_left_behind() -> None:
    """Remove the folders of demos that were killed. Their nodes have ended with them: see demo_nodes.py."""
    for root in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if root.stat().st_uid == os.geteuid() and (root / ".running").exists():
                with _owned(root) as left_behind:
                    if left_behind:
                        shutil.rmtree(root, ignore_errors=True)


def _make(root: Path, ssh_ports: Sequence[int], http_ports: Sequence[int]) -> DemoFiles:
    for name, comment in (("cluster", "demo cluster"), ("host", "demo host"), ("you", "you@demo")):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(root / name))
    (root / "shared").mkdir()
    public = {name: (root / f"{name}.pub").read_text() for name in ("you", "host")}
    (root / "authorized_keys").write_text(
        f'environment="STARGATE_USER=you",environment="STARGATE_ACCESS=admin" {public["you"]}'
    )
    (root / "known_hosts").write_text(f"stargate-demo {public['host']}")
    (root / "ssh").write_text(_ssh_config(root))
    nodes = tuple(
        NodeFiles(name, root / f"{name}.yaml", ssh, http)
        for name, ssh, http in zip(NAMES, ssh_ports, http_ports, strict=True)
    )
    for node in nodes:
        node.config_file.write_text(yaml.safe_dump(_node_config(root, node, nodes[0]), sort_keys=False))
    bootstrap_cluster(load_config(nodes[0].config_file))
    return DemoFiles(root, root / "ssh", nodes)


def _node_config(root: Path, node: NodeFiles, first: NodeFiles) -> dict[str, Any]:
    """The cluster's address is the first node's; nothing moves it in the demo."""
    return {
        "node": {"name": node.name, "data_dir": str(root / node.name)},
        "cluster": {
            "name": "demo",
            "address": f"{LOOPBACK}:{first.ssh_port}",
            "key": str(root / "cluster"),
        },
        "ssh": {
            "listen": f"{LOOPBACK}:{node.ssh_port}",
            "host_keys": [str(root / "host")],
            "authorized_keys": str(root / "authorized_keys"),
        },
        "election": {"flock": {"path": str(root / "shared" / "leader.lock")}},
        "health": {"listen": f"{LOOPBACK}:{node.http_port}"},
        "log": {"format": "console"},
    }


def _ssh_config(root: Path) -> str:
    """Used instead of the user's own: one key, one pinned host key for both nodes, no agent."""
    return "\n".join(
        (
            "Host *",
            "  User git",
            f"  IdentityFile {_quoted(root / 'you')}",
            "  IdentitiesOnly yes",
            "  IdentityAgent none",
            "  HostKeyAlias stargate-demo",
            f"  UserKnownHostsFile {_quoted(root / 'known_hosts')}",
            "  StrictHostKeyChecking yes",
            "  ConnectTimeout 10",
            "  LogLevel ERROR",
            "",
        )
    )


def _quoted(path: Path) -> str:
    """A path as one word of ssh_config(5), where a blank ends a word and % begins a token."""
    text = str(path).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _port(wanted: int, held: contextlib.ExitStack) -> int:
    """`wanted` if it is free on loopback, else another port; no other demo takes it until `held` ends.

    The node listens only later, and again after each kill, so another demo could find the port free
    meanwhile. So each demo binds a name for each of its ports in the abstract namespace of unix(7): it leaves
    no file, and the kernel releases it however the demo ends. Numbers near `wanted` are tried first, because
    ports that the kernel chooses are also used for outgoing connections.
    """
    near = range(wanted, min(wanted + PORT_STEP * PORT_ATTEMPTS, HIGHEST_PORT), PORT_STEP)
    for port in (*near, *[0] * PORT_ATTEMPTS):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            free: int = probe.getsockname()[1]
            name = held.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            name.bind(f"\0{PREFIX}port-{free}")
            return free
    raise UnavailableError("no free port on loopback: end some programs")


def push_first_commit(files: DemoFiles, node: NodeFiles) -> None:
    """Create the demo's repository by a `git push`, as a user would.

    Raises:
        GitFailedError: git failed.
        UnavailableError: git is missing, or gave no answer.
    """
    work_tree = files.root / "first"
    environment = {
        "GIT_SSH_COMMAND": files.git_ssh_command,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    git = ("git", "-C", str(work_tree), "-c", "user.name=demo", "-c", "user.email=demo@localhost")
    work_tree.mkdir()
    (work_tree / "README.md").write_text(README)
    for args in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "first")):
        _run(*git, *args, environment=environment)
    _run(*git, "push", "-q", node.url, "main", environment=environment)


def _run(*argv: str, environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
    except FileNotFoundError:
        raise UnavailableError(f"{argv[0]} is missing: apt-get install git openssh-client") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{argv[0]} gave no answer in {COMMAND_LIMIT_S:.0f} s") from None
    if done.returncode:
        raise GitFailedError(argv, done.returncode, done.stderr)
