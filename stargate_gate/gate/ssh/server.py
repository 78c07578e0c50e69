"""The SSH listener: limits, and the life of every connection and session."""

import asyncio
import errno
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
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.errors import UnavailableError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.ports import Channel, Request
from stargate_gate.gate.ssh.channel import STALL_LIMIT_S
from stargate_gate.gate.ssh.connection import SIGNATURE_ALGORITHMS, ExecSession, GateConnection, Visitor
from stargate_gate.gate.ssh.connection_registry import Door
from stargate_gate.gate.ssh.login_log import LoginLog
from stargate_gate.gate.ssh.login_places import PlaceLimits
from stargate_gate.gate.ssh.lost_address import accept_connections, delay_connections
from stargate_gate.gate.ssh.packet_turns import PacketTurns
from stargate_gate.gate.ssh.proxied import ProxiedConnection, Source
from stargate_gate.net.algorithms import CIPHERS, HOST_KEY_FIRST, KEY_EXCHANGES, MACS, available
from stargate_gate.net.peer_pass import Passes

log = structlog.get_logger()

SERVER_VERSION = "Stargate"
KEEPALIVE_S = 60.0  # a client that is gone without a word is noticed after KEEPALIVE_COUNT of these;
KEEPALIVE_COUNT = 5  # one that computes a pack in the thread that reads its socket may not answer for minutes
BACKLOG = 128  # connections that the kernel holds while the loop is busy
CLOSE_GRACE_S = 2.0  # clients get that long to take their exit status when the node stops
STOPS = b"this node stops; try again\n"
MOVES = b"this node's address moves to another node; try again\n"
TELL_EVERY_S = 10.0  # what a client can cause again and again is told that often at most
CONNECTIONS_PER_SESSION = 4  # a bound on logged-in connections, most of which idle


class Handler(Protocol):
    """`Gate` is one."""

    async def handle(self, request: Request, channel: Channel) -> int | None:
        """Serve one request to its end; see `Gate.handle`."""


@dataclass(frozen=True)
class ServerSettings:
    """What of the configuration concerns the listener. `listen` are (host, port); port 0 is any.

    pass_secret  what nodes of the cluster make their passes with; see net/peer_pass.py
    proxies      where load balancers are, whose PROXY header tells who the client is
    floating     IP addresses that follow the leader: see lost_address.py
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
    """Listens and hands each exec request to the handler."""

    def __init__(
        self, handler: Handler, host_keys: Sequence[asyncssh.SSHKey], settings: ServerSettings
    ) -> None:
        self._handler = handler
        self._host_keys = sorted(host_keys, key=lambda key: key.get_algorithm() != HOST_KEY_FIRST)
        self._settings = settings
        self._keys = KeyFile(settings.authorized_keys)
        self._servers: list[asyncio.Server] = []
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self._door = Door(
            settings.places,
            self._welcome,
            self._crowded,
            Passes(settings.pass_secret) if settings.pass_secret else None,
        )
        self._unnamed: set[ProxiedConnection] = set()  # whose PROXY header is still to come
        self._guests: set[GateConnection] = set()
        self._tasks: dict[asyncio.Task[None], ExecSession] = {}
        self._log = LoginLog()
        self._turns = PacketTurns()
        self._untold_closed = 0
        self._told_closed = -math.inf
        self._stopping = False

    @property
    def problems(self) -> tuple[str, ...]:
        """What operators should know of authorized_keys, for `status`."""
        return self._keys.problems

    def keys_digest(self) -> str:
        """The same on two nodes that let in the same keys with the same rights; tells nothing of the keys."""
        return self._keys.keys.digest

    async def reload_keys(self) -> int:
        """Read authorized_keys anew, whether or not it seems to have changed. For SIGHUP.

        How many keys count then, or as yet, where reading takes longer than `KeyFile.look` waits.
        """
        self._keys.reload()
        return len((await self._keys.look()).entries)

    @property
    def locked_out(self) -> str | None:
        """Why nobody can log in, in one line; None if somebody can."""
        if not self._keys.keys.entries:
            path = self._settings.authorized_keys
            return f"nobody can log in: {path} has no usable key: write a public key into it"
        return self._door.trouble()

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._servers) and all(server.is_serving() for server in self._servers)

    @property
    def connections(self) -> int:
        """Open connections, logged in or not."""
        return len(self._unnamed) + len(self._door) + len(self._guests)

    async def start(self) -> list[tuple[str, int]]:
        """Listen on every address; the bound (host, port) of each, in order.

        Raises:
            UnavailableError: an address cannot be listened on; none is then.
        """
        asyncssh.set_log_level("WARNING")  # its lines are many and its own; the gate says what matters
        await self._keys.start()
        self._options = await self._make_options()
        loop = asyncio.get_running_loop()
        try:
            for host, port in self._settings.listen:
                self._servers.append(await loop.create_server(self._protocol, host, port, backlog=BACKLOG))
        except OSError as error:
            await self.stop_accepting()
            raise UnavailableError(_cannot_listen(host, port, error)) from error
        bound = [server.sockets[0].getsockname()[:2] for server in self._servers]
        log.info("ssh_listening", addresses=[str(Endpoint(*one)) for one in bound])
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
        self._keys.close()
        await self.stop_accepting()
        for unnamed in list(self._unnamed):
            unnamed.abort()
        strangers = self._door.connections
        self._door.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        connections = [*strangers, *self._guests]
        closed = [asyncio.ensure_future(connection.wait_closed()) for connection in connections]
        if closed:  # clients of one command close by themselves, once they have their exit status
            await asyncio.wait(closed, timeout=CLOSE_GRACE_S if self._guests else 0)
        for connection in connections:
            connection.close()
        if closed:
            await asyncio.wait(closed, timeout=CLOSE_GRACE_S)

    def delay_connections(self) -> None:
        """New connections to the floating addresses wait at the client's side; see lost_address.py."""
        for server in self._servers:
            for listener in server.sockets:
                delay_connections(listener, self._settings.floating or ())

    def accept_connections(self) -> None:
        """They are taken here again."""
        for server in self._servers:
            for listener in server.sockets:
                accept_connections(listener)

    async def leave(self, finishing: Collection["asyncio.Task[Any]"], limit_s: float) -> None:
        """End every connection to an address that this node is about to lose; see lost_address.py.

        Sessions whose task is in `finishing` are about to end by themselves, the others are ended. Takes
        `limit_s` seconds at most, and commonly as long as clients take to close a connection whose only
        session has ended. What is there then is cut.
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
        ending = [asyncio.ensure_future(connection.wait_closed()) for connection in leaving]
        if ending:
            rest_s = max(0.0, until - asyncio.get_running_loop().time())
            await asyncio.wait(ending, timeout=rest_s)
        for connection in self._at_floating_address():
            connection.abort()
        for waiting in ending:
            waiting.cancel()
        if leaving:
            log.info("connections_ended", reason="the address moves", connections=len(leaving))

    def _at_floating_address(self) -> set[GateConnection]:
        floating = self._settings.floating
        return {one for one in {*self._door.connections, *self._guests} if one.visitor_is_at(floating)}

    async def _make_options(self) -> asyncssh.SSHServerConnectionOptions:
        settings = self._settings
        options: asyncssh.SSHServerConnectionOptions = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=self._visitor,
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
        """For each new connection: finds out who it is from, which decides what becomes of it."""
        return ProxiedConnection(
            self._settings.proxies,
            self._settings.login_timeout_s,
            begin=self._door.arrive,
            came=self._wait_for_name,
            gone=self._unnamed.discard,
        )

    def _wait_for_name(self, unnamed: ProxiedConnection) -> bool:
        """Whether there is room for one more whose PROXY header is to come; all are load balancers' own."""
        if len(self._unnamed) >= self._settings.places.full:
            return False
        self._unnamed.add(unnamed)
        return True

    def _welcome(self, source: Source) -> GateConnection:
        """The SSH side of a connection that has a place."""
        assert self._options is not None  # noqa: S101 # start has set it
        connection = GateConnection(asyncio.get_running_loop(), self._options, self._turns)
        if source is not None:
            connection.set_extra_info(peername=source)
        return connection

    def _crowded(self) -> bool:
        """Whether there is no room for more who have logged in."""
        return len(self._guests) >= CONNECTIONS_PER_SESSION * self._settings.max_sessions

    def _visitor(self) -> Visitor:
        settings = self._settings
        return Visitor(
            self._keys,
            settings.cluster_key,
            self,
            self._log,
            stall_limit_s=settings.stall_limit_s,
            floating=settings.floating,
        )

    def logged_in(self, visitor: Visitor) -> None:
        """`FrontDesk`."""
        self._door.leave(visitor.connection, logged_in=True)
        if self._make_room(visitor):
            self._guests.add(visitor.connection)

    def _make_room(self, visitor: Visitor) -> bool:
        """One key holds so many: the connection that has run nothing for longest makes room for a new one.

        Clients that keep connections open for later (ControlMaster) come back by themselves. If all of them
        run something the new one goes.
        """
        identity, most = visitor.identity, self._settings.max_connections_per_key
        if identity is None or identity.access == "peer":
            return True
        same = [
            guest.visitor
            for guest in self._guests
            if guest.visitor.identity is not None
            and guest.visitor.identity.fingerprint == identity.fingerprint
        ]
        if len(same) < most:
            return True
        idle = [one for one in same if one.idle_since is not None]
        leaves = min(idle, key=lambda one: one.idle_since or 0.0, default=visitor)
        self._tell_closed(identity, "the oldest that runs nothing" if idle else "all others are in use")
        leaves.connection.disconnect(
            asyncssh.DISC_TOO_MANY_CONNECTIONS, f"your key has {most} connections, as many as it may"
        )
        self._guests.discard(leaves.connection)
        return leaves is not visitor

    def _tell_closed(self, identity: Identity, reason: str) -> None:
        """One line now and then: who opens one connection too many may open a thousand."""
        self._untold_closed += 1
        if time.monotonic() - self._told_closed < TELL_EVERY_S:
            return
        log.warning(
            "connections_of_a_key_closed",
            user=identity.user,
            source=identity.source,
            fingerprint=identity.fingerprint,
            most=self._settings.max_connections_per_key,
            closed=self._untold_closed,
            reason=reason,
        )
        self._told_closed, self._untold_closed = time.monotonic(), 0

    def left(self, visitor: Visitor) -> None:
        """`FrontDesk`."""
        self._door.leave(visitor.connection)
        self._guests.discard(visitor.connection)

    def serve(self, session: ExecSession) -> None:
        """`FrontDesk`."""
        if self._stopping:
            session.channel.abort()
            return
        session.task = asyncio.create_task(self._run(session), name="ssh-session")
        self._tasks[session.task] = session
        session.task.add_done_callback(self._tasks.pop)

    async def _run(self, session: ExecSession) -> None:
        try:
            await self._keys.look()
            await self._handler.handle(session.request(), session.channel)
        except asyncio.CancelledError:
            if (self._stopping or session.leaving) and not session.channel.lost:
                await _say_goodbye(session, STOPS if self._stopping else MOVES)
            raise
        except Exception:
            log.exception("session_crashed")
            session.channel.abort()


async def _say_goodbye(session: ExecSession, why: bytes) -> None:
    """Tell a client that is still there, without waiting for it."""
    try:
        async with asyncio.timeout(CLOSE_GRACE_S):
            await session.channel.write_error(why)
            await session.channel.exit(ExitCode.UNAVAILABLE)
    except (ConnectionError, TimeoutError):
        session.channel.abort()


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    where = Endpoint(host, port)
    if error.errno == errno.EADDRINUSE:
        return f"ssh.listen: {where} is in use by another program: stop that, or choose another port"
    return f"ssh.listen: cannot listen on {where} ({error.strerror or error})"
