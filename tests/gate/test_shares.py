"""One key cannot take the node from the others: sessions, connections, memory. On a real gate."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncssh
import paramiko
import pytest

from stargate_gate.gate.admission import Shares
from stargate_gate.gate.ssh import connection as connection_module
from stargate_gate.gate.ssh.backpressure import FIRST_WINDOW_BYTES, WINDOW_BYTES
from tests.gate.conftest import Node, connect, work_tree

LIMIT_S = 30.0


@contextlib.asynccontextmanager
async def stalled_reads(
    node: Node, count: int, key: str = "read"
) -> AsyncIterator[list[asyncssh.SSHClientProcess[bytes]]]:
    """That many upload-packs of one key that wait for their client."""
    async with connect(node, key) as connection:
        held = []
        for _ in range(count):
            process = await connection.create_process("git-upload-pack org/app", encoding=None)
            await asyncio.wait_for(process.stdout.readexactly(4), LIMIT_S)
            held.append(process)
        yield held


async def test_a_key_that_takes_its_share_leaves_the_rest_to_others(node: Node) -> None:
    """Attack: one read key ran all sessions of a node, so others could not push, fetch or list."""
    await node.make()
    await node.reopen(shares=Shares(reads=3, pushes=1, per_key=2, per_address=9))
    async with stalled_reads(node, 2):
        third = await node.ssh("git-upload-pack org/app", key="read")
        assert third.status == 69
        assert "2 sessions of your key run here already" in third.stdout
        assert (await node.ssh("health", key="read")).status == 0
        assert (await node.ssh("repo list")).stdout == "org/app\n"
        tree = work_tree(node.root / "tree")
        assert (await node.git("push", "-q", node.url(), "main", cwd=tree)).status == 0


async def test_reads_of_all_kinds_leave_pushes_their_pool(node: Node) -> None:
    """Even if all shares of reads are used."""
    await node.make()
    await node.reopen(shares=Shares(reads=1, pushes=1, per_key=9, per_address=9))
    async with stalled_reads(node, 1):
        assert (await node.ssh("repo list")).status == 69
        tree = work_tree(node.root / "tree")
        assert (await node.git("push", "-q", node.url(), "main", cwd=tree)).status == 0


async def test_pushes_of_one_key_leave_pushes_to_others(node: Node) -> None:
    """Attack: one write key began as many pushes as a node may run, and did not go on with them."""
    await node.make()
    await node.reopen(shares=Shares(reads=9, pushes=2, per_key=9, per_address=9, pushes_per_key=1))
    async with connect(node, "write") as connection:
        held = await connection.create_process("git-receive-pack org/app", encoding=None)
        await asyncio.wait_for(held.stdout.readexactly(4), LIMIT_S)
        refused = await node.ssh("git-receive-pack org/app", key="write")
        assert "1 pushes of your key run here already" in refused.stdout
        assert (await node.ssh("repo create org/more", key="admin")).status == 0
        held.stdin.write(b"0000")
        await asyncio.wait_for(held.wait_closed(), LIMIT_S)


async def test_who_comes_too_soon_waits_for_a_turn(node: Node) -> None:
    """It is not refused at once, since a share may become free."""
    await node.make()
    await node.reopen(shares=Shares(reads=1, pushes=1, per_key=9, per_address=9), queue_wait_s=LIMIT_S)
    async with stalled_reads(node, 1) as (held,):
        waits = asyncio.create_task(node.ssh("repo list"))
        async with asyncio.timeout(LIMIT_S):
            while not node.gate._admission._may_run:
                await asyncio.sleep(0.01)
        held.stdin.write(b"0000")
        assert (await asyncio.wait_for(waits, LIMIT_S)).stdout == "org/app\n"


async def test_who_leaves_the_queue_takes_no_turn(node: Node) -> None:
    """A client that disconnects while it waits uses no share."""
    await node.make()
    await node.reopen(shares=Shares(reads=1, pushes=1, per_key=9, per_address=9), queue_wait_s=LIMIT_S)
    async with stalled_reads(node, 1) as (held,):
        async with connect(node) as connection:
            await connection.create_process("repo list")
            async with asyncio.timeout(LIMIT_S):
                while not node.gate._admission._may_run:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(LIMIT_S):
            while node.gate._admission._may_run:
                await asyncio.sleep(0.01)
        held.stdin.write(b"0000")
        await asyncio.wait_for(held.wait_closed(), LIMIT_S)
    assert (await node.ssh("repo list")).status == 0
    assert node.running() == 0


async def test_a_key_holds_so_many_connections(node: Node) -> None:
    """Attack: 799 idle ones of one key kept all others out. The one that is idle for longest is closed."""
    node.settings = replace(node.settings, max_connections_per_key=2)
    await node.reopen()
    async with connect(node, "read") as first, connect(node, "read") as second:
        assert (await second.run("health")).exit_status == 0
        async with connect(node, "read") as third, connect(node, "write") as other:
            await asyncio.wait_for(first.wait_closed(), LIMIT_S)
            for left in (second, third, other):
                assert (await left.run("health")).exit_status == 0


async def test_connections_in_use_are_not_closed_for_new_ones(node: Node) -> None:
    """Then the new one is closed, with the reason."""
    await node.make()
    node.settings = replace(node.settings, max_connections_per_key=1)
    await node.reopen()
    async with stalled_reads(node, 1) as (held,):
        late = await node.ssh("health", key="read")
        assert late.status == 255
        assert "your key has 1 connections, as many as it may" in late.stderr
        held.stdin.write(b"0000")
        await asyncio.wait_for(held.wait_closed(), LIMIT_S)
        assert held.exit_status == 0


async def test_peers_have_as_many_connections_as_they_need(node: Node) -> None:
    """The sync set depends on them."""
    node.settings = replace(node.settings, max_connections_per_key=1)
    await node.reopen()
    async with connect(node, "cluster") as one, connect(node, "cluster") as two:
        assert (await one.run("health")).exit_status == (await two.run("health")).exit_status == 0


async def test_a_channel_may_send_nothing_before_its_command_reads(node: Node) -> None:
    """Attack: 2 MiB into each of 200 channels that ran nothing took 400 MB of the node."""
    await node.make()

    def look() -> tuple[int, int]:
        transport = paramiko.Transport(("127.0.0.1", node.port))
        try:
            key = paramiko.Ed25519Key(filename=str(node.keys["read"]))
            transport.connect(username="git", pkey=key)
            channel = transport.open_session(timeout=LIMIT_S)
            channel.settimeout(LIMIT_S)
            before = channel.out_window_size
            channel.exec_command("git-upload-pack org/app")
            channel.recv(4)
            return before, channel.out_window_size
        finally:
            transport.close()

    before, after = await asyncio.to_thread(look)
    assert before == 0
    assert after in {0, FIRST_WINDOW_BYTES}  # git may have spoken before it wanted to read
    assert FIRST_WINDOW_BYTES * 200 < 16 * 2**20 < WINDOW_BYTES * 200


async def test_a_channel_without_a_command_is_closed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: such a channel had no limit, and its connection counted as busy."""
    monkeypatch.setattr(connection_module, "COMMAND_LIMIT_S", 0.2)
    monkeypatch.setattr(connection_module, "IDLE_LIMIT_S", 0.4)

    def wait() -> bool:
        transport = paramiko.Transport(("127.0.0.1", node.port))
        try:
            transport.connect(username="git", pkey=paramiko.Ed25519Key(filename=str(node.keys["read"])))
            channel = transport.open_session(timeout=LIMIT_S)
            channel.settimeout(LIMIT_S)
            return channel.recv(1) == b""
        finally:
            transport.close()

    assert await asyncio.to_thread(wait)


async def test_a_key_that_is_taken_away_runs_nothing_more(node: Node) -> None:
    """Also on a connection that is open: each command looks at the file."""
    await node.make()
    keys = node.root / "authorized_keys"
    async with connect(node, "write") as connection:
        assert (await connection.run("repo list")).exit_status == 0
        before = keys.read_text()
        keys.write_text("")
        refused = await connection.run("git-receive-pack org/app")
        assert refused.exit_status == 77
        assert "your key may not log in any more" in refused.stderr
        keys.write_text(before.replace("STARGATE_ACCESS=write", "STARGATE_ACCESS=read"))
        assert (await connection.run("git-receive-pack org/app")).exit_status == 77
        keys.write_text(before)
        assert (await connection.run("repo list")).exit_status == 0
