"""What asyncssh lacks: limits on what one connection costs in memory, and in time of the event loop.

**Upload.** SSHChannel._deliver_data opens the *whole* receive window again on the first packet that it
delivers after a pause, while the rest of the backlog still waits. So the backlog of a slow reader grows
without end: an upload of 315 MB took 372 MB of memory. `PacedChannel` opens the window by the bytes that were
really taken. It opens no window at all before its session wants to read: what a client may send is memory
here, and a channel that runs no command, or one that reads nothing, needs none (200 channels of one key took
400 MB). The first window is small, and grows up to `WINDOW_BYTES` as bytes are taken.

**Download.** The connection ignores the transport's pause_writing, and it keeps packets back during a key
exchange without a bound. For a client that offers a window of gigabytes (PuTTY: 2 GiB) and reads slowly the
server would hold a whole clone in memory. `PacedConnection` lets writers wait for both, and stops reading
from a client that does not read.

**Time.** asyncssh handles all packets of a read at once, and the event loop reads from every connection
before it does anything else. 256 KiB hold 16,000 of the smallest packets, which take a third of a second: 20
connections of a stranger blocked the loop for longer than the watchdog allows, and ended the node. With
`PacketTurns` a connection handles packets for SHARE_S, and all connections together for BUDGET_S, in each
round of the event loop. A connection with more packets is not read from until it has its next turn. As long
as no connection has more, each read is handled at once, as in asyncssh.

This uses private code of asyncssh. If the installed asyncssh differs from the code that was read,
asyncssh's own behaviour stays, with a warning in the log: it costs memory but serves.
tests/gate/test_backpressure.py fails then, for the maintainer.
"""

import asyncio
import functools
import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import asyncssh
import structlog
from asyncssh.channel import SSHChannel, SSHServerChannel
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST
from asyncssh.packet import UInt32

log = structlog.get_logger()

WINDOW_BYTES = 2 * 1024 * 1024  # as OpenSSH: 20 MB/s at a round trip of 100 ms; the memory of one upload
FIRST_WINDOW_BYTES = 64 * 1024  # doubled each time that a whole window was taken: 2 MiB after 4 MB
ADJUST_SHARE = 4  # the client is told of taken bytes when they are a quarter of the window
READ_BYTES = 64 * 1024  # one read of a connection; asyncio's 256 KiB would be 200 MB for all connections
MAX_UNHANDLED_BYTES = 512 * 1024  # kept while one packet takes long (a login waits for the keys)
MAX_UNSENT_BYTES = 1024 * 1024  # answers that a client does not read; one write of a session has 64 KiB
MAX_DEFERRED = 4096  # packets kept until a key exchange ends; 100 channels of a peer have some hundreds

SHARE_S = 0.002  # some 50 of the smallest packets; the 64 KiB of a transfer take a tenth of it
BUDGET_S = 0.02  # far below election.watchdog_s, also on a machine that is ten times as slow

# SHA-256 over the source of the functions below, as of asyncssh 2.24.1.
CHECKED_SOURCE = "1a6d79e9babdc5513935a6df0c926ea6f99cf774f020a6981ef8b12cd17c169d"


def source_digest() -> str:
    """SHA-256 over the source of all functions of asyncssh that this module relies on."""
    functions: tuple[Callable[..., Any], ...] = (
        SSHChannel._deliver_data,  # noqa: SLF001  # private code is what this module is about
        SSHChannel._accept_data,  # noqa: SLF001  # as above
        SSHChannel._flush_recv_buf,  # noqa: SLF001  # as above
        SSHChannel._process_data,  # noqa: SLF001  # as above
        SSHChannel.send_packet,
        SSHServerChannel.__init__,
        SSHServerChannel._process_env_request,  # noqa: SLF001  # as above
        SSHServerChannel._process_exec_request,  # noqa: SLF001  # as above
        SSHServerChannel._start_session,  # noqa: SLF001  # as above
        SSHChannel._finish_open_request,  # noqa: SLF001  # as above
        SSHConnection.pause_writing,
        SSHConnection.resume_writing,
        SSHConnection.send_packet,
        SSHConnection._send_deferred_packets,  # noqa: SLF001  # as above
        SSHConnection.data_received,
        SSHConnection._recv_data,  # noqa: SLF001  # as above
        SSHConnection._recv_pkthdr,  # noqa: SLF001  # as above
        SSHConnection._recv_packet,  # noqa: SLF001  # as above
        SSHConnection._finish_recv_packet,  # noqa: SLF001  # as above
        asyncssh.SSHServerConnection.create_server_channel,
    )
    text = "".join(inspect.getsource(function) for function in functions)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def asyncssh_is_as_checked() -> bool:
    """Whether the installed asyncssh has the code that this module was written for; logs once if not."""
    try:
        same = source_digest() == CHECKED_SOURCE
    except (AttributeError, OSError, TypeError):
        same = False
    if not same:
        log.warning(
            "asyncssh_not_as_checked",
            version=asyncssh.__version__,
            effect="large pushes and clones with slow peers may take memory of their own size",
            remedy="install asyncssh 2.24.1, or a newer stargate",
        )
    return same


class Reader(Protocol):
    """A connection, as `PacketTurns` sees it. Hashed by identity."""

    def handle_packets(self, until_s: float) -> bool:
        """Handle received packets until `until_s` on a monotonic clock; whether there are more."""

    def has_turn(self, *, waits: bool) -> None:
        """Called after each turn: whether this connection waits for its next one."""


class PacketTurns:
    """Decides which connection handles its packets when. One per listener, for the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[Reader, None] = {}  # in the order of their turns
        self._spent_s = 0.0  # in this round of the loop
        self._next: asyncio.Handle | None = None

    def offer(self, reader: Reader) -> None:
        """`reader` has received something: it handles it now, or has to wait for its turn."""
        if reader in self._waiting:
            return
        # Behind the others if any waits, so that no connection gets ahead by receiving more often.
        if self._waiting or self._spent_s >= BUDGET_S or self._run(reader):
            self._waiting[reader] = None
        self._next = self._next or asyncio.get_running_loop().call_soon(self._round)
        reader.has_turn(waits=reader in self._waiting)

    def _round(self) -> None:
        self._next = None
        self._spent_s = 0.0
        while self._waiting and self._spent_s < BUDGET_S:
            reader = next(iter(self._waiting))
            del self._waiting[reader]
            if self._run(reader):
                self._waiting[reader] = None
            else:
                reader.has_turn(waits=False)
        if self._waiting and self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._round)

    def _run(self, reader: Reader) -> bool:
        began_s = self._clock()
        try:
            return reader.handle_packets(began_s + SHARE_S)
        finally:
            self._spent_s += self._clock() - began_s


class PacedChannel(SSHServerChannel[bytes]):
    """A session channel whose receive window is opened only by the bytes that the session has taken.

    Bytes that were delivered and not taken yet never exceed the window. Of the client's environment only
    GIT_PROTOCOL is kept: asyncssh keeps any number of variables, and lets them override what a key's
    environment= says.
    """

    _window_bytes = 0  # what may be sent and not be taken yet; `_recv_window` is the free part of it
    _unannounced_bytes = 0  # taken, and the client does not know it yet
    _taken_bytes = 0  # with this size of the window

    def open_window(self) -> None:
        """The session wants to read: let the client send. Harmless when repeated."""
        if self._window_bytes == 0 and self._recv_state == "open":
            self._widen(FIRST_WINDOW_BYTES)

    def taken(self, n: int) -> None:
        """The session has taken `n` more bytes: let the client send as many again."""
        self._unannounced_bytes += n
        self._taken_bytes += n
        if self._recv_state != "open":
            return
        # Grow only after a whole window was taken: so a client gets much memory only if its session reads.
        if self._taken_bytes >= self._window_bytes < WINDOW_BYTES:
            self._widen(min(self._window_bytes, WINDOW_BYTES - self._window_bytes))
        elif self._unannounced_bytes >= self._window_bytes // ADJUST_SHARE:
            self._announce(self._unannounced_bytes)

    def _widen(self, more_bytes: int) -> None:
        self._window_bytes += more_bytes
        self._taken_bytes = 0
        self._announce(more_bytes + self._unannounced_bytes)

    def _announce(self, more_bytes: int) -> None:
        self._recv_window += more_bytes
        self._unannounced_bytes = 0
        self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(more_bytes))

    def process_packet(
        self, pkttype: int, pktid: int, packet: asyncssh.packet.SSHPacket
    ) -> bool | Awaitable[None]:
        """As asyncssh's, but data that was sent before there is a window is ignored (RFC 4254, section 5.2).

        To end the connection would be allowed as well, but that would end its other channels, too.
        """
        if pkttype == MSG_CHANNEL_DATA and self._window_bytes == 0 and self._recv_state == "open":
            return True
        return super().process_packet(pkttype, pktid, packet)

    def _deliver_data(self, data: bytes, datatype: int | None) -> None:
        """As asyncssh's, but does not open the window."""
        if self._session is not None:
            self._session.data_received(data, datatype)

    def _process_env_request(self, packet: asyncssh.packet.SSHPacket) -> bool:
        name = packet.get_string()
        value = packet.get_string()
        packet.check_end()
        if name == b"GIT_PROTOCOL":
            self._env[name] = value
        return True

    def _process_exec_request(self, packet: asyncssh.packet.SSHPacket) -> bool:
        """As asyncssh's, but accepts a command that is not UTF-8, so that it can be refused with a reason."""
        command = packet.get_string()
        packet.check_end()
        return self._start_session(command.decode("utf-8", "surrogateescape"))


class PacedConnection(asyncssh.SSHServerConnection):
    """A connection that tells when more may be written, and opens paced channels."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
        turns: PacketTurns,
    ) -> None:
        super().__init__(loop, options)
        self._turns = turns
        self._transport_low = True
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client has connected."""
        if hasattr(transport, "max_size"):
            transport.max_size = READ_BYTES
        super().connection_made(transport)

    def _recv_data(self) -> None:
        """As asyncssh's, but packets are handled in turns."""
        if not asyncssh_is_as_checked():
            super()._recv_data()
            return
        self._reset_keepalive_timer()
        self._turns.offer(self)

    def handle_packets(self, until_s: float) -> bool:
        """`Reader`. As asyncssh's `_recv_data`, but it stops at `until_s`."""
        try:
            while self._inpbuf and not self._owes_reading() and self._recv_handler():
                self._require_few_deferred()
                if time.monotonic() >= until_s:
                    return bool(self._inpbuf)
        except asyncssh.DisconnectError as error:
            self._send_disconnect(error.code, error.reason, error.lang)
            self._force_close(error)
        except Exception:  # noqa: BLE001  # as in asyncssh: any error ends the connection
            self.internal_error()
        return False

    def has_turn(self, *, waits: bool) -> None:
        """`Reader`. Stop reading while there is enough to handle."""
        transport = self._transport
        if transport is None:
            return
        if waits or len(self._inpbuf) > MAX_UNHANDLED_BYTES or self._owes_reading():
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _require_few_deferred(self) -> None:
        if len(self._deferred_packets) > MAX_DEFERRED:
            raise asyncssh.ProtocolError("too much was asked for during a key exchange")

    def _owes_reading(self) -> bool:
        """Whether the client must read first: more answers would only add to what it has not read."""
        return not self._transport_low and self.unsent_bytes() > MAX_UNSENT_BYTES

    async def wait_writable(self) -> None:
        """Return when the transport's buffer is low and no key exchange keeps packets back."""
        while self._deferred_packets or not self._transport_low:
            self._writable.clear()
            await self._writable.wait()

    def unsent_bytes(self) -> int:
        """How many bytes the transport holds. They tell a slow client from one that has stopped."""
        transport = self._transport
        return transport.get_write_buffer_size() if transport is not None else 0

    def pause_writing(self) -> None:
        """asyncio: the transport's buffer is over its high-water mark."""
        self._transport_low = False

    def resume_writing(self) -> None:
        """asyncio: the buffer is below its low-water mark again."""
        self._transport_low = True
        self._writable.set()
        self._recv_data()

    def _send_deferred_packets(self) -> None:
        super()._send_deferred_packets()
        self._writable.set()

    def create_paced_channel(self) -> SSHServerChannel[bytes]:
        """A channel for one session."""
        if not asyncssh_is_as_checked():
            return self.create_server_channel(encoding=None, window=WINDOW_BYTES)
        self._update_recv_pktlen(self._max_pktsize)
        return PacedChannel(
            self,
            self._loop,
            allow_pty=True,
            line_editor=False,
            line_echo=False,
            line_history=0,
            max_line_length=0,
            encoding=None,
            errors="strict",
            window=0,
            max_pktsize=self._max_pktsize,
        )
