"""Real git through the gate: what any Git server does, under each version of the protocol."""

import asyncio
import json
import shutil
import socket
from asyncio.trsock import TransportSocket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.gate.conftest import Node, commit, git, work_tree
from tests.gate.listener import until

PROTOCOLS = [0, 1, 2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_push_clone_fetch_and_ls_remote(node: Node, protocol: int) -> None:
    """The first push creates the repository, all clients see it, and it is announced to the standbys."""
    tree = work_tree(node.root / "tree")
    pushed = await node.git("push", node.url(), "main", cwd=tree, protocol=protocol)
    assert pushed.status == 0, pushed
    assert node.ledger.told == [
        ("created", "org/app"),
        ("pushed", "org/app"),
        ("replicated", "org/app"),
        ("writing", "org/app"),
        ("written", "org/app"),
        ("replicated", "org/app"),
    ]
    cloned = await node.git("clone", "-q", node.url("org/app.git"), "copy", key="read", protocol=protocol)
    assert cloned.status == 0, cloned
    second = commit(tree, "more")
    assert (await node.git("push", "-q", node.url(), "main", cwd=tree, protocol=protocol)).status == 0
    copy = node.root / "copy"
    assert (await node.git("pull", "-q", cwd=copy, key="read", protocol=protocol)).status == 0
    assert git("rev-parse", "HEAD", cwd=copy).strip() == second
    listed = await node.git("ls-remote", node.url(), key="read", protocol=protocol)
    assert listed.stdout.split() == [second, "HEAD", second, "refs/heads/main"]


async def test_up_to_date_pushes_and_deletions(node: Node) -> None:
    """An up-to-date push succeeds, a branch can be deleted, and exit statuses are git's own."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", node.url(), "main", "main:old", cwd=tree)
    again = await node.git("push", node.url(), "main", cwd=tree)
    assert (again.status, again.stderr) == (0, "Everything up-to-date\n")
    assert (await node.git("push", "-q", node.url(), ":old", cwd=tree)).status == 0
    assert list(node.refs()) == ["refs/heads/main"]
    git("commit", "-q", "--amend", "-m", "other", cwd=tree)
    rejected = await node.git("push", node.url(), "main", cwd=tree)
    assert rejected.status == 1
    assert "non-fast-forward" in rejected.stderr
    assert (await node.git("push", "-q", "--force", node.url(), "main", cwd=tree)).status == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_shallow_single_branch_and_partial_clones(node: Node, protocol: int) -> None:
    """--depth, --single-branch, --filter, and deepening later."""
    tree = work_tree(node.root / "tree")
    for number in range(3):
        commit(tree, f"file{number}")
    await node.git("push", "-q", node.url(), "main", "main:other", cwd=tree)
    shallow = await node.git("clone", "-q", "--depth=1", node.url(), "shallow", protocol=protocol)
    assert shallow.status == 0, shallow
    assert git("rev-list", "--count", "HEAD", cwd=node.root / "shallow").strip() == "1"
    deepened = await node.git("fetch", "-q", "--unshallow", cwd=node.root / "shallow", protocol=protocol)
    assert deepened.status == 0, deepened
    assert git("rev-list", "--count", "HEAD", cwd=node.root / "shallow").strip() == "4"
    single = await node.git(
        "clone", "-q", "--single-branch", "--branch=other", node.url(), "single", protocol=protocol
    )
    assert single.status == 0, single
    assert "origin/main" not in git("branch", "-r", cwd=node.root / "single")
    partial = await node.git(
        "clone", "-q", "--filter=blob:none", "--no-checkout", node.url(), "partial", protocol=protocol
    )
    assert partial.status == 0, partial
    missing = git("rev-list", "--objects", "--missing=print", "--all", cwd=node.root / "partial")
    assert "\n?" in missing
    checkout = await node.git("checkout", "-q", "main", cwd=node.root / "partial", protocol=protocol)
    assert checkout.status == 0, checkout


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_archive_from_a_remote(node: Node, protocol: int) -> None:
    """`git archive --remote` gives a tar file."""
    tree = work_tree(node.root / "tree", "hello")
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    archive = await node.git(
        "archive", f"--remote={node.url()}", "main", "-o", "out.tar", key="read", protocol=protocol
    )
    assert archive.status == 0, archive
    shutil.unpack_archive(node.root / "out.tar", node.root / "unpacked")
    assert (node.root / "unpacked" / "hello").read_text() == "hello\n"


async def test_atomic_pushes_are_all_or_nothing(node: Node) -> None:
    """If one ref is refused, none changes."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", "--atomic", node.url(), "main", "main:dev", cwd=tree)
    assert set(node.refs()) == {"refs/heads/main", "refs/heads/dev"}
    before = node.refs()
    git("checkout", "-q", "-b", "other", cwd=tree)
    git("commit", "-q", "--amend", "-m", "rewritten", cwd=tree)
    commit(tree, "more")
    atomic = await node.git("push", "--atomic", node.url(), "other:new", "other:main", cwd=tree)
    assert atomic.status == 1
    assert node.refs() == before


async def test_push_options_are_taken(node: Node) -> None:
    """`git push -o` works, whatever a hook makes of it."""
    tree = work_tree(node.root / "tree")
    pushed = await node.git("push", "-q", "-o", "ci.skip", node.url(), "main", cwd=tree)
    assert pushed.status == 0, pushed


async def test_sha256_repositories(node: Node) -> None:
    """Made by an admin, then pushed to and cloned like any other."""
    made = await node.ssh("repo create org/new --object-format=sha256", key="admin")
    assert (made.status, made.stdout, made.stderr) == (0, "", "")
    tree = work_tree(node.root / "tree", object_format="sha256")
    pushed = await node.git("push", "-q", node.url("org/new"), "main", cwd=tree)
    assert pushed.status == 0, pushed
    assert (await node.git("clone", "-q", node.url("org/new"), "copy")).status == 0
    assert len(git("rev-parse", "HEAD", cwd=node.root / "copy").strip()) == 64


async def test_head_follows_the_first_branch(node: Node) -> None:
    """After a push of only master a clone has a work tree at once."""
    tree = work_tree(node.root / "tree", branch="master")
    assert (await node.git("push", "-q", node.url(), "master", cwd=tree)).status == 0
    assert (await node.git("clone", "-q", node.url(), "copy")).status == 0
    assert (node.root / "copy" / "README").exists()


async def test_megabytes_arrive_whole(node: Node) -> None:
    """In both directions."""
    tree = work_tree(node.root / "tree")
    with Path("/dev/urandom").open("rb") as noise:
        (tree / "big").write_bytes(noise.read(12_000_000))
    commit(tree)
    pushed = await node.git("push", "-q", node.url(), "main", cwd=tree)
    assert pushed.status == 0, pushed
    cloned = await node.git("clone", "-q", node.url(), "copy")
    assert cloned.status == 0, cloned
    assert (node.root / "copy" / "big").read_bytes() == (tree / "big").read_bytes()


async def test_pushes_to_one_repository_at_once(node: Node) -> None:
    """Ten first pushes create the repository concurrently: there is one, with all branches."""
    tree = work_tree(node.root / "tree")
    done = await asyncio.gather(
        *(node.git("push", "-q", node.url(), f"main:b{number}", cwd=tree) for number in range(10))
    )
    assert [each.status for each in done] == [0] * 10, done
    assert len(node.refs()) == 10
    assert node.ledger.told.count(("created", "org/app")) == 1
    assert len(node.processes) == 0


async def test_two_pushes_of_one_branch_leave_one_winner(node: Node) -> None:
    """Git refuses the other one."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    first = git("commit-tree", "-p", "HEAD", "-m", "one", "HEAD^{tree}", cwd=tree).strip()
    second = git("commit-tree", "-p", "HEAD", "-m", "two", "HEAD^{tree}", cwd=tree).strip()
    done = await asyncio.gather(
        *(node.git("push", "-q", node.url(), f"{each}:refs/heads/main", cwd=tree) for each in (first, second))
    )
    assert sorted(each.status for each in done) == [0, 1], done


async def test_a_hook_sees_who_pushes_and_nothing_of_the_client(node: Node) -> None:
    """STARGATE_USER; SetEnv of the client does not reach git."""
    node.datadir.hooks.joinpath("post-receive").write_text("#!/bin/sh\nenv | sort\n")
    node.datadir.hooks.joinpath("post-receive").chmod(0o755)
    tree = work_tree(node.root / "tree")
    pushed = await node.git(
        *("-c", f"core.sshCommand=ssh -i {node.keys['write']} -o SetEnv=EVIL=1"),
        *("push", node.url(), "main"),
        cwd=tree,
    )
    assert pushed.status == 0
    seen = [line.removeprefix("remote: ").strip() for line in pushed.stderr.splitlines()]
    assert "STARGATE_USER=write@test" in seen
    assert not [line for line in seen if "EVIL" in line or line.startswith("SSH_")]


async def test_a_copied_in_repository_is_served_without_a_restart(node: Node) -> None:
    """Found by its name, listed, pushed to through the hook."""
    tree = work_tree(node.root / "tree")
    git("clone", "-q", "--bare", str(tree), str(node.path("old/thing")), cwd=node.root)
    assert (await node.git("clone", "-q", node.url("old/thing"), "copy", key="read")).status == 0
    commit(tree, "more")
    pushed = await node.git("push", "-q", node.url("old/thing"), "main", cwd=tree)
    assert pushed.status == 0, pushed
    assert (await node.ssh("repo list")).stdout == "old/thing\n"


async def test_one_line_per_session(node: Node) -> None:
    """User, source, command, end, bytes, duration."""
    tree = work_tree(node.root / "tree")
    with capture_logs() as logs:
        await node.git("push", "-q", node.url(), "main", cwd=tree)
        await until(lambda: any(entry["event"] == "session" for entry in logs))
    (line,) = [entry for entry in logs if entry["event"] == "session"]
    assert line["user"] == "write@test"
    assert line["source"] == "127.0.0.1"
    assert line["command"] == "git-receive-pack '/org/app'"
    assert line["repository"] == "org/app"
    assert line["exit"] == 0
    assert line["bytes_in"] > 100
    assert line["bytes_out"] > 100
    assert line["duration_s"] > 0


async def test_repositories_by_command(node: Node) -> None:
    """Create, list, delete. Creation and deletion are announced to the standbys."""
    assert (await node.ssh("repo list")).stdout == ""
    for name in ("zeta", "org/app", "org/b.git"):
        assert (await node.ssh(f"repo create {name}", key="admin")).status == 0
    twice = await node.ssh("repo create zeta", key="admin")
    assert (twice.status, twice.stdout) == (64, "")
    assert "zeta" in twice.stderr
    assert (await node.ssh("repo list", key="read")).stdout == "org/app\norg/b\nzeta\n"
    assert (await node.ssh("repo delete /org/app.git", key="admin")).status == 0
    assert (await node.ssh("repo list")).stdout == "org/b\nzeta\n"
    gone = await node.ssh("repo delete org/app", key="admin")
    assert (gone.status, gone.stderr) == (66, "no such repository: org/app\n")
    told = [event for event in node.ledger.told if event[0] != "replicated"]
    assert told == [
        ("created", "zeta"),
        ("created", "org/app"),
        ("created", "org/b"),
        ("deleted", "org/app"),
    ]


async def test_the_node_reports_by_command(node: Node) -> None:
    """health, ready and status; with their exit codes."""
    assert (await node.ssh("health", key="read")).stdout == "healthy\n"
    assert (await node.ssh("ready", key="read")).stdout == "ready: leads term 1\n"
    assert (await node.ssh("status", key="read")).stdout == "node-b  leader\nterm    1\n"
    assert json.loads((await node.ssh("status", "--json", key="read")).stdout) == {"node": "node-b"}
    node.ledger.well = node.ledger.leads = False
    sick, standby = await node.ssh("health"), await node.ssh("ready")
    assert (sick.status, sick.stdout, sick.stderr) == (69, "", "unhealthy: git does not run\n")
    assert (standby.status, standby.stderr) == (9, "not leader: node-b follows node-a\n")


async def test_plain_ssh_is_friendly(node: Node) -> None:
    """The user's name, what the key may do, the commands; with and without a terminal."""
    plain = await node.ssh(key="read")
    assert plain.status == 0
    assert "Hello read@test, this is Stargate on node-b." in plain.stdout
    assert "clone and fetch" in plain.stdout
    assert "repo list" in plain.stdout
    assert "repo create" not in plain.stdout
    terminal = await node.ssh(key="admin", o=("RequestTTY=force",))
    assert terminal.status == 0
    assert "repo create" in terminal.stdout
    assert terminal.stdout.count("\r\n") == terminal.stdout.count("\n")


async def test_peers_run_their_commands_read_and_push(node: Node) -> None:
    """The cluster's key: feed, refs and upload-pack, on a standby as well; rescued values are pushed."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    feed = await node.ssh("stargate-feed node-a 0123", key="cluster")
    assert (feed.status, feed.stdout) == (0, "stargate-feed node-a 0123 from 127.0.0.1\n")
    assert (await node.git("ls-remote", node.url(), key="cluster")).status == 0
    push = await node.git("push", node.url(), "main:rescued/1/x", cwd=tree, key="cluster")
    assert push.status == 0, push
    assert "refs/heads/rescued/1/x" in node.refs()


async def test_reserved_refs_are_never_shown(node: Node) -> None:
    """Neither to users nor to peers; what a repository hides itself is hidden from users only."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    oid = next(iter(node.refs().values()))
    git("update-ref", "refs/stargate/rescued/1/x", oid, cwd=node.path())
    git("update-ref", "refs/hidden/y", oid, cwd=node.path())
    git("config", "transfer.hideRefs", "refs/hidden", cwd=node.path())
    for key, expected in [
        ("read", ["HEAD", "refs/heads/main"]),
        ("cluster", ["HEAD", "refs/heads/main", "refs/hidden/y"]),
    ]:
        for protocol in PROTOCOLS:
            listed = await node.git("ls-remote", node.url(), key=key, protocol=protocol)
            assert listed.stdout.split()[1::2] == expected
    push = await node.git("push", node.url(), "main:refs/stargate/rescued/2/z", cwd=tree)
    assert push.status == 1
    assert "refs/stargate/rescued/2/z" not in node.refs()


async def test_what_comes_is_acknowledged_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH's client waits for it between two small packets: up to 40 ms, several times in a push."""
    set_options: list[tuple[object, ...]] = []
    real = TransportSocket.setsockopt

    def setsockopt(self: TransportSocket, *option: object) -> None:
        set_options.append(option)
        real(self, *option)  # type: ignore[arg-type]

    monkeypatch.setattr(TransportSocket, "setsockopt", setsockopt)
    done = await node.ssh("health")
    assert done.status == 0
    assert set_options.count((socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)) > 3
