"""Refusals: one clear line in every client, the exact exit code, before any pack is sent."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from stargate_gate.gate.admission import Shares
from stargate_gate.repos.pktline import error_line
from tests.gate.conftest import (
    LEADER,
    LEADERLESS,
    NO_LEADER_HERE,
    REFUSAL,
    STANDBY,
    Node,
    commit,
    connect,
    git,
    work_tree,
)

PROTOCOLS = [0, 1, 2]
LIMIT_S = 20.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_git_shows_a_standbys_refusal_without_its_own_advice(node: Node, protocol: int) -> None:
    """`fatal: remote error: not leader: …`, nothing about access rights; nothing is created."""
    node.leadership.set(STANDBY)
    tree = work_tree(node.root / "tree")
    push = await node.git("push", node.url(), "main", cwd=tree, protocol=protocol)
    assert push.status == 128
    assert f"fatal: remote error: {REFUSAL}\n" in push.stderr
    assert "access rights" not in push.stderr
    assert sorted(push.stderr.splitlines()) == sorted([f"fatal: remote error: {REFUSAL}", REFUSAL])
    assert not node.path().exists()
    assert node.ledger.told == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_reads_go_on_at_a_standby(node: Node, protocol: int) -> None:
    """Clone, ls-remote and archive, while pushes are refused."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    node.leadership.set(STANDBY)
    assert (await node.git("clone", "-q", node.url(), "copy", protocol=protocol)).status == 0
    archive = await node.git("archive", f"--remote={node.url()}", "main", protocol=protocol)
    assert archive.status == 0
    assert (await node.ssh("repo list")).stdout == "org/app\n"


async def test_ssh_and_paramiko_see_exit_code_9(node: Node) -> None:
    """`ssh … git-receive-pack` and paramiko: 9, the line on stderr, an ERR pkt-line on stdout."""
    node.leadership.set(STANDBY)
    command = "git-receive-pack '/org/app.git'"
    done = await node.ssh(command)
    assert done.status == 9
    assert done.stdout.encode() == error_line(REFUSAL)
    assert done.stderr == f"{REFUSAL}\n"
    assert await asyncio.to_thread(by_paramiko, node, command) == (
        9,
        error_line(REFUSAL),
        f"{REFUSAL}\n".encode(),
    )
    for words in ("repo create a", "repo delete a"):
        admin = await node.ssh(words, key="admin")
        assert (admin.status, admin.stdout, admin.stderr) == (9, "", f"{NO_LEADER_HERE}\n")


@contextlib.contextmanager
def closing_client(node: Node, key: str = "write") -> Iterator[paramiko.SSHClient]:
    """Another implementation of SSH, logged in."""
    with contextlib.closing(paramiko.SSHClient()) as client:
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1",
            node.port,
            "git",
            key_filename=str(node.keys[key]),
            look_for_keys=False,
            allow_agent=False,
            timeout=LIMIT_S,
        )
        yield client


def by_paramiko(node: Node, command: str, key: str = "write") -> tuple[int, bytes, bytes]:
    """The same with another implementation of SSH."""
    with closing_client(node, key) as client:
        _, out, err = client.exec_command(command, timeout=LIMIT_S)
        return out.channel.recv_exit_status(), out.read(), err.read()


async def test_paramiko_with_several_keys_gets_in(node: Node) -> None:
    """It asks for the service again before each key, and is not disconnected for that."""
    other = paramiko.ECDSAKey.generate()

    def login() -> int:
        with socket.create_connection(("127.0.0.1", node.port), LIMIT_S) as sock:
            transport = paramiko.Transport(sock)
            transport.start_client(timeout=LIMIT_S)
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_publickey("git", other)
            transport.auth_publickey("git", paramiko.Ed25519Key(filename=str(node.keys["read"])))
            channel = transport.open_session(timeout=LIMIT_S)
            channel.exec_command("health")
            status = channel.recv_exit_status()
            transport.close()
            return status

    assert await asyncio.to_thread(login) == 0


async def test_paramiko_sees_every_exit_code(node: Node) -> None:
    """64, 66, 77 and 0."""
    expected = {
        "no-such-command": 64,
        "git-upload-pack '../x'": 64,
        "git-upload-pack 'missing'": 66,
        "git-receive-pack 'a'": 77,
        "repo create a": 77,
        "health": 0,
    }
    for command, status in expected.items():
        seen, _, err = await asyncio.to_thread(by_paramiko, node, command, "read")
        assert (command, seen) == (command, status), err


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_missing_repository_is_named(node: Node, protocol: int) -> None:
    """fetch, clone and archive: git's remote error; ssh: 66."""
    line = "no such repository: org/app"
    clone = await node.git("clone", node.url(), "copy", protocol=protocol)
    assert clone.status == 128
    assert clone.stderr.splitlines()[-1] == f"fatal: remote error: {line}"
    archive = await node.git("archive", f"--remote={node.url()}", "main", protocol=protocol)
    assert archive.status == 128
    assert f"remote error: {line}" in archive.stderr
    done = await node.ssh("git-upload-pack 'org/app'")
    assert (done.status, done.stdout.encode(), done.stderr) == (66, error_line(line), "")


async def test_without_create_on_push_a_missing_repository_is_66(node: Node) -> None:
    """None is created."""
    await node.reopen(create_on_push=False)
    tree = work_tree(node.root / "tree")
    push = await node.git("push", node.url(), "main", cwd=tree)
    assert "fatal: remote error: no such repository: org/app" in push.stderr
    assert (await node.ssh("git-receive-pack org/app")).status == 66
    assert not node.path().exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_key_that_may_read_does_not_push(node: Node, protocol: int) -> None:
    """77, whether this node leads or not: access is checked before the gate."""
    line = "not allowed: read@test has read access and may not push; ask an operator"
    tree = work_tree(node.root / "tree")
    for view in (LEADER, STANDBY):
        node.leadership._view = view
        push = await node.git("push", node.url(), "main", key="read", cwd=tree, protocol=protocol)
        assert push.status == 128
        assert f"fatal: remote error: {line}" in push.stderr
        assert (await node.ssh("git-receive-pack org/app", key="read")).status == 77
    assert not node.path().exists()


async def test_a_writer_creates_nothing_by_command(node: Node) -> None:
    """Only admins create and delete repositories; a first push creates one, too."""
    for words in ("repo create a", "repo delete a"):
        done = await node.ssh(words, key="write")
        assert done.status == 77
        assert done.stderr.startswith("not allowed: write@test has write access")


async def test_peer_commands_do_not_exist_for_users(node: Node) -> None:
    """Not even for admins."""
    for words in ("stargate-feed node-a 01", "stargate-refs org/app"):
        done = await node.ssh(words, key="admin")
        assert done.status == 64
        assert done.stderr.startswith(f"unknown command '{words.split()[0]}'")


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("frobnicate", "unknown command 'frobnicate'; run ssh without a command to see what there is"),
        ("bash -i", "unknown command 'bash'"),
        ("health; id", "unknown command 'health;'"),
        ("git-lfs-authenticate org/app upload", "git-lfs is not served here"),
        ("scp -t /etc", "unknown command 'scp'"),
        ("repo create ../../etc", "not a repository name"),
        ("\x1b]0;title\x07", "the command holds control characters"),
    ],
)
async def test_unknown_commands_are_64_with_a_hint(node: Node, command: str, shown: str) -> None:
    """On stderr, printable."""
    done = await node.ssh(command, key="admin")
    assert (done.status, done.stdout) == (64, "")
    assert done.stderr.startswith(shown)
    assert done.stderr.rstrip("\n").isprintable()


async def test_the_refusal_names_the_address_that_follows_the_leader(node: Node) -> None:
    """The URL to push to, and the leader's name."""
    await node.reopen(address="stargate.local:2222")
    node.leadership.set(STANDBY)
    where = f"{NO_LEADER_HERE}; push to ssh://git@stargate.local:2222/org/app"
    done = await node.ssh("git-receive-pack '/org/app.git'")
    assert (done.status, done.stdout.encode(), done.stderr) == (9, error_line(where), f"{where}\n")
    push = await node.git("push", node.url(), "main", cwd=work_tree(node.root / "tree"))
    assert f"fatal: remote error: {where}\n" in push.stderr
    admin = await node.ssh("repo create a", key="admin")
    assert admin.stderr == f"{NO_LEADER_HERE}; use ssh://git@stargate.local:2222\n"


async def test_a_command_that_is_not_utf8_is_told_so(node: Node) -> None:
    """Old clients on Windows send Latin-1: 64 with one line, also for a push, and the log can show it."""

    def ask(command: bytes) -> tuple[int, bytes, bytes]:
        with closing_client(node) as client:
            channel = client.get_transport().open_session(timeout=LIMIT_S)
            channel.settimeout(LIMIT_S)
            channel.exec_command(command)
            return channel.recv_exit_status(), channel.makefile().read(), channel.makefile_stderr().read()

    for command in (b"git-receive-pack 'caf\xe9'", b"repo create caf\xe9", b"git-upload-pack 'caf\xe9'"):
        status, out, err = await asyncio.to_thread(ask, command)
        assert status == 64
        assert b"the command is not UTF-8" in out + err


async def test_help_greets_as_plain_ssh_does(node: Node) -> None:
    """For a user who does not know the commands."""
    plain = await node.ssh()
    assert plain.status == 0
    for words in ("help", "?"):
        assert await node.ssh(words) == plain


async def test_two_slashes_are_one(node: Node) -> None:
    """As on other hosts: ssh://host//org/app."""
    tree = work_tree(node.root / "tree")
    assert (await node.git("push", "-q", node.url("/org/app"), "main", cwd=tree)).status == 0
    assert "refs/heads/main" in node.refs()


PATH_TRICKS = [
    "../outside",
    "/../outside.git",
    "a/../../outside",
    "./app",
    "a/./b",
    "-upload-pack=x",
    "--help",
    "~root/x",
    "a\\..\\b",
    "%2e%2e/x",
    "a b",
    "a\tb",
    "org/app.git/objects",
    ".git",
    "x.lock",
    "ü",
    "a" * 300,
    "a/b/c/d/e/f/g/h/i",
]


async def test_path_tricks_reach_nothing(node: Node) -> None:
    """Neither for reading nor for writing, and nothing is created on disk."""
    before = sorted(node.root.rglob("*"))
    async with connect(node) as connection:
        for name in PATH_TRICKS:
            for service in ("git-upload-pack", "git-receive-pack", "git-upload-archive"):
                done = await asyncio.wait_for(connection.run(f"{service} '{name}'"), LIMIT_S)
                assert done.exit_status == 64, (service, name)
                assert done.stdout[4:8] == "ERR "
    assert sorted(node.root.rglob("*")) == before


async def test_a_link_out_of_the_data_dir_is_not_followed(node: Node) -> None:
    """Attack: a link inside repositories/ to a repository elsewhere."""
    outside = node.root / "outside.git"
    git("clone", "-q", "--bare", str(work_tree(node.root / "tree")), str(outside), cwd=node.root)
    (node.datadir.repositories / "link.git").symlink_to(outside)
    (node.datadir.repositories / "folder").symlink_to(node.root)
    for name in ("link", "folder/outside"):
        for service in ("git-upload-pack", "git-receive-pack"):
            done = await node.ssh(f"{service} '{name}'")
            assert done.status in {64, 66, 69}, done
            assert "refs/heads" not in done.stdout
            assert str(node.root) not in done.stdout + done.stderr


async def test_without_a_known_leader_a_push_waits_for_one(node: Node) -> None:
    """During a failover the push goes on as soon as this node leads."""
    await node.reopen(handover_wait_s=LIMIT_S)
    node.leadership.set(LEADERLESS)
    tree = work_tree(node.root / "tree")
    push = asyncio.create_task(node.git("push", "-q", node.url(), "main", cwd=tree))
    await asyncio.sleep(0.3)  # nothing tells that it waits
    assert not push.done()
    await node.leadership.lead()
    assert (await push).status == 0


async def test_a_push_waits_no_longer_than_it_must(node: Node) -> None:
    """Another leader appears: refused at once. None appears: refused after handover_wait_s."""
    node.leadership.set(LEADERLESS)
    nobody = await node.ssh("git-receive-pack org/app")
    assert nobody.status == 9
    assert nobody.stderr == "not leader: node-b is a standby; no leader is known yet, try again\n"
    await node.reopen(handover_wait_s=600.0)
    push = asyncio.create_task(node.ssh("git-receive-pack org/app"))
    await asyncio.sleep(0.2)  # as above
    node.leadership.set(replace(STANDBY, leader_url=None))
    assert (await push).stderr == "not leader: node-b is a standby; the leader is node-a\n"


async def test_a_client_that_is_still_sending_gets_its_refusal(node: Node) -> None:
    """The client is sending ten megabytes when it is refused: it gets the line and the status."""
    node.leadership.set(STANDBY)
    done = await node.ssh("git-receive-pack org/app", stdin=b"x" * 10_000_000)
    assert done.status == 9
    assert done.stdout.encode() == error_line(REFUSAL)
    assert done.stderr == f"{REFUSAL}\n"


async def test_too_many_sessions_are_refused_clearly(node: Node) -> None:
    """69. Commands about the node, and peers, are served."""
    await node.make()
    await node.reopen(shares=Shares(reads=1, pushes=1))
    async with connect(node) as connection:
        held = await connection.create_process("git-upload-pack org/app", encoding=None)
        await asyncio.wait_for(held.stdout.readexactly(4), LIMIT_S)
        line = "this node serves as many sessions as it may, try again later"
        second = await node.ssh("git-upload-pack org/app")
        assert (second.status, second.stdout.encode()) == (69, error_line(line))
        assert (await node.ssh("repo list")).stderr == f"{line}\n"
        assert (await node.ssh("health")).status == 0
        assert (await node.git("ls-remote", node.url(), key="cluster")).status == 0
        held.stdin.write(b"0000")
        await asyncio.wait_for(held.wait_closed(), LIMIT_S)
    assert (await node.ssh("repo list")).status == 0


async def test_the_hook_stands_behind_the_gate(node: Node) -> None:
    """A push by a local path is refused: 77's reason while this node leads, "not leader" otherwise."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    commit(tree, "more")
    local = await node.git("push", str(node.path()), "main", cwd=tree)
    assert local.status == 1
    assert "remote: not allowed: push through ssh" in local.stderr
    node.leadership.set(STANDBY)
    local = await node.git("push", str(node.path()), "main", cwd=tree)
    assert local.status == 1
    assert "remote: not leader: this node is a standby" in local.stderr


async def test_a_leadership_lost_without_a_word_is_caught_by_the_hook(node: Node) -> None:
    """The gate has not noticed it yet, but the leading lock is free."""
    tree = work_tree(node.root / "tree")
    await node.git("push", "-q", node.url(), "main", cwd=tree)
    before = node.refs()
    commit(tree, "more")
    node.lock.release()
    push = await node.git("push", node.url(), "main", cwd=tree)
    assert push.status == 1
    assert "not leader" in push.stderr
    assert node.refs() == before


async def test_internal_errors_tell_clients_nothing_but_a_number(node: Node) -> None:
    """70 with the session's id, and no path."""
    await node.make()
    node.gate._store = None  # type: ignore[assignment]  # a defect
    done = await node.ssh("git-upload-pack org/app")
    assert done.status == 70
    assert "ERR internal error; tell an operator the session " in done.stdout
    assert str(Path.cwd()) not in done.stdout + done.stderr
