"""Repositories that an operator copies in, on two real nodes: what is wrong with one harms only that one."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, NodeProcess, content, eventually, running_cluster
from tests.support.nodelog import complete_log, wait_logged

Make = Callable[..., Cluster]
PROGRAM = "#!/bin/sh\ntouch {ran}\nexit 1\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the tests that leave both nodes running."""
    with running_cluster(tmp_path_factory.mktemp("copied-in")) as cluster:
        yield cluster


def staged(cluster: Cluster, name: str) -> Path:
    """A bare repository outside, with one commit on main."""
    tree = cluster.client.work_tree(f"{name.replace('/', '-')}-tree")
    path = cluster.root / "staged" / f"{name}.git"
    path.parent.mkdir(parents=True, exist_ok=True)
    cluster.client.git("clone", "-q", "--bare", str(tree), str(path))
    return path


def copy_in(path: Path, node: NodeProcess, name: str) -> Path:
    """As an operator does; nothing sees half of it."""
    target = node.data_dir / "repositories" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".copying-{target.name}")
    subprocess.run(["cp", "-a", str(path), str(hidden)], check=True, timeout=30)
    return hidden.rename(target)


def warnings(node: NodeProcess) -> str:
    """All of them."""
    return "\n".join(node.status().get("warnings", ()))


def listed(cluster: Cluster, node: NodeProcess) -> list[str]:
    """What `repo list` says."""
    return cluster.client.ssh(node, "repo", "list").stdout.decode().split()


def push_somewhere(cluster: Cluster, leader: NodeProcess, name: str) -> None:
    """A push to another repository is acknowledged, and the standby has it."""
    tree = cluster.client.work_tree(name)
    cluster.client.git("push", "-q", cluster.client.url(leader, name), "main", cwd=tree)
    leader.wait_in_sync_set(cluster.standby().name)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "common": (lambda path: (path / "commondir").write_text("/etc\n"), "it has a file commondir"),
    "fifo": (lambda path: os.mkfifo(path / "stargate-id"), "stargate-id is a FIFO"),
    "link": (lambda path: (path / "refs/heads/d").symlink_to("/etc"), "refs/heads/d is a link"),
    "packed": (lambda path: replace_by_link(path / "packed-refs"), "packed-refs is a link"),
    "head": (lambda path: replace_by_link(path / "HEAD"), "its HEAD is a link"),
    "norefs": (lambda path: shutil.rmtree(path / "refs"), "it has no refs"),
    "reserved": (
        lambda path: subprocess.run(["git", "update-ref", "refs/stargate", "HEAD"], cwd=path, check=True),
        "it has a ref refs/stargate",
    ),
    "fancy": (
        lambda path: subprocess.run(["git", "config", "extensions.fancy", "1"], cwd=path, check=True),
        "its config has extensions.fancy, which is not known here",
    ),
}


def replace_by_link(path: Path) -> None:
    """To a file that nobody may see."""
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(("put", "why"), HOSTILE.values(), ids=HOSTILE)
def test_what_must_not_be_served_is_named_and_harms_nobody(
    shared: Cluster, put: Callable[[Path], object], why: str, request: pytest.FixtureRequest
) -> None:
    """Clone and push say why; status and log name it; others are served, and the standby stays in sync."""
    name = f"bad/{request.node.callspec.id}"
    leader, client = shared.leader(), shared.client
    path = staged(shared, name)
    put(path)
    target = copy_in(path, leader, f"{name}.git")
    try:
        tree = client.work_tree(f"{request.node.callspec.id}-client")
        for words in (("ls-remote",), ("push",)):
            refused = client.git(*words, client.url(leader, name), "main", cwd=tree, ok=False)
            assert refused.returncode == 128
            assert f"fatal: remote error: repository {name} cannot be served: " in refused.stderr
            assert why in refused.stderr
            assert "root:" not in refused.stderr
        assert name not in listed(shared, leader)
        assert f"not served: {name}.git: {why}" in warnings(leader)
        push_somewhere(shared, leader, f"good/{request.node.callspec.id}")
        assert leader.get("/healthz")[0] == 200
        assert "Traceback" not in complete_log(leader)
    finally:
        shutil.rmtree(target)
    listed(shared, leader)
    assert name not in warnings(leader)


def test_nothing_of_a_copied_in_repository_runs(shared: Cluster) -> None:
    """Its config names programs in every way that git has, also newer ones: at no push, fetch or archive."""
    leader, standby, client = shared.leader(), shared.standby(), shared.client
    ran, program = shared.root / "ran", shared.root / "program"
    program.write_text(PROGRAM.format(ran=ran))
    program.chmod(0o755)
    path = staged(shared, "programs")
    for key, value in {
        "core.fsmonitor": program, "core.sshCommand": program, "core.hooksPath": shared.root,
        "uploadpack.packObjectsHook": program, "tar.foo.command": program, "tar.foo.remote": "true",
        "tar.tar.gz.command": program, "gpg.program": program, "receive.procReceiveRefs": "refs/for",
        "hook.x.command": program, "hook.x.event": "pre-receive", "hook.y.command": program,
        "hook.y.event": "reference-transaction", "fetch.bundleURI": f"file://{program}",
        "remote.o.url": f"ext::{program}", "gc.recentObjectsHook": program, "filter.x.process": program,
        "core.alternateRefsCommand": program, "core.useReplaceRefs": "true", "receive.autogc": "true",
    }.items():  # fmt: skip
        client.git("config", "-f", str(path / "config"), key, str(value))
    for hook in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction"):
        (path / "hooks").mkdir(exist_ok=True)
        shutil.copy(program, path / "hooks" / hook)
    copy_in(path, leader, "programs.git")
    tree = client.work_tree("programs-client")
    url = client.url(leader, "programs")
    for format_ in ("foo", "tar.gz", "tar"):
        client.git("archive", f"--remote={url}", f"--format={format_}", "-o", "/dev/null", "main", ok=False)
    client.git("push", "-q", url, "main:refs/heads/new", cwd=tree)
    client.git("push", "-q", url, "main:refs/for/main", cwd=tree, ok=False)
    client.git("clone", "-q", url, str(shared.root / "programs-clone"))
    shared.wait_equal()
    client.git("clone", "-q", client.url(standby, "programs"), str(shared.root / "programs-clone-2"))
    assert not ran.exists()
    (adopted,) = wait_logged(leader, "repository_adopted", repository="programs")
    assert {"core.fsmonitor", "hook.x.command", "fetch.bundleuri"} <= set(adopted["config_dropped"])


def test_settings_that_a_failover_loses_are_named(shared: Cluster) -> None:
    """Config is not replicated: status says which repository and key, until the operator has seen to it."""
    leader, client = shared.leader(), shared.client
    tree = client.work_tree("strict")
    client.git("push", "-q", client.url(leader, "strict"), "main", cwd=tree)
    config = str(leader.repository("strict") / "config")
    client.git("config", "-f", config, "receive.denyDeletes", "true")
    listed(shared, leader)
    assert "settings that a failover loses: strict.git: receive.denydeletes" in warnings(leader)
    client.git("config", "-f", config, "stargate.setOnEveryNode", "true")
    listed(shared, leader)
    assert "strict" not in warnings(leader)
    client.git("push", client.url(leader, "strict"), "main:gone", cwd=tree)
    refused = client.git("push", client.url(leader, "strict"), ":gone", cwd=tree, ok=False)
    assert "deletion prohibited" in refused.stderr


def test_a_fifo_that_appears_later_stops_nobody(shared: Cluster) -> None:
    """In a repository that is served: that one fails, soon; the node, its list and other pushes go on."""
    leader, client = shared.leader(), shared.client
    tree = client.work_tree("later")
    client.git("push", "-q", client.url(leader, "later"), "main", cwd=tree)
    shared.wait_equal()
    path = leader.repository("later")
    identity = (path / "stargate-id").read_bytes()
    (path / "stargate-id").unlink()
    os.mkfifo(path / "stargate-id")
    try:
        refused = client.git("push", client.url(leader, "later"), "main:x", cwd=tree, ok=False, limit_s=30)
        assert "stargate-id is a FIFO" in refused.stderr
        assert "later" not in listed(shared, leader)
        tree = client.work_tree("beside")
        client.git("push", "-q", client.url(leader, "beside"), "main", cwd=tree)
        assert leader.get("/healthz")[0] == 200
    finally:
        (path / "stargate-id").unlink()
        (path / "stargate-id").write_bytes(identity)
        client.ssh(leader, "repo", "delete", "later")


def test_old_history_is_mirrored_and_pushed(shared: Cluster) -> None:
    """Modes with a zero before them: git's check complains, a standby takes them all the same."""
    leader, client = shared.leader(), shared.client
    path = staged(shared, "old")
    blob = client.git("rev-parse", "main:file", cwd=path).stdout.strip()
    subtree = client.git("rev-parse", "main^{tree}", cwd=path).stdout.strip()
    tree = (
        b"100644 a\0" + bytes.fromhex(blob) + b"040000 b\0" + bytes.fromhex(subtree)
        + b"100644 c\0" + bytes.fromhex(blob) + b"100644 c\0" + bytes.fromhex(blob)
    )  # fmt: skip
    made = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"],
        cwd=path, input=tree, capture_output=True, check=True, timeout=30,
    ).stdout.decode().strip()  # fmt: skip
    commit = client.git("commit-tree", made, "-m", "old", cwd=path).stdout.strip()
    client.git("update-ref", "refs/heads/old", commit, cwd=path)
    for key in ("transfer.fsckObjects", "fetch.fsckObjects", "receive.fsckObjects"):
        client.git("config", key, "true", cwd=path)
    copy_in(path, leader, "old.git")
    assert "old" in listed(shared, leader)
    client.git("ls-remote", client.url(leader, "old"))
    more = client.work_tree("old-more")
    client.git("push", "-q", client.url(leader, "old"), "main:more", cwd=more)
    assert "refs/heads/old" in shared.wait_equal()["old.git"]
    leader.wait_in_sync_set(shared.standby().name)


def test_a_ref_exactly_at_the_reserved_place_is_seen_by_no_node(shared: Cluster) -> None:
    """Made by hand in a repository that is served: both nodes leave it out when they compare."""
    leader, client = shared.leader(), shared.client
    tree = client.work_tree("taken")
    client.git("push", "-q", client.url(leader, "taken"), "main", cwd=tree)
    path = leader.repository("taken")
    client.git("update-ref", "refs/stargate", "main", cwd=path)
    client.git("pack-refs", "--all", cwd=path)
    client.git("push", "-q", client.url(leader, "taken"), "main:next", cwd=tree)

    def equal() -> bool:
        mine, other = (content(node)["taken.git"] for node in (leader, shared.standby()))
        return "refs/heads/next" in other and mine.replace(" refs/stargate", "") != mine and "/next" in mine

    eventually(equal, "the standby has the push")
    leader.wait_in_sync_set(shared.standby().name)
    assert "standby_not_level" not in complete_log(leader)
    client.git("update-ref", "-d", "refs/stargate", cwd=path)


def test_replace_refs_cost_no_standby(shared: Cluster) -> None:
    """A commit without its tree, hidden behind a replace ref: refused; the standby stays in sync."""
    leader, client = shared.leader(), shared.client
    tree = client.work_tree("replaced")
    url = client.url(leader, "replaced")
    client.git("push", "-q", url, "main", cwd=tree)
    main = client.git("rev-parse", "main", cwd=tree).stdout.strip()
    content_ = (
        f"tree {'1234567890' * 4}\nparent {main}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nx\n"
    )
    broken = subprocess.run(
        ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"],
        cwd=tree, input=content_.encode(), capture_output=True, check=True, timeout=30,
    ).stdout.decode().strip()  # fmt: skip
    client.git("push", "-q", url, f"main:refs/replace/{broken}", cwd=tree)
    pack = subprocess.run(
        ["git", "pack-objects", "-q", "--stdout"],
        cwd=tree, input=f"{broken}\n".encode(), capture_output=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    command = f"{'0' * 40} {broken} refs/heads/bad\0report-status".encode()
    sent = b"%04x" % (len(command) + 4) + command + b"0000" + pack
    done = client.ssh(leader, "git-receive-pack", "'replaced'", stdin=sent)
    assert b"ng refs/heads/bad" in done.stdout
    push_somewhere(shared, leader, "after-replace")
    assert "refs/replace" in shared.wait_equal()["replaced.git"]


def test_a_folder_without_git_at_its_end_outlives_failovers(unstarted: Make) -> None:
    """`a` copied in, a failover, a push to a/b there, and back: every node holds both."""
    cluster = unstarted().start()
    a, b = cluster["node-a"], cluster["node-b"]
    client = cluster.client
    copy_in(staged(cluster, "a"), a, "a")
    assert listed(cluster, a) == ["a"]
    assert (a.data_dir / "repositories/a.git").is_dir()
    tree = client.work_tree("below")
    client.git("push", "-q", client.url(a, "a"), "main:first", cwd=tree)  # else it is told a minute later
    cluster.wait_equal()
    a.wait_in_sync_set("node-b")
    a.kill()
    b.wait_ready()
    client.git("push", "-q", client.url(b, "a/b"), "main", cwd=tree)
    a.start().wait_healthy()
    b.wait_in_sync_set("node-a")
    assert sorted(cluster.wait_equal()) == ["a.git", "a/b.git"]
    b.kill()
    a.wait_ready()
    client.git("push", "-q", client.url(a, "a/b"), "main:more", cwd=tree)
    client.git("push", "-q", client.url(a, "a"), "main:more", cwd=tree)


def test_a_ref_that_only_one_node_could_hold_is_refused(unstarted: Make) -> None:
    """One push of a very long name ended failover for all; names up to the limit are on both nodes."""
    cluster = unstarted()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    b.config["node"]["data_dir"] = str(cluster.root / "/".join(["deep" * 20] * 3) / "node-b")
    cluster.start()
    tree = client.work_tree("app")
    url = client.url(a, "app")
    client.git("push", "-q", url, "main", cwd=tree)
    fits = "refs/heads/" + "/".join(["n" * 247] * 4)[:989]
    client.git("push", "-q", url, f"main:{fits}", cwd=tree)
    for length in (1_001, 3_900, 4_040):
        ref = "refs/heads/" + "/".join(["m" * 247] * 20)[: length - 11]
        refused = client.git("push", url, f"main:{ref}", cwd=tree, ok=False)
        assert refused.returncode == 1
        assert f"has {length} bytes: a name may have 1000" in refused.stderr
    client.git("push", "-q", url, "main:after", cwd=tree)
    assert fits in cluster.wait_equal()["app.git"]
    a.wait_in_sync_set("node-b")
