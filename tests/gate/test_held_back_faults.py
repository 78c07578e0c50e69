"""Clients, git and leadership that go while something is held back: nothing is left, and nothing says ok."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stargate_gate.errors import LeadershipLostError, StargateError, TryAgainError
from stargate_gate.gate.relay import HeldReport, PushRelay
from tests.gate.conftest import STANDBY, Node, commit, git, work_tree
from tests.gate.receive_pack import EMPTY_PACK, ZERO, commands, seen
from tests.gate.replicas import LIMIT_S, REASON, RawPush, held_back, raw_push, sync_set

LOST = "not leader: node-b has lost its leadership; the outcome of this push is unknown"
NOTHING = "not leader: node-b has lost its leadership; nothing was changed, push again"
LOST_REASON = "not leader: node-b has lost its leadership; outcome unknown"
SIDE_BAND = "report-status side-band-64k"


async def until(probe: Callable[[], Any]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(LIMIT_S):
        while not probe():
            await asyncio.sleep(0.01)


@pytest.fixture
async def tree(node: Node) -> Path:
    """A work tree whose main the node has already."""
    tree = work_tree(node.root / "tree")
    pushed = await node.git("push", "-q", node.url(), "main", cwd=tree)
    assert pushed.status == 0, pushed
    node.ledger.told.clear()
    return tree


async def push_to_the_end(node: Node, tree: Path, capabilities: str = SIDE_BAND) -> RawPush:
    """A client that has sent everything."""
    client = await raw_push(node)
    await client.advertisement()
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    await client.send(commands(capabilities, [f"{ZERO} {oid} refs/heads/new"]) + EMPTY_PACK)
    return client


def hook(node: Node, name: str, script: str) -> None:
    """Runs in each push."""
    node.datadir.hooks.joinpath(name).write_text(f"#!/bin/sh\n{script}\n")
    node.datadir.hooks.joinpath(name).chmod(0o755)


async def test_a_client_that_dies_before_it_is_shown_anything(node: Node, tree: Path) -> None:
    """Its git process is ended, and nothing was written."""
    replicas = sync_set(node)
    client = await raw_push(node)
    await replicas.waited_for()
    assert len(node.processes) == 1
    with capture_logs() as logs:
        await client.die()
        await until(lambda: any(entry["event"] == "session" for entry in logs))
    assert len(node.processes) == 0
    assert node.debris() == []
    assert node.ledger.told == [("pushed", "org/app"), ("replicated", "org/app")]


async def test_a_client_that_dies_while_its_report_waits(node: Node, tree: Path) -> None:
    """Its values stay and were announced to the standbys. Nothing else is left of it."""
    replicas = sync_set(node)
    await held_back(node, replicas)
    client = await push_to_the_end(node, tree)
    await replicas.waited_for(node.ledger.position)
    assert len(node.processes) == 0
    with capture_logs() as logs:
        await client.die()
        await until(lambda: any(entry["event"] == "session" for entry in logs))
    assert node.debris() == []
    assert "refs/heads/new" in node.refs()
    assert node.ledger.told[-2:] == [("written", "org/app"), ("replicated", "org/app")]
    assert node.running() == 0


async def test_leadership_lost_while_a_report_waits(node: Node, tree: Path) -> None:
    """Each ok becomes "not leader", and the exit status is 9. The loss does not wait for the client."""
    replicas = sync_set(node)
    await held_back(node, replicas)
    client = await push_to_the_end(node, tree)
    await replicas.waited_for(node.ledger.position)
    node.leadership.set(STANDBY)
    await asyncio.wait_for(node.leadership.scopes.revoke(LOST), LIMIT_S)
    status, out, err = await client.done()
    assert seen(out).report == (b"unpack ok\n", f"ng refs/heads/new {LOST_REASON}\n".encode())
    assert (status, err) == (9, f"{LOST}\n".encode())


async def test_git_shows_a_leadership_that_was_lost(node: Node, tree: Path) -> None:
    """`! [remote rejected] main -> main (not leader: …; outcome unknown)`."""
    commit(tree, "more")
    replicas = sync_set(node)
    await held_back(node, replicas)
    push = asyncio.create_task(node.git("push", node.url(), "main", cwd=tree))
    await replicas.waited_for(node.ledger.position + 2)
    await asyncio.wait_for(node.leadership.scopes.revoke(LOST), LIMIT_S)
    done = await push
    assert done.status == 1
    assert f"main -> main ({LOST_REASON})" in done.stderr


async def test_leadership_lost_while_a_hook_runs_after_the_report(node: Node, tree: Path) -> None:
    """Git has written its report and is killed with the hook: the report is rewritten all the same."""
    os.mkfifo(node.root / "fifo")
    hook(node, "post-receive", f"echo waiting; exec cat {node.root / 'fifo'}")
    client = await push_to_the_end(node, tree)
    await asyncio.wait_for(client.process.stdout.readuntil(b"waiting"), LIMIT_S)
    node.leadership.set(STANDBY)
    await asyncio.wait_for(node.leadership.scopes.revoke(LOST), LIMIT_S)
    assert len(node.processes) == 0
    status, out, err = await client.done()
    assert b"ng refs/heads/new not leader" in out
    assert b"ok refs/heads/new" not in out
    assert (status, err) == (9, f"{LOST}\n".encode())


async def test_leadership_lost_before_the_refs_are_shown(node: Node, tree: Path) -> None:
    """The refusal of a node that does not lead."""
    replicas = sync_set(node)
    push = asyncio.create_task(node.git("push", node.url(), "main", cwd=tree))
    await replicas.waited_for()
    node.leadership.set(STANDBY)
    await asyncio.wait_for(node.leadership.scopes.revoke(LOST), LIMIT_S)
    assert f"fatal: remote error: {NOTHING}" in (await push).stderr
    assert len(node.processes) == 0


async def test_a_lease_that_ran_out_unnoticed_acknowledges_nothing(node: Node, tree: Path) -> None:
    """The sync set has the push, and it was not cancelled yet, as on a machine that was paused."""
    replicas = sync_set(node)
    await held_back(node, replicas)
    client = await push_to_the_end(node, tree)
    await replicas.waited_for(node.ledger.position)
    node.leadership.proved = False
    await replicas.confirm()
    status, out, err = await client.done()
    assert seen(out).report[1].startswith(b"ng refs/heads/new not leader: node-b cannot prove any more")
    assert status == 9
    assert b"not leader" in err
    up_to_date = await node.git("push", node.url(), "main", cwd=tree)
    assert "fatal: remote error: not leader" in up_to_date.stderr


async def test_a_term_that_replication_knows_to_be_over(node: Node, tree: Path) -> None:
    """The wait for the sync set raises: the same result."""
    replicas = sync_set(node)
    await held_back(node, replicas)
    client = await push_to_the_end(node, tree, "report-status")
    await replicas.waited_for(node.ledger.position)
    await replicas.fail(LeadershipLostError("the term has ended; the outcome is unknown"))
    status, out, _ = await client.done()
    assert seen(out).report[1] == b"ng refs/heads/new not leader: the term has ended; outcome unknown\n"
    assert status == 9


async def test_a_leader_that_steps_down_finishes_what_runs(node: Node, tree: Path) -> None:
    """Draining waits for the report of a running push, and that says ok."""
    replicas = sync_set(node)
    await held_back(node, replicas)
    client = await push_to_the_end(node, tree)
    await replicas.waited_for(node.ledger.position)
    drained = asyncio.create_task(node.leadership.scopes.drain("not leader: stepping down", LIMIT_S))
    await until(lambda: node.leadership.scopes._closed)
    assert not drained.done()
    await replicas.confirm()
    status, out, err = await client.done()
    assert (status, seen(out).report[1], err) == (0, b"ok refs/heads/new\n", b"")
    assert await drained


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(28, "No space left on device"), 69), (TryAgainError("later"), 75)]
)
async def test_a_write_that_cannot_be_noted_does_not_happen(
    node: Node, tree: Path, error: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git gets none of the client's bytes."""

    async def writing(_: object) -> None:
        raise error

    monkeypatch.setattr(node.ledger, "writing", writing)
    client = await push_to_the_end(node, tree)
    exit_status, out, _ = await client.done()
    assert (exit_status, out) == (status, b"")
    assert "refs/heads/new" not in node.refs()
    assert len(node.processes) == 0


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), StargateError("the refs are unreadable")]
)
async def test_a_push_that_cannot_be_announced_is_not_acknowledged(
    node: Node, tree: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it was not announced to the standbys, they cannot have it."""
    client = await raw_push(node)
    await client.advertisement()

    async def written(_: object) -> int:
        raise error

    monkeypatch.setattr(node.ledger, "written", written)
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    await client.send(commands(SIDE_BAND, [f"{ZERO} {oid} refs/heads/new"]) + EMPTY_PACK)
    status, out, err = await client.done()
    assert seen(out).report[1] == f"ng refs/heads/new {REASON}\n".encode()
    assert status == 75
    assert err == b"not replicated in time: this node could not tell its standbys; the outcome is unknown\n"


class Stub:
    """A client and a `PushObserver`: sends given bytes, keeps what it gets, and waits as for a replica."""

    def __init__(self, sends: bytes, waits_s: float = 0) -> None:
        self.sends = [sends]
        self.waits_s = waits_s
        self.got = b""
        self.asked: list[str] = []

    async def read(self, n: int) -> bytes:
        return self.sends.pop() if self.sends else b""

    async def write(self, data: bytes) -> None:
        self.got += data

    async def write_error(self, data: bytes) -> None:
        pass

    async def exit(self, status: int) -> None:
        pass

    async def advertised(self) -> None:
        self.asked.append("advertised")
        await asyncio.sleep(self.waits_s)

    async def writing(self) -> None:
        self.asked.append("writing")
        await asyncio.sleep(self.waits_s)

    def given(self, data: bytes) -> None:
        pass


async def test_waiting_for_a_replica_does_not_count_as_silence(node: Node, tmp_path: Path) -> None:
    """The wait has its own limit. The silence limit begins anew after it."""
    stub = Stub(b"0008want", waits_s=0.6)
    process = await node.processes.start(["sh", "-c", "printf 0000; cat >&2"], writes=None)
    assert await PushRelay(process, stub, stub, HeldReport(), tmp_path, silence_limit_s=0.4).run() == 0
    assert stub.asked == ["advertised", "writing"]
    process = await node.processes.start(["sh", "-c", "printf 0000; sleep 600"], writes=None)
    with pytest.raises(TimeoutError):
        await PushRelay(process, stub, stub, HeldReport(), tmp_path, silence_limit_s=0.2).run()
    assert len(node.processes) == 0


@pytest.mark.parametrize("said", ["0009ERR x", "000", ""])
async def test_git_that_ends_before_its_refs_are_listed(node: Node, tmp_path: Path, said: str) -> None:
    """There is no list that a client could believe, so git's output and status are passed on."""
    stub = Stub(b"0000")
    process = await node.processes.start(["sh", "-c", f"printf '{said}'; exit 3"], writes=None)
    assert await PushRelay(process, stub, stub, HeldReport(), tmp_path).run() == 3
    assert (stub.got, stub.asked) == (said.encode(), [])


async def test_git_that_says_something_else_is_an_internal_error(node: Node, tmp_path: Path) -> None:
    """Output that is not git's protocol is not passed on."""
    stub = Stub(b"0000")
    process = await node.processes.start(["sh", "-c", "printf '0000hello world'"], writes=None)
    with pytest.raises(ValueError, match="not the length of a pkt-line"):
        await PushRelay(process, stub, stub, HeldReport(), tmp_path).run()
    assert stub.got == b"0000"
