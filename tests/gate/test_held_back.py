"""No client hears "ok" before the sync set has what it stands for; each kind of client, each kind of push."""

import asyncio
import os
from pathlib import Path

import pytest

from stargate_gate.errors import TryAgainError
from stargate_gate.gate import relay
from stargate_gate.gate.push.report import Report
from tests.gate.conftest import Node, commit, git, work_tree
from tests.gate.receive_pack import EMPTY_PACK, ZERO, commands, seen
from tests.gate.replicas import LATE, LIMIT_S, REASON, held_back, raw_push, sync_set
from tests.gate.test_refusals import by_paramiko
from tests.support.clients import git_ssh_environment

NOTHING_NEW = "not replicated in time: node-c has not confirmed it; nothing new was pushed, try again"
PROTOCOLS = [0, 1, 2]


@pytest.fixture
async def tree(node: Node) -> Path:
    """A work tree whose main, and a branch `old`, the node has already."""
    tree = work_tree(node.root / "tree")
    pushed = await node.git("push", "-q", node.url(), "main", "main:old", cwd=tree)
    assert pushed.status == 0, pushed
    return tree


def head(tree: Path) -> str:
    """The tip of the work tree."""
    return git("rev-parse", "HEAD", cwd=tree).strip()


async def test_progress_passes_and_the_report_waits(node: Node, tree: Path) -> None:
    """While a push waits the client sees a hook's output; the report comes when the sync set has it."""
    node.datadir.hooks.joinpath("post-receive").write_text("#!/bin/sh\necho the hook is done\n")
    node.datadir.hooks.joinpath("post-receive").chmod(0o755)
    new = commit(tree, "more")
    replicas = sync_set(node)
    await held_back(node, replicas)
    client = await asyncio.create_subprocess_exec(
        *("git", "push", node.url(), "main"),
        cwd=tree,
        env={**os.environ, **git_ssh_environment(node.keys["write"])},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert client.stderr
        shown = await asyncio.wait_for(client.stderr.readuntil(b"the hook is done"), LIMIT_S)
        await replicas.waited_for(node.ledger.position)
        assert node.refs()["refs/heads/main"] == new
        assert client.returncode is None
        assert b"->" not in shown
        await replicas.confirm()
        rest = await asyncio.wait_for(client.stderr.read(), LIMIT_S)
        assert b"main -> main" in rest
        assert await asyncio.wait_for(client.wait(), LIMIT_S) == 0
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("option", ["--no-atomic", "--atomic"])
async def test_a_push_that_is_not_replicated_is_rejected_ref_by_ref(
    node: Node, tree: Path, protocol: int, option: str
) -> None:
    """For branches, tags and deletions: `! [remote rejected]` with the reason; git push exits with 1."""
    commit(tree, "more")
    git("tag", "-a", "v1", "-m", "one", cwd=tree)
    replicas = sync_set(node)
    await held_back(node, replicas)
    await replicas.fail()
    push = await node.git(
        "push", option, node.url(), "main", "v1", ":old", "main:new", cwd=tree, protocol=protocol
    )
    assert push.status == 1
    assert LATE in push.stderr.splitlines()
    table = [" ".join(line.split()) for line in push.stderr.splitlines() if line.startswith(" ! ")]
    assert sorted(table) == sorted(
        f"! [remote rejected] {ref} ({REASON})" for ref in ("main -> main", "v1 -> v1", "old", "main -> new")
    )
    assert node.refs()["refs/heads/main"] == head(tree), "it has moved all the same: the outcome is unknown"
    assert len(node.processes) == 0


async def test_scripts_read_it_in_porcelain(node: Node, tree: Path) -> None:
    """`git push --porcelain`: a `!` line for each ref, no line with a blank or a star, and no Done."""
    commit(tree, "more")
    replicas = sync_set(node)
    await held_back(node, replicas)
    await replicas.fail()
    push = await node.git("push", "--porcelain", node.url(), "main", "main:new", cwd=tree)
    assert push.status == 1
    assert push.stdout.splitlines()[1:] == [
        f"!\trefs/heads/main:refs/heads/main\t[remote rejected] ({REASON})",
        f"!\trefs/heads/main:refs/heads/new\t[remote rejected] ({REASON})",
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_up_to_date_is_an_acknowledgement_too(node: Node, tree: Path, protocol: int) -> None:
    """The refs are shown when the sync set has them. If that takes too long, it is an error with 75."""
    replicas = sync_set(node)
    push = asyncio.create_task(node.git("push", node.url(), "main", cwd=tree, protocol=protocol))
    await replicas.waited_for()
    assert not push.done()
    await replicas.confirm()
    done = await push
    assert (done.status, done.stderr) == (0, "Everything up-to-date\n")
    await replicas.confirm(0)
    await replicas.fail()
    push_again = await node.git("push", node.url(), "main", cwd=tree, protocol=protocol)
    assert push_again.status == 128
    assert f"fatal: remote error: {NOTHING_NEW}" in push_again.stderr
    assert "up-to-date" not in push_again.stderr
    assert len(node.processes) == 0


async def test_a_push_that_timed_out_can_be_repeated(node: Node, tree: Path) -> None:
    """75 as long as the sync set does not have it, then "up to date" with 0."""
    commit(tree, "more")
    replicas = sync_set(node)
    await held_back(node, replicas)
    await replicas.fail()
    assert (await node.git("push", node.url(), "main", cwd=tree)).status == 1
    assert (await node.git("push", node.url(), "main", cwd=tree)).status == 128
    await replicas.confirm()
    repeated = await node.git("push", node.url(), "main", cwd=tree)
    assert (repeated.status, repeated.stderr) == (0, "Everything up-to-date\n")


async def test_a_push_on_top_of_one_that_waits_waits_too(node: Node, tree: Path) -> None:
    """Its list of refs has the value of the first push, so it waits until the sync set has that."""
    first = commit(tree, "one")
    replicas = sync_set(node)
    await held_back(node, replicas)
    held = node.ledger.position + 2
    pushes = [asyncio.create_task(node.git("push", node.url(), "main", cwd=tree))]
    await replicas.waited_for(held)
    assert node.refs()["refs/heads/main"] == first
    second = commit(tree, "two")
    pushes.append(asyncio.create_task(node.git("push", node.url(), "main", cwd=tree)))
    await replicas.waited_for(held, by=2)
    assert node.refs()["refs/heads/main"] == first, "the second has not begun"
    assert not any(push.done() for push in pushes)
    await replicas.confirm()
    assert [push.status for push in await asyncio.gather(*pushes)] == [0, 0]
    assert node.refs()["refs/heads/main"] == second


def request(tree: Path, capabilities: str, ref: str = "refs/heads/new") -> bytes:
    """Creates `ref`, in a client's own bytes."""
    return commands(capabilities, [f"{ZERO} {head(tree)} {ref}"]) + EMPTY_PACK


@pytest.mark.parametrize("band", [" side-band-64k", ""])
@pytest.mark.parametrize("status", ["report-status", "report-status-v2"])
async def test_raw_clients_see_75(node: Node, tree: Path, status: str, band: str) -> None:
    """With and without side band: the report says ng, stderr says why, the exit status is 75."""
    replicas = sync_set(node)
    await held_back(node, replicas)
    await replicas.fail()
    client = await raw_push(node)
    await client.advertisement()
    await client.send(request(tree, status + band))
    exit_status, out, err = await client.done()
    assert seen(out).report == (b"unpack ok\n", f"ng refs/heads/new {REASON}\n".encode())
    assert seen(out).ended
    assert (exit_status, err) == (75, f"{LATE}\n".encode())


@pytest.mark.parametrize(("capabilities", "rest"), [("side-band-64k", b"0000"), ("", b"")])
async def test_a_client_without_a_report_sees_75_as_well(
    node: Node, tree: Path, capabilities: str, rest: bytes
) -> None:
    """On stderr and as the exit status."""
    replicas = sync_set(node)
    await held_back(node, replicas)
    await replicas.fail()
    client = await raw_push(node)
    await client.advertisement()
    await client.send(request(tree, capabilities))
    assert await client.done() == (75, rest, f"{LATE}\n".encode())


async def test_ssh_and_paramiko_see_75(node: Node, tree: Path) -> None:
    """Before the refs are shown: an ERR packet, the line on stderr, 75. OpenSSH also after a push."""
    replicas = sync_set(node)
    await replicas.fail()
    done = await node.ssh("git-receive-pack org/app")
    assert (done.status, done.stderr) == (75, f"{NOTHING_NEW}\n")
    assert done.stdout[4:] == f"ERR {NOTHING_NEW}"
    status, _, err = await asyncio.to_thread(by_paramiko, node, "git-receive-pack org/app")
    assert (status, err) == (75, f"{NOTHING_NEW}\n".encode())
    await held_back(node, replicas)
    await replicas.fail()
    pushed = await node.ssh("git-receive-pack org/app", stdin=request(tree, "report-status"))
    assert (pushed.status, pushed.stderr) == (75, f"{LATE}\n")
    assert f"ng refs/heads/new {REASON}\n" in pushed.stdout


async def test_git_gets_nothing_before_its_refs_are_shown(node: Node, tree: Path) -> None:
    """A client that does not wait for them has to, and the write is noted before git has its bytes."""
    replicas = sync_set(node)
    node.ledger.told.clear()
    client = await raw_push(node)
    await client.send(request(tree, "report-status"))
    await replicas.waited_for()
    assert node.ledger.told == [("pushed", "org/app"), ("replicated", "org/app")]
    assert "refs/heads/new" not in node.refs()
    await replicas.confirm()
    status, out, _ = await client.done()
    assert status == 0
    assert out.endswith(b"0016ok refs/heads/new\n0000")
    assert node.ledger.told[2:] == [
        ("writing", "org/app"),
        ("written", "org/app"),
        ("replicated", "org/app"),
    ]


@pytest.mark.parametrize("sent", [b"0000", b"0", b""])
async def test_a_client_that_wants_nothing_is_no_write(node: Node, tree: Path, sent: bytes) -> None:
    """Only a flush-pkt, or less, is neither noted nor announced."""
    node.ledger.told.clear()
    await node.ssh("git-receive-pack org/app", stdin=sent)
    told = [("pushed", "org/app"), ("replicated", "org/app"), ("replicated", "org/app")]
    assert node.ledger.told == told


async def test_a_new_repository_is_waited_for_with_its_first_push(node: Node) -> None:
    """The push waits also for its creation."""
    tree = work_tree(node.root / "first")
    replicas = sync_set(node)
    push = asyncio.create_task(node.git("push", node.url("new/one"), "main", cwd=tree))
    await replicas.waited_for(1)
    await replicas.fail()
    assert (await push).status == 128
    assert node.ledger.told[0] == ("created", "new/one")
    await replicas.confirm()
    assert (await node.git("push", node.url("new/one"), "main", cwd=tree)).status == 0


async def test_creating_and_deleting_wait_too(node: Node) -> None:
    """Not in time: 75, with "outcome is unknown" in the text."""
    replicas = sync_set(node)
    for command in ("repo create org/x", "repo delete org/x"):
        waiting = asyncio.create_task(node.ssh(command, key="admin"))
        await replicas.waited_for(node.ledger.position)
        assert not waiting.done()
        await replicas.fail(TryAgainError("not replicated in time"))
        done = await waiting
        assert done.status == 75
        assert done.stderr == "not replicated in time; the outcome is unknown\n"
        await replicas.confirm(0)
    assert (await node.ssh("repo list")).stdout == ""
    await replicas.confirm()
    assert (await node.ssh("repo create org/x", key="admin")).status == 0


async def test_reading_is_never_delayed(node: Node, tree: Path) -> None:
    """Neither for users nor for peers; a peer's push gets the refs at once."""
    replicas = sync_set(node)
    for key in ("read", "cluster"):
        listed = await node.git("ls-remote", node.url(), key=key)
        assert listed.stdout.split()[0] == head(tree)
        assert (await node.git("clone", "-q", node.url(), f"copy-{key}", key=key)).status == 0
    assert head(tree) in (await node.ssh("git-receive-pack org/app", key="cluster", stdin=b"0000")).stdout
    commit(tree, "more")
    push = asyncio.create_task(node.git("push", node.url(), "main", cwd=tree, key="cluster"))
    await replicas.waited_for()
    assert node.refs()["refs/heads/main"] == head(tree)
    assert not push.done(), "a peer's own push is acknowledged like any other"
    await replicas.confirm()
    assert (await push).status == 0


async def test_what_git_refuses_is_reported_as_git_says_it(node: Node, tree: Path) -> None:
    """The line about a ref that a hook declines is git's own, replicated in time or not."""
    git("config", "receive.denyDeletes", "true", cwd=node.path())
    commit(tree, "more")
    in_time = await node.git("push", node.url(), "main", ":old", cwd=tree)
    assert in_time.status == 1
    assert "main -> main" in in_time.stderr
    assert "(deletion prohibited)" in in_time.stderr
    commit(tree, "still more")
    replicas = sync_set(node)
    await held_back(node, replicas)
    await replicas.fail()
    late = await node.git("push", node.url(), "main", ":old", cwd=tree)
    assert f"main -> main ({REASON})" in late.stderr
    assert "(deletion prohibited)" in late.stderr


async def test_a_hundred_thousand_refs_are_shown_and_spilled(node: Node, tree: Path) -> None:
    """An advertisement of megabytes is captured and sent completely, and a push on top of it works."""
    oid = head(tree)
    lines = [f"{oid} refs/tags/t{number:06}\n" for number in range(100_000)]
    header = "# pack-refs with: peeled fully-peeled sorted \n"
    node.path().joinpath("packed-refs").write_text(header + "".join(lines))
    replicas = sync_set(node)
    client = await raw_push(node)
    await replicas.waited_for()
    await replicas.confirm()
    await client.send(b"0000")
    status, out, _ = await client.done()
    assert status == 0
    assert out.count(b" refs/tags/t") == 100_000
    assert out.endswith(b" refs/tags/t099999\n0000")
    commit(tree, "more")
    assert (await node.git("push", node.url(), "main", cwd=tree)).status == 0


async def test_a_report_beyond_all_bounds_is_no_ok(
    node: Node, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """75 at once, with a remedy."""
    monkeypatch.setattr(relay, "Report", lambda: Report(max_bytes=1000))
    refs = [f"main:b{number}" for number in range(100)]
    push = await node.git("push", node.url(), *refs, cwd=tree)
    assert push.status != 0
    assert "push fewer refs at a time; outcome unknown" in push.stderr
    assert "[new branch]" not in push.stderr
    assert len(node.processes) == 0
    assert node.debris() == []
