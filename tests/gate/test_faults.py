"""Clients and git that die, stop reading, or close one side: nothing is left behind, nothing hangs."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stargate_gate.gate.relay import relay
from stargate_gate.repos.process import GitProcess
from tests.gate.conftest import LEADER, STANDBY, Node, commit, connect, git, work_tree
from tests.support.clients import git_ssh_environment
from tests.support.rawssh import connect as connect_socket

LIMIT_S = 20.0
SOCKET_BUFFER_BYTES = 256 * 1024  # of each side; without a limit a machine may take a whole clone


async def until(probe: Callable[[], Any]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(LIMIT_S):
        while not probe():
            await asyncio.sleep(0.01)


def noise(tree: Path, megabytes: int) -> None:
    """A commit that does not compress."""
    (tree / "big").write_bytes(os.urandom(megabytes * 1_000_000))
    commit(tree)


def half_a_push(tree: Path) -> bytes:
    """What a client sends to create refs/heads/new, up to the middle of its pack."""
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    line = f"{'0' * 40} {oid} refs/heads/new\0 report-status side-band-64k".encode()
    command = b"%04x" % (len(line) + 4) + line + b"0000"
    pack = tree / "out.pack"
    with pack.open("wb") as file:
        subprocess.run(
            ["git", "pack-objects", "--revs", "--stdout", "-q"],
            input=b"HEAD\n",
            cwd=tree,
            stdout=file,
            check=True,
            timeout=60,
        )
    content = pack.read_bytes()
    return command + content[: len(content) // 2]


@pytest.mark.parametrize("unpack_limit", ["1", "1000"])
async def test_a_client_that_dies_in_mid_push_leaves_nothing(node: Node, unpack_limit: str) -> None:
    """No process, lock file or temporary pack, with index-pack and with unpack-objects."""
    repository = await node.make()
    git("config", "receive.unpackLimit", unpack_limit, cwd=node.path())
    tree = work_tree(node.root / "tree")
    noise(tree, 8)
    sent = half_a_push(tree)
    connection = await connect(node)
    process = await connection.create_process("git-receive-pack org/app", encoding=None)
    await asyncio.wait_for(process.stdout.readuntil(b"0000"), LIMIT_S)
    process.stdin.write(sent)
    await asyncio.wait_for(process.stdin.drain(), LIMIT_S)
    await until(lambda: any(repository.path.glob("objects/**/tmp_*")))
    with capture_logs() as logs:
        connection.abort()
        await connection.wait_closed()
        await until(lambda: any(entry["event"] == "session" for entry in logs))
    assert len(node.processes) == 0
    assert node.debris() == []
    assert node.refs() == {}
    told = [("pushed", "org/app"), ("replicated", "org/app"), ("writing", "org/app"), ("written", "org/app")]
    assert node.ledger.told == told
    assert (await node.git("push", "-q", node.url(), "main", cwd=tree)).status == 0


async def test_a_killed_git_push_leaves_nothing(node: Node) -> None:
    """The same with the real client, killed with all its children."""
    tree = work_tree(node.root / "tree")
    noise(tree, 25)
    client = await asyncio.create_subprocess_exec(
        *("git", "push", "-q", node.url(), "main"),
        cwd=tree,
        env={**os.environ, **git_ssh_environment(node.keys["write"])},
        start_new_session=True,
    )
    await until(lambda: node.path().exists() and any(node.path().glob("objects/**/tmp_*")))
    os.killpg(client.pid, signal.SIGKILL)
    await client.wait()
    await until(lambda: len(node.processes) == 0)
    assert node.debris() == []
    assert node.refs() == {}
    assert (await node.git("push", "-q", node.url(), "main", cwd=tree)).status == 0


async def test_a_killed_push_does_not_sweep_under_a_running_one(node: Node) -> None:
    """Two pushes to one repository: one is killed, the other one finishes."""
    await node.make()
    tree = work_tree(node.root / "tree")
    noise(tree, 8)
    dying = await connect(node)
    victim = await dying.create_process("git-receive-pack org/app", encoding=None)
    await asyncio.wait_for(victim.stdout.readuntil(b"0000"), LIMIT_S)
    victim.stdin.write(half_a_push(tree))
    await asyncio.wait_for(victim.stdin.drain(), LIMIT_S)
    push = asyncio.create_task(node.git("push", "-q", node.url(), "main", cwd=tree))
    await until(lambda: len(node.processes) == 2)
    dying.abort()
    await dying.wait_closed()
    assert (await push).status == 0
    await until(lambda: len(node.processes) == 0)
    assert node.debris() == []
    assert list(node.refs()) == ["refs/heads/main"]


async def test_a_half_closed_channel_still_gets_its_answer(node: Node) -> None:
    """The client has closed its side, and still gets git's output and exit status."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    async with connect(node) as connection:
        process = await connection.create_process("git-upload-pack org/app", encoding=None)
        process.stdin.write(b"0000")
        process.stdin.write_eof()
        out = await asyncio.wait_for(process.stdout.read(), LIMIT_S)
        assert b"refs/heads/main" in out
        assert out.endswith(b"0000")
        assert (await asyncio.wait_for(process.wait_closed(), LIMIT_S)) is None
        assert process.exit_status == 0
        cut_off = await connection.create_process("git-receive-pack org/app", encoding=None)
        cut_off.stdin.write_eof()
        done = await asyncio.wait_for(cut_off.wait(), LIMIT_S)
        assert done.exit_status == 128  # git's own
        assert b"hung up unexpectedly" in done.stderr


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, 128 + 9), (signal.SIGSEGV, 128 + 11), (signal.SIGTERM, 128 + 15)]
)
async def test_the_death_of_git_is_an_exit_status(node: Node, number: signal.Signals, status: int) -> None:
    """128+n at once, although the client goes on sending."""
    await node.make()
    async with connect(node) as connection:
        process = await connection.create_process("git-receive-pack org/app", encoding=None)
        await asyncio.wait_for(process.stdout.readuntil(b"0000"), LIMIT_S)
        (running,) = node.processes._running
        process.stdin.write(b"0" * 1_000_000)
        running.signal(number)
        await asyncio.wait_for(process.wait(), LIMIT_S)
    assert process.exit_status == status
    assert node.debris() == []


async def test_what_git_wrote_before_it_died_arrives(node: Node) -> None:
    """Megabytes of output that are read slowly after git has exited arrive completely."""
    node.datadir.hooks.joinpath("post-receive").write_text(
        "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x; kill -9 $PPID\n"
    )
    node.datadir.hooks.joinpath("post-receive").chmod(0o755)
    tree = work_tree(node.root / "tree")
    push = await node.git("push", node.url(), "main", cwd=tree)
    assert push.status != 0
    assert list(node.refs()) == ["refs/heads/main"]
    assert node.ledger.told[-2:] == [("written", "org/app"), ("replicated", "org/app")]


async def test_a_client_that_stops_reading_is_ended(node: Node) -> None:
    """After the stall limit. Its git process is gone then, and memory was bounded until then."""
    tree = work_tree(node.root / "tree")
    noise(tree, 30)
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    await node.server.close()
    node.settings = replace(node.settings, stall_limit_s=0.5)
    await node.open()
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    want = f"want {oid} side-band-64k\n".encode()
    async with connect(node) as connection:
        process = await connection.create_process("git-upload-pack org/app", encoding=None)
        await asyncio.wait_for(process.stdout.readuntil(b"0000"), LIMIT_S)
        with capture_logs() as logs:
            process.channel.pause_reading()
            process.stdin.write(b"%04x" % (len(want) + 4) + want + b"00000009done\n")
            await until(lambda: any(entry["event"] == "session" for entry in logs))
        (line,) = [entry for entry in logs if entry["event"] == "session"]
        assert line["ended"] == "the client has read nothing for 0.5 s"
        assert line["bytes_out"] < 6_000_000
    assert len(node.processes) == 0


async def test_a_huge_window_does_not_make_the_node_hold_a_whole_clone(node: Node) -> None:
    """A client offers a window of a gigabyte and stops reading: git has to wait."""
    tree = work_tree(node.root / "tree")
    noise(tree, 30)
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    oid = git("rev-parse", "HEAD", cwd=tree).strip()
    want = f"want {oid} side-band-64k\n".encode()
    sock = connect_socket(node.port, receive_buffer_bytes=SOCKET_BUFFER_BYTES)
    async with connect(node, sock=sock) as connection:
        (guest,) = node.server._authenticated
        guest.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        process = await connection.create_process("git-upload-pack org/app", encoding=None, window=1 << 30)
        await asyncio.wait_for(process.stdout.readuntil(b"0000"), LIMIT_S)
        process.stdin.write(b"%04x" % (len(want) + 4) + want + b"00000009done\n")
        transport = connection._transport
        transport.pause_reading()
        await until(lambda: not guest._transport_low)
        assert guest.unsent_bytes() < 2_000_000
        assert len(node.processes) == 1
        transport.resume_reading()
        received = 0
        async with asyncio.timeout(LIMIT_S):
            while data := await process.stdout.read(1 << 20):
                received += len(data)
        assert received > 30_000_000


async def test_leadership_lost_in_mid_push_ends_it(node: Node) -> None:
    """The running receive-pack was ended and reaped when the loss is complete. The client gets the reason."""
    await node.make()
    tree = work_tree(node.root / "tree")
    noise(tree, 8)
    async with connect(node) as connection:
        process = await connection.create_process("git-receive-pack org/app", encoding=None)
        await asyncio.wait_for(process.stdout.readuntil(b"0000"), LIMIT_S)
        process.stdin.write(half_a_push(tree))
        await asyncio.wait_for(process.stdin.drain(), LIMIT_S)
        node.leadership.set(STANDBY)
        await asyncio.wait_for(node.leadership.scopes.revoke("not leader: gone"), LIMIT_S)
        assert len(node.processes) == 0
        assert node.debris() == []
        done = await asyncio.wait_for(process.wait(), LIMIT_S)
        told = b"not leader: gone; nothing was changed, push again\n"
        assert (done.exit_status, done.stderr) == (9, told)
    assert node.refs() == {}


async def test_draining_waits_for_running_pushes(node: Node) -> None:
    """A running push finishes, a new one is refused."""
    tree = work_tree(node.root / "tree")
    await node.make()
    async with connect(node) as connection:
        process = await connection.create_process("git-receive-pack org/app", encoding=None)
        await asyncio.wait_for(process.stdout.readuntil(b"0000"), LIMIT_S)
        drained = asyncio.create_task(node.leadership.scopes.drain("not leader: stepping down", LIMIT_S))
        await until(lambda: node.leadership.scopes._closed)
        refused = await node.git("push", node.url(), "main", cwd=tree)
        assert "fatal: remote error: not leader: stepping down" in refused.stderr
        assert not drained.done()
        process.stdin.write(b"0000")
        assert await asyncio.wait_for(drained, LIMIT_S)
        await asyncio.wait_for(process.wait(), LIMIT_S)


async def test_closing_the_server_ends_its_git_processes(node: Node) -> None:
    """Each is reaped when close returns."""
    await node.make()
    async with connect(node) as connection:
        process = await connection.create_process("git-upload-pack org/app", encoding=None)
        await asyncio.wait_for(process.stdout.readuntil(b"0000"), LIMIT_S)
        await node.server.close()
        assert len(node.processes) == 0
        await asyncio.wait_for(process.wait(), LIMIT_S)
        assert process.exit_status == 69
    await node.open()
    assert node.leadership.view() == LEADER


class Silent:
    """A client that neither sends nor reads anything, and does not leave."""

    async def read(self, n: int) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def write(self, data: bytes) -> None:
        pass

    async def write_error(self, data: bytes) -> None:
        pass

    async def exit(self, status: int) -> None:
        pass


async def start(node: Node, script: str) -> GitProcess:
    """A process that behaves as the script says."""
    return await node.processes.start(["sh", "-c", script], writes=None)


async def test_silence_on_both_sides_ends(node: Node) -> None:
    """After the silence limit."""
    process = await start(node, "sleep 600")
    with pytest.raises(TimeoutError):
        await relay(process, Silent(), silence_limit_s=0.2)
    assert len(node.processes) == 0


async def test_a_child_that_keeps_gits_pipes_open_does_not_hold_the_session(node: Node) -> None:
    """A background process that a hook has left is ended with git."""
    process = await start(node, "sleep 600 & echo done; exit 3")
    async with asyncio.timeout(LIMIT_S):
        assert await relay(process, Silent()) == 3
