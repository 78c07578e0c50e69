"""Attacks on the listener: clients that do not log in, ask for too much, or do not read."""

import asyncio
import contextlib
import json
import logging
import socket
from pathlib import Path

import asyncssh
import paramiko
import pytest
from structlog.testing import capture_logs

from stargate_gate.gate.ssh import backpressure
from stargate_gate.gate.ssh.login_places import PlaceLimits
from tests.gate.listener import LIMIT_S, Site, connections, read_to_end, until
from tests.support.clients import tcp_connection
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

ASKED = 20_000  # their answers are a few times what the tests' limits and SMALL_BUFFER_BYTES take
SMALL_BUFFER_BYTES = 32 * 1024  # of a socket; the kernel takes twice as much, and with far less TCP is slow


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


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
    """Any garbage. The next client is served."""
    caplog.set_level(logging.DEBUG, "asyncio")
    async with site.serve(login_timeout_s=0.5) as server:
        with capture_logs() as logs:
            async with tcp_connection(site.port) as (reader, writer):
                writer.write(garbage)
                if not garbage.startswith(b"SSH-2.0-x\r\n\x00"):
                    writer.write_eof()
                async with asyncio.timeout(LIMIT_S):
                    await read_to_end(reader)
            await until(lambda: connections(server) == 0)
        assert (await site.ssh("health")).status == 0
    assert [entry["event"] for entry in logs] == ["not_logged_in"]
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= logging.WARNING]


async def test_a_client_that_never_authenticates_is_dropped(site: Site) -> None:
    """After login_timeout_s, and its place is free again."""
    async with site.serve(login_timeout_s=0.3, places=PlaceLimits(full=1)) as server:
        async with tcp_connection(site.port) as (reader, _), asyncio.timeout(LIMIT_S):
            assert (await reader.readline()).startswith(b"SSH-2.0-Stargate")
            await read_to_end(reader)
        assert connections(server) == 0
        assert (await site.ssh("health")).status == 0


async def test_too_many_strangers_are_turned_away_early(site: Site) -> None:
    """Clients that have logged in are not affected."""
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
                assert await read_to_end(reader) == b"Exceeded MaxStartups\r\n"
            site.handler.hold.set()
            assert (await guest).status == 0
        await until(lambda: connections(server) == 0)


async def test_the_number_of_attempts_is_bounded(site: Site) -> None:
    """A client that offers keys without end is disconnected, also paramiko, which asks anew for each key."""

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
    """Ten commands at a time on one connection, also if all are requested at once. More may follow later."""
    site.handler.hold = asyncio.Event()
    async with (
        site.serve(),
        site.connect() as connection,
    ):
        asked = [asyncio.create_task(connection.run("health")) for _ in range(12)]
        await asyncio.wait_for(site.handler.started.wait(), LIMIT_S)
        await until(lambda: sum(task.done() for task in asked) == 2)
        assert all(isinstance(task.exception(), asyncssh.ChannelOpenError) for task in asked if task.done())
        site.handler.hold.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, asyncssh.SSHCompletedProcess) for answer in answers) == 10
        assert (await connection.run("health")).exit_status == 0


async def test_requests_whose_answers_nobody_reads_are_not_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: each answer stayed in the node's memory. A client that reads again gets all answers."""
    monkeypatch.setattr(backpressure, "MAX_UNSENT_BYTES", 100_000)
    keepalive = bytes([GLOBAL_REQUEST]) + string("keepalive@openssh.com") + b"\x01"

    def log_in() -> RawClient:
        client = RawClient(site.port, receive_buffer_bytes=SMALL_BUFFER_BYTES)
        return client.login(UserKey.load(site.key))

    async with site.serve() as server:
        with await asyncio.to_thread(log_in) as client:
            (guest,) = server._authenticated
            guest.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
            sending = asyncio.create_task(asyncio.to_thread(client.send, *[keepalive] * ASKED))
            # Not `_owes_reading`: the kernel may take a little more; reading goes on only when most is sent.
            await until(lambda: not guest._transport.is_reading() and guest not in guest._turns._waiting)
            for _ in range(100):
                await asyncio.sleep(0)
            assert guest.unsent_bytes() < 200_000
            answers = await asyncio.to_thread(lambda: [client.receive()[0] for _ in range(ASKED)])
            await sending
    assert set(answers) <= {81, 82}


async def test_a_key_exchange_without_an_end_takes_no_memory(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: answers to requests during the exchange stayed in the node's memory until its end."""
    monkeypatch.setattr(backpressure, "MAX_DEFERRED", 50)
    keepalive = bytes([GLOBAL_REQUEST]) + string("keepalive@openssh.com") + b"\x01"

    def ask() -> None:
        with RawClient(site.port).login(UserKey.load(site.key)) as client:
            client.send(kexinit("curve25519-sha256"), *[keepalive] * ASKED)
            while True:
                client.receive(KEXINIT)

    async with site.serve():
        with pytest.raises((ClosedError, ConnectionError)):
            await asyncio.to_thread(ask)


async def test_the_bytes_of_a_login_are_bounded(site: Site) -> None:
    """Before a login anybody may send them."""
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
            await until(lambda: connections(server) == 0)
    (refused,) = [entry for entry in logs if entry["event"] == "not_logged_in"]
    assert refused["reason"] == "it has sent more than a login needs"


async def test_a_key_that_nobody_has_is_not_decoded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding a certificate checks a signature whose size a stranger can choose."""
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
