"""A real cluster on loopback: `stargate serve` processes, keys made at run time, real clients.

Used by the scenario tests and by bench/. Nothing here waits without a limit, and everything that was
started is ended by its pid.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tests.support.ports import free_port

WAIT_LIMIT_S = 30.0
POLL_S = 0.02
STARGATE = (sys.executable, "-m", "stargate_gate.cli.main")

T = TypeVar("T")


def eventually(probe: Callable[[], T], what: str, limit_s: float = WAIT_LIMIT_S) -> T:
    """The first truthy answer of `probe`, asked again until `limit_s` has passed.

    Raises:
        TimeoutError: naming `what`, with the last answer.
    """
    deadline = time.monotonic() + limit_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_s} s: {what}; last answer: {answer!r}")
        time.sleep(POLL_S)


def make_key(path: Path, *, kind: str = "ed25519", comment: str = "test") -> Path:
    """A fresh key pair made by ssh-keygen at `path` and `path`.pub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(path)], check=True, timeout=30
    )
    return path


@dataclass
class NodeProcess:
    """One `stargate serve` and where it keeps its things."""

    name: str
    config_file: Path
    config: dict[str, Any]
    log_file: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        """Its data_dir."""
        return Path(self.config["node"]["data_dir"])

    @property
    def ssh_port(self) -> int:
        """The port its gate listens on."""
        return int(self.config["ssh"]["listen"].rpartition(":")[2])

    @property
    def http_port(self) -> int:
        """The port its health endpoints listen on."""
        return int(self.config["health"]["listen"].rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The process id of the running node."""
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def write_config(self) -> None:
        """Put `config` into the YAML file; takes effect at the next start."""
        self.config_file.write_text(yaml.safe_dump(self.config))

    def start(self, *, prefix: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> "NodeProcess":
        """Start the node; `prefix` is put before its command line (strace, unshare, ...)."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        self.write_config()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *STARGATE, "serve", "-c", str(self.config_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **(env or {})},
            )
        return self

    def signal(self, number: int) -> None:
        """Send a signal to the node's process, and to nothing else."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`, and wait for the process to be gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def terminate(self, limit_s: float = WAIT_LIMIT_S) -> int:
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(limit_s)

    def wait(self, limit_s: float = WAIT_LIMIT_S) -> int:
        """The exit status, once the process has ended."""
        assert self.process is not None
        return self.process.wait(limit_s)

    def end(self) -> None:
        """Whatever it does: gone, with what it started."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait(WAIT_LIMIT_S)
        self.process = None

    def get(self, path: str, limit_s: float = 5.0) -> tuple[int, bytes]:
        """Status code and body of an HTTP GET; (0, b"") when nobody answers."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}{path}", timeout=limit_s
            ) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, TimeoutError):
            return 0, b""

    def status(self) -> dict[str, Any]:
        """What `/status` says; {} when nobody answers."""
        code, body = self.get("/status")
        return dict(json.loads(body)) if code == 200 else {}

    def ready(self) -> bool:
        """Whether `/readyz` says 200."""
        return self.get("/readyz")[0] == 200

    def wait_healthy(self) -> "NodeProcess":
        """Wait until `/healthz` says 200."""
        self._wait_for(lambda: self.get("/healthz")[0] == 200, "healthz 200")
        return self

    def wait_ready(self, limit_s: float = WAIT_LIMIT_S) -> "NodeProcess":
        """Wait until this node leads and takes writes."""
        self._wait_for(self.ready, "readyz 200", limit_s)
        return self

    def wait_in_sync_set(self, standby: str) -> None:
        """Wait until this leader counts `standby` in its sync set."""
        self._wait_for(lambda: standby in self.status().get("sync_set", ()), f"{standby} in the sync set")

    def _wait_for(self, probe: Callable[[], bool], what: str, limit_s: float = WAIT_LIMIT_S) -> None:
        def probe_alive() -> bool:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"{self.name} exited {self.process.returncode}:\n{self.log()[-4000:]}")
            return probe()

        try:
            eventually(probe_alive, f"{self.name}: {what}", limit_s)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\nstatus: {self.status()}\n{self.log()[-4000:]}") from None

    def log(self) -> str:
        """Everything it wrote to stderr so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def repository(self, name: str) -> Path:
        """Where this node keeps the repository `name`."""
        return self.data_dir / "repositories" / f"{name}.git"


@dataclass(frozen=True)
class Client:
    """A developer's machine: a key, a work folder, git and ssh."""

    home: Path
    key: Path
    known_hosts: Path

    def ssh_argv(self, *options: str) -> list[str]:
        """The ssh command with this client's key and the cluster's pinned host key."""
        return [
            "ssh", "-F", "/dev/null", "-i", str(self.key),
            "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "BatchMode=yes",
            "-o", "HostKeyAlias=stargate", "-o", f"UserKnownHostsFile={self.known_hosts}",
            "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR",
            *options,
        ]  # fmt: skip

    def ssh(
        self,
        node: NodeProcess,
        *words: str,
        stdin: bytes = b"",
        options: tuple[str, ...] = (),
        limit_s: float = 30,
    ) -> subprocess.CompletedProcess[bytes]:
        """`ssh -p PORT git@node WORDS…`."""
        return subprocess.run(
            [*self.ssh_argv(*options), "-p", str(node.ssh_port), "git@127.0.0.1", *words],
            input=stdin, capture_output=True, timeout=limit_s, check=False,
        )  # fmt: skip

    def url(self, node: NodeProcess, repository: str) -> str:
        """The URL of a repository on one node."""
        return f"ssh://git@127.0.0.1:{node.ssh_port}/{repository}"

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment git runs in: this client's home and name, whoever runs the tests or the bench."""
        author = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Test"), ("EMAIL", "test@example.org"))
        }
        own = {"HOME": str(self.home), "GIT_SSH_COMMAND": " ".join(self.ssh_argv())}
        return {**os.environ, **author, "GIT_CONFIG_NOSYSTEM": "1", **own, **extra}

    def git(
        self, *args: str, cwd: Path | None = None, ok: bool = True, limit_s: float = 60, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run git; with `ok`, anything but exit 0 fails the test with its output."""
        done = subprocess.run(
            ["git", *args], cwd=cwd or self.home, env=self.environment(**env), check=False,
            capture_output=True, text=True, errors="surrogateescape", timeout=limit_s,
        )  # fmt: skip
        if ok and done.returncode:
            raise AssertionError(f"git {' '.join(args)} exited {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def work_tree(self, name: str, *, object_format: str = "sha1") -> Path:
        """A new repository with one commit on `main`."""
        path = self.home / name
        self.git("init", "-q", "-b", "main", f"--object-format={object_format}", str(path))
        self.commit(path, "first")
        return path

    def commit(self, work_tree: Path, text: str, *, size_bytes: int = 0) -> str:
        """One more commit in `work_tree`; its oid."""
        (work_tree / "file").write_text(f"{text}\n")
        if size_bytes:
            (work_tree / "blob").write_bytes(os.urandom(size_bytes))
        self.git("add", "-A", cwd=work_tree)
        self.git("commit", "-q", "-m", text, cwd=work_tree)
        return self.git("rev-parse", "HEAD", cwd=work_tree).stdout.strip()


@dataclass
class Cluster:
    """Nodes that share a lock volume, and a client that may do everything."""

    root: Path
    nodes: list[NodeProcess]
    client: Client
    extra_processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    bootstrap_options: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> NodeProcess:
        return next(node for node in self.nodes if node.name == name)

    @property
    def lock_path(self) -> Path:
        """The leader lock's file."""
        return self.root / "shared" / "leader.lock"

    def bootstrap(self, node: NodeProcess | None = None) -> subprocess.CompletedProcess[str]:
        """`stargate bootstrap` on the first node, or on `node`."""
        node = node or self.nodes[0]
        node.write_config()
        return subprocess.run(
            [*STARGATE, "bootstrap", *self.bootstrap_options, "-c", str(node.config_file)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    def start(self) -> "Cluster":
        """Bootstrap, start every node; the first leads and has the others in its sync set."""
        done = self.bootstrap()
        assert done.returncode == 0, done.stderr
        for node in self.nodes:
            node.start()
        self.nodes[0].wait_ready()
        for node in self.nodes[1:]:
            self.nodes[0].wait_in_sync_set(node.name)
        return self

    def leader(self, limit_s: float = WAIT_LIMIT_S) -> NodeProcess:
        """The node that takes writes, once there is one."""
        return (
            eventually(lambda: next((n for n in self.nodes if n.ready()), None), "a leader", limit_s)
            or self.nodes[0]
        )

    def standby(self) -> NodeProcess:
        """A node that runs and does not lead."""
        leader = self.leader()
        return next(n for n in self.nodes if n is not leader and n.process is not None)

    def wait_equal(self, limit_s: float = WAIT_LIMIT_S) -> dict[str, str]:
        """Wait until every node's repositories hold the same; that content, by repository."""

        def equal() -> bool:
            first, *others = [content(node) for node in self.nodes]
            return all(other == first for other in others)

        try:
            eventually(equal, "equal content", limit_s)
        except TimeoutError as error:
            contents = "\n".join(f"{node.name}: {content(node)}\n{node.log()[-2000:]}" for node in self.nodes)
            raise TimeoutError(f"{error}\n{contents}") from None
        return content(self.nodes[0])

    def end(self) -> None:
        """End everything that was started."""
        for process in self.extra_processes:
            process.kill()
            process.wait(WAIT_LIMIT_S)
        for node in self.nodes:
            node.end()


def content(node: NodeProcess) -> dict[str, str]:
    """What the repositories of a node hold: HEAD and every ref but the reserved, by repository name."""
    found: dict[str, str] = {}
    root = node.data_dir / "repositories"
    for path in _bare_repositories(root):
        refs = subprocess.run(
            ["git", "--git-dir", str(path), "for-each-ref", "--format=%(objectname) %(refname)"],
            capture_output=True, timeout=30, check=False,
        ).stdout  # fmt: skip
        with contextlib.suppress(FileNotFoundError):
            lines = [
                line
                for line in refs.decode(errors="surrogateescape").splitlines()
                if " refs/stargate/" not in line
            ]
            found[str(path.relative_to(root))] = "\n".join([(path / "HEAD").read_text().strip(), *lines])
    return found


def _bare_repositories(root: Path) -> Iterator[Path]:
    """As a node sees them: nothing below a dot folder, which a running node may rename at any time."""
    for folder, below, _ in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if "objects" in below:
            below.clear()
            yield Path(folder)


def make_cluster(root: Path, *, nodes: int = 2, overrides: Mapping[str, Any] | None = None) -> Cluster:
    """Keys, YAML files and folders of a cluster below `root`; nothing runs yet.

    `overrides` are merged into every node's YAML, section by section.
    """
    (root / "shared").mkdir(parents=True)
    host_key = make_key(root / "keys" / "ssh_host_ed25519_key", comment="stargate host")
    cluster_key = make_key(root / "keys" / "cluster_ed25519_key", comment="stargate cluster")
    home = root / "client"
    user_key = make_key(home / "id_ed25519", comment="dev@example.org")
    authorized_keys = root / "keys" / "authorized_keys"
    authorized_keys.write_text(
        'restrict,environment="STARGATE_USER=dev",environment="STARGATE_ACCESS=admin" '
        + user_key.with_suffix(".pub").read_text()
    )
    known_hosts = root / "client" / "known_hosts"
    known_hosts.write_text("stargate " + host_key.with_suffix(".pub").read_text())
    made = []
    for index in range(nodes):
        name = f"node-{chr(ord('a') + index)}"
        config: dict[str, Any] = {
            "node": {"name": name, "data_dir": str(root / name)},
            "cluster": {"name": "test", "address": "stargate.local:2222", "key": str(cluster_key)},
            "ssh": {
                "listen": f"127.0.0.1:{free_port()}",
                "host_keys": [str(host_key)],
                "authorized_keys": str(authorized_keys),
            },
            "election": {"engine": "flock", "flock": {"path": str(root / "shared" / "leader.lock")}},
            "health": {"listen": f"127.0.0.1:{free_port()}"},
            "log": {"format": "json", "level": "debug"},
        }
        for section, values in (overrides or {}).items():
            config[section] = {**config.get(section, {}), **values}
        made.append(NodeProcess(name, root / f"{name}.yaml", config, root / f"{name}.log"))
    return Cluster(root, made, Client(home, user_key, known_hosts))


@contextlib.contextmanager
def running_cluster(root: Path, **options: Any) -> Iterator[Cluster]:
    """A started cluster that is ended whatever happens."""
    cluster = make_cluster(root, **options)
    try:
        yield cluster.start()
    finally:
        cluster.end()
