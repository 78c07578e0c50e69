"""Writers that push all the time to whichever node leads, and what each of their pushes was told.

A branch belongs to one writer, so what it may hold is known: the newest acknowledged value, or one that
was tried after it and not refused.
"""

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Self

from tests.support.cluster import Cluster, NodeProcess

PUSH_LIMIT_S = 15.0  # a client whose leader is frozen gives up then
ASK_LIMIT_S = 0.5  # for a node's readyz: a frozen one says nothing
FIND_POLL_S = 0.05


class Told(Enum):
    """What a client knows of its push."""

    OK = "ok"
    REFUSED = "refused"  # nothing has happened, for certain
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Push:
    """One attempt: branch `ref` of `repository` to `oid`."""

    repository: str
    ref: str
    oid: str
    told: Told
    message: str


def told(status: int, stderr: str) -> Told:
    """What git's exit status and words say of a push. Certain refusals come from the gate or the hook."""
    if status == 0:
        return Told.OK
    if "not leader" in stderr and "unknown" not in stderr:
        return Told.REFUSED
    return Told.UNKNOWN


@dataclass
class Ledger:
    """Every push of one branch, in order. Safe to read while its writer writes."""

    pushes: list[Push] = field(default_factory=list)

    def acknowledged(self) -> str | None:
        """The newest value of which a client was told "ok"."""
        return next((push.oid for push in reversed(self.pushes[:]) if push.told is Told.OK), None)

    def allowed_since(self, acknowledged: str | None) -> set[str]:
        """What the branch may hold, if that was acknowledged: it, or what was tried later."""
        pushes = self.pushes[:]
        oids = [push.oid for push in pushes]
        later = pushes[oids.index(acknowledged) :] if acknowledged is not None else pushes
        return {push.oid for push in later if push.told is not Told.REFUSED}


class Writer:
    """One developer: commits and pushes to a branch of its own until told to stop."""

    def __init__(self, cluster: Cluster, number: int, repository: str, seed: int) -> None:
        self.ledger = Ledger()
        self.repository = repository
        self.ref = f"refs/heads/writer-{number}"
        self.error: BaseException | None = None
        self.trying: str | None = None  # the value of a push that runs now
        self._cluster = cluster
        self._random = random.Random(seed)
        self._work = cluster.client.home / f"writer-{number}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._count = 0
        cluster.client.git("init", "-q", "--bare", str(self._work))
        self._tree = cluster.client.git(
            "hash-object", "-w", "-t", "tree", "/dev/null", cwd=self._work
        ).stdout.strip()

    def start(self) -> None:
        """In a thread of its own."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """After the push that runs."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the end; raises what has ended it before its time."""
        self._thread.join(2 * PUSH_LIMIT_S)
        assert not self._thread.is_alive(), f"{self.ref} does not end"
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            node = None
            while not self._stop.is_set():
                node = node or find_leader(self._cluster.nodes, self._stop)
                if node is not None and self._push(node).told is not Told.OK:
                    node = None
        except BaseException as error:  # noqa: BLE001  # raised again by `join`
            self.error = error

    def _push(self, node: NodeProcess) -> Push:
        """A new commit on top of what was acknowledged, or of what may have come through."""
        tried = self.ledger.pushes[-1].oid if self.ledger.pushes else None
        base = tried if self._random.random() < 0.5 else self.ledger.acknowledged()
        oid = self._commit(base)
        self.trying = oid
        url = self._cluster.client.url(node, self.repository)
        status, text = self._git("push", "--quiet", url, f"+{oid}:{self.ref}")
        push = Push(self.repository, self.ref, oid, told(status, text), text)
        self.ledger.pushes.append(push)
        self.trying = None
        return push

    def _commit(self, base: str | None) -> str:
        self._count += 1
        parents = ("-p", base) if base is not None else ()
        status, text = self._git("commit-tree", self._tree, *parents, "-m", f"{self.ref} {self._count}")
        assert status == 0, text
        return text.strip()

    def _git(self, *args: str) -> tuple[int, str]:
        """Exit status and everything it says; -9 when it was ended at the limit."""
        process = subprocess.Popen(
            ["git", *args],
            cwd=self._work,
            env=self._cluster.client.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            text, _ = process.communicate(timeout=PUSH_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            text, _ = process.communicate(timeout=PUSH_LIMIT_S)
            return -9, f"{text}\nended by the test: nobody answered; the outcome is unknown"
        return process.returncode, text


def find_leader_now(nodes: Sequence[NodeProcess]) -> NodeProcess | None:
    """The first node that says that it leads, if any does."""
    return next((node for node in nodes if node.get("/readyz", ASK_LIMIT_S)[0] == 200), None)


def find_leader(nodes: Sequence[NodeProcess], stop: threading.Event) -> NodeProcess | None:
    """The first node that says that it leads; None once `stop` is set."""
    while not stop.is_set():
        if (leader := find_leader_now(nodes)) is not None:
            return leader
        stop.wait(FIND_POLL_S)
    return None


class Crew:
    """Some writers, each with a branch, spread over some repositories. A context manager."""

    def __init__(self, cluster: Cluster, *, writers: int, repositories: int, seed: int) -> None:
        self._cluster = cluster
        self.writers = [
            Writer(cluster, number, f"org/app{number % repositories}", seed * 1000 + number)
            for number in range(writers)
        ]

    def __enter__(self) -> Self:
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Every push has ended when this returns. Can be repeated."""
        for writer in self.writers:
            writer.ask_to_stop()
        for writer in self.writers:
            writer.join()

    def acknowledged(self) -> int:
        """How many pushes were told "ok" so far."""
        return sum(push.told is Told.OK for writer in self.writers for push in writer.ledger.pushes[:])

    def check(self, read_refs: Callable[[str], dict[str, str]]) -> None:
        """Every acknowledged push is there, and nothing that was refused.

        `read_refs` gives the refs of a repository, by name; it is asked after the acknowledgements that
        count were noted, and before the attempts that may have moved the branch on since.
        """
        noted = [(writer, writer.ledger.acknowledged()) for writer in self.writers]
        refs = {name: read_refs(name) for name in {writer.repository for writer in self.writers}}
        for writer, acknowledged in noted:
            trying = writer.trying
            allowed = writer.ledger.allowed_since(acknowledged)
            found = refs[writer.repository].get(writer.ref)
            if found is None and acknowledged is None:
                continue
            assert found is not None, f"{writer.repository} {writer.ref}: {acknowledged} was acknowledged"
            assert found in {*allowed, trying}, self._account(writer, acknowledged, found)

    def _account(self, writer: Writer, acknowledged: str | None, found: str | None) -> str:
        history = [
            f"{push.oid} {push.told.value} {push.message.strip()!r}" for push in writer.ledger.pushes[-8:]
        ]
        lines = "\n".join(history)
        return (
            f"{writer.repository} {writer.ref} is {found}, acknowledged was {acknowledged}; pushes:\n{lines}"
        )

    def summary(self) -> str:
        """How often which answer came, for the test's output."""
        pushes = [push for writer in self.writers for push in writer.ledger.pushes]
        counts = {kind.value: sum(push.told is kind for push in pushes) for kind in Told}
        return json.dumps(counts)


def refs_of(node: NodeProcess, repository: str) -> dict[str, str]:
    """The refs of a repository as they are on a node's disk, by name."""
    path = node.repository(repository)
    if not path.is_dir():
        return {}
    done = subprocess.run(
        ["git", "--git-dir", str(path), "for-each-ref", "--format=%(refname) %(objectname)"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return dict(line.split(" ") for line in done.stdout.splitlines())


def leftovers(node: NodeProcess) -> list[Path]:
    """Lock files and temporary files of git in the repositories of a node that nobody writes to."""
    root = node.data_dir / "repositories"
    patterns = ("*.lock", "tmp_pack_*", "tmp_idx_*", "tmp_obj_*", "tmp_objdir-*", "incoming-*", ".new-*")
    return sorted(path for pattern in patterns for path in root.rglob(pattern))


def damage(node: NodeProcess) -> list[str]:
    """What `git fsck` says against the repositories of a node; nothing if they are well."""
    said = []
    for head in sorted((node.data_dir / "repositories").rglob("HEAD")):
        done = subprocess.run(
            ["git", "--git-dir", str(head.parent), "fsck", "--full", "--strict", "--no-dangling"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            said.append(f"{head.parent}: {done.stdout}{done.stderr}")
    return said


def wait_until_tidy(node: NodeProcess, limit_s: float = 15.0) -> None:
    """Wait until nothing of a killed git is left: a push that is reaped sweeps its repository."""
    until = time.monotonic() + limit_s
    while found := leftovers(node):
        assert time.monotonic() < until, f"{node.name} keeps {found}"
        time.sleep(FIND_POLL_S)
