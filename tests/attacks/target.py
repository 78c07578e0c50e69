"""What is attacked: two nodes, with a well-behaved client at another address, and checks during an attack."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cluster import Client, Cluster, NodeProcess, eventually, make_key, running_cluster
from tests.support.rawssh import UserKey

ATTACKER = (
    "127.0.0.1"  # the nodes have this address, too, so the standby connects from the attacker's address
)
GOOD = "127.0.0.2"
MAX_NODE_MIB = 200
PUSH_LIMIT_S = 60.0
IN_SYNC_LIMIT_S = 60.0  # a restarted standby under attack, on a busy machine
WANTED_FILES = 8192  # open files of the attacker, or fewer if the system allows no more


@dataclass
class Target:
    """One running cluster. `short`: a fraction of the load."""

    cluster: Cluster
    short: bool
    say: Callable[[str], None]
    work: Path = field(init=False)
    idle_push_s: float = field(init=False)
    idle_health_s: float = field(init=False)
    _reader: UserKey | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.work = self.client.work_tree("attacked")
        self.push()
        self.idle_push_s = min(self.push() for _ in range(3))
        self.idle_health_s = min(self.health() for _ in range(3))

    @property
    def client(self) -> Client:
        """The well-behaved client."""
        return self.cluster.client

    @property
    def leader(self) -> NodeProcess:
        """node-a. It leads from the start, and no attack may change that."""
        return self.cluster.nodes[0]

    @property
    def standby(self) -> NodeProcess:
        """node-b."""
        return self.cluster.nodes[1]

    @property
    def reader(self) -> UserKey:
        """A key with read access that the attacker has."""
        if self._reader is None:
            path = make_key(self.cluster.root / "keys" / "reader", comment="reader")
            line = 'restrict,environment="STARGATE_ACCESS=read" ' + path.with_suffix(".pub").read_text()
            keys = self.cluster.root / "keys" / "authorized_keys"
            keys.write_text(keys.read_text() + line)
            self._reader = UserKey.load(path)
        return self._reader

    def scaled(self, full: int, short: int) -> int:
        """`full`, or `short` for a short attack."""
        return short if self.short else full

    def push(self, source: str = GOOD) -> float:
        """A commit pushed to the leader from `source`; seconds. Fails if it is refused."""
        self.client.commit(self.work, f"at {time.monotonic_ns()}")
        ssh = " ".join(self.client.ssh_argv("-b", source))
        began = time.monotonic()
        url = self.client.url(self.leader, "attacked")
        self.client.git(
            "push", "-q", url, "HEAD:main", cwd=self.work, limit_s=PUSH_LIMIT_S, GIT_SSH_COMMAND=ssh
        )
        return time.monotonic() - began

    def health(self) -> float:
        """One /healthz of the leader, healthy or not; seconds. Fails if there is no answer."""
        began = time.monotonic()
        code, _ = self.leader.get("/healthz", limit_s=PUSH_LIMIT_S)
        assert code in {200, 503}, "no answer from /healthz"
        return time.monotonic() - began

    def memory_mib(self) -> int:
        """The memory of the leader's own process."""
        status = Path(f"/proc/{self.leader.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    def check(self, what: str) -> None:
        """Check what must be true during every attack, and print durations and memory."""
        self.nodes_run(what)
        push_s, health_s = self.push(), self.health()
        memory = self.memory_mib()
        self.nodes_run(what)
        self.say(
            f"{what}: push {push_s / self.idle_push_s:.1f}, /healthz {health_s / self.idle_health_s:.1f} "
            f"times as long as idle; node {memory} MiB"
        )
        assert memory < MAX_NODE_MIB, f"{what}: the node has {memory} MiB"

    def nodes_run(self, what: str) -> None:
        """No node has ended, and the leader still leads."""
        for node in self.cluster.nodes:
            assert node.process is not None
            assert node.process.poll() is None, f"{what}: {node.name} ended\n{node.log()[-3000:]}"

    def restart_standby(self, what: str) -> None:
        """Kill the standby, start it, and wait until it is in the sync set. It has the attacker's address."""
        self.standby.kill()
        eventually(lambda: self.standby.name not in self.leader.status()["sync_set"], "the standby is missed")
        began = time.monotonic()
        self.standby.start()
        self.in_sync(what)
        self.say(f"{what}: a restarted standby was in the sync set after {time.monotonic() - began:.1f} s")

    def in_sync(self, what: str) -> None:
        """Wait until the standby is in the sync set."""
        eventually(
            lambda: self.standby.name in self.leader.status().get("sync_set", ()),
            f"{what}: the standby in the sync set",
            IN_SYNC_LIMIT_S,
        )


@contextmanager
def attacked_cluster(root: Path, *, short: bool, say: Callable[[str], None]) -> Iterator[Target]:
    """A started cluster with default settings. The attacker may open as many files as the system allows."""
    with running_cluster(root, overrides={"log": {"format": "json", "level": "info"}}) as cluster:
        before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, wanted), hard))
        try:
            yield Target(cluster, short, say)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
