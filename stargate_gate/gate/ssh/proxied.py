"""Connections from a load balancer: its PROXY header is taken off before SSH begins."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from stargate_gate.access.sources import Network
from stargate_gate.gate.ssh.proxy_header import parse_proxy_header
from stargate_gate.net.addresses import normal_address

log = structlog.get_logger()

REFUSAL = b"this address must speak PROXY protocol\r\n"

TOO_MANY = b"Exceeded MaxStartups\r\n"  # the text of OpenSSH's server

Source = tuple[str, int] | None  # address and port of a client, as a PROXY header names them


class ProxiedConnection(asyncio.Protocol):
    """The first protocol of every connection: finds out who the client is, then hands the connection over.

    trusted   networks from which a header is required and believed; from elsewhere none is looked for
    limit_s   the header must be complete by then
    begin     makes the connection's next protocol. Its arguments are the client that a header names (None
              without a header) and the client's address
    may_wait  called before a header is waited for: whether there is room for one more connection that waits
    done      called when this protocol has handed the connection over, or the connection is lost
    """

    def __init__(
        self,
        trusted: Sequence[Network],
        limit_s: float,
        *,
        begin: Callable[[Source, str], asyncio.Protocol],
        may_wait: Callable[["ProxiedConnection"], bool],
        done: Callable[["ProxiedConnection"], None],
    ) -> None:
        self._trusted = tuple(trusted)
        self._limit_s = limit_s
        self._begin = begin
        self._may_wait = may_wait
        self._done = done
        self._data = b""
        self._from = "unknown"
        self._limit: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client or a load balancer has connected."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a listener's transport is a Transport")
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._from = str(peer[0]) if peer else "unknown"
        if not is_trusted(self._from, self._trusted):
            self._hand_over(None, transport)
        elif self._may_wait(self):
            self._limit = asyncio.get_running_loop().call_later(
                self._limit_s, self._refuse, f"sends no PROXY header within {self._limit_s:g} s"
            )
        else:
            transport.write(TOO_MANY)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """asyncio: the header, or a part of it, possibly with more behind it."""
        if self._limit is None or self._transport is None:
            return  # refused already
        self._data += data
        try:
            header = parse_proxy_header(self._data)
        except ValueError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._data = self._data[header.length :]
            self._hand_over(header.source, self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it was closed, before or after it was refused. Not logged: health checks do this."""
        del exc
        self._stop_waiting()
        self._done(self)

    def _hand_over(self, source: Source, transport: asyncio.Transport) -> None:
        self._stop_waiting()
        protocol = self._begin(source, source[0] if source is not None else self._from)
        self._done(self)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
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
    """Whether the address `source` is in one of the networks."""
    try:
        address = normal_address(source)
    except ValueError:
        return False
    return any(address.version == one.version and address in one for one in networks)
