"""The HTTP endpoints: /healthz, /readyz, /status, /metrics. Read-only, from memory, one request a connection.

Load balancers and monitoring ask often and from many places, and anybody may connect. So the time and the
bytes of each connection and the number of connections are bounded, and no request body is read. A connection
that does not speak HTTP is closed without a log line.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import structlog
from aiohttp import web

from stargate_gate.config.endpoint import Endpoint
from stargate_gate.errors import UnavailableError
from stargate_gate.health.metrics import Metrics
from stargate_gate.health.report import StatusSource
from stargate_gate.net.addresses import network_of
from stargate_gate.net.crowding import Place, most_frequent, place_to_free
from stargate_gate.net.listening import cannot_listen

CONNECTION_LIMIT_S = 5.0  # from accept to close: bounds slow senders and slow readers alike
MAX_CONNECTIONS = 100  # more than monitoring needs; one more takes another one's place (net/crowding.py)
MAX_CONNECTIONS_PER_ADDRESS = 25  # a load balancer and all monitoring may share one
MAX_LINE_BYTES = 4096  # the request line; ours are 20 bytes
MAX_HEADER_BYTES = 8190  # each header line
MAX_REQUEST_BYTES = 16 * 1024  # all that a connection may send: it costs time of the loop and memory here
BACKLOG = 100
ENDPOINTS = "/healthz /readyz /status /metrics"
OK, NOT_FOUND, NOT_ALLOWED, INTERNAL, UNAVAILABLE = 200, 404, 405, 500, 503
JSON = "application/json"

log = structlog.get_logger()

Answer = tuple[int, str, bytes]  # status code, content type, body


class HealthServer:
    """Listens from `start` to `close` on every endpoint of `health.listen`."""

    def __init__(self, source: StatusSource, metrics: Metrics, listen: Sequence[Endpoint]) -> None:
        self._source = source
        self._metrics = metrics
        self._listen = tuple(listen)
        self._servers: list[asyncio.Server] = []
        self._connections: dict[_Bounded, Place[_Bounded]] = {}
        self._http = web.Server(
            self._answer,
            logger=_quiet_logger(),
            access_log=None,
            keepalive_timeout=0,
            lingering_time=0,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        self._answers: Mapping[str, Callable[[web.BaseRequest], Answer]] = {
            "/": self._index,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/status": self._status,
            "/metrics": self._metrics_page,
        }

    async def start(self) -> list[Endpoint]:
        """Listen; the addresses that were bound, with the port the kernel chose for a port 0.

        Raises:
            UnavailableError: an address cannot be had, by its key in the YAML file; nothing listens.
        """
        bound: list[Endpoint] = []
        for endpoint in self._listen:
            try:
                server = await asyncio.get_running_loop().create_server(
                    self._connection, endpoint.host, endpoint.port, backlog=BACKLOG
                )
            except OSError as error:
                await self.close()
                raise UnavailableError(cannot_listen("health.listen", endpoint, error)) from error
            self._servers.append(server)
            bound.extend(Endpoint(*sock.getsockname()[:2]) for sock in server.sockets)
        log.info("health_listening", addresses=[str(endpoint) for endpoint in bound])
        return bound

    async def close(self) -> None:
        """Stop listening, and end the connections there are."""
        for server in self._servers:
            server.close()
        await self._http.shutdown(0)
        for connection in list(self._connections):
            connection.abort()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    def _connection(self) -> asyncio.Protocol:
        return _Bounded(self._http(), self._connections)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = self._answers.get(request.path)
        headers = {"Server": "stargate", "Cache-Control": "no-store"}
        if answer is None:
            code, content_type, body = NOT_FOUND, "text/plain", f"not found; there are {ENDPOINTS}\n".encode()
        elif request.method not in {"GET", "HEAD"}:
            code, content_type, body = NOT_ALLOWED, "text/plain", b"only GET and HEAD\n"
            headers["Allow"] = "GET, HEAD"
        else:
            code, content_type, body = _guarded(answer, request)
        response = web.Response(status=code, body=body, headers={**headers, "Content-Type": content_type})
        response.force_close()
        return response

    def _index(self, _request: web.BaseRequest) -> Answer:
        lines = [
            self._source.status().headline(), "",
            "/healthz   200 while this node works",
            "/readyz    200 while this node leads and takes writes",
            "/status    the whole report, as JSON",
            "/metrics   for Prometheus",
        ]  # fmt: skip
        return OK, "text/plain; charset=utf-8", ("\n".join(lines) + "\n").encode(errors="replace")

    def _healthz(self, _request: web.BaseRequest) -> Answer:
        health = self._source.health()
        try:
            body = health.to_json(self._source.status())
        except Exception:  # the node serves all the same, and a load balancer wants to know only that
            log.exception("health_request_failed", path="/healthz")
            body = health.to_json()
        return OK if health.ok else UNAVAILABLE, JSON, body.encode()

    def _readyz(self, _request: web.BaseRequest) -> Answer:
        readiness = self._source.ready()
        return OK if readiness.ready else UNAVAILABLE, JSON, readiness.to_json().encode()

    def _status(self, _request: web.BaseRequest) -> Answer:
        return OK, JSON, self._source.status().to_json().encode()

    def _metrics_page(self, request: web.BaseRequest) -> Answer:
        body, content_type = self._metrics.render(request.headers.get("Accept", ""))
        return OK, content_type, body


def _guarded(answer: Callable[[web.BaseRequest], Answer], request: web.BaseRequest) -> Answer:
    """An answer that cannot be made is our fault: say so in the log, since aiohttp's own lines are off."""
    try:
        return answer(request)
    except Exception:
        log.exception("health_request_failed", path=request.path)
        return INTERNAL, "text/plain", b"this node cannot tell; its log says why\n"


class _Bounded(asyncio.Protocol):
    """Hands one connection to aiohttp, and ends it at CONNECTION_LIMIT_S, or when others need its place.

    A newcomer always gets in: of its own address if that has its share already, else of the address that
    has most, the oldest goes. A request that is whole when it comes is answered within milliseconds, so who
    goes is slow, and slow connections keep nobody from /healthz. aiohttp itself limits only the pause between
    two requests, not how slowly one may come in.
    """

    def __init__(self, inner: asyncio.Protocol, connections: dict["_Bounded", Place["_Bounded"]]) -> None:
        self._inner = inner
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._received_bytes = 0

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        address, now_s = str(peer[0]) if peer else "unknown", time.monotonic()
        network = network_of(address) or address
        self._make_room(network, now_s)
        self._connections[self] = Place(self, network, now_s)
        self._limit = asyncio.get_running_loop().call_later(CONNECTION_LIMIT_S, self.abort)
        self._inner.connection_made(transport)

    def _make_room(self, network: str, now_s: float) -> None:
        places = list(self._connections.values())
        if sum(place.network == network for place in places) >= MAX_CONNECTIONS_PER_ADDRESS:
            crowded = network
        elif len(places) >= MAX_CONNECTIONS:
            crowded, _ = most_frequent(place.network for place in places)
        else:
            return
        oldest = place_to_free(places, crowded, now_s)
        if oldest is not None:
            del self._connections[oldest.connection]
            oldest.connection.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._connections.pop(self, None)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > MAX_REQUEST_BYTES:
            self.abort()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


def _quiet_logger() -> logging.Logger:
    """The logger of aiohttp itself, off: bad requests with tracebacks, which say nothing about this node."""
    quiet = logging.getLogger("stargate_gate.health.aiohttp")
    quiet.setLevel(logging.CRITICAL)
    return quiet
