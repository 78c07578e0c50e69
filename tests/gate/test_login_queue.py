"""The pool of connections that have not logged in, on real sockets: who gets a place, who waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from structlog.testing import capture_logs

from stargate_gate.access.host_keys import pass_secret_of
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.gate.ssh import connection as gate_connection
from stargate_gate.gate.ssh import login_queue
from stargate_gate.gate.ssh.login_log import BURST_LINES
from stargate_gate.gate.ssh.login_places import PlaceLimits
from stargate_gate.gate.ssh.server import SshServer
from stargate_gate.replication.peer.connection import Credentials, Peer
from tests.gate.listener import LIMIT_S, Site, connections, read_to_end, until
from tests.support.clients import tcp_connection
from tests.support.rawssh import ADJUST, CLOSE, DATA, ClosedError, RawClient, UserKey, string, uint32

SMALL = PlaceLimits(full=6, per_address=4, drop_from=6)
STRANGER, OTHER = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@contextlib.asynccontextmanager
async def silent(site: Site, count: int, source: str = STRANGER) -> AsyncIterator[list[asyncio.StreamReader]]:
    """That many connections that say nothing."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(tcp_connection(site.port, source)) for _ in range(count)]
        yield [reader for reader, _ in opened]


async def test_silent_strangers_do_not_keep_out_another_address(site: Site) -> None:
    """Attack: 50 silent connections, refilled; nobody could log in."""
    async with site.serve(places=SMALL) as server, silent(site, 12):
        await until(lambda: connections(server) >= 12)
        for _ in range(3):
            assert (await site.ssh("health", o=(f"BindAddress={OTHER}",))).status == 0


async def test_several_addresses_that_fill_the_pool_give_a_place_to_a_new_one(site: Site) -> None:
    """At once, also before PATIENCE_S."""
    async with (
        site.serve(places=SMALL) as server,
        silent(site, 4, "127.0.0.3"),
        silent(site, 4, "127.0.0.4"),
    ):
        await until(lambda: connections(server) >= 7)  # one of the first four has gone for the others
        assert (await site.ssh("health", o=(f"BindAddress={OTHER}",))).status == 0


async def test_users_at_the_strangers_own_address_wait_a_few_seconds(site: Site) -> None:
    """Strangers have PATIENCE_S to log in, then the users get their places."""
    async with site.serve(places=SMALL) as server, silent(site, 12):
        await until(lambda: connections(server) >= 12)
        assert (await site.ssh("health")).status == 0


async def test_a_burst_from_one_address_is_served_in_turn(site: Site) -> None:
    """None of many build machines behind one address is refused."""
    async with site.serve(places=SMALL):
        done = await asyncio.gather(*(site.ssh("health") for _ in range(16)))
    assert [one.status for one in done] == [0] * 16


async def test_a_silent_client_is_refused_soon(site: Site) -> None:
    """With the text of OpenSSH's server. Connections that have a place keep it."""
    async with site.serve(places=SMALL) as server, silent(site, 5) as readers:
        async with asyncio.timeout(LIMIT_S):
            assert await read_to_end(readers[4]) == b"Exceeded MaxStartups\r\n"
        assert connections(server) == 4


async def test_a_node_gets_in_at_the_strangers_own_address(site: Site) -> None:
    """Attack: a standby that restarted meanwhile could not connect any more, so there was no failover."""
    async with (
        site.serve(places=SMALL, pass_secret=pass_secret_of(site.cluster), login_timeout_s=LIMIT_S) as server,
        silent(site, 12),
    ):
        credentials = _credentials(site, server)
        await until(lambda: connections(server) >= 12)
        places = {id(one) for one in server._login_queue.connections}
        peer = await Peer.connect(Endpoint("127.0.0.1", site.port), credentials)
        assert {id(one) for one in server._login_queue.connections} == places  # nobody went for it
        await peer.close()


async def test_a_node_gets_in_when_logged_in_clients_use_all_places(site: Site) -> None:
    """Attack: idle connections of one key used all places of connections that have logged in."""
    async with site.serve(max_sessions=1, pass_secret=pass_secret_of(site.cluster)) as server:
        guests = [await site.connect() for _ in range(4)]
        assert (await site.ssh("health", o=(f"BindAddress={OTHER}",))).status == 255
        credentials = _credentials(site, server)
        await (await Peer.connect(Endpoint("127.0.0.1", site.port), credentials)).close()
        for guest in guests:
            guest.abort()
            await guest.wait_closed()


async def test_status_shows_that_nobody_can_log_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that stays full while others are refused; and a file without a usable key."""
    monkeypatch.setattr(login_queue, "LOCKED_OUT_S", 0.5)
    monkeypatch.setattr(login_queue, "WAIT_S", 0.2)
    limits = PlaceLimits(full=3, per_address=3, drop_from=3)
    async with site.serve(places=limits) as server:
        assert server.locked_out is None
        async with silent(site, 6):
            await until(lambda: server.locked_out is not None)
            assert "3 of them from 127.0.0.1" in (server.locked_out or "")
        await until(lambda: server.locked_out is None)
        site.authorized.write_text("garbage\n")
        await until(lambda: "no usable key" in (server.locked_out or ""))


async def test_a_flood_is_two_lines_in_the_log(site: Site) -> None:
    """Not one line for each connection."""
    async with site.serve(places=SMALL) as server:
        with capture_logs() as logs:
            async with silent(site, 40) as readers:
                async with asyncio.timeout(LIMIT_S):
                    await asyncio.gather(*(read_to_end(reader) for reader in readers[4:]))
            await until(lambda: connections(server) == 0)
    events = [entry["event"] for entry in logs if entry["log_level"] != "debug"]
    assert events == ["connections_dropped"]


async def test_the_log_says_why_a_login_was_refused(site: Site) -> None:
    """Login name, fingerprint and reason of each key: "I cannot log in" is answered by one line."""
    site.allow('expiry-time="20200101Z"')
    async with site.serve() as server:
        with capture_logs() as logs:
            await site.ssh("health", key=site.stranger)
            await site.ssh("health")
            site.allow('from="192.0.2.1"')
            await site.ssh("health")
            site.allow("")
            await site.ssh("health", login="alice")
            await site.ssh("health")
            await until(lambda: connections(server) == 0)
    refused = [entry for entry in logs if entry["event"] == "not_logged_in"]
    reasons = [entry["keys"][0].partition(" ")[2] for entry in refused]
    assert reasons == [
        "is not in authorized_keys",
        "line 1: expired at 2020-01-01 00:00 UTC",
        "line 1: from= does not match 127.0.0.1",
        "would need the login name 'git'",
    ]
    assert [entry["login"] for entry in refused] == ["git", "git", "git", "alice"]
    (accepted,) = [entry for entry in logs if entry["event"] == "logged_in"]
    mine = asyncssh.read_public_key(site.key.with_suffix(".pub")).get_fingerprint()
    assert (accepted["user"], accepted["key"], accepted["source"]) == ("alice@home", mine, "127.0.0.1")
    assert refused[1]["keys"][0].startswith(mine)


async def test_refused_logins_are_a_bounded_number_of_lines(site: Site) -> None:
    """Lines that are not written are counted."""

    async def refused() -> None:
        with pytest.raises(asyncssh.PermissionDenied):
            await site.connect(key=site.stranger)

    async with site.serve() as server:
        with capture_logs() as logs:
            for _ in range(8):
                await asyncio.gather(*(refused() for _ in range(10)))
            await until(lambda: connections(server) == 0)
            lines = sum(entry["event"] == "not_logged_in" for entry in logs)
    assert lines < 80
    assert lines >= BURST_LINES


async def test_a_connection_that_never_asks_for_a_command_is_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is idle after the login, and one with channels without a command."""
    monkeypatch.setattr(gate_connection, "FIRST_COMMAND_LIMIT_S", 0.5)
    monkeypatch.setattr(gate_connection, "COMMAND_LIMIT_S", 0.3)
    async with site.serve() as server:
        with await _logged_in(site) as idle, await _logged_in(site) as opener:
            await asyncio.to_thread(opener.open)
            for client in (idle, opener):
                with pytest.raises(ClosedError):
                    await asyncio.to_thread(_read_to_close, client)
        await until(lambda: connections(server) == 0)


async def test_a_channel_without_a_command_is_closed_and_running_ones_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is per channel."""
    monkeypatch.setattr(gate_connection, "COMMAND_LIMIT_S", 0.3)
    site.handler.hold = asyncio.Event()
    async with site.serve():
        with await _logged_in(site) as client:
            running = await asyncio.to_thread(client.open, 1)
            await asyncio.to_thread(client.ask, running, "exec", string("health"))
            await asyncio.to_thread(client.open, 2)
            closed = await asyncio.to_thread(client.receive)
            assert closed == bytes([CLOSE]) + uint32(2)
            site.handler.hold.set()
            assert (await asyncio.to_thread(client.receive, ADJUST))[:5] == bytes([DATA]) + uint32(1)


def _credentials(site: Site, server: SshServer) -> Credentials:
    """What a node of the same cluster has."""
    return Credentials(
        asyncssh.read_private_key(site.cluster), tuple(key.convert_to_public() for key in server._host_keys)
    )


async def _logged_in(site: Site) -> RawClient:
    """A connection with the key of `site`, which runs nothing. Enter it."""
    return await asyncio.to_thread(lambda: RawClient(site.port).login(UserKey.load(site.key)))


def _read_to_close(client: RawClient) -> None:
    while True:
        client.receive(CLOSE)
