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
from tests.gate.conftest import STANDBY, House, commit, git, work_tree
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
async def tree(house: House) -> Path:
    """A work tree whose main the house has already."""
    tree = work_tree(house.root / "tree")
    pushed = await house.git("push", "-q", house.url(), "main", cwd=tree)
    assert pushed.status == 0, pushed
    house.ledger.told.clear()
    return tree


async def push_to_the_end(house: House, tree: Path, capabilities: str = SIDE_BAND) -> RawPush:
    """A client that has sent everything."""
    client = await raw_push(house)
    await client.advertisement()
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    await client.send(commands(capabilities, [f"{ZERO} {oid} refs/heads/new"]) + EMPTY_PACK)
    return client


def hook(house: House, name: str, script: str) -> None:
    """Runs in each push."""
    house.datadir.hooks.joinpath(name).write_text(f"#!/bin/sh\n{script}\n")
    house.datadir.hooks.joinpath(name).chmod(0o755)


async def test_a_client_that_dies_before_it_is_shown_anything(house: House, tree: Path) -> None:
    """Its git goes, and nothing was written."""
    replicas = sync_set(house)
    client = await raw_push(house)
    await replicas.waited_for()
    assert len(house.processes) == 1
    with capture_logs() as logs:
        await client.die()
        await until(lambda: any(entry["event"] == "session" for entry in logs))
    assert len(house.processes) == 0
    assert house.debris() == []
    assert house.ledger.told == [("pushed", "org/app"), ("replicated", "org/app")]


async def test_a_client_that_dies_while_its_report_waits(house: House, tree: Path) -> None:
    """What it pushed stays, and the standbys were told; nothing else is left of it."""
    replicas = sync_set(house)
    await held_back(house, replicas)
    client = await push_to_the_end(house, tree)
    await replicas.waited_for(house.ledger.position)
    assert len(house.processes) == 0
    with capture_logs() as logs:
        await client.die()
        await until(lambda: any(entry["event"] == "session" for entry in logs))
    assert house.debris() == []
    assert "refs/heads/new" in house.refs()
    assert house.ledger.told[-2:] == [("written", "org/app"), ("replicated", "org/app")]
    assert house.running() == 0


async def test_leadership_lost_while_a_report_waits(house: House, tree: Path) -> None:
    """Each ok becomes "not leader", the exit status is 9, and losing it does not wait for the client."""
    replicas = sync_set(house)
    await held_back(house, replicas)
    client = await push_to_the_end(house, tree)
    await replicas.waited_for(house.ledger.position)
    house.leadership.set(STANDBY)
    await asyncio.wait_for(house.leadership.scopes.revoke(LOST), LIMIT_S)
    status, out, err = await client.done()
    assert seen(out).report == (b"unpack ok\n", f"ng refs/heads/new {LOST_REASON}\n".encode())
    assert (status, err) == (9, f"{LOST}\n".encode())


async def test_git_shows_a_leadership_that_was_lost(house: House, tree: Path) -> None:
    """`! [remote rejected] main -> main (not leader: …; outcome unknown)`."""
    commit(tree, "more")
    replicas = sync_set(house)
    await held_back(house, replicas)
    push = asyncio.create_task(house.git("push", house.url(), "main", cwd=tree))
    await replicas.waited_for(house.ledger.position + 2)
    await asyncio.wait_for(house.leadership.scopes.revoke(LOST), LIMIT_S)
    done = await push
    assert done.status == 1
    assert f"main -> main ({LOST_REASON})" in done.stderr


async def test_leadership_lost_while_a_hook_runs_after_the_report(house: House, tree: Path) -> None:
    """Git has written its report and is killed with the hook: the report is revised all the same."""
    os.mkfifo(house.root / "fifo")
    hook(house, "post-receive", f"echo waiting; exec cat {house.root / 'fifo'}")
    client = await push_to_the_end(house, tree)
    await asyncio.wait_for(client.process.stdout.readuntil(b"waiting"), LIMIT_S)
    house.leadership.set(STANDBY)
    await asyncio.wait_for(house.leadership.scopes.revoke(LOST), LIMIT_S)
    assert len(house.processes) == 0
    status, out, err = await client.done()
    assert b"ng refs/heads/new not leader" in out
    assert b"ok refs/heads/new" not in out
    assert (status, err) == (9, f"{LOST}\n".encode())


async def test_leadership_lost_before_the_refs_are_shown(house: House, tree: Path) -> None:
    """The refusal of a node that does not lead."""
    replicas = sync_set(house)
    push = asyncio.create_task(house.git("push", house.url(), "main", cwd=tree))
    await replicas.waited_for()
    house.leadership.set(STANDBY)
    await asyncio.wait_for(house.leadership.scopes.revoke(LOST), LIMIT_S)
    assert f"fatal: remote error: {NOTHING}" in (await push).stderr
    assert len(house.processes) == 0


async def test_a_lease_that_ran_out_unnoticed_acknowledges_nothing(house: House, tree: Path) -> None:
    """The sync set has it, and nobody has cancelled the push yet: a machine that was paused wakes up."""
    replicas = sync_set(house)
    await held_back(house, replicas)
    client = await push_to_the_end(house, tree)
    await replicas.waited_for(house.ledger.position)
    house.leadership.proved = False
    await replicas.confirm()
    status, out, err = await client.done()
    assert seen(out).report[1].startswith(b"ng refs/heads/new not leader: node-b cannot prove any more")
    assert status == 9
    assert b"not leader" in err
    up_to_date = await house.git("push", house.url(), "main", cwd=tree)
    assert "fatal: remote error: not leader" in up_to_date.stderr


async def test_a_term_that_replication_knows_to_be_over(house: House, tree: Path) -> None:
    """Raised by the wait itself: the same."""
    replicas = sync_set(house)
    await held_back(house, replicas)
    client = await push_to_the_end(house, tree, "report-status")
    await replicas.waited_for(house.ledger.position)
    await replicas.fail(LeadershipLostError("the term has ended; the outcome is unknown"))
    status, out, _ = await client.done()
    assert seen(out).report[1] == b"ng refs/heads/new not leader: the term has ended; outcome unknown\n"
    assert status == 9


async def test_a_leader_that_steps_down_finishes_what_runs(house: House, tree: Path) -> None:
    """Draining waits for the report of a running push, and that says ok."""
    replicas = sync_set(house)
    await held_back(house, replicas)
    client = await push_to_the_end(house, tree)
    await replicas.waited_for(house.ledger.position)
    drained = asyncio.create_task(house.leadership.scopes.drain("not leader: stepping down", LIMIT_S))
    await until(lambda: house.leadership.scopes._closed)
    assert not drained.done()
    await replicas.confirm()
    status, out, err = await client.done()
    assert (status, seen(out).report[1], err) == (0, b"ok refs/heads/new\n", b"")
    assert await drained


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(28, "No space left on device"), 69), (TryAgainError("later"), 75)]
)
async def test_a_write_that_cannot_be_noted_does_not_happen(
    house: House, tree: Path, error: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git gets nothing of it."""

    async def writing(_: object) -> None:
        raise error

    monkeypatch.setattr(house.ledger, "writing", writing)
    client = await push_to_the_end(house, tree)
    exit_status, out, _ = await client.done()
    assert (exit_status, out) == (status, b"")
    assert "refs/heads/new" not in house.refs()
    assert len(house.processes) == 0


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), StargateError("the refs are unreadable")]
)
async def test_a_push_that_cannot_be_told_is_no_ok(
    house: House, tree: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the standbys never heard of they cannot have."""
    client = await raw_push(house)
    await client.advertisement()

    async def written(_: object) -> int:
        raise error

    monkeypatch.setattr(house.ledger, "written", written)
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    await client.send(commands(SIDE_BAND, [f"{ZERO} {oid} refs/heads/new"]) + EMPTY_PACK)
    status, out, err = await client.done()
    assert seen(out).report[1] == f"ng refs/heads/new {REASON}\n".encode()
    assert status == 75
    assert err == b"not replicated in time: this node could not tell its standbys; the outcome is unknown\n"


class Stub:
    """A client and a witness: sends what it was given, keeps what it gets, and waits as long as a replica."""

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


async def test_waiting_for_a_replica_is_no_silence(house: House, tmp_path: Path) -> None:
    """A wait has a limit of its own: the limit for silence begins anew after it."""
    stub = Stub(b"0008want", waits_s=0.6)
    process = await house.processes.start(["sh", "-c", "printf 0000; cat >&2"], writes=None)
    assert await PushRelay(process, stub, stub, HeldReport(), tmp_path, silence_limit_s=0.4).run() == 0
    assert stub.asked == ["advertised", "writing"]
    process = await house.processes.start(["sh", "-c", "printf 0000; sleep 600"], writes=None)
    with pytest.raises(TimeoutError):
        await PushRelay(process, stub, stub, HeldReport(), tmp_path, silence_limit_s=0.2).run()
    assert len(house.processes) == 0


@pytest.mark.parametrize("said", ["0009ERR x", "000", ""])
async def test_git_that_ends_before_its_refs_are_listed(house: House, tmp_path: Path, said: str) -> None:
    """There is nothing that anybody could believe: what it said passes, with its status."""
    stub = Stub(b"0000")
    process = await house.processes.start(["sh", "-c", f"printf '{said}'; exit 3"], writes=None)
    assert await PushRelay(process, stub, stub, HeldReport(), tmp_path).run() == 3
    assert (stub.got, stub.asked) == (said.encode(), [])


async def test_git_that_says_something_else_is_an_internal_error(house: House, tmp_path: Path) -> None:
    """What is not git's protocol is not passed on; nobody could tell what it means to a client."""
    stub = Stub(b"0000")
    process = await house.processes.start(["sh", "-c", "printf '0000hello world'"], writes=None)
    with pytest.raises(ValueError, match="not the length of a pkt-line"):
        await PushRelay(process, stub, stub, HeldReport(), tmp_path).run()
    assert stub.got == b"0000"
