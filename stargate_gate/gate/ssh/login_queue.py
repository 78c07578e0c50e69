"""Connections that have not logged in yet: each needs a place, and waits here if there is none.

The rules of places are in login_places.py. A connection without a place waits for WAIT_S at most, at the cost
of a socket. So a burst of real clients gets in one after the other as places become free. A client that waits
and has not sent the first line of SSH gets no place. A node of the cluster shows a pass in its first line
(net/peer_pass.py) and gets one of PEER_PLACES, which are reserved for nodes.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from stargate_gate.gate.ssh.connection import GateConnection
from stargate_gate.gate.ssh.login_places import PlaceLimits, judge
from stargate_gate.gate.ssh.proxied import TOO_MANY, Source
from stargate_gate.net.addresses import network_of
from stargate_gate.net.crowding import Place, most_frequent, place_to_free
from stargate_gate.net.peer_pass import Passes

log = structlog.get_logger()

WAIT_S = 4.0  # longer than login_places.PATIENCE_S: then a connection can be replaced
WAITING_PLACES = 128  # each costs a socket and FIRST_BYTES
TICK_S = 0.25
PEER_PLACES = 8  # for connections between nodes that have not logged in yet: a few per standby
FIRST_BYTES = 4096  # kept of what a waiting client has sent; its first line has at most 255
LINE_START = b"SSH-"
CALM_S = 10.0  # a flood is over when nothing was refused for that long
LOCKED_OUT_S = 5.0  # reported if nobody got in for that long while others were refused


@dataclass
class _Flood:
    """A time in which connections are refused. Times are monotonic."""

    began_s: float
    last_s: float
    refused: int = 0


@dataclass
class LoginQueue:
    """Gives places to connections that have not logged in.

    make_connection  makes the SSH side of a connection that has got a place
    is_full          whether there is no room for more connections that have logged in; then only nodes get in
    passes           None on a node without a cluster
    """

    limits: PlaceLimits
    make_connection: Callable[[Source], GateConnection]
    is_full: Callable[[], bool]
    passes: Passes | None = None
    _placed: dict[GateConnection, tuple[str, float]] = field(default_factory=dict)  # network, since when
    _peers: set[GateConnection] = field(default_factory=set)
    _waiting: "dict[WaitingConnection, Place[WaitingConnection]]" = field(default_factory=dict)
    _next_tick: asyncio.TimerHandle | None = None
    _next_look: asyncio.Handle | None = None
    _flood: _Flood | None = None
    _last_login_s: float = field(default_factory=time.monotonic)

    def arrive(self, source: Source, address: str) -> asyncio.Protocol:
        """The protocol of a new connection from `address`: its SSH side, or one that waits for a place.

        source  the client that a PROXY header has named; None without a header
        """
        return self._place(source, address) or WaitingConnection(self, source, address)

    def leave(self, connection: GateConnection, *, logged_in: bool = False) -> None:
        """This connection is gone or has logged in: its place is free. Can be called twice."""
        if logged_in and connection in self._placed:
            self._last_login_s = time.monotonic()
        self._peers.discard(connection)
        if self._placed.pop(connection, None) is not None and self._waiting and self._next_look is None:
            # once for all connections that leave in this round of the event loop
            self._next_look = asyncio.get_running_loop().call_soon(self._place_waiting)

    def close(self) -> None:
        """End all connections here."""
        if self._next_tick is not None:
            self._next_tick.cancel()
            self._next_tick = None
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        for waiting in list(self._waiting):
            self._waiting.pop(waiting)
            waiting.abort()
        for connection in self.connections:
            connection.abort()

    @property
    def connections(self) -> list[GateConnection]:
        """Those that have a place and have not logged in."""
        return [*self._placed, *self._peers]

    def trouble(self) -> str | None:
        """What `status` shows if nobody can log in because of a flood; None otherwise."""
        now_s, flood = time.monotonic(), self._flood
        if flood is None or now_s - flood.last_s > CALM_S:
            return None
        shut_s = now_s - max(flood.began_s, self._last_login_s)
        full = len(self._placed) >= self.limits.full or self.is_full()
        if not full or shut_s < LOCKED_OUT_S:
            return None
        network, count = most_frequent(network for network, _ in self._placed.values())
        return (
            f"nobody has logged in for {shut_s:.0f} s while {flood.refused} connections were refused: "
            f"{len(self._placed)} that do not log in take all places (limits.max_unauthenticated), "
            f"{count} of them from {network or 'nowhere'}"
        )

    # -- called by WaitingConnection -------------------------------------------------------------------

    def wait(self, waiting: "WaitingConnection") -> None:
        """There was no place for it when it came."""
        if len(self._waiting) >= WAITING_PLACES:
            places = list(self._waiting.values())
            network, _ = most_frequent(place.network for place in places)
            oldest = place_to_free(places, network, time.monotonic())
            if oldest is not None:
                self._refuse(oldest.connection)
        self._waiting[waiting] = Place(waiting, waiting.network, time.monotonic())
        if self._next_tick is None:
            self._next_tick = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def first_line_received(self, waiting: "WaitingConnection") -> None:
        """Its first line is complete. A node with a pass gets a place; who does not speak SSH is refused."""
        if waiting not in self._waiting:
            return
        passes = self.passes if len(self._peers) < PEER_PLACES else None
        if passes is not None and passes.take(waiting.line, time.time()):
            connection = self.make_connection(waiting.source)
            self._peers.add(connection)
            self._hand_over(waiting, connection)
        elif not waiting.line.startswith(LINE_START):
            self._refuse(waiting)

    def gone(self, waiting: "WaitingConnection") -> None:
        """It is closed, by whichever side."""
        self._waiting.pop(waiting, None)

    # -- places ----------------------------------------------------------------------------------------

    def _place(self, source: Source, address: str) -> GateConnection | None:
        """The SSH side of a new connection, if there is a place or one can be freed."""
        if self.is_full():
            return None
        network, now_s = network_of(address) or address, time.monotonic()
        chance = random.random()  # noqa: S311 # for fairness; it is not a secret
        places = [Place(one, *where, one.progress) for one, where in self._placed.items()]
        verdict = judge(self.limits, places, network, now_s, chance)
        if not verdict.admitted:
            return None
        if verdict.instead_of is not None:
            self._placed.pop(verdict.instead_of)
            verdict.instead_of.turn_out(f"its place was needed ({verdict.reason})")
        connection = self.make_connection(source)
        self._placed[connection] = (network, now_s)
        return connection

    def _place_waiting(self) -> None:
        """Give free places to waiting connections: to the first of each network, as far as places go."""
        self._next_look = None
        tried: set[str] = set()
        for waiting in list(self._waiting):
            if waiting.line.startswith(LINE_START) and waiting.network not in tried:
                tried.add(waiting.network)
                if (connection := self._place(waiting.source, waiting.address)) is not None:
                    self._hand_over(waiting, connection)

    def _hand_over(self, waiting: "WaitingConnection", connection: GateConnection) -> None:
        self._waiting.pop(waiting, None)
        waiting.hand_over(connection)

    def _tick(self) -> None:
        """Look again: meanwhile a placed connection may be replaceable, or one may have waited too long."""
        self._next_tick = None
        self._place_waiting()
        now_s = time.monotonic()
        for waiting, place in list(self._waiting.items()):
            if now_s - place.since_s > WAIT_S:
                self._refuse(waiting)
        if self._waiting:
            self._next_tick = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _refuse(self, waiting: "WaitingConnection") -> None:
        """Close it. The log has two lines per flood: one at its beginning, one after its end."""
        self._waiting.pop(waiting, None)
        waiting.refuse()
        now_s = time.monotonic()
        if self._flood is not None and now_s - self._flood.last_s > CALM_S:
            log.info("connections_accepted_again", dropped=self._flood.refused)
            self._flood = None
        if self._flood is None:
            self._flood = _Flood(now_s, now_s)
            log.warning(
                "connections_dropped",
                source=waiting.address,
                unauthenticated=len(self._placed),
                crowded=self.is_full(),
            )
        self._flood.last_s = now_s
        self._flood.refused += 1


class WaitingConnection(asyncio.Protocol):
    """A connection without a place: keeps the first bytes that it gets. Hashed by identity."""

    def __init__(self, queue: LoginQueue, source: Source, address: str) -> None:
        self._queue = queue
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self.source = source
        self.address = address
        self.network = network_of(address) or address
        self.line = b""  # the client's first line, once it is complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client has connected."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a listener's transport is a Transport")
        self._transport = transport
        if hasattr(transport, "max_size"):  # asyncio would read 256 KiB at once
            transport.max_size = FIRST_BYTES
        self._queue.wait(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: its first line, or a part of it, possibly with more behind it."""
        self._data += data
        if len(self._data) >= FIRST_BYTES and self._transport is not None:
            self._transport.pause_reading()
        if not self.line:
            line, end, _ = self._data.partition(b"\n")
            if end or len(line) >= FIRST_BYTES:
                self.line = line or b"\n"
                self._queue.first_line_received(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is closed."""
        del exc
        self._queue.gone(self)

    def hand_over(self, connection: GateConnection) -> None:
        """It has got a place: `connection` takes over, with the bytes received so far."""
        transport = self._transport
        if transport is None:
            raise RuntimeError("a connection gets a place only after connection_made")
        transport.set_protocol(connection)
        transport.resume_reading()
        connection.connection_made(transport)
        connection.data_received(self._data)

    def refuse(self) -> None:
        """Close it with a reason."""
        if self._transport is not None:
            self._transport.write(TOO_MANY)
            self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()
