"""The listener: who gets in, what a key's line decides, what a client may ask for, how it stops."""

import asyncio
import json
import socket
from dataclasses import replace
from pathlib import Path

import asyncssh
import paramiko
import pytest
from structlog.testing import capture_logs

from stargate_gate.access.host_keys import load_or_make_host_keys
from stargate_gate.errors import UnavailableError
from stargate_gate.gate.ssh.server import SshServer
from tests.gate.listener import LIMIT_S, Site, connections, until
from tests.support.clients import run, ssh_argv
from tests.support.cluster import make_key


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_the_identity_comes_from_the_matched_line(site: Site) -> None:
    """User and access of the entry, the fingerprint of the key, the source of the connection."""
    site.allow('environment="STARGATE_USER=bob",environment="STARGATE_ACCESS=read"')
    async with site.serve():
        told = await site.ask("health")
    assert told["command"] == "health"
    assert told["identity"]["user"] == "bob"
    assert told["identity"]["access"] == "read"
    assert told["identity"]["source"] == "127.0.0.1"
    assert told["identity"]["fingerprint"].startswith("SHA256:")


async def test_the_clients_environment_gives_nobody_rights(site: Site) -> None:
    """Attack: `SetEnv STARGATE_ACCESS=admin`. Only GIT_PROTOCOL is read of what a client sets."""
    site.allow('environment="STARGATE_ACCESS=read"')
    async with site.serve():
        told = await site.ask(
            "health", o=("SetEnv=STARGATE_ACCESS=admin STARGATE_USER=root GIT_PROTOCOL=version=2",)
        )
    assert told["identity"]["access"] == "read"
    assert told["identity"]["user"] == "alice@home"
    assert told["git_protocol"] == "version=2"


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
async def test_each_kind_of_key_gets_in(site: Site, kind: str) -> None:
    """RSA with SHA-2."""
    key = make_key(site.root / kind, kind=kind)
    site.allow("restrict", key)
    async with site.serve():
        await site.ask("health", key=key)


async def test_rsa_with_sha1_does_not_get_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such signatures can be forged. The server neither offers nor accepts them."""
    key = make_key(site.root / "rsa", kind="rsa")
    site.allow("", key)

    def insist(algorithm: bytes) -> None:
        def choose(_: object, keypair: asyncssh.SSHKeyPair) -> bool:
            keypair.set_sig_algorithm(algorithm)
            return True

        monkeypatch.setattr(asyncssh.SSHClientConnection, "_choose_signature_alg", choose)

    async with site.serve():
        insist(b"rsa-sha2-256")
        async with site.connect(key=key):
            pass
        insist(b"ssh-rsa")
        with pytest.raises(asyncssh.PermissionDenied):
            await site.connect(key=key)


async def test_a_wrong_key_and_a_wrong_login_name_are_refused_alike(site: Site) -> None:
    """With the same message to the client, and one log line each."""
    async with site.serve() as server:
        with capture_logs() as logs:
            wrong_key = await site.ssh("health", key=site.stranger)
            wrong_login = await site.ssh("health", login="root")
            await until(lambda: connections(server) == 0)
    for done in (wrong_key, wrong_login):
        assert done.status == 255
        assert "Permission denied (publickey)." in done.stderr
        assert done.stdout == ""
    assert [entry["event"] for entry in logs] == ["not_logged_in", "not_logged_in"]


async def test_the_cluster_key_is_a_peer_whatever_authorized_keys_says(site: Site) -> None:
    """A line of authorized_keys neither gives nor limits a peer's rights."""
    site.allow('environment="STARGATE_ACCESS=read"', site.cluster)
    async with site.serve():
        told = await site.ask("health", key=site.cluster)
    assert told["identity"]["access"] == "peer"


async def test_keys_count_from_the_next_login_after_the_file_changed(site: Site) -> None:
    """Added, removed, broken, gone: without a restart."""
    async with site.serve() as server:
        assert (await site.ssh("health", key=site.stranger)).status == 255
        site.allow("", site.key, site.stranger)
        assert (await site.ssh("health", key=site.stranger)).status == 0
        site.authorized.unlink()
        assert (await site.ssh("health", key=site.stranger)).status == 0
        assert "cannot be read" in server.problems[0]
        site.authorized.write_text("garbage\n" + site.key.with_suffix(".pub").read_text())
        assert (await site.ssh("health", key=site.stranger)).status == 255
        assert (await site.ssh("health")).status == 0
        assert "line 1" in server.problems[0]
        site.authorized.write_text("")
        assert (await site.ssh("health")).status == 255
        assert server.problems == ()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ('from="127.0.0.0/8"', 0),
        ('from="!127.0.0.1,*"', 255),
        ('from="192.0.2.1"', 255),
        ('expiry-time="20990101"', 0),
        ('expiry-time="20200101Z"', 255),
        ('command="true"', 255),
        ('restrict,from="127.0.0.1",expiry-time="209901011200Z"', 0),
    ],
)
async def test_restrictions_of_a_line_hold(site: Site, options: str, status: int) -> None:
    """from= and expiry-time= are enforced. A line with an option that cannot be enforced lets nobody in."""
    site.allow(options)
    async with site.serve():
        assert (await site.ssh("health")).status == status


async def test_exit_statuses_reach_the_client(site: Site) -> None:
    """After stdout and stderr."""
    async with site.serve():
        done = await site.ssh("exit 77")
    assert done.status == 77
    assert json.loads(done.stdout)["command"] == "exit 77"
    assert done.stderr == "done\n"


async def test_a_terminal_is_accepted_and_ignored(site: Site) -> None:
    """`ssh -t`, and a plain `ssh` from a terminal."""
    async with site.serve():
        told = await site.ask("health", o=("RequestTTY=force",))
        assert told["terminal"] is True
        assert (await site.ask())["command"] is None


async def test_nothing_but_commands_is_offered(site: Site) -> None:
    """No forwarding of anything, no SFTP, no SCP by subsystem."""
    async with site.serve():
        async with site.connect() as connection:
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_connection("127.0.0.1", site.port)
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", site.port)
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_unix_connection("/run/x")
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.start_sftp_client()
        forwarding = await run(*ssh_argv(site.port, site.key), "-A", "-X", "health")
        sftp = await run(*ssh_argv(site.port, site.key), "-s", "sftp")
    assert forwarding.status == 0
    assert sftp.status != 0
    assert "subsystem request failed" in sftp.stderr


async def test_passwords_are_not_asked_for(site: Site) -> None:
    """Public keys only."""

    def methods(port: int) -> list[str]:
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
            transport = paramiko.Transport(sock)
            try:
                transport.start_client(timeout=LIMIT_S)
                with pytest.raises(paramiko.BadAuthenticationType) as refusal:
                    transport.auth_none("git")
                return refusal.value.allowed_types
            finally:
                transport.close()

    async with site.serve():
        assert await asyncio.to_thread(methods, site.port) == ["publickey"]


async def test_a_client_that_leaves_ends_its_request(site: Site) -> None:
    """The handler's task is cancelled at once."""
    site.handler.hold = asyncio.Event()
    async with site.serve():
        connection = await site.connect()
        await connection.create_process("health")
        await asyncio.wait_for(site.handler.started.wait(), LIMIT_S)
        connection.abort()
        await asyncio.wait_for(site.handler.ended.wait(), LIMIT_S)
        await connection.wait_closed()


async def test_closing_tells_clients_that_still_wait(site: Site) -> None:
    """One line and 69; no connection is left."""
    site.handler.hold = asyncio.Event()
    async with site.serve() as server:
        client = asyncio.create_task(site.ssh("health"))
        await asyncio.wait_for(site.handler.started.wait(), LIMIT_S)
        await server.close()
        done = await client
        assert not server._servers
        assert connections(server) == 0
    assert done.status == 69
    assert done.stderr == "this node stops; try again\n"


async def test_a_stopped_listener_leaves_running_sessions_alone(site: Site) -> None:
    """No new connections; running sessions finish."""
    site.handler.hold = asyncio.Event()
    async with site.serve() as server:
        client = asyncio.create_task(site.ssh("health"))
        await asyncio.wait_for(site.handler.started.wait(), LIMIT_S)
        await server.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", site.port)
        site.handler.hold.set()
        assert (await client).status == 0


async def test_a_port_in_use_is_said_clearly(site: Site) -> None:
    """69 with the address and a remedy. No other address is listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = SshServer(
            site.handler,
            load_or_make_host_keys(site.root),
            replace(site.settings, listen=(("127.0.0.1", 0), ("127.0.0.1", port))),
        )
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} is in use"):
            await server.start()
        assert not server._servers


async def test_the_slow_cipher_is_not_offered(site: Site) -> None:
    """A client that prefers chacha20-poly1305 gets AES-GCM, and no compression."""
    preference = "Ciphers=chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes128-ctr"
    async with site.serve():
        done = await site.ssh("health", o=("LogLevel=DEBUG1", preference, "Compression=yes"))
    assert done.status == 0
    chosen = [line for line in done.stderr.splitlines() if "cipher: " in line]
    assert len(chosen) == 2
    assert all("cipher: aes128-gcm@openssh.com" in line and "compression: none" in line for line in chosen)
