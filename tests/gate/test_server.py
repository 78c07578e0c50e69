"""The listener: who gets in, what a key's line decides, and clients that do not behave."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import asyncssh
import paramiko
import pytest
from structlog.testing import capture_logs

from stargate_gate.access.host_keys import load_or_make_host_keys, public_key_of
from stargate_gate.errors import UnavailableError
from stargate_gate.gate.ports import Channel, Request
from stargate_gate.gate.ssh import backpressure
from stargate_gate.gate.ssh.login_places import PlaceLimits
from stargate_gate.gate.ssh.server import ServerSettings, SshServer
from tests.support.clients import Done, run, ssh_argv, tcp_connection
from tests.support.cluster import make_key
from tests.support.rawssh import (
    AUTH_FAILURE,
    GLOBAL_REQUEST,
    IGNORE,
    KEXINIT,
    ClosedError,
    RawClient,
    UserKey,
    kexinit,
    string,
)

LIMIT_S = 20.0
ASKED = 20_000  # their answers are a few times what the tests' limits and SMALL_BUFFER_BYTES take
SMALL_BUFFER_BYTES = 32 * 1024  # of a socket; the kernel takes twice as much, and with far less TCP is slow


class Mirror:
    """Answers each request with what it was asked; `hold` makes it wait."""

    def __init__(self) -> None:
        self.hold: asyncio.Event | None = None
        self.started = asyncio.Event()
        self.ended = asyncio.Event()

    async def handle(self, request: Request, channel: Channel) -> int:
        """One line of JSON on stdout, one on stderr, the status from the command."""
        self.started.set()
        try:
            if self.hold:
                await self.hold.wait()
            await channel.write(json.dumps(asdict(request)).encode() + b"\n")
            await channel.write_error(b"done\n")
            words = (request.command or "").split()
            status = int(words[1]) if words[:1] == ["exit"] else 0
            await channel.exit(status)
        finally:
            self.ended.set()
        return 0


class Site:
    """A folder with keys, and the settings of a server over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = make_key(root / "alice", comment="alice@home")
        self.stranger = make_key(root / "mallory", comment="mallory")
        self.cluster = make_key(root / "cluster")
        self.authorized = root / "authorized_keys"
        self.allow("")
        self.settings = ServerSettings(
            listen=(("127.0.0.1", 0),),
            authorized_keys=self.authorized,
            cluster_key=public_key_of(self.cluster),
        )
        self.handler = Mirror()
        self.port = 0

    def allow(self, options: str, *keys: Path) -> None:
        """Write authorized_keys: each key (default: alice's) with these options."""
        lines = [f"{options} {key.with_suffix('.pub').read_text()}".lstrip() for key in keys or (self.key,)]
        self.authorized.write_text("".join(lines))

    @asynccontextmanager
    async def serve(self, **changes: Any) -> AsyncIterator[SshServer]:
        """A running server."""
        state = self.root / "state"
        state.mkdir(exist_ok=True)
        server = SshServer(self.handler, load_or_make_host_keys(state), replace(self.settings, **changes))
        ((_, self.port),) = await server.start()
        try:
            yield server
        finally:
            await server.close()

    async def ssh(
        self, *command: str, key: Path | None = None, login: str = "git", o: tuple[str, ...] = ()
    ) -> Done:
        """OpenSSH's client."""
        return await run(*ssh_argv(self.port, key or self.key, *o, login=login), *command)

    def connect(self, key: Path | None = None) -> Any:
        """An asyncssh client, to await or to enter."""
        return asyncssh.connect(
            "127.0.0.1",
            self.port,
            username="git",
            client_keys=[key or self.key],
            known_hosts=None,
            config=None,
            agent_path=None,
        )

    async def ask(self, *command: str, **options: Any) -> dict[str, Any]:
        """What the handler was told of one successful request."""
        done = await self.ssh(*command, **options)
        assert done.status == 0, done
        told: dict[str, Any] = json.loads(done.stdout)
        return told


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


async def test_an_offered_key_is_not_a_proved_one(site: Site) -> None:
    """Attack: offer the admin's public key, which needs no secret, then sign with one's own."""
    site.authorized.write_text(
        f'environment="STARGATE_ACCESS=admin" {site.stranger.with_suffix(".pub").read_text()}'
        f'environment="STARGATE_ACCESS=read" {site.key.with_suffix(".pub").read_text()}'
    )
    admin_public = paramiko.Ed25519Key(filename=str(site.stranger))

    class OffersOnly(paramiko.Ed25519Key):
        """Shows the admin's public key, signs with another."""

        def asbytes(self) -> bytes:
            return admin_public.asbytes()

    def attack(port: int) -> str:
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
            transport = paramiko.Transport(sock)
            try:
                transport.start_client(timeout=LIMIT_S)
                with pytest.raises(paramiko.AuthenticationException):
                    transport.auth_publickey("git", OffersOnly(filename=str(site.key)))
                transport.auth_publickey("git", paramiko.Ed25519Key(filename=str(site.key)))
                channel = transport.open_session(timeout=LIMIT_S)
                channel.settimeout(LIMIT_S)
                channel.exec_command("health")
                return channel.makefile().read().decode()
            finally:
                transport.close()

    async with site.serve():
        told = json.loads(await asyncio.to_thread(attack, site.port))
    assert told["identity"]["access"] == "read"


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "ed25519"])
async def test_each_kind_of_key_gets_in(site: Site, kind: str) -> None:
    """RSA with SHA-2."""
    key = make_key(site.root / kind, kind=kind)
    site.allow("restrict", key)
    async with site.serve():
        await site.ask("health", key=key)


async def test_rsa_with_sha1_does_not_get_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such signatures can be forged; what the server does not offer it does not take either."""
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
    """The usual message; one line in the log for each."""
    async with site.serve():
        with capture_logs() as logs:
            wrong_key = await site.ssh("health", key=site.stranger)
            wrong_login = await site.ssh("health", login="root")
    for done in (wrong_key, wrong_login):
        assert done.status == 255
        assert "Permission denied (publickey)." in done.stderr
        assert done.stdout == ""
    assert [entry["event"] for entry in logs] == ["not_logged_in", "not_logged_in"]


async def test_the_cluster_key_is_a_peer_whatever_authorized_keys_says(site: Site) -> None:
    """Never by a line, and never less by one."""
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
    """from= and expiry-time= are enforced; what cannot be enforced lets nobody in."""
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


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 100_000,
    b"SSH-1.5-old\r\n",
    b"SSH-2.0-\xff\xfe\r\n",
    b"SSH-2.0-x\r\n" + b"\xff" * 4096,
    b"SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14",
    b"",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_on_the_port_leaves_one_line_and_no_traceback(
    site: Site, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is; the next client is served."""
    caplog.set_level(logging.DEBUG, "asyncio")
    async with site.serve(login_timeout_s=0.5) as server:
        with capture_logs() as logs:
            async with tcp_connection(site.port) as (reader, writer):
                writer.write(garbage)
                if not garbage.startswith(b"SSH-2.0-x\r\n\x00"):
                    writer.write_eof()
                async with asyncio.timeout(LIMIT_S):
                    await _read_to_end(reader)
            await _until(lambda: server.connections == 0)
        assert (await site.ssh("health")).status == 0
    assert [entry["event"] for entry in logs] == ["not_logged_in"]
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]


async def test_a_client_that_never_authenticates_is_dropped(site: Site) -> None:
    """After login_timeout_s, and its place is free again."""
    async with site.serve(login_timeout_s=0.3, places=PlaceLimits(full=1)) as server:
        async with tcp_connection(site.port) as (reader, _), asyncio.timeout(LIMIT_S):
            assert (await reader.readline()).startswith(b"SSH-2.0-Stargate")
            await _read_to_end(reader)
        assert server.connections == 0
        assert (await site.ssh("health")).status == 0


async def test_too_many_strangers_are_turned_away_early(site: Site) -> None:
    """Those who have logged in are not concerned."""
    async with site.serve(places=PlaceLimits(full=3)) as server:
        site.handler.hold = asyncio.Event()
        guest = asyncio.create_task(site.ssh("health"))
        await asyncio.wait_for(site.handler.started.wait(), LIMIT_S)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                reader, _ = await stack.enter_async_context(tcp_connection(site.port))
                await reader.readline()
            reader, _ = await stack.enter_async_context(tcp_connection(site.port))
            async with asyncio.timeout(LIMIT_S):
                assert await _read_to_end(reader) == b"Exceeded MaxStartups\r\n"
            site.handler.hold.set()
            assert (await guest).status == 0
        await _until(lambda: server.connections == 0)


async def test_the_number_of_attempts_is_bounded(site: Site) -> None:
    """An endless supply of keys is cut off; paramiko, which asks anew for each, gets its share too."""

    def attempts(port: int) -> int:
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as sock:
            transport = paramiko.Transport(sock)
            try:
                transport.start_client(timeout=LIMIT_S)
                tries = 0
                while transport.is_active() and tries < 100:
                    tries += 1
                    with pytest.raises((paramiko.SSHException, EOFError)):
                        transport.auth_publickey("git", paramiko.ECDSAKey.generate())
                return tries
            finally:
                transport.close()

    async with site.serve():
        assert 20 <= await asyncio.to_thread(attempts, site.port) <= 21


async def test_the_number_of_channels_is_bounded(site: Site) -> None:
    """Ten commands at a time on one connection, also when all are asked for at once; later ones are fine."""
    site.handler.hold = asyncio.Event()
    async with (
        site.serve(),
        site.connect() as connection,
    ):
        asked = [asyncio.create_task(connection.run("health")) for _ in range(12)]
        await asyncio.wait_for(site.handler.started.wait(), LIMIT_S)
        await _until(lambda: sum(task.done() for task in asked) == 2)
        assert all(isinstance(task.exception(), asyncssh.ChannelOpenError) for task in asked if task.done())
        site.handler.hold.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, asyncssh.SSHCompletedProcess) for answer in answers) == 10
        assert (await connection.run("health")).exit_status == 0


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
    """One line and 69; nothing is left open."""
    site.handler.hold = asyncio.Event()
    async with site.serve() as server:
        client = asyncio.create_task(site.ssh("health"))
        await asyncio.wait_for(site.handler.started.wait(), LIMIT_S)
        await server.close()
        done = await client
        assert not server.listening
        assert server.connections == 0
    assert done.status == 69
    assert done.stderr == "this node stops; try again\n"


async def test_a_stopped_listener_leaves_running_sessions_alone(site: Site) -> None:
    """Draining: nobody new, and those who are in finish."""
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
    """69, which address, what to do; nothing is left listening."""
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
        assert not server.listening


async def test_the_slow_cipher_is_not_offered(site: Site) -> None:
    """A client that would rather have chacha20-poly1305 gets AES-GCM, and no compression."""
    preference = "Ciphers=chacha20-poly1305@openssh.com,aes128-gcm@openssh.com,aes128-ctr"
    async with site.serve():
        done = await site.ssh("health", o=("LogLevel=DEBUG1", preference, "Compression=yes"))
    assert done.status == 0
    chosen = [line for line in done.stderr.splitlines() if "cipher: " in line]
    assert len(chosen) == 2
    assert all("cipher: aes128-gcm@openssh.com" in line and "compression: none" in line for line in chosen)


async def _until(probe: Callable[[], bool]) -> None:
    """Wait for what no event tells of."""
    async with asyncio.timeout(LIMIT_S):
        while not probe():
            await asyncio.sleep(0.01)


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_requests_whose_answers_nobody_reads_are_not_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: each answer stayed in the node's memory. A client that reads again goes on where it stood."""
    monkeypatch.setattr(backpressure, "MOST_UNSENT_BYTES", 100_000)
    keepalive = bytes([GLOBAL_REQUEST]) + string("keepalive@openssh.com") + b"\x01"

    def log_in() -> RawClient:
        client = RawClient(site.port, receive_buffer_bytes=SMALL_BUFFER_BYTES)
        return client.login(UserKey.load(site.key))

    async with site.serve() as server:
        with await asyncio.to_thread(log_in) as client:
            (guest,) = server._guests
            guest.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
            sending = asyncio.create_task(asyncio.to_thread(client.send, *[keepalive] * ASKED))
            # Not `_owes_reading`: the kernel may take a little more; reading goes on only when most is sent.
            await _until(lambda: not guest._transport.is_reading() and guest not in guest._turns._waiting)
            for _ in range(100):
                await asyncio.sleep(0)
            assert guest.unsent_bytes() < 200_000
            answers = await asyncio.to_thread(lambda: [client.receive()[0] for _ in range(ASKED)])
            await sending
    assert set(answers) <= {81, 82}


async def test_a_key_exchange_without_an_end_takes_no_memory(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: answers to what is asked meanwhile waited in the node's memory for its end."""
    monkeypatch.setattr(backpressure, "MOST_DEFERRED", 50)
    keepalive = bytes([GLOBAL_REQUEST]) + string("keepalive@openssh.com") + b"\x01"

    def ask() -> None:
        with RawClient(site.port).login(UserKey.load(site.key)) as client:
            client.send(kexinit("curve25519-sha256"), *[keepalive] * ASKED)
            while True:
                client.receive(KEXINIT)

    async with site.serve():
        with pytest.raises((ClosedError, ConnectionError)):
            await asyncio.to_thread(ask)


async def test_a_login_may_send_so_much(site: Site) -> None:
    """What comes without a login is the work of strangers."""
    ignore = bytes([IGNORE]) + string(b"x" * 16_000)

    def send() -> None:
        with RawClient(site.port) as client:
            for _ in range(1000):
                client.send(ignore)
            client.receive()  # where the kernel has taken all that was sent

    async with site.serve() as server:
        with capture_logs() as logs:
            with pytest.raises((ClosedError, ConnectionError)):
                await asyncio.to_thread(send)
            await _until(lambda: server.connections == 0)
    (refused,) = [entry for entry in logs if entry["event"] == "not_logged_in"]
    assert refused["reason"] == "it has sent more than a login needs"


async def test_a_key_that_nobody_has_is_not_decoded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """To decode a certificate is to check a signature, and strangers choose of which size."""
    decoded: list[bytes] = []
    for name in ("decode_ssh_public_key", "decode_ssh_certificate"):
        monkeypatch.setattr(asyncssh.connection, name, decoded.append)

    def offer() -> int:
        with RawClient(site.port) as client:
            client.request_service()
            return client.offer(UserKey.load(site.stranger))

    async with site.serve():
        assert await asyncio.to_thread(offer) == AUTH_FAILURE
    assert decoded == []
