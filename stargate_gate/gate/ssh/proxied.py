"""Connections from a load balancer: its PROXY header is taken off before SSH begins."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from stargate_gate.access.sources import Network, normal_address
from stargate_gate.gate.ssh.proxy_header import parse_proxy_header

log = structlog.get_logger()

REFUSAL = b"this address must speak PROXY protocol\r\n"

TOO_MANY = b"Exceeded MaxStartups\r\n"  # the word that OpenSSH uses

Source = tuple[str, int] | None


class ProxiedConnection(asyncio.Protocol):
    """Stands before a connection's own protocol until it is known who the client is.

    trusted   from where a header is expected, and believed; from elsewhere none is looked for
    limit_s   it must be complete by then
    begin     makes the connection's own protocol: for the client that the header names, None for
              whoever has connected; and the client's address
    came      called before a header is waited for: whether there is room for one more that has none yet
    gone      called once, when this protocol is done with the connection, in whatever way
    """

    def __init__(
        self,
        trusted: Sequence[Network],
        limit_s: float,
        *,
        begin: Callable[[Source, str], asyncio.Protocol],
        came: Callable[["ProxiedConnection"], bool],
        gone: Callable[["ProxiedConnection"], None],
    ) -> None:
        self._trusted = tuple(trusted)
        self._limit_s = limit_s
        self._begin = begin
        self._came = came
        self._gone = gone
        self._data = b""
        self._from = "unknown"
        self._limit: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: somebody has connected."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a listener's transport is a Transport")
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._from = str(peer[0]) if peer else "unknown"
        if is_trusted(self._from, self._trusted):
            if not self._came(self):
                transport.write(TOO_MANY)
                transport.close()
                return
            self._limit = asyncio.get_running_loop().call_later(
                self._limit_s, self._refuse, f"sends no PROXY header within {self._limit_s:g} s"
            )
        else:
            self._hand_over(None)

    def data_received(self, data: bytes) -> None:
        """asyncio: the header, or a part of it, or what comes after it."""
        if self._limit is None:
            return  # refused already
        self._data += data
        try:
            header = parse_proxy_header(self._data)
        except ValueError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._data = self._data[header.length :]
            self._hand_over(header.source)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it was closed, before or after it was refused. Probes come and go without a word."""
        del exc
        self._stop_waiting()
        self._gone(self)

    def _hand_over(self, source: Source) -> None:
        assert self._transport is not None  # noqa: S101 # connection_made has set it
        self._stop_waiting()
        protocol = self._begin(source, source[0] if source is not None else self._from)
        self._gone(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._data:
            protocol.data_received(self._data)

    def _refuse(self, problem: str) -> None:
        self._stop_waiting()
        log.warning("proxy_header_refused", source=self._from, problem=f"the connection {problem}")
        if self._transport is not None:
            self._transport.write(REFUSAL)
            self._transport.close()

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


def is_trusted(source: str, networks: Sequence[Network]) -> bool:
    """Whether `source` is in one of the networks; an IPv4 client of an IPv6 socket is an IPv4 client."""
    try:
        address = normal_address(source)
    except ValueError:
        return False
    return any(address.version == one.version and address in one for one in networks)
