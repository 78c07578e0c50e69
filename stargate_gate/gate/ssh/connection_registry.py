"""Where connections are counted until they have logged in; see login_places.py for the rules.

Who finds no place waits here, for WAIT_S at most, at the cost of a socket: a burst of real clients gets in
one after the other as places become free, instead of being refused. Somebody who says nothing gets no place
from here. A node of the cluster shows a pass in its first line (net/peer_pass.py) and gets one of
PEER_PLACES, which are kept for them.
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
from stargate_gate.net.crowding import Standing, block_of, first_to_go, heaviest
from stargate_gate.net.peer_pass import Passes

log = structlog.get_logger()

WAIT_S = 4.0  # longer than PATIENCE_S: then somebody's patience has come to its end
WAITING_PLACES = 128  # each a socket and FIRST_BYTES
TICK_S = 0.25
PEER_PLACES = 8  # for connections between nodes that have not logged in yet: a few per standby
FIRST_BYTES = 4096  # what is kept of a client that waits; its first line has at most 255
LINE_START = b"SSH-"
CALM_S = 10.0  # without a refusal for that long, a flood is over
LOCKED_OUT_S = 5.0  # nobody got in for that long while others were refused: say so


@dataclass
class _Flood:
    """What is going on while connections are refused. Times are monotonic."""

    began_s: float
    last_s: float
    refused: int = 0


@dataclass
class Door:
    """Gives places. `welcome` makes the SSH side of a connection that has one.

    crowded  whether there is no room for more who have logged in either; only nodes get in then
    passes   None on a node without a cluster
    """

    limits: PlaceLimits
    welcome: Callable[[Source], GateConnection]
    crowded: Callable[[], bool]
    passes: Passes | None = None
    _inside: dict[GateConnection, tuple[str, float]] = field(default_factory=dict)  # block, since when
    _peers: set[GateConnection] = field(default_factory=set)
    _waiting: "dict[Waiting, Standing[Waiting]]" = field(default_factory=dict)
    _ticking: asyncio.TimerHandle | None = None
    _looking: asyncio.Handle | None = None
    _flood: _Flood | None = None
    _logged_in_s: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return len(self._inside) + len(self._peers) + len(self._waiting)

    def arrive(self, source: Source, address: str) -> asyncio.Protocol:
        """What speaks with a new connection from `address`, which PROXY protocol has named if `source` is."""
        return self._admit(source, address) or Waiting(self, source, address)

    def leave(self, connection: GateConnection, *, logged_in: bool = False) -> None:
        """This one is gone or has logged in: its place is free. Safe to call twice."""
        if logged_in and connection in self._inside:
            self._logged_in_s = time.monotonic()
        self._peers.discard(connection)
        if self._inside.pop(connection, None) is not None and self._waiting and self._looking is None:
            self._looking = asyncio.get_running_loop().call_soon(self._let_in)  # once for all that leave now

    def close(self) -> None:
        """End everything here."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        for waiting in list(self._waiting):
            self._waiting.pop(waiting)
            waiting.abort()
        for connection in [*self._inside, *self._peers]:
            connection.abort()

    @property
    def connections(self) -> list[GateConnection]:
        """Those that may log in and have not."""
        return [*self._inside, *self._peers]

    def trouble(self) -> str | None:
        """What operators should know: nobody gets in; None while somebody does."""
        now_s, flood = time.monotonic(), self._flood
        if flood is None or now_s - flood.last_s > CALM_S:
            return None
        shut_s = now_s - max(flood.began_s, self._logged_in_s)
        full = len(self._inside) >= self.limits.full or self.crowded()
        if not full or shut_s < LOCKED_OUT_S:
            return None
        most, count = heaviest(block for block, _ in self._inside.values())
        return (
            f"nobody has logged in for {shut_s:.0f} s while {flood.refused} connections were refused: "
            f"{len(self._inside)} that do not log in take all places (limits.max_unauthenticated), "
            f"{count} of them from {most or 'nowhere'}"
        )

    # -- Waiting's side --------------------------------------------------------------------------------

    def wait(self, waiting: "Waiting") -> None:
        """There was no place; maybe one becomes free."""
        if len(self._waiting) >= WAITING_PLACES:
            standing = list(self._waiting.values())
            most, _ = heaviest(one.block for one in standing)
            oldest = first_to_go(standing, most, time.monotonic())
            if oldest is not None:
                self._turn_away(oldest.connection)
        self._waiting[waiting] = Standing(waiting, waiting.block, time.monotonic())
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def spoke(self, waiting: "Waiting") -> None:
        """Its first line is complete."""
        if waiting not in self._waiting:
            return
        passes = self.passes if len(self._peers) < PEER_PLACES else None
        if passes is not None and passes.take(waiting.line, time.time()):
            connection = self.welcome(waiting.source)
            self._peers.add(connection)
            self._hand_over(waiting, connection)
        elif not waiting.line.startswith(LINE_START):
            self._turn_away(waiting)

    def gone(self, waiting: "Waiting") -> None:
        """It has closed, or was closed."""
        self._waiting.pop(waiting, None)

    # -- places ----------------------------------------------------------------------------------------

    def _admit(self, source: Source, address: str) -> GateConnection | None:
        """The SSH side of a newcomer, if there is a place for it or can be made."""
        if self.crowded():
            return None
        block, now_s = block_of(address), time.monotonic()
        chance = random.random()  # noqa: S311 # fairness, no secret
        standing = [Standing(one, *where, one.progress) for one, where in self._inside.items()]
        verdict = judge(self.limits, standing, block, now_s, chance)
        if not verdict.admitted:
            return None
        if verdict.instead_of is not None:
            self._inside.pop(verdict.instead_of)
            verdict.instead_of.turn_out(f"its place was needed ({verdict.reason})")
        connection = self.welcome(source)
        self._inside[connection] = (block, now_s)
        return connection

    def _let_in(self) -> None:
        """Give a free place to whoever of those who wait can have it: the first of each address."""
        self._looking = None
        tried: set[str] = set()
        for waiting in list(self._waiting):
            if waiting.line.startswith(LINE_START) and waiting.block not in tried:
                tried.add(waiting.block)
                if (connection := self._admit(waiting.source, waiting.address)) is not None:
                    self._hand_over(waiting, connection)

    def _hand_over(self, waiting: "Waiting", connection: GateConnection) -> None:
        self._waiting.pop(waiting, None)
        waiting.hand_over(connection)

    def _tick(self) -> None:
        """Look again: somebody's patience has come to its end, or a newcomer's time to wait."""
        self._ticking = None
        self._let_in()
        now_s = time.monotonic()
        for waiting, standing in list(self._waiting.items()):
            if now_s - standing.since_s > WAIT_S:
                self._turn_away(waiting)
        if self._waiting:
            self._ticking = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _turn_away(self, waiting: "Waiting") -> None:
        self._waiting.pop(waiting, None)
        waiting.refuse()
        now_s = time.monotonic()
        if self._flood is not None and now_s - self._flood.last_s > CALM_S:
            log.info("connections_accepted_again", dropped=self._flood.refused)
            self._flood = None
        if self._flood is None:  # once per flood
            self._flood = _Flood(now_s, now_s)
            log.warning(
                "connections_dropped",
                source=waiting.address,
                unauthenticated=len(self._inside),
                crowded=self.crowded(),
            )
        self._flood.last_s = now_s
        self._flood.refused += 1


class Waiting(asyncio.Protocol):
    """A connection without a place: keeps its first bytes. Hashed by identity."""

    def __init__(self, door: Door, source: Source, address: str) -> None:
        self._door = door
        self._data = b""
        self._transport: asyncio.Transport | None = None
        self.source = source
        self.address = address
        self.block = block_of(address)
        self.line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: somebody is there."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a listener's transport is a Transport")
        self._transport = transport
        if hasattr(transport, "max_size"):  # one read of asyncio's would be 256 KiB
            transport.max_size = FIRST_BYTES
        self._door.wait(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: its first line, or a part of it, and maybe more."""
        self._data += data
        if len(self._data) >= FIRST_BYTES and self._transport is not None:
            self._transport.pause_reading()
        if not self.line:
            line, end, _ = self._data.partition(b"\n")
            if end or len(line) >= FIRST_BYTES:
                self.line = line or b"\n"
                self._door.spoke(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: it is closed."""
        del exc
        self._door.gone(self)

    def hand_over(self, connection: GateConnection) -> None:
        """It has a place now: SSH takes over, with what has come so far."""
        transport = self._transport
        if transport is None:
            raise RuntimeError("a connection that was never made has no place")
        transport.set_protocol(connection)
        transport.resume_reading()
        connection.connection_made(transport)
        connection.data_received(self._data)

    def refuse(self) -> None:
        """Close it, and say why."""
        if self._transport is not None:
            self._transport.write(TOO_MANY)
            self._transport.close()

    def abort(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()
