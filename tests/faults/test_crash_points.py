"""A node dies at one certain point of a push. What its client was told, and who has the commit then.

Acknowledged is never lost. What was not acknowledged is on every node in the end, or on none.
"""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stargate_gate.election.flock.lockfile import read_slots, record_of
from stargate_gate.election.port import ClusterRecord
from stargate_gate.replication.standby.intent import Intent
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.repos.plan import RefChange
from tests.faults.conftest import MakeCluster
from tests.support.by_hand import rescued, served
from tests.support.cluster import Client, Cluster, NodeProcess, eventually
from tests.support.git import git
from tests.support.line import Line
from tests.support.nodelog import complete_log
from tests.support.pushers import Told, damage, refs_of, told, wait_until_tidy
from tests.support.trap import Trap, ref_lock

REF = "refs/heads/trap"
REPOSITORY = "org/app"
PATIENT = {"ack_timeout_s": 20, "ack_max_s": 40}  # nobody gets late in these tests
CALM = {"heartbeat_s": 1, "watchdog_s": 20, "lease_s": 30}  # a traced node is slow, and no proof is missed
SILENT = {"heartbeat_s": 20, "watchdog_s": 30, "lease_s": 60}  # no heartbeat falls between record writes


class _Push:
    """One push of a new commit to REF, that runs while the test does something to the nodes."""

    def __init__(self, cluster: Cluster, tree: Path, port: int) -> None:
        self.oid = cluster.client.commit(tree, "in the trap")
        self._client: Client = cluster.client
        self._tree = tree
        self._process = subprocess.Popen(
            ["git", "push", f"ssh://git@127.0.0.1:{port}/{REPOSITORY}", f"{self.oid}:{REF}"],
            cwd=tree,
            env=self._client.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def runs(self) -> bool:
        """Its client was not told anything that ends a push."""
        return self._process.poll() is None

    def answer(self) -> tuple[Told, str]:
        """What its client was told in the end."""
        text, _ = self._process.communicate(timeout=30)
        return told(self._process.returncode, text), text

    def repeat(self, node: NodeProcess) -> str:
        """The same push again, to `node`; it has to be acknowledged. What git says of it."""
        url = self._client.url(node, REPOSITORY)
        return self._client.git("push", url, f"{self.oid}:{REF}", cwd=self._tree).stderr


@contextmanager
def _pushing(cluster: Cluster, tree: Path, port: int) -> Iterator[_Push]:
    push = _Push(cluster, tree, port)
    try:
        yield push
    finally:
        push._process.kill()
        push._process.communicate()


def _begin(cluster: Cluster) -> Path:
    """Nodes in sync that have `main`; the working copy it came from."""
    cluster.start()
    tree = cluster.client.work_tree("app")
    cluster.client.git("push", "-q", cluster.client.url(cluster["node-a"], REPOSITORY), "main", cwd=tree)
    cluster.wait_equal()
    return tree


def _end(cluster: Cluster) -> dict[str, str]:
    """All nodes run, equal and whole; the refs that each of them has."""
    leader = cluster.leader()
    for node in cluster.nodes:
        if node is not leader:
            leader.wait_in_sync_set(node.name)
    cluster.wait_equal()
    for node in cluster.nodes:
        wait_until_tidy(node)
        assert damage(node) == []
    refs = refs_of(leader, REPOSITORY)
    assert "refs/heads/main" in refs, "it was acknowledged"
    return refs


def _has(node: NodeProcess, oid: str) -> bool:
    return refs_of(node, REPOSITORY).get(REF) == oid


def _lag(leader: NodeProcess) -> int:
    return sum(standby["lag_changes"] for standby in leader.status().get("standbys", ()))


def _record(cluster: Cluster) -> ClusterRecord:
    with cluster.lock_path.open("rb") as file:
        return record_of(cluster.lock_path, read_slots(cluster.lock_path, file.fileno()))


def test_after_the_commit_and_before_the_feed(make: MakeCluster) -> None:
    """Told: unknown. Only the dead leader has it; the new one does not, and the old one follows it."""
    cluster = make(replication=PATIENT, election=CALM)
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    with (
        Trap(a, "rename", ref_lock(a, REPOSITORY, REF), "STOP") as trap,
        _pushing(cluster, tree, a.ssh_port) as push,
    ):
        trap.wait_sprung()
        assert _has(a, push.oid)
        a.kill()
        assert push.answer()[0] is Told.UNKNOWN
    b.wait_ready()
    assert not _has(b, push.oid)
    a.start()
    assert REF not in _end(cluster)
    assert "[new branch]" in push.repeat(b)
    cluster.wait_equal()
    assert _has(a, push.oid)


def test_after_the_feed_and_before_the_standby_has_it(make: MakeCluster) -> None:
    """Told: unknown. The standby heard of it and could not fetch it; it leads without it."""
    cluster = make(replication=PATIENT, election=CALM)
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    b.signal(signal.SIGSTOP)
    with _pushing(cluster, tree, a.ssh_port) as push:
        eventually(lambda: _lag(a), "the change told")
        assert push.runs, "nobody but the leader has it"
        a.kill()
        assert push.answer()[0] is Told.UNKNOWN
    b.signal(signal.SIGCONT)
    b.wait_ready()
    assert not _has(b, push.oid)
    a.start()
    assert REF not in _end(cluster)


def test_after_the_standby_has_it_and_before_it_says_so(make: MakeCluster) -> None:
    """Told: unknown. The standby has it, leads with it, and both have it in the end."""
    cluster = make(replication=PATIENT, election=CALM)
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    with Trap(b, "rename", ref_lock(b, REPOSITORY, REF), "STOP") as trap:
        with _pushing(cluster, tree, a.ssh_port) as push:
            trap.wait_sprung()
            assert _has(b, push.oid)
            assert push.runs, "the standby has not said that it has it"
            assert _lag(a) == 1
            a.kill()
            assert push.answer()[0] is Told.UNKNOWN
        b.wait_ready()
    assert _has(b, push.oid)
    assert "Everything up-to-date" in push.repeat(b)
    a.start()
    assert _end(cluster)[REF] == push.oid


def test_what_a_killed_standby_left_to_the_system_is_on_disk_before_it_follows_again(
    make: MakeCluster,
) -> None:
    """It dies between git's rename and the sync of the folder, and is equal when it comes back.

    Until syncfs(2) has returned, the leader does not hear of it; with an error, it is not in sync. The scrub
    is off: strace counts the calls of each thread, and with more threads at work a second one may fail.
    """
    cluster = make(replication={"ack_timeout_s": 2}, election=CALM, scrub={"interval_days": 0})
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    with (
        Trap(b, "rename", ref_lock(b, REPOSITORY, REF), "STOP") as trap,
        _pushing(cluster, tree, a.ssh_port) as push,
    ):
        trap.wait_sprung()
        b.kill()
        assert push.answer()[0] is Told.OK, "the leader goes on alone"
    assert _has(b, push.oid)
    log = b.log_file.with_suffix(".syncfs")
    b.start(
        prefix=(
            *("strace", "-D", "-f", "-y", "--seccomp-bpf", "-o", str(log), "-e", "trace=syncfs"),
            *("-e", "inject=syncfs:error=EIO:signal=STOP:when=1"),
        )
    )
    eventually(lambda: log.exists() and "stopped by SIGSTOP" in log.read_text(), "the standby's first syncfs")
    joined = complete_log(a).count("standby_connected")
    assert "node-b" not in a.status()["sync_set"]
    b.signal(signal.SIGCONT)
    eventually(lambda: "Input/output error" in b.log(), "that it is not on disk")
    a.wait_in_sync_set("node-b")
    assert joined == 1, "before it was killed"
    calls = [line for line in log.read_text().splitlines() if "syncfs(" in line]
    assert ["EIO" in call for call in calls] == [True, False]
    assert all(f"<{b.data_dir}/repositories>" in call for call in calls)
    assert _end(cluster)[REF] == push.oid


def _leave_refused_change(node: NodeProcess) -> tuple[str, str]:
    """As if it had died within a change that this git refuses: main is gone, and nothing is there for it.

    Returns what main was, and the commit that the refused ref was to get.
    """
    repository = node.repository(REPOSITORY)
    main = git("rev-parse", "refs/heads/main", cwd=repository)
    identity = (repository / "stargate-id").read_text().strip()
    new = git("commit-tree", "-p", main, "-m", "received", f"{main}^{{tree}}", cwd=repository)
    gone, refused = RefChange("refs/heads/main", main, None), RefChange("refs/heads/a..b", None, new)
    intent = Intent(identity, REPOSITORY, ((gone,), (refused,)), "")
    asyncio.run(Intents(node.data_dir / "state/intents").put(intent))
    git("update-ref", "-d", "refs/heads/main", cwd=repository)
    return main, new


def test_a_change_that_cannot_be_completed_keeps_nobody_from_following(make: MakeCluster) -> None:
    """A newer git on the leader may take a ref that the standby's git refuses."""
    cluster = make(election=CALM)
    _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    b.kill()
    main, _ = _leave_refused_change(b)
    b.start()
    eventually(lambda: "intent_undone" in b.log(), "that it is said")
    a.wait_in_sync_set("node-b")
    assert _end(cluster)["refs/heads/main"] == main


def test_a_change_that_cannot_be_completed_keeps_nobody_from_leading(make: MakeCluster) -> None:
    """The value that was acknowledged before is there again. What was received is in `rescued list`.

    In `async` the lost leader may have acknowledged it.
    """
    cluster = make(election=CALM)
    _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    b.signal(signal.SIGSTOP)  # it dies in the sync set: its leader does not live to take it out
    a.kill()
    b.kill()
    main, received = _leave_refused_change(b)
    b.start()
    b.wait_ready()
    assert served(cluster, b, REPOSITORY).split() == [main, "HEAD", main, "refs/heads/main"]
    assert [(one["ref"], one["oid"]) for one in rescued(b)] == [("refs/heads/a..b", received)]
    a.start()
    assert _end(cluster)["refs/heads/main"] == main


def test_after_the_acknowledgement_and_before_the_report(make: MakeCluster) -> None:
    """Told: unknown, since the line breaks. All had it by then: the new leader has it, a repeat is ok."""
    cluster = make(replication=PATIENT, election=CALM)
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    b.signal(signal.SIGSTOP)
    with Line(a.ssh_port) as line, _pushing(cluster, tree, line.port) as push:
        eventually(lambda: _lag(a), "the change told")
        line.hold("down")
        b.signal(signal.SIGCONT)
        eventually(lambda: _has(b, push.oid) and not _lag(a), "the acknowledgement")
        assert push.runs
        a.kill()
        line.cut()
        assert push.answer()[0] is Told.UNKNOWN
    b.wait_ready()
    assert _has(b, push.oid)
    assert "Everything up-to-date" in push.repeat(b)
    a.start()
    assert _end(cluster)[REF] == push.oid


@pytest.mark.parametrize(("syscall", "when"), [("pwrite64", 1), ("fsync", 1), ("pwrite64", 2), ("fsync", 2)])
def test_during_the_record_write(make: MakeCluster, syscall: str, when: int) -> None:
    """Told: unknown. The leader dies while it takes a dead standby out of the record.

    Whether the standby may lead alone is what the record says then; either way the nodes end equal.
    """
    cluster = make(replication=PATIENT, election=SILENT)
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    b.signal(signal.SIGSTOP)
    with _pushing(cluster, tree, a.ssh_port) as push:
        eventually(lambda: _lag(a), "the change told")
        with Trap(a, syscall, [cluster.lock_path], "KILL", when=when) as trap:
            b.kill()
            trap.wait_sprung()
            a.wait()
        assert push.answer()[0] is Told.UNKNOWN
    named = {member.name for member in _record(cluster).sync_set}
    b.start()
    if "node-b" in named:
        b.wait_ready()
    else:
        eventually(lambda: "not in the sync set" in b.status().get("reason", ""), "why it does not lead")
        assert not b.ready()
    a.start()
    refs = _end(cluster)
    assert refs.get(REF) == (None if "node-b" in named else push.oid)


@pytest.mark.parametrize(
    ("syscall", "when"), [("pwrite64", 1), ("pwrite64", 3), ("fsync", 4), ("pwrite64", 6)]
)
def test_during_promotion(make: MakeCluster, syscall: str, when: int) -> None:
    """Nobody pushes, all was acknowledged. The only successor dies half-way, and leads when it is back."""
    cluster = make(replication=PATIENT, election=SILENT)
    tree = _begin(cluster)
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    oid = client.commit(tree, "acknowledged")
    client.git("push", "-q", client.url(a, REPOSITORY), f"{oid}:{REF}", cwd=tree)
    with Trap(b, syscall, [cluster.lock_path], "KILL", when=when) as trap:
        a.kill()
        trap.wait_sprung()
        b.wait()
    assert '"event": "leading"' not in b.log(), "that was after the promotion"
    b.start()
    b.wait_ready()
    assert _has(b, oid)
    assert b.status()["term"] > 1
    a.start()
    assert _end(cluster)[REF] == oid


def test_during_rescue(make: MakeCluster) -> None:
    """An old leader dies when it removes a value that only it had: the value is kept by then."""
    cluster = make(replication=PATIENT, election=CALM)
    tree = _begin(cluster)
    a, b = cluster["node-a"], cluster["node-b"]
    b.signal(signal.SIGSTOP)
    with _pushing(cluster, tree, a.ssh_port) as push:
        eventually(lambda: _lag(a), "the change told")
        a.kill()
        assert push.answer()[0] is Told.UNKNOWN
    b.signal(signal.SIGCONT)
    b.wait_ready()
    b.signal(signal.SIGSTOP)  # it tells nothing, so that the old leader does not follow before it is traced
    a.start()
    a.wait_healthy()
    root = a.repository(REPOSITORY)
    named = [f"{root}/{REF}", f"{root}/./{REF}", f"./{REF}", REF]  # git works in the repository's folder
    with Trap(a, "unlink", named, "STOP") as trap:
        b.signal(signal.SIGCONT)
        trap.wait_sprung()
        a.kill()
    a.start()
    assert REF not in _end(cluster)
    kept = {ref: oid for ref, oid in refs_of(a, REPOSITORY).items() if ref.startswith("refs/stargate/")}
    assert push.oid in kept.values()


# -- a standby that gives a repository the name that it has on the leader ------------------------------


def _follow_names(make: MakeCluster, *names: str, mode: str = "strict") -> tuple[Cluster, dict[str, str]]:
    """Nodes in sync that have these repositories, and look at the names all the time; their commits.

    In mode strict the standby stays in the record, though it dies first.
    """
    cluster = make(mode=mode, replication={**PATIENT, "full_check_s": 0.5}, election=CALM)
    cluster.start()
    oids = {}
    for name in names:
        tree = cluster.client.work_tree(name)
        oids[name] = cluster.client.commit(tree, f"in {name}")
        url = cluster.client.url(cluster["node-a"], name)
        cluster.client.git("push", "-q", url, f"{oids[name]}:{REF}", cwd=tree)
    cluster.wait_equal()
    return cluster, oids


def _leads_alone(cluster: Cluster) -> NodeProcess:
    """Both are dead; the standby comes back and leads."""
    a, b = cluster["node-a"], cluster["node-b"]
    a.kill()
    b.wait()
    b.start()
    return b.wait_ready()


def _follows_again(cluster: Cluster) -> None:
    cluster["node-a"].start().wait_healthy()
    cluster["node-b"].wait_in_sync_set("node-a")
    cluster.wait_equal()
    for node in cluster.nodes:
        assert list((node.data_dir / "trash").iterdir()) == []
        assert node.status()["rescued_refs"] == 0


@pytest.mark.parametrize("done", [False, True])
def test_when_a_repository_is_moved_to_its_new_name(make: MakeCluster, *, done: bool) -> None:
    """One rename: it has its old name, or its new one, and all that it had."""
    cluster, oids = _follow_names(make, "a")
    a, b = cluster["node-a"], cluster["node-b"]
    moved = [b.repository("a"), b.repository("z")]
    with Trap(b, "rename", moved, "STOP" if done else "KILL") as trap:
        a.repository("a").rename(a.repository("z"))
        trap.wait_sprung()
        b.kill()
    _leads_alone(cluster)
    assert refs_of(b, "z" if done else "a")[REF] == oids["a"]
    _follows_again(cluster)


@pytest.mark.parametrize("done", [False, True])
def test_when_two_repositories_change_names(make: MakeCluster, *, done: bool) -> None:
    """One step: each has one name or the other, and both are there."""
    cluster, oids = _follow_names(make, "a", "b")
    a, b = cluster["node-a"], cluster["node-b"]
    with Trap(b, "renameat2", [b.repository("a"), b.repository("b")], "STOP" if done else "KILL") as trap:
        for one, other in (("a", "t"), ("b", "a"), ("t", "b")):
            a.repository(one).rename(a.repository(other))
        trap.wait_sprung()
        b.kill()
    _leads_alone(cluster)
    now = {"a": "b", "b": "a"} if done else {"a": "a", "b": "b"}
    assert {name: refs_of(b, name)[REF] for name in "ab"} == {name: oids[was] for name, was in now.items()}
    _follows_again(cluster)


def test_when_the_new_one_is_to_come_to_the_place_of_one_that_was_deleted(make: MakeCluster) -> None:
    """The old one is in the trash, the new one is complete: it comes to its place at the next start."""
    cluster, _ = _follow_names(make, "a", mode="sync")
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    b.kill()
    assert client.ssh(a, "repo", "delete", "a").returncode == 0
    tree = client.work_tree("anew")
    oid = client.commit(tree, "anew")
    client.git("push", "-q", client.url(a, "a"), f"{oid}:{REF}", cwd=tree)
    identity = (a.repository("a") / "stargate-id").read_text().strip()
    b.start()
    b.wait_healthy()
    made = b.data_dir / "repositories" / f".new-{identity}" / "a.git"
    with Trap(b, "rename", [made], "KILL") as trap:
        trap.wait_sprung()
        b.wait()
    assert not b.repository("a").exists()
    assert made.exists()
    b.start()
    eventually(lambda: "repository_came_to_its_place" in b.log(), "the place")
    a.wait_in_sync_set("node-b")
    assert cluster.wait_equal()["a.git"].endswith(f"{oid} {REF}")
    assert len(list((b.data_dir / "trash").iterdir())) == 1
