"""Behind a load balancer: `from=` and the log see the client, and nobody else can claim to be one."""

import asyncio
import contextlib
import ipaddress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.gate.ssh.login_places import PlaceLimits
from tests.gate.listener import LIMIT_S, Site, connections, until
from tests.support.clients import Done, run, ssh_argv, tcp_connection
from tests.support.haproxy import haproxy
from tests.support.ports import free_port

PROXIES = (ipaddress.ip_network("127.0.0.1"),)
CLIENT = "127.0.0.5"

CONFIG = """\
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend ssh
    bind 127.0.0.1:{port}
    default_backend node
backend node
    server node 127.0.0.1:{node} {send}
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """As everywhere."""
    return Site(tmp_path)


async def through(port: int, site: Site, *command: str) -> Done:
    """OpenSSH's client at CLIENT, once something listens at `port`."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            argv = ssh_argv(port, site.key, f"BindAddress={CLIENT}")
            done = await run(*argv, *command)
            if "Connection refused" not in done.stderr:
                return done
            await asyncio.sleep(0.05)


async def raw(site: Site, data: bytes, *, source: str = "127.0.0.1") -> bytes:
    """What a connection from `source` that begins with `data` gets until it is closed, or the SSH banner."""
    async with asyncio.timeout(LIMIT_S), tcp_connection(site.port, source) as (reader, writer):
        writer.write(data)
        answer = await reader.read(100)
        if not answer.startswith(b"SSH-"):
            answer += await reader.read()
        return answer


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
async def test_haproxy_tells_who_the_client_is(site: Site, tmp_path: Path, send: str) -> None:
    """Both versions, with a real HAProxy: the key may be used from the client's address only."""
    site.allow(f'from="{CLIENT}"')
    async with site.serve(proxies=PROXIES):
        port = free_port()
        with haproxy(tmp_path / "haproxy", CONFIG.format(port=port, node=site.port, send=send)):
            done = await through(port, site, "health")
            assert done.status == 0, done
            assert f'"source": "{CLIENT}"' in done.stdout
            site.allow('from="127.0.0.1"')  # where HAProxy is
            refused = await through(port, site, "health")
            assert refused.status == 255
            assert "Permission denied" in refused.stderr


async def test_clients_that_come_straight_need_no_header(site: Site) -> None:
    """A header is expected only from the networks of load balancers."""
    async with site.serve(proxies=PROXIES):
        assert (await through(site.port, site, "health")).status == 0


async def test_a_connection_from_a_load_balancer_without_a_header_is_refused_clearly(site: Site) -> None:
    """Its client is unknown: HAProxy without send-proxy, or a user on that machine."""
    async with site.serve(proxies=PROXIES) as server:
        with capture_logs() as lines:
            assert (
                await raw(site, b"SSH-2.0-OpenSSH_9.2\r\n") == b"this address must speak PROXY protocol\r\n"
            )
            assert (
                await raw(site, b"PROXY TCP4 nonsense\r\n") == b"this address must speak PROXY protocol\r\n"
            )
            await until(lambda: connections(server) == 0)
    told = [(one["source"], one["problem"]) for one in lines if one["event"] == "proxy_header_refused"]
    assert told == [
        ("127.0.0.1", "the connection does not begin with a PROXY header"),
        ("127.0.0.1", "the connection has a PROXY header of version 1 that makes no sense"),
    ]


async def test_a_header_from_anybody_else_is_garbage(site: Site) -> None:
    """Attack: claim to be at the address that a key's from= names. It is no SSH, so the connection ends."""
    header = b"PROXY TCP4 10.0.0.1 127.0.0.1 1 2222\r\n"
    async with asyncio.timeout(LIMIT_S):
        for proxies in (PROXIES, ()):  # others are listed, nobody is
            async with site.serve(proxies=proxies) as server:
                async with tcp_connection(site.port, "127.0.0.7") as (reader, writer):
                    writer.write(header)
                    assert await reader.read() == b"SSH-2.0-Stargate\r\n"  # its own banner, and the end
                await until(lambda server=server: connections(server) == 0)


async def test_a_load_balancer_that_speaks_for_itself_is_who_it_is(site: Site) -> None:
    """UNKNOWN: the connection counts as from its own address."""
    async with site.serve(proxies=PROXIES) as server:
        assert (await raw(site, b"PROXY UNKNOWN\r\nSSH-2.0-x\r\n")).startswith(b"SSH-2.0-")
        await until(lambda: connections(server) == 0)


async def test_a_header_that_never_comes_is_not_waited_for(site: Site) -> None:
    """The time to log in counts from the first byte on, and such connections count as not logged in."""
    async with site.serve(proxies=PROXIES, login_timeout_s=0.3, places=PlaceLimits(full=1)) as server:
        async with asyncio.timeout(LIMIT_S), tcp_connection(site.port) as (reader, writer):
            writer.write(b"PROXY TCP4 ")
            await until(lambda: connections(server) == 1)
            assert await raw(site, b"") == b"Exceeded MaxStartups\r\n"
            assert await reader.read() == b"this address must speak PROXY protocol\r\n"
        await until(lambda: connections(server) == 0)


async def test_a_probe_that_says_nothing_leaves_nothing_in_the_log(site: Site) -> None:
    """Load balancers connect and leave, every second or so."""
    async with site.serve(proxies=PROXIES) as server:
        with capture_logs() as lines:
            async with tcp_connection(site.port):
                await until(lambda: connections(server) == 1)
            await until(lambda: connections(server) == 0)
    assert [line for line in lines if line["log_level"] != "debug"] == []


async def test_a_stopping_server_ends_those_that_wait_for_a_header(site: Site) -> None:
    """All of them."""
    async with contextlib.AsyncExitStack() as stack:
        async with site.serve(proxies=PROXIES) as server:
            reader, _ = await stack.enter_async_context(tcp_connection(site.port))
            await until(lambda: connections(server) == 1)
        assert await asyncio.wait_for(reader.read(), LIMIT_S) == b""
