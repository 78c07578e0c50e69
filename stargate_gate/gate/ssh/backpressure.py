"""What asyncssh lacks so that a transfer costs a window of memory and not its size.

Up: SSHChannel._deliver_data re-opens the *whole* receive window on the first packet it delivers after
a pause, while the rest of the backlog still waits, so that a slow reader's backlog grows without end
(a 315 MB upload took 372 MB). `PacedChannel` re-opens the window by what was really taken. And it opens
no window at all before its session wants to read: what a client may send is memory here, and a channel
that runs no command, or one that reads nothing, needs none (200 channels of one key took 400 MB). The
first window is small and grows with what is taken, up to `WINDOW_BYTES`.

Down: the connection ignores the transport's pause_writing, and during a re-keying it defers packets
without a bound. A client that offers a window of gigabytes and reads slowly (PuTTY offers 2 GiB) would
make the server hold a whole clone. `PacedConnection` lets writers wait for both. It also handles what
clients send in turns, see packet_turns.py, and stops reading while too much of it waits.

This leans on private code of asyncssh. It is used only while that code is what was read: otherwise the
stock behaviour stays, loudly, which costs memory but serves. tests/gate/test_backpressure.py tells the
maintainer.
"""

import asyncio
import functools
import hashlib
import inspect
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import asyncssh
import structlog
from asyncssh.channel import SSHChannel, SSHServerChannel
from asyncssh.connection import SSHConnection
from asyncssh.constants import MSG_CHANNEL_DATA, MSG_CHANNEL_WINDOW_ADJUST
from asyncssh.packet import UInt32

from stargate_gate.gate.ssh.packet_turns import PacketTurns

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

WINDOW_BYTES = 2 * 1024 * 1024  # OpenSSH's: 20 MB/s at a round trip of 100 ms, and the bound of one upload
FIRST_WINDOW_BYTES = 64 * 1024  # doubled with each window that was taken: after 4 MB it has its full size
READ_BYTES = 64 * 1024  # one read of a connection; asyncio's own 256 KiB would be 200 MB for all of them
MOST_UNHANDLED_BYTES = 512 * 1024  # while one packet takes long (a login waits for the keys)
MOST_UNSENT_BYTES = 1024 * 1024  # answers that a client does not read; a write of a session has 64 KiB
MOST_DEFERRED = (
    4096  # packets that wait for the end of a key exchange; 100 channels of a peer have some hundreds
)
ADJUST_SHARE = 4  # tell the client of taken bytes a quarter of the window at a time

# SHA-256 over the source of the functions below, as of asyncssh 2.24.1.
CHECKED_SOURCE = "1a6d79e9babdc5513935a6df0c926ea6f99cf774f020a6981ef8b12cd17c169d"


def source_digest() -> str:
    """SHA-256 over the source of everything in asyncssh that this module leans on."""
    functions: tuple[Callable[..., Any], ...] = (
        SSHChannel._deliver_data,  # noqa: SLF001  # here and below: that is what this module is for
        SSHChannel._accept_data,  # noqa: SLF001
        SSHChannel._flush_recv_buf,  # noqa: SLF001
        SSHChannel._process_data,  # noqa: SLF001
        SSHChannel.send_packet,
        SSHServerChannel.__init__,
        SSHServerChannel._process_env_request,  # noqa: SLF001
        SSHServerChannel._process_exec_request,  # noqa: SLF001
        SSHServerChannel._start_session,  # noqa: SLF001
        SSHChannel._finish_open_request,  # noqa: SLF001
        SSHConnection.pause_writing,
        SSHConnection.resume_writing,
        SSHConnection.send_packet,
        SSHConnection._send_deferred_packets,  # noqa: SLF001
        SSHConnection.data_received,
        SSHConnection._recv_data,  # noqa: SLF001
        SSHConnection._recv_pkthdr,  # noqa: SLF001
        SSHConnection._recv_packet,  # noqa: SLF001
        SSHConnection._finish_recv_packet,  # noqa: SLF001
        asyncssh.SSHServerConnection.create_server_channel,
    )
    text = "".join(inspect.getsource(function) for function in functions)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def asyncssh_is_as_checked() -> bool:
    """Whether the installed asyncssh has the code that this module was written against; logs if not."""
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


class PacedChannel(SSHServerChannel[bytes]):
    """A session channel whose receive window is opened by what the session has taken, and no more.

    What was delivered and not yet taken never exceeds the window. Of the environment that a client
    sends, only GIT_PROTOCOL is kept: asyncssh keeps any number of variables, and lets them override
    what a key's environment= says.
    """

    _window_bytes = 0  # what may be sent and not yet taken; `_recv_window` is what of it is still free
    _untold_bytes = 0
    _taken_bytes = 0  # with this window

    def open_window(self) -> None:
        """The session wants to read: let the client send. Once; harmless when repeated."""
        if self._window_bytes == 0 and self._recv_state == "open":
            self._widen(FIRST_WINDOW_BYTES)

    def taken(self, n: int) -> None:
        """The session has passed `n` more bytes on: let the client send as many again."""
        self._untold_bytes += n
        self._taken_bytes += n
        if self._recv_state != "open":
            return
        if self._taken_bytes >= self._window_bytes < WINDOW_BYTES:
            self._widen(min(self._window_bytes, WINDOW_BYTES - self._window_bytes))
        elif self._untold_bytes >= self._window_bytes // ADJUST_SHARE:
            self._tell(self._untold_bytes)

    def _widen(self, more_bytes: int) -> None:
        self._window_bytes += more_bytes
        self._taken_bytes = 0
        self._tell(more_bytes + self._untold_bytes)

    def _tell(self, more_bytes: int) -> None:
        self._recv_window += more_bytes
        self._untold_bytes = 0
        self.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(more_bytes))

    def process_packet(
        self, pkttype: int, pktid: int, packet: asyncssh.packet.SSHPacket
    ) -> bool | Awaitable[None]:
        """As asyncssh's, but data that was sent without any window is ignored.

        RFC 4254, section 5.2, allows that. To end the connection would be allowed too, but it would take
        the other channels of the connection with it.
        """
        if pkttype == MSG_CHANNEL_DATA and self._window_bytes == 0 and self._recv_state == "open":
            return True
        return super().process_packet(pkttype, pktid, packet)

    def _deliver_data(self, data: bytes, datatype: int | None) -> None:
        """As asyncssh's, without the adjustment of the window."""
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
        """As asyncssh's, which answers a command that is not UTF-8 without a reason: here one can be told."""
        command = packet.get_string()
        packet.check_end()
        return self._start_session(command.decode("utf-8", "surrogateescape"))


class PacedConnection(asyncssh.SSHServerConnection):
    """A connection that says when more may be written, and opens paced channels."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
        turns: PacketTurns,
    ) -> None:
        super().__init__(loop, options)
        self._turns = turns
        self._transport_takes = True
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: somebody is there."""
        if hasattr(transport, "max_size"):
            transport.max_size = READ_BYTES
        super().connection_made(transport)

    def _recv_data(self) -> None:
        """As asyncssh's, in turns."""
        if not asyncssh_is_as_checked():
            super()._recv_data()
            return
        self._reset_keepalive_timer()
        self._turns.offer(self)

    def handle_packets(self, until_s: float) -> bool:
        """`packetturns.Reader`. As asyncssh's `_recv_data`, but it stops at a time."""
        try:
            while self._inpbuf and not self._owes_reading() and self._recv_handler():
                self._require_few_deferred()
                if time.monotonic() >= until_s:
                    return bool(self._inpbuf)
        except asyncssh.DisconnectError as error:
            self._send_disconnect(error.code, error.reason, error.lang)
            self._force_close(error)
        except Exception:  # noqa: BLE001  # as asyncssh's: it ends the connection
            self.internal_error()
        return False

    def has_turn(self, *, waits: bool) -> None:
        """`packetturns.Reader`. Reads no more while there is enough to handle."""
        transport = self._transport
        if transport is None:
            return
        if waits or len(self._inpbuf) > MOST_UNHANDLED_BYTES or self._owes_reading():
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _require_few_deferred(self) -> None:
        if len(self._deferred_packets) > MOST_DEFERRED:
            raise asyncssh.ProtocolError("too much was asked for during a key exchange")

    def _owes_reading(self) -> bool:
        """Whether the client has to read first: what it asks for would only add to what it does not read."""
        return not self._transport_takes and self.unsent_bytes() > MOST_UNSENT_BYTES

    async def wait_writable(self) -> None:
        """Return once the transport's buffer is low and no key exchange holds packets back."""
        while self._deferred_packets or not self._transport_takes:
            self._writable.clear()
            await self._writable.wait()

    def unsent_bytes(self) -> int:
        """How much the transport holds; for telling a slow client from one that has stopped."""
        transport = self._transport
        return transport.get_write_buffer_size() if transport is not None else 0

    def pause_writing(self) -> None:
        """asyncio: the transport's buffer is over its high-water mark."""
        self._transport_takes = False

    def resume_writing(self) -> None:
        """asyncio: it is below its low-water mark again."""
        self._transport_takes = True
        self._writable.set()
        self._recv_data()

    def _send_deferred_packets(self) -> None:
        super()._send_deferred_packets()
        self._writable.set()

    def create_paced_channel(self) -> SSHServerChannel[bytes]:
        """A channel for one session, of bytes."""
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
