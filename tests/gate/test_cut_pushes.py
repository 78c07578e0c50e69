"""A push that is cut because its node stops leading: "nothing was changed" only if that is certain."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.gate.admission import Admission, Claim, Shares
from stargate_gate.gate.push.commands import ExpectedValues
from tests.gate.conftest import LEADERLESS, STANDBY, Node, git, work_tree
from tests.gate.receive_pack import EMPTY_PACK, ZERO, commands, pkt
from tests.gate.replicas import LIMIT_S, RawPush, raw_push

LOST = "not leader: node-b is stepping down; the outcome of this push is unknown"
NOTHING = b"not leader: node-b is stepping down; nothing was changed, push again\n"
UNKNOWN = f"{LOST}\n".encode()
CAPABILITIES = "report-status side-band-64k delete-refs"


@pytest.fixture
async def tree(node: Node) -> Path:
    """A work tree whose main the node has already."""
    tree = work_tree(node.root / "tree")
    pushed = await node.git("push", "-q", node.url(), "main", cwd=tree)
    assert pushed.status == 0, pushed
    return tree


async def begun(node: Node) -> RawPush:
    """A push whose client knows the refs."""
    client = await raw_push(node)
    await client.advertisement()
    return client


async def cut(node: Node, client: RawPush) -> tuple[int, bytes, bytes]:
    """Leadership ends; what the client is told."""
    node.leadership.set(STANDBY)
    await asyncio.wait_for(node.leadership.scopes.revoke(LOST), LIMIT_S)
    return await client.done()


async def blocked(node: Node, hook: str, *, moved: str) -> None:
    """From now on that hook hangs, once it has said so; `moved`: what it does before."""
    os.mkfifo(node.root / "fifo")
    script = f"#!/bin/sh\n{moved}\necho waiting >&2\nexec cat {node.root / 'fifo'}\n"
    node.datadir.hooks.joinpath(hook).write_text(script)
    node.datadir.hooks.joinpath(hook).chmod(0o755)


async def waiting(client: RawPush) -> None:
    """Until the hook says so."""
    await asyncio.wait_for(client.process.stdout.readuntil(b"waiting"), LIMIT_S)


async def test_in_the_middle_of_the_pack(node: Node, tree: Path) -> None:
    """No ref can have changed: git needs the whole pack first."""
    client = await begun(node)
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    await client.send(commands(CAPABILITIES, [f"{ZERO} {oid} refs/heads/new"]) + EMPTY_PACK[:10])
    while not any(told == ("writing", "org/app") for told in node.ledger.told):
        await asyncio.sleep(0.01)
    status, _, err = await cut(node, client)
    assert (status, err) == (9, NOTHING)
    assert "refs/heads/new" not in node.refs()


async def test_in_the_middle_of_the_commands(node: Node, tree: Path) -> None:
    """Git needs the end of the list even for a deletion, which has no pack."""
    client = await begun(node)
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    whole = commands(CAPABILITIES, [f"{oid} {ZERO} refs/heads/main"])
    await client.send(whole[:-4])
    status, _, err = await cut(node, client)
    assert (status, err) == (9, NOTHING)
    assert node.refs()["refs/heads/main"] == oid


async def test_while_a_hook_still_decides(node: Node, tree: Path) -> None:
    """Git has the whole pack, and no ref has changed."""
    await blocked(node, "pre-receive", moved="")
    client = await begun(node)
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    await client.send(commands(CAPABILITIES, [f"{ZERO} {oid} refs/heads/new"]) + EMPTY_PACK)
    await waiting(client)
    status, _, err = await cut(node, client)
    assert (status, err) == (9, NOTHING)
    assert "refs/heads/new" not in node.refs()


@pytest.mark.parametrize("packed", [False, True])
async def test_a_deletion_that_has_happened_is_not_called_nothing(
    node: Node, tree: Path, *, packed: bool
) -> None:
    """The ref is gone, also one that was in packed-refs."""
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    assert (await node.git("push", "-q", node.url(), "main:other", cwd=tree)).status == 0
    if packed:
        git("pack-refs", "--all", cwd=node.path())
    await blocked(node, "post-receive", moved="")
    client = await begun(node)
    await client.send(commands(CAPABILITIES, [f"{oid} {ZERO} refs/heads/other"]))
    await waiting(client)
    status, _, err = await cut(node, client)
    assert (status, err) == (9, UNKNOWN)
    assert "refs/heads/other" not in node.refs()


async def test_a_ref_that_somebody_else_has_moved_on_is_not_called_nothing(node: Node, tree: Path) -> None:
    """The ref has neither the pushed value nor the one before: this push may have changed it in between."""
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    tree_oid = git("rev-parse", "HEAD^{tree}", cwd=tree).strip()
    other = git("commit-tree", "-m", "other", tree_oid, cwd=node.path()).strip()
    await blocked(node, "pre-receive", moved="")
    client = await begun(node)
    await client.send(commands(CAPABILITIES, [f"{ZERO} {oid} refs/heads/new"]) + EMPTY_PACK)
    await waiting(client)
    git("update-ref", "refs/heads/new", other, cwd=node.path())
    status, _, err = await cut(node, client)
    assert (status, err) == (9, UNKNOWN)


async def test_a_push_that_gets_its_turn_when_the_gate_has_closed_waits(
    node: Node, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrived before the stop, so it is not refused. It goes on when this node leads again."""
    await node.reopen(shares=Shares(pushes=1), queue_wait_s=LIMIT_S)
    enter, queued = Admission.enter, asyncio.Event()

    def enter_and_say(admission: Admission, claim: Claim) -> object:
        verdict = enter(admission, claim)
        if verdict == "wait":
            queued.set()
        return verdict

    monkeypatch.setattr(Admission, "enter", enter_and_say)
    first = await begun(node)
    with capture_logs() as logs:
        second = asyncio.create_task(node.git("push", "-q", node.url(), "main:second", cwd=tree))
        await asyncio.wait_for(queued.wait(), LIMIT_S)
        node.leadership.set(replace(LEADERLESS, stepping_down=True))
        await first.die()
        while not any(line["event"] == "push_waits_for_leader" for line in logs):
            await asyncio.sleep(0.01)
        await node.leadership.lead()
        assert (await second).status == 0
    assert "refs/heads/second" in node.refs()


def test_commands_however_they_arrive() -> None:
    """Also one byte at a time. Bytes after the list are not read as commands."""
    first = f"{ZERO} {'1' * 40} refs/heads/a\0 report-status"
    request = pkt(f"shallow {'2' * 40}") + pkt(first) + pkt(f"{'3' * 40} {ZERO} refs/heads/b c\n") + b"0000"
    for size in (1, 7, len(request)):
        found = ExpectedValues()
        for at in range(0, len(request), size):
            assert not found.complete
            found.feed(request[at : at + size])
        assert found.complete
        found.feed(b"PACK0000 and whatever")
        assert found.expected == {b"refs/heads/a": b"0" * 40, b"refs/heads/b c": b"3" * 40}


@pytest.mark.parametrize(
    "request_bytes",
    [
        pkt("push-cert\0 report-status") + b"0000",
        pkt(f"{ZERO} {'1' * 40} refs/heads/a") + b"zzzz",
        pkt(f"{ZERO} {'1' * 40} refs/heads/a") + pkt(f"{'3' * 40} {'1' * 40} refs/heads/a") + b"0000",
        pkt(f"{ZERO} {'1' * 40}") + b"0000",
        b"".join(pkt(f"{ZERO} {'1' * 40} refs/heads/{number}") for number in range(200)),
    ],
    ids=["signed", "no packet", "twice", "no ref", "too long"],
)
def test_commands_that_are_not_known(request_bytes: bytes) -> None:
    """Then nothing is known about what git has done."""
    found = ExpectedValues(max_bytes=10_000)
    found.feed(request_bytes)
    assert found.complete
    assert found.expected is None
