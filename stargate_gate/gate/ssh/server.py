"""The SSH listener: which connections there are, and the tasks of their sessions.

A connection goes through these stages, and is in one collection in each:

    awaiting_header   from a load balancer; its PROXY header is still to come (proxied.py)
    login_queue       it has not logged in, and has a place for that or waits for one (login_queue.py)
    authenticated     it has logged in; each exec request of it is a session with a task of its own
"""

import asyncio
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncssh
import structlog
from asyncssh.kex import get_kex_algs

from stargate_gate.access.identity import Identity
from stargate_gate.access.key_file import KeyFile
from stargate_gate.access.sources import Network
from stargate_gate.aio.tasks import HeldTasks, task_group
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.errors import UnavailableError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.ports import Channel, Request
from stargate_gate.gate.ssh.backpressure import PacketTurns
from stargate_gate.gate.ssh.channel import STALL_LIMIT_S
from stargate_gate.gate.ssh.connection import SIGNATURE_ALGORITHMS, AuthHandler, ExecSession, GateConnection
from stargate_gate.gate.ssh.login_log import LoginLog
from stargate_gate.gate.ssh.login_places import PlaceLimits
from stargate_gate.gate.ssh.login_queue import LoginQueue
from stargate_gate.gate.ssh.lost_address import accept_connections, delay_connections
from stargate_gate.gate.ssh.proxied import ProxiedConnection, Source
from stargate_gate.net.algorithms import CIPHERS, HOST_KEY_FIRST, KEY_EXCHANGES, MACS, available
from stargate_gate.net.listening import cannot_listen
from stargate_gate.net.peer_pass import Passes
from stargate_gate.status import ExpiringKey

log = structlog.get_logger()

SERVER_VERSION = "Stargate"
# A client that vanished is noticed after KEEPALIVE_COUNT of these. There are so many because a client that
# computes a pack in the thread that reads its socket may not answer for minutes.
KEEPALIVE_S = 60.0
KEEPALIVE_COUNT = 5
BACKLOG = 128  # connections that the kernel keeps while the event loop is busy
CLOSE_GRACE_S = 2.0  # for clients to take their exit status when the node stops
STOPS = b"this node stops; try again\n"
MOVES = b"this node's address moves to another node; try again\n"
LOG_EVERY_S = 10.0  # a line about something that a client can cause at will is logged that often at most
CONNECTIONS_PER_SESSION = 4  # limits.max_sessions times this is the bound of logged-in connections


class Handler(Protocol):
    """What serves a request. Implemented by `Gate`."""

    async def handle(self, request: Request, channel: Channel) -> int | None:
        """Serve one request to its end; see `Gate.handle`."""


@dataclass(frozen=True)
class ServerSettings:
    """The part of the configuration that concerns the listener.

    listen       (host, port) each; port 0 lets the kernel choose
    cluster_key  the public key of the other nodes, as RFC 4253, section 6.6, encodes it
    pass_secret  for checking passes of other nodes: see net/peer_pass.py
    proxies      networks of load balancers, whose PROXY header says who the client is
    floating     IP addresses that follow the leader; None if they are not known. See lost_address.py
    """

    listen: tuple[tuple[str, int], ...]
    authorized_keys: Path
    cluster_key: bytes | None = None
    pass_secret: bytes | None = None
    login_timeout_s: float = 20.0
    places: PlaceLimits = field(default_factory=PlaceLimits)
    max_sessions: int = 200
    max_connections_per_key: int = 100
    proxies: tuple[Network, ...] = ()
    floating: frozenset[str] | None = frozenset()
    stall_limit_s: float = STALL_LIMIT_S


class SshServer:
    """Listens, and hands each exec request to the handler. Implements `connection.ConnectionRegistry`."""

    def __init__(
        self, handler: Handler, host_keys: Sequence[asyncssh.SSHKey], settings: ServerSettings
    ) -> None:
        self._handler = handler
        self._host_keys = sorted(host_keys, key=lambda key: key.get_algorithm() != HOST_KEY_FIRST)
        self._settings = settings
        self._keys = KeyFile(settings.authorized_keys)
        self._servers: list[asyncio.Server] = []
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self._awaiting_header: set[ProxiedConnection] = set()
        self._login_queue = LoginQueue(
            settings.places,
            self._make_connection,
            self._is_full,
            Passes(settings.pass_secret) if settings.pass_secret else None,
        )
        self._authenticated: set[GateConnection] = set()
        self._held = HeldTasks()
        self._tasks: dict[asyncio.Task[None], ExecSession] = {}  # the session of each of these
        self._log = LoginLog()
        self._turns = PacketTurns()
        self._closed_since_log = 0
        self._closed_logged_s = -math.inf
        self._stopping = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What `status` shows about authorized_keys."""
        return self._keys.problems

    def keys_digest(self) -> str:
        """The same on two nodes that let in the same keys with the same rights. Reveals no key."""
        return self._keys.keys.digest

    def expiring_keys(self, before: float) -> tuple[ExpiringKey, ...]:
        """Users whose last key ends before that time, in seconds since 1970."""
        return self._keys.keys.expiring(before)

    async def reload_keys(self) -> int:
        """Read authorized_keys again, even if it seems unchanged. For SIGHUP.

        Returns how many keys count then; or, if reading takes longer than `KeyFile.look` waits, until then.
        """
        self._keys.reload()
        return len((await self._keys.look()).entries)

    @property
    def locked_out(self) -> str | None:
        """Why nobody can log in, in one line; None if somebody can."""
        if not self._keys.keys.entries:
            path = self._settings.authorized_keys
            return f"nobody can log in: {path} has no usable key: write a public key into it"
        return self._login_queue.trouble()

    async def start(self) -> list[tuple[str, int]]:
        """Listen on every address; the bound (host, port) of each, in order.

        Raises:
            UnavailableError: one address cannot be listened on. Then none is.
        """
        asyncssh.set_log_level(
            "WARNING"
        )  # below that it logs each packet and login; we log sessions ourselves
        await self._keys.start()
        self._options = await self._make_options()
        loop = asyncio.get_running_loop()
        try:
            for host, port in self._settings.listen:
                self._servers.append(await loop.create_server(self._protocol, host, port, backlog=BACKLOG))
        except OSError as error:
            await self.stop_accepting()
            raise UnavailableError(cannot_listen("ssh.listen", Endpoint(host, port), error)) from error
        bound = [server.sockets[0].getsockname()[:2] for server in self._servers]
        log.info("ssh_listening", addresses=[str(Endpoint(*one)) for one in bound])
        return bound

    async def stop_accepting(self) -> None:
        """Accept no new connections; existing ones go on. Can be called twice."""
        for server in self._servers:
            server.close()
            await server.wait_closed()
        self._servers.clear()

    async def close(self) -> None:
        """End every session, then every connection. Every process that ran for them has been reaped then."""
        self._stopping = True
        self._keys.close()
        await self.stop_accepting()
        for awaiting in list(self._awaiting_header):
            awaiting.abort()
        unauthenticated = self._login_queue.connections
        self._login_queue.close()
        await self._held.close()
        connections = [*unauthenticated, *self._authenticated]
        # A client of one command closes its connection by itself once it has the exit status.
        await _wait_closed(connections, CLOSE_GRACE_S if self._authenticated else 0)
        for connection in connections:
            connection.close()
        await _wait_closed(connections, CLOSE_GRACE_S)

    # -- before the floating address moves: see lost_address.py ------------------------------------------

    def delay_connections(self) -> None:
        """New connections to the floating addresses get no answer, so that their clients try again later."""
        for server in self._servers:
            for listener in server.sockets:
                delay_connections(listener, self._settings.floating or ())

    def accept_connections(self) -> None:
        """Undo `delay_connections`."""
        for server in self._servers:
            for listener in server.sockets:
                accept_connections(listener)

    async def leave(self, finishing: Collection["asyncio.Task[Any]"], limit_s: float) -> None:
        """End every connection to an address that this node is about to lose.

        Sessions whose task is in `finishing` end by themselves soon; the others are cancelled. This takes
        `limit_s` seconds at most, and usually as long as clients take to close a connection whose only
        session has ended. Connections that are left then are cut.
        """
        until = asyncio.get_running_loop().time() + limit_s
        leaving = self._at_floating_address()
        busy = {task: one for task, one in self._tasks.items() if one.connection in leaving}
        for task, session in busy.items():
            if task not in finishing:
                session.leaving = True
                task.cancel()
        for connection in leaving.difference(one.connection for one in busy.values()):
            connection.close()
        if busy:
            await asyncio.wait(busy, timeout=limit_s)
        await _wait_closed(leaving, max(0.0, until - asyncio.get_running_loop().time()))
        for connection in self._at_floating_address():
            connection.abort()
        if leaving:
            log.info("connections_ended", reason="the address moves", connections=len(leaving))

    def _at_floating_address(self) -> set[GateConnection]:
        floating = self._settings.floating
        connections = {*self._login_queue.connections, *self._authenticated}
        return {connection for connection in connections if connection.is_at(floating)}

    # -- new connections ---------------------------------------------------------------------------------

    async def _make_options(self) -> asyncssh.SSHServerConnectionOptions:
        settings = self._settings
        options: asyncssh.SSHServerConnectionOptions = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=self._make_auth_handler,
            server_version=SERVER_VERSION,
            server_host_keys=self._host_keys,
            login_timeout=settings.login_timeout_s,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVE_COUNT,
            kex_algs=available(KEY_EXCHANGES, get_kex_algs()),
            encryption_algs=CIPHERS,
            mac_algs=MACS,
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

    def _protocol(self) -> asyncio.BaseProtocol:
        """The first protocol of a new connection."""
        return ProxiedConnection(
            self._settings.proxies,
            self._settings.login_timeout_s,
            begin=self._login_queue.arrive,
            may_wait=self._may_await_header,
            done=self._awaiting_header.discard,
        )

    def _may_await_header(self, connection: ProxiedConnection) -> bool:
        """Whether there is room for one more. They all come from load balancers, so fairness is no matter."""
        if len(self._awaiting_header) >= self._settings.places.full:
            return False
        self._awaiting_header.add(connection)
        return True

    def _make_connection(self, source: Source) -> GateConnection:
        """The SSH side of a connection that has got a place."""
        assert self._options is not None  # noqa: S101 # start has set it
        connection = GateConnection(asyncio.get_running_loop(), self._options, self._turns)
        if source is not None:
            connection.set_extra_info(peername=source)
        return connection

    def _is_full(self) -> bool:
        """Whether there is no room for more connections that have logged in."""
        return len(self._authenticated) >= CONNECTIONS_PER_SESSION * self._settings.max_sessions

    def _make_auth_handler(self) -> AuthHandler:
        settings = self._settings
        return AuthHandler(
            self._keys,
            settings.cluster_key,
            self,
            self._log,
            stall_limit_s=settings.stall_limit_s,
            floating=settings.floating,
        )

    # -- `connection.ConnectionRegistry` -----------------------------------------------------------------

    def logged_in(self, handler: AuthHandler) -> None:
        """The client of this connection has proved who it is."""
        self._login_queue.leave(handler.connection, logged_in=True)
        if self._make_room(handler):
            self._authenticated.add(handler.connection)

    def left(self, handler: AuthHandler) -> None:
        """This connection is gone, logged in or not."""
        self._login_queue.leave(handler.connection)
        self._authenticated.discard(handler.connection)

    def serve(self, session: ExecSession) -> None:
        """Run a session in a task of its own."""
        if self._stopping:
            session.channel.abort()
            return
        session.task = self._held.start(self._run(session), "ssh-session")
        self._tasks[session.task] = session
        session.task.add_done_callback(self._tasks.pop)

    def _make_room(self, handler: AuthHandler) -> bool:
        """Enforce limits.max_connections_per_key; whether the new connection may stay.

        If the key has too many connections, the one that has been idle for longest is closed: a client that
        keeps connections open for later (ControlMaster) opens a new one by itself. If none is idle, the new
        one is closed.
        """
        identity, limit = handler.identity, self._settings.max_connections_per_key
        if identity is None or identity.access == "peer":
            return True
        same_key = [
            connection.handler
            for connection in self._authenticated
            if connection.handler.identity is not None
            and connection.handler.identity.fingerprint == identity.fingerprint
        ]
        if len(same_key) < limit:
            return True
        idle = [one for one in same_key if one.idle_since is not None]
        closed = min(idle, key=lambda one: one.idle_since or 0.0, default=handler)
        self._log_closed(identity, "the oldest that runs nothing" if idle else "all others are in use")
        closed.connection.disconnect(
            asyncssh.DISC_TOO_MANY_CONNECTIONS, f"your key has {limit} connections, as many as it may"
        )
        self._authenticated.discard(closed.connection)
        return closed is not handler

    def _log_closed(self, identity: Identity, reason: str) -> None:
        """At most one line per LOG_EVERY_S: a client may open thousands of connections."""
        self._closed_since_log += 1
        if time.monotonic() - self._closed_logged_s < LOG_EVERY_S:
            return
        log.warning(
            "connections_of_a_key_closed",
            user=identity.user,
            source=identity.source,
            fingerprint=identity.fingerprint,
            most=self._settings.max_connections_per_key,
            closed=self._closed_since_log,
            reason=reason,
        )
        self._closed_logged_s, self._closed_since_log = time.monotonic(), 0

    async def _run(self, session: ExecSession) -> None:
        try:
            await self._keys.look()
            await self._handler.handle(session.request(), session.channel)
        except asyncio.CancelledError:
            if (self._stopping or session.leaving) and not session.channel.lost:
                await _end_with_message(session, STOPS if self._stopping else MOVES)
            raise
        except Exception:
            log.exception("session_crashed")
            session.channel.abort()


async def _wait_closed(connections: Collection[GateConnection], limit_s: float) -> None:
    """Return when all of them are closed, or after `limit_s` seconds."""
    async with task_group() as group:
        closed = [group.create_task(connection.wait_closed()) for connection in connections]
        if closed:
            await asyncio.wait(closed, timeout=limit_s)
        for task in closed:
            task.cancel()


async def _end_with_message(session: ExecSession, message: bytes) -> None:
    """Send the message and an exit status to a client that is still there; give up after CLOSE_GRACE_S."""
    try:
        async with asyncio.timeout(CLOSE_GRACE_S):
            await session.channel.write_error(message)
            await session.channel.exit(ExitCode.UNAVAILABLE)
    except (ConnectionError, TimeoutError):
        session.channel.abort()
