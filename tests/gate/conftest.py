"""A whole gate on loopback: real store, processes, locks, hook and listener. A test sets who leads."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from stargate_gate.access.host_keys import load_or_make_host_keys, public_key_of
from stargate_gate.datadir.layout import DataDir, open_data_dir
from stargate_gate.datadir.locks import LeadingLock
from stargate_gate.datadir.writers import WritersLock
from stargate_gate.errors import NotLeaderError, RepositoryGoneError
from stargate_gate.gate.commands import GateView, PeerCommand, not_leader_message
from stargate_gate.gate.ports import Changes, Channel
from stargate_gate.gate.session import Gate, GateSettings
from stargate_gate.gate.ssh.server import ServerSettings, SshServer
from stargate_gate.node.leadership import WriteScopes
from stargate_gate.repos.hooks import install_hooks
from stargate_gate.repos.identities import RepositoryIdentity
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store
from tests.support.clients import Done, git_ssh_environment, run, ssh_argv
from tests.support.cluster import make_key

LEADER = GateView(accepting=True, node="node-b", leader="node-b", leader_url=None, leader_alive=True)
STANDBY = GateView(
    accepting=False,
    node="node-b",
    leader="node-a",
    leader_url="ssh://a.example:2222",
    leader_alive=True,
)
LEADERLESS = replace(STANDBY, leader=None, leader_url=None, leader_alive=False)
NO_LEADER_HERE = "not leader: node-b is a standby; the leader is node-a at ssh://git@a.example:2222"
REFUSAL = f"{NO_LEADER_HERE}/org/app"  # of a push to that repository


class FakeLeadership:
    """A `Leadership` that a test sets. The leading lock is real: the hook asks for it."""

    def __init__(self, lock: LeadingLock, changes: "Ledger") -> None:
        self._lock = lock
        self._changes = changes
        self._view = LEADERLESS
        self._changed = asyncio.Event()
        self.proved = True
        self.scopes = WriteScopes(self._changes)

    async def lead(self) -> None:
        """This node leads and accepts writes."""
        await self._lock.acquire(5)
        self.scopes = WriteScopes(self._changes)
        self.set(LEADER)

    def set(self, view: GateView) -> None:
        """From now on this is the view. The leading lock is released if this node does not lead."""
        if not view.accepting:
            self._lock.release()
        self._view = view
        self._changed.set()

    def view(self) -> GateView:
        return self._view

    async def wait_decided(self, limit_s: float) -> GateView:
        try:
            async with asyncio.timeout(limit_s):
                while not (self._view.accepting or self._view.leader_alive):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._view

    def still_leads(self) -> bool:
        return self.proved and self._view.accepting

    def token(self) -> str:
        return self._lock.token

    def writing(self) -> AbstractAsyncContextManager[Changes]:
        if not self._view.accepting:
            raise NotLeaderError(not_leader_message(self._view))
        return self.scopes.scope()


async def at_once(name: str, position: int) -> None:
    """The sync set has it already."""


@dataclass
class Ledger:
    """`Changes`, `Peers` and `Reports` that remember and answer. `replicas` waits as the sync set would."""

    replicas: Callable[[str, int], Awaitable[None]] = at_once
    position: int = 0
    members: frozenset[str] = frozenset()
    waiting: dict[str, int] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)
    counted: list[tuple[str, object]] = field(default_factory=list)
    well: bool = True
    leads: bool = True
    store: Store | None = None
    names: dict[str, RepositoryName] = field(default_factory=dict)  # by id

    async def writing(self, identity: RepositoryIdentity) -> None:
        self.told.append(("writing", str(await self._name(identity))))

    async def written(self, identity: RepositoryIdentity) -> int:
        return self._tell("written", await self._name(identity))

    async def pushed(self, identity: RepositoryIdentity) -> int:
        return self._tell("pushed", await self._name(identity))

    async def created(self, identity: RepositoryIdentity) -> int:
        return self._tell("created", await self._name(identity))

    async def deleted(self, name: RepositoryName, identity: str) -> int:
        self.names[identity] = name
        return self._tell("deleted", name)

    def sync_set(self) -> frozenset[str]:
        return self.members

    def waits_for(self, identity: str, position: int) -> dict[str, int]:
        return self.waiting

    async def replicated(self, identity: str, position: int) -> None:
        self.told.append(("replicated", str(self.names[identity])))
        assert position <= self.position
        await self.replicas(str(self.names[identity]), position)

    async def _name(self, identity: RepositoryIdentity) -> RepositoryName:
        """What it is called now. Raises as the feed does where it is gone."""
        assert self.store is not None
        repository = await self.store.register.whereabouts(identity)
        if repository is None:
            raise RepositoryGoneError("it was deleted")
        self.names[identity.id] = repository.name
        return repository.name

    def _tell(self, what: str, name: RepositoryName) -> int:
        self.told.append((what, str(name)))
        self.position += 1
        return self.position

    def worked_for(self, identity: str, peer_of: str) -> None:
        self.told.append(("worked_for", identity))

    async def run(self, command: PeerCommand, channel: Channel, peer_of: str) -> int:
        await channel.write(f"{' '.join(command.words)} from {peer_of}\n".encode())
        return 0

    def session_ended(self, command: str, exit_status: int | None, duration_s: float) -> None:
        self.counted.append((command, exit_status))

    def push_refused(self, reason: str) -> None:
        self.counted.append(("refused", reason))

    def healthy(self) -> tuple[bool, str]:
        return self.well, "healthy" if self.well else "unhealthy: git does not run"

    def ready(self) -> tuple[bool, str]:
        return self.leads, "ready: leads term 1" if self.leads else "not leader: node-b follows node-a"

    def status(self, *, as_json: bool = False) -> tuple[int, str]:
        text = '{"node": "node-b"}' if as_json else "node-b  leader\nterm    1\n"
        return 0 if self.well else 2, text


class Node:
    """The running gate and its clients."""

    def __init__(self, root: Path, keys: dict[str, Path]) -> None:
        self.root = root
        self.datadir: DataDir = open_data_dir(root / "data")
        install_hooks(self.datadir)
        self.keys = keys
        lines = [
            f'environment="STARGATE_ACCESS={access}" {self.keys[access].with_suffix(".pub").read_text()}'
            for access in ("read", "write", "admin")
        ]
        (root / "authorized_keys").write_text("".join(lines))
        self.settings = ServerSettings(
            listen=(("127.0.0.1", 0),),
            authorized_keys=root / "authorized_keys",
            cluster_key=public_key_of(self.keys["cluster"]),
        )
        self.gate_settings = GateSettings(
            hooks=self.datadir.hooks, spill=self.datadir.run, handover_wait_s=0.3, queue_wait_s=0.3
        )
        self.ledger = Ledger()
        self.lock = LeadingLock(self.datadir)
        self.leadership = FakeLeadership(self.lock, self.ledger)
        self.writers: WritersLock
        self.processes: GitProcesses
        self.store: Store
        self.gate: Gate
        self.server: SshServer
        self.port = 0

    async def start(self) -> None:
        """Everything, leading."""

        async def nothing_to_sweep(_: object) -> None:
            pass

        self.writers = await WritersLock.open_exclusively_then_share(self.datadir, nothing_to_sweep)
        self.processes = GitProcesses(self.datadir, self.writers)
        self.store = Store(self.datadir, self.processes, default_branch="main", trash_days=7)
        self.ledger.store = self.store
        await self.leadership.lead()
        await self.open()

    async def open(self) -> None:
        """The gate and its listener, with the settings as they are."""
        self.gate = Gate(
            self.store,
            self.processes,
            self.leadership,
            self.ledger,
            self.ledger,
            self.ledger,
            self.gate_settings,
        )
        self.server = SshServer(self.gate, load_or_make_host_keys(self.datadir.state), self.settings)
        ((_, self.port),) = await self.server.start()

    async def reopen(self, **changes: object) -> None:
        """The same with other gate settings."""
        await self.server.close()
        self.gate_settings = replace(self.gate_settings, **changes)  # type: ignore[arg-type]
        await self.open()

    async def stop(self) -> None:
        """Close everything. What is left open fails the test."""
        await self.server.close()
        await self.processes.end_all()
        self.writers.close()
        self.lock.release()

    def running(self) -> int:
        """How many sessions have a share now."""
        return len(self.gate._admission._admission._running)

    def url(self, name: str = "org/app") -> str:
        """The URL of a repository."""
        return f"ssh://git@127.0.0.1:{self.port}/{name}"

    def path(self, name: str = "org/app") -> Path:
        """Where the repository lies on this node."""
        return self.datadir.repositories / f"{name}.git"

    async def make(self, name: str = "org/app", **options: str) -> Repository:
        """An empty repository."""
        return await self.store.create(parse_repository_name(name), **options)

    async def git(
        self, *words: str | Path, key: str = "write", cwd: Path | None = None, protocol: int = 2
    ) -> Done:
        """Git as a user runs it."""
        environment = git_ssh_environment(self.keys[key])
        return await run(
            "git", "-c", f"protocol.version={protocol}", *words, env=environment, cwd=cwd or self.root
        )

    async def ssh(self, *words: str, key: str = "write", o: tuple[str, ...] = (), stdin: bytes = b"") -> Done:
        """OpenSSH's client as a user runs it."""
        return await run(*ssh_argv(self.port, self.keys[key], *o), *words, stdin=stdin)

    def refs(self, name: str = "org/app") -> dict[str, str]:
        """What the repository on this node holds."""
        listed = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=self.path(name))
        return dict(line.split() for line in listed.splitlines())  # type: ignore[arg-type]

    def debris(self, name: str = "org/app") -> list[str]:
        """Lock files and temporary packs that should not be there."""
        return [
            str(path.relative_to(self.path(name)))
            for path in self.path(name).rglob("*")
            if path.name.endswith(".lock") or path.name.startswith(("tmp_", ".tmp-"))
        ]


def git(*words: str, cwd: Path, stdin: bytes = b"") -> str:
    """Git on local files."""
    return subprocess.run(
        ["git", *words], cwd=cwd, input=stdin, capture_output=True, check=True, timeout=60
    ).stdout.decode()


def work_tree(path: Path, *files: str, branch: str = "main", object_format: str = "sha1") -> Path:
    """A fresh work tree with one commit that holds these files."""
    path.mkdir(parents=True)
    git("init", "-q", "-b", branch, f"--object-format={object_format}", cwd=path)
    git("config", "core.compression", "0", cwd=path)
    commit(path, *(files or ("README",)))
    return path


def commit(path: Path, *files: str) -> str:
    """One more commit; its id."""
    for name in files:
        (path / name).write_text(f"{name}\n")
    git("add", ".", cwd=path)
    git("commit", "-q", "--allow-empty", "-m", "change", cwd=path)
    return git("rev-parse", "HEAD", cwd=path).strip()


def connect(node: Node, key: str = "write", **options: Any) -> Any:
    """An asyncssh client, to await or to enter."""
    where = {} if "sock" in options else {"host": "127.0.0.1", "port": node.port}
    return asyncssh.connect(
        username="git",
        client_keys=[node.keys[key]],
        known_hosts=None,
        config=None,
        agent_path=None,
        **where,
        **options,
    )


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One user key per access, and the cluster's."""
    root = tmp_path_factory.mktemp("keys")
    accesses = ("read", "write", "admin", "cluster")
    return {access: make_key(root / access, comment=f"{access}@test") for access in accesses}


@pytest.fixture
async def node(tmp_path: Path, keys: dict[str, Path]) -> AsyncIterator[Node]:
    """A gate that leads."""
    running = Node(tmp_path, keys)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
