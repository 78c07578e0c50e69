"""The SSH listener: limits, and the life of every connection and session."""

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncssh
import structlog

from stargate_gate.errors import UnavailableError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.channel import STALL_LIMIT_S
from stargate_gate.gate.connection import SIGNATURE_ALGORITHMS, ExecSession, GateConnection, Visitor
from stargate_gate.gate.keyfile import KeyFile
from stargate_gate.gate.ports import Channel, Request
from stargate_gate.gate.proxied import ProxiedConnection, Source
from stargate_gate.gate.sources import Network

log = structlog.get_logger()

SERVER_VERSION = "Stargate"
KEEPALIVE_S = 60.0  # a client that is gone without a word is noticed after KEEPALIVE_COUNT of these;
KEEPALIVE_COUNT = 5  # one that computes a pack in the thread that reads its socket may not answer for minutes
BACKLOG = 128  # connections that the kernel holds while the loop is busy
CLOSE_GRACE_S = 2.0  # clients get that long to take their exit status when the node stops
CONNECTIONS_PER_SESSION = 4  # a bound on logged-in connections, most of which idle
# The client's order decides, and OpenSSH's begins with chacha20-poly1305, which costs 1.6 times the CPU
# of AES-GCM here: so it is not offered. Every client that has it has one of these too.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")


class Handler(Protocol):
    """`Gate` is one."""

    async def handle(self, request: Request, channel: Channel) -> int | None:
        """Serve one request to its end; see `Gate.handle`."""


@dataclass(frozen=True)
class ServerSettings:
    """What of the configuration concerns the listener. `listen` are (host, port); port 0 is any.

    proxies  where load balancers are, whose PROXY header tells who the client is
    """

    listen: tuple[tuple[str, int], ...]
    authorized_keys: Path
    cluster_key: bytes | None = None
    login_timeout_s: float = 20.0
    max_unauthenticated: int = 50
    max_sessions: int = 200
    proxies: tuple[Network, ...] = ()
    stall_limit_s: float = STALL_LIMIT_S


class SshServer:
    """Listens and hands each exec request to the handler."""

    def __init__(
        self, handler: Handler, host_keys: Sequence[asyncssh.SSHKey], settings: ServerSettings
    ) -> None:
        self._handler = handler
        self._host_keys = list(host_keys)
        self._settings = settings
        self._keys = KeyFile(settings.authorized_keys)
        self._servers: list[asyncio.Server] = []
        self._strangers: set[GateConnection] = set()
        self._unnamed: set[ProxiedConnection] = set()  # strangers whose PROXY header is still to come
        self._guests: set[GateConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dropped = 0
        self._stopping = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What operators should know of authorized_keys, for `status`."""
        return self._keys.problems

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._servers) and all(server.is_serving() for server in self._servers)

    @property
    def connections(self) -> int:
        """Open connections, logged in or not."""
        return len(self._unnamed) + len(self._strangers) + len(self._guests)

    async def start(self) -> list[tuple[str, int]]:
        """Listen on every address; the bound (host, port) of each, in order.

        Raises:
            UnavailableError: an address cannot be listened on; none is then.
        """
        asyncssh.set_log_level("WARNING")  # its lines are many and its own; the gate says what matters
        self._keys.current()
        options = await self._options()
        loop = asyncio.get_running_loop()
        try:
            for host, port in self._settings.listen:
                self._servers.append(
                    await loop.create_server(
                        lambda: self._protocol(loop, options), host, port, backlog=BACKLOG
                    )
                )
        except OSError as error:
            await self.stop_accepting()
            raise UnavailableError(_cannot_listen(host, port, error)) from error
        bound = [server.sockets[0].getsockname()[:2] for server in self._servers]
        log.info("ssh_listening", addresses=[_shown(host, port) for host, port in bound])
        return bound

    async def stop_accepting(self) -> None:
        """No new connections; those that are there go on. Safe to call twice."""
        for server in self._servers:
            server.close()
            await server.wait_closed()
        self._servers.clear()

    async def close(self) -> None:
        """End every session, and then every connection; all that ran for them has been reaped."""
        self._stopping = True
        await self.stop_accepting()
        for unnamed in list(self._unnamed):
            unnamed.abort()
        for connection in list(self._strangers):
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        connections = list(self._strangers | self._guests)
        closed = [asyncio.ensure_future(connection.wait_closed()) for connection in connections]
        if closed:  # clients of one command close by themselves, once they have their exit status
            await asyncio.wait(closed, timeout=CLOSE_GRACE_S if self._guests else 0)
        for connection in connections:
            connection.close()
        if closed:
            await asyncio.wait(closed, timeout=CLOSE_GRACE_S)

    async def _options(self) -> asyncssh.SSHServerConnectionOptions:
        settings = self._settings
        options: asyncssh.SSHServerConnectionOptions = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=self._visitor,
            server_version=SERVER_VERSION,
            server_host_keys=self._host_keys,
            login_timeout=settings.login_timeout_s,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVE_COUNT,
            kex_algs="-*-sha1",
            encryption_algs=CIPHERS,
            mac_algs="-hmac-sha1*",
            signature_algs=SIGNATURE_ALGORITHMS,
            compression_algs=None,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            agent_forwarding=False,
            x11_forwarding=False,
            allow_scp=False,
            line_editor=False,
            encoding=None,
        )
        return options

    def _protocol(
        self, loop: asyncio.AbstractEventLoop, options: asyncssh.SSHServerConnectionOptions
    ) -> asyncio.BaseProtocol:
        """For each new connection: the real thing, or a short goodbye."""
        strangers, guests = len(self._strangers) + len(self._unnamed), len(self._guests)
        if (
            strangers >= self._settings.max_unauthenticated
            or guests >= CONNECTIONS_PER_SESSION * self._settings.max_sessions
        ):
            if not self._dropped:  # once per flood
                log.warning("connections_dropped", unauthenticated=strangers, authenticated=guests)
            self._dropped += 1
            return _TooMany()
        if self._dropped:
            log.info("connections_accepted_again", dropped=self._dropped)
            self._dropped = 0

        def begin(source: Source) -> GateConnection:
            connection = GateConnection(loop, options)
            if source is not None:
                connection.set_extra_info(peername=source)
            self._strangers.add(connection)
            return connection

        if not self._settings.proxies:
            return begin(None)
        unnamed = ProxiedConnection(
            self._settings.proxies,
            self._settings.login_timeout_s,
            begin=begin,
            gone=self._unnamed.discard,
        )
        self._unnamed.add(unnamed)
        return unnamed

    def _visitor(self) -> Visitor:
        settings = self._settings
        return Visitor(self._keys, settings.cluster_key, self, stall_limit_s=settings.stall_limit_s)

    def logged_in(self, visitor: Visitor) -> None:
        """`FrontDesk`."""
        self._strangers.discard(visitor.connection)
        self._guests.add(visitor.connection)

    def left(self, visitor: Visitor) -> None:
        """`FrontDesk`."""
        self._strangers.discard(visitor.connection)
        self._guests.discard(visitor.connection)

    def serve(self, session: ExecSession) -> None:
        """`FrontDesk`."""
        if self._stopping:
            session.channel.abort()
            return
        session.task = asyncio.create_task(self._run(session), name="ssh-session")
        self._tasks.add(session.task)
        session.task.add_done_callback(self._tasks.discard)

    async def _run(self, session: ExecSession) -> None:
        try:
            await self._handler.handle(session.request(), session.channel)
        except asyncio.CancelledError:
            if self._stopping and not session.channel.lost:
                await _say_goodbye(session)
            raise
        except Exception:
            log.exception("session_crashed")
            session.channel.abort()


async def _say_goodbye(session: ExecSession) -> None:
    """The node stops: tell a client that is still there, without waiting for it."""
    try:
        async with asyncio.timeout(CLOSE_GRACE_S):
            await session.channel.write_error(b"this node stops; try again\n")
            await session.channel.exit(ExitCode.UNAVAILABLE)
    except (ConnectionError, TimeoutError):
        session.channel.abort()


def _shown(host: str, port: int) -> str:
    """With brackets around an IPv6 address, as the YAML file has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    where = _shown(host, port)
    if error.errno == errno.EADDRINUSE:
        return f"ssh.listen: {where} is in use by another program: stop that, or choose another port"
    return f"ssh.listen: cannot listen on {where} ({error.strerror or error})"


class _TooMany(asyncio.Protocol):
    """Closes at once, with the word that OpenSSH uses for it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a connection that is one too many."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(b"Exceeded MaxStartups\r\n")
        transport.close()
