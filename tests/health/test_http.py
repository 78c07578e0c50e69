"""The HTTP endpoints on real sockets, with clients of every manner."""

import asyncio
import contextlib
import json
import socket
import time

import pytest
from structlog.testing import capture_logs

from stargate_gate.config.endpoint import Endpoint
from stargate_gate.errors import UnavailableError
from stargate_gate.health import http as http_module
from stargate_gate.health.http import HealthServer
from stargate_gate.health.metrics import Metrics

from .conftest import Source

ENDLESS_BYTES = 64 * 1024 * 1024  # far more than the kernel takes for who does not read
LIMIT_S = 10.0


async def exchange(server: Endpoint, request: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        try:
            writer.write(request)
            try:
                return await reader.read(-1)
            except ConnectionResetError:
                return b""
        finally:
            writer.close()


async def get(server: Endpoint, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status code, headers and body."""
    answer = await exchange(server, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return (
        int(first.split()[1]),
        {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)},
        body,
    )


async def test_healthz_is_200_while_the_node_works(server: Endpoint, source: Source) -> None:
    """And 503 with the failing checks when it does not."""
    code, headers, body = await get(server, "/healthz")
    assert (code, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["healthy"] is True
    source.checks["git"] = "git does not start"
    code, _, body = await get(server, "/healthz")
    assert code == 503
    assert json.loads(body)["failing"] == {"git": "git does not start"}


async def test_readyz_is_200_only_on_a_leader_that_takes_writes(server: Endpoint, source: Source) -> None:
    """A load balancer sends pushes where this says 200."""
    code, _, body = await get(server, "/readyz")
    assert (code, json.loads(body)) == (
        200,
        {"ready": True, "role": "leader", "term": 7, "reason": "", "address": ""},
    )
    source.set(ready=False, reason="it steps down")
    code, _, body = await get(server, "/readyz")
    assert (code, json.loads(body)["reason"]) == (503, "it steps down")


async def test_status_is_the_whole_report(server: Endpoint) -> None:
    """As JSON."""
    code, _, body = await get(server, "/status")
    assert (code, json.loads(body)["sync_set"]) == (200, ["node-b"])


async def test_metrics_are_for_prometheus(server: Endpoint) -> None:
    """In its text format."""
    code, headers, body = await get(server, "/metrics")
    assert code == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert b"\nstargate_leading 1.0\n" in body


async def test_head_answers_without_a_body(server: Endpoint) -> None:
    """Some load balancers ask with HEAD."""
    for path in ("/healthz", "/readyz"):
        code, headers, body = await get(server, path, "HEAD")
        assert (code, body) == (200, b"")
        assert int(headers["content-length"]) > 0


async def test_the_front_page_names_the_endpoints(server: Endpoint) -> None:
    """For people who open it in a browser."""
    code, _, body = await get(server, "/")
    assert code == 200
    assert b"all is well" in body
    assert b"/metrics" in body


async def test_other_paths_are_404_with_the_endpoints(server: Endpoint) -> None:
    """A typo tells what there is; a trick gets no further."""
    for path in ("/health", "/healthz/", "/../etc/passwd", "/%2e%2e/%00", "//status", "/status/../x"):
        code, _, body = await get(server, path)
        assert (code, b"/healthz /readyz /status /metrics" in body) == (404, True), path


async def test_other_methods_are_405(server: Endpoint) -> None:
    """Nothing can be changed over HTTP."""
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        code, headers, _ = await get(server, "/status", method)
        assert (code, headers["allow"]) == (405, "GET, HEAD"), method


async def test_garbage_is_closed_without_a_word_in_the_log(
    server: Endpoint, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Port scanners, TLS hellos, SSH clients and broken HTTP leave no traceback."""
    with capture_logs() as logs:
        for garbage in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
            b"\0" * 5000 + b"\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"b" * 100_000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(500)) + b"\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nxx",
            b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            answer = await exchange(server, garbage)
            assert answer == b"" or 400 <= int(answer.split()[1]) < 500, (garbage[:40], answer)
            assert b"Traceback" not in answer
    assert (await get(server, "/healthz"))[0] == 200
    assert logs == []
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


async def test_a_slow_client_is_cut_off(
    source: Source, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that comes in byte by byte holds its connection for a bounded time."""
    monkeypatch.setattr(http_module, "CONNECTION_LIMIT_S", 0.3)
    server = HealthServer(source, metrics, [Endpoint("127.0.0.1", 0)])
    (endpoint,) = await server.start()
    try:
        started = time.monotonic()
        assert await exchange(endpoint, b"GET /healthz HTT") == b""
        assert time.monotonic() - started < 5
    finally:
        await server.close()


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /healthz HTTP/1.1\r\n", b"a:b\r\n"),
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"", b"\r\n"),
    ],
)
async def test_what_a_connection_may_send_is_bounded(server: Endpoint, begin: bytes, piece: bytes) -> None:
    """Attack: tiny chunks and header lines without end held the loop until the watchdog ended the node."""
    _, writer = await asyncio.open_connection(server.host, server.port)
    sent = 0
    with contextlib.suppress(ConnectionError):
        writer.write(begin)
        async with asyncio.timeout(LIMIT_S):
            while sent < ENDLESS_BYTES:
                writer.write(piece * (16384 // len(piece)))
                await writer.drain()
                await asyncio.sleep(0)  # the server reads, also while the kernel takes all that is sent
                sent += 16384
    writer.close()
    assert sent < ENDLESS_BYTES
    assert (await get(server, "/healthz"))[0] == 200


@pytest.mark.parametrize("cap", ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_ADDRESS"])
async def test_slow_connections_keep_nobody_from_an_answer(
    source: Source, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, cap: str
) -> None:
    """Attack: 100 slow connections took /healthz away, and a load balancer took the leader out.

    A newcomer gets the place of the oldest; the others stay, so descriptors are bounded.
    """
    monkeypatch.setattr(http_module, cap, 3)
    server = HealthServer(source, metrics, [Endpoint("127.0.0.1", 0)])
    (endpoint,) = await server.start()
    slow = [await asyncio.open_connection(endpoint.host, endpoint.port) for _ in range(3)]
    for _, writer in slow:
        writer.write(b"GET /healthz HTT")
    try:
        for index in range(2):
            assert (await get(endpoint, "/healthz"))[0] == 200
            async with asyncio.timeout(LIMIT_S):
                with contextlib.suppress(ConnectionResetError):
                    assert await slow[index][0].read() == b""
            slow.append(await asyncio.open_connection(endpoint.host, endpoint.port))
        assert len(server._connections) <= 3
    finally:
        for _, writer in slow:
            writer.close()
        await server.close()


async def test_a_bug_in_a_report_is_a_500_and_a_log_line(server: Endpoint, source: Source) -> None:
    """The client gets one plain line; the log gets the traceback; other endpoints go on."""
    source.broken = True
    with capture_logs() as logs:
        code, _, body = await get(server, "/status")
    assert (code, body) == (500, b"this node cannot tell; its log says why\n")
    assert [line["event"] for line in logs] == ["health_request_failed"]
    assert (await get(server, "/healthz"))[0] == 200


async def test_a_port_in_use_is_told_by_its_key(source: Source, metrics: Metrics) -> None:
    """The operator learns which key to change; nothing is left listening."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HealthServer(source, metrics, [Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", port)])
        with pytest.raises(UnavailableError) as caught:
            await server.start()
    assert caught.value.exit_code == 69
    assert caught.value.message == (
        f"health.listen: 127.0.0.1:{port} is in use by another program: stop that, or choose another port"
    )


async def test_an_address_of_another_machine_is_told(source: Source, metrics: Metrics) -> None:
    """One line, with the address once, and what to do."""
    with pytest.raises(UnavailableError) as caught:
        await HealthServer(source, metrics, [Endpoint("192.0.2.1", 0)]).start()
    assert caught.value.message == (
        "health.listen: cannot listen on 192.0.2.1:0 (cannot assign requested address): "
        "name an address of this machine"
    )


async def test_it_listens_on_every_endpoint(source: Source, metrics: Metrics) -> None:
    """Several addresses, IPv6 too where the machine has it."""
    listen = [Endpoint("127.0.0.1", 0), Endpoint("127.0.0.2", 0)]
    if socket.has_ipv6:
        listen.append(Endpoint("::1", 0))
    server = HealthServer(source, metrics, listen)
    bound = await server.start()
    try:
        assert [endpoint.host for endpoint in bound] == [endpoint.host for endpoint in listen]
        for endpoint in bound:
            assert (await get(endpoint, "/readyz"))[0] == 200
    finally:
        await server.close()


async def test_answers_are_fast(server: Endpoint) -> None:
    """From memory: hundreds of questions in far less than a second each, even on a loaded machine."""
    started = time.monotonic()
    for _ in range(50):
        assert (await get(server, "/readyz"))[0] == 200
    assert time.monotonic() - started < 5
