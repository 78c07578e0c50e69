"""One SSH connection: who the client is, and which channels it may open.

    GateConnection   the wire: asyncssh's connection, with what it lacks
    AuthHandler      the login: asyncssh asks it about each key; afterwards it knows the client's identity
    ExecSession      a channel: turns asyncssh's callbacks into a `Request` and an `SshChannel`

The identity is that of the key that made a valid signature. asyncssh also asks about keys that a client only
offers (RFC 4252, section 7, the query without a signature), and it merges variables that a client sends with
SetEnv into a key's environment=. Neither has an effect here.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import asyncssh
import structlog
from asyncssh.channel import SSHServerChannel
from asyncssh.constants import MSG_KEXINIT
from asyncssh.packet import PacketDecodeError, SSHPacket

from stargate_gate.access.authorized_keys import KeyEntry, fingerprint_of
from stargate_gate.access.identity import Identity
from stargate_gate.access.key_file import KeyFile
from stargate_gate.gate.ports import Request
from stargate_gate.gate.ssh.backpressure import PacedConnection
from stargate_gate.gate.ssh.channel import SshChannel
from stargate_gate.gate.ssh.login_log import LoginLog
from stargate_gate.gate.ssh.lost_address import is_at, may_outlive_its_address
from stargate_gate.net.addresses import client_address

log = structlog.get_logger()

LOGIN_NAME = "git"
USERAUTH_SERVICE = b"ssh-userauth"  # RFC 4252, section 4
MAX_ATTEMPTS = 20  # offered keys and failures. An agent offers all its keys; OpenSSH's server takes 6
MAX_CHANNELS = 10  # sessions at a time on one connection, as OpenSSH's MaxSessions
MAX_PEER_CHANNELS = 100  # a standby's feed, its fetches (at most 64) and its comparisons
IDLE_LIMIT_S = 600.0  # a connection that runs no command for that long is closed, with or without keepalives
FIRST_COMMAND_LIMIT_S = 60.0  # the same for a connection that has not run any command yet
COMMAND_LIMIT_S = 20.0  # a channel that has not asked for a command by then is closed
LOGIN_BYTES = 256 * 1024  # a client may send that much before it has logged in; 20 large keys take 40 KiB
SESSION_ID_BYTES = 6  # enough to find one session's lines in a log

SIGNATURE_ALGORITHMS = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)  # no "ssh-rsa": that is RSA with SHA-1
KEXINIT_COOKIE_BYTES, KEXINIT_NAMELISTS = 16, 10  # RFC 4253, section 7.1
# Progress of a login: connected; SSH keys exchanged; a key offered that may log in.
ARRIVED, EXCHANGED, OFFERED = 0, 1, 2
SK_USER_VERIFIED = 0x04  # flag of a security key's signature: OpenSSH, PROTOCOL.u2f


@dataclass(frozen=True)
class _Match:
    """A key that may log in: a line of authorized_keys, or the cluster's own key (entry None)."""

    identity: Identity
    entry: KeyEntry | None


class ConnectionRegistry(Protocol):
    """Knows all connections and sessions of a listener. Implemented by `SshServer`."""

    def logged_in(self, handler: "AuthHandler") -> None:
        """The client of this connection has proved who it is."""

    def left(self, handler: "AuthHandler") -> None:
        """This connection is gone, logged in or not."""

    def serve(self, session: "ExecSession") -> None:
        """A client asks for a command: run it, and put its task into `session.task`."""


class AuthHandler(asyncssh.SSHServer):
    """asyncssh's questions about one connection, and its identity. `SshServer` makes one for each."""

    def __init__(
        self,
        keys: KeyFile,
        cluster_key: bytes | None,
        registry: "ConnectionRegistry",
        login_log: LoginLog,
        *,
        stall_limit_s: float,
        floating: frozenset[str] | None = frozenset(),
    ) -> None:
        self._floating = floating
        self._keys = keys
        self._cluster_key = cluster_key
        self._registry = registry
        self._log = login_log
        self._login: str | None = None
        self._refused_keys: dict[str, str] = {}  # by fingerprint: why it did not count; at most MAX_ATTEMPTS
        self._stall_limit_s = stall_limit_s
        self._candidate: _Match | None = None
        self._proved: _Match | None = None
        self._attempts = 0
        self._sessions = 0
        self._commands = 0
        self._idle: asyncio.TimerHandle | None = None
        self.idle_since: float | None = None
        self._since = time.monotonic()
        self.identity: Identity | None = None
        self.source = ""
        self.local = ""
        self.connection: GateConnection

    # --- asyncssh's callbacks -------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """asyncssh: the connection begins."""
        if not isinstance(conn, GateConnection):
            raise TypeError("an AuthHandler belongs to a GateConnection")
        self.connection = conn
        conn.handler = self
        self.source = client_address(str(conn.get_extra_info("peername", ("unknown",))[0]))
        self.local = str(conn.get_extra_info("sockname", ("unknown",))[0])
        if self.is_at(self._floating) and (sock := conn.get_extra_info("socket")) is not None:
            may_outlive_its_address(sock)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncssh: the connection has ended."""
        self._stop_idling()
        if self.identity is None:
            self._log.refused(
                self.source,
                self.connection.turned_out or ("the client has left" if exc is None else str(exc)),
                login=self._login,
                keys=self._refused_keys,
                attempts=self._attempts,
                duration_s=time.monotonic() - self._since,
                spoke_ssh=bool(self.connection.get_extra_info("client_version")),
            )
        self._registry.left(self)

    async def begin_auth(self, username: str) -> bool:
        """asyncssh: the client has sent a login name. Looks at the key file: a new key counts at once."""
        self._login = username
        self.connection.progress = max(self.connection.progress, EXCHANGED)
        await self._keys.look()
        return True

    def public_key_auth_supported(self) -> bool:
        """asyncssh: keys are the only method."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """asyncssh: may `key` log in as `username`? Asked at an offer, and before a signature is checked."""
        blob = key.public_data
        self._candidate = self._match(username, blob)
        if self._candidate is None:
            return False
        self.connection.progress = OFFERED
        return True

    def auth_completed(self) -> None:
        """asyncssh: a signature was valid, and the client has been told."""
        if self._proved is None:  # asyncssh has let in a client whose key was not proved here
            self.connection.abort()
            return
        self.identity = self._proved.identity
        self._log.accepted(self.identity, self._login or "")
        self._registry.logged_in(self)
        self._start_idling(FIRST_COMMAND_LIMIT_S)

    def session_requested(self) -> "tuple[SSHServerChannel[bytes], ExecSession] | bool":
        """asyncssh: a client opens a channel. False if there are too many."""
        most = MAX_PEER_CHANNELS if self.identity and self.identity.access == "peer" else MAX_CHANNELS
        if self.identity is None or self._sessions >= most:
            return False
        channel = self.connection.create_paced_channel()
        self._sessions += 1
        return channel, ExecSession(self, self._registry, stall_limit_s=self._stall_limit_s)

    # --- called by GateConnection and ExecSession ------------------------------------------------

    def _match(self, username: str, blob: bytes) -> _Match | None:
        if username != LOGIN_NAME:
            return None
        if self._cluster_key is not None and secrets.compare_digest(blob, self._cluster_key):
            return _Match(Identity("cluster", "peer", fingerprint_of(blob), self.source), None)
        entry = self._keys.keys.find(blob, self.source, datetime.now(UTC))
        return None if entry is None else _Match(entry.identity(self.source), entry)

    def _why_not(self, username: str, blob: bytes) -> str:
        if username != LOGIN_NAME:
            return f"would need the login name {LOGIN_NAME!r}"
        return self._keys.keys.why_not(blob, self.source, datetime.now(UTC))

    def knows(self, username: str, blob: bytes) -> bool:
        """Whether the key, as it was sent, may log in. If not, the reason is kept for the log."""
        found = self._match(username, blob) is not None
        self._refused_keys[fingerprint_of(blob)] = (
            "was not proved" if found else self._why_not(username, blob)
        )
        return found

    @property
    def touch_required(self) -> bool:
        """Whether the key that is being checked must have been touched, if it is a security key."""
        entry = self._candidate.entry if self._candidate else None
        return entry is None or entry.options.touch_required

    def prove(self, signature: bytes) -> bool:
        """Called with a valid signature of the candidate: does it also satisfy the options of its line?"""
        entry = self._candidate.entry if self._candidate else None
        if not signature_is_acceptable(
            signature, verify_required=entry is not None and entry.options.verify_required
        ):
            return False
        self._proved = self._candidate
        return True

    def is_at(self, floating: frozenset[str] | None) -> bool:
        """Whether the connection breaks when the node loses these addresses. Peers connect to another one."""
        peer = self.identity is not None and self.identity.access == "peer"
        return not peer and is_at(self.local, floating)

    def attempt(self) -> None:
        """Count one more offered key or failure, and close the connection at MAX_ATTEMPTS."""
        self._attempts += 1
        if self._attempts >= MAX_ATTEMPTS:
            self.connection.disconnect(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many authentication failures"
            )

    def identity_now(self) -> Identity | None:
        """The client's identity by the keys in force now; None if its key may not log in any more.

        The line of a key can be removed while its connection lives, so each command asks again. From memory.
        """
        if self._proved is None or self._proved.entry is None:
            return self.identity
        match = self._match(LOGIN_NAME, self._proved.entry.blob)
        return None if match is None else match.identity

    def command_started(self) -> None:
        """A channel runs a command from now on, so the connection is not idle."""
        self._commands += 1
        self._stop_idling()

    def session_closed(self, *, had_command: bool) -> None:
        """A channel is closed."""
        self._sessions -= 1
        if had_command:
            self._commands -= 1
            if not self._commands:
                self._start_idling(IDLE_LIMIT_S)

    def _start_idling(self, limit_s: float) -> None:
        self._stop_idling()
        self.idle_since = time.monotonic()
        self._idle = asyncio.get_running_loop().call_later(limit_s, self.connection.close)

    def _stop_idling(self) -> None:
        self.idle_since = None
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


def signature_is_acceptable(signature: bytes, *, verify_required: bool) -> bool:
    """Whether the algorithm is in SIGNATURE_ALGORITHMS, and a security key has verified its user if it must.

    RFC 4253, section 6.6. A security key's signature ends with flags and a counter (OpenSSH, PROTOCOL.u2f).
    """
    packet = SSHPacket(signature)
    try:
        algorithm = packet.get_string().decode("ascii", "replace")
        if algorithm not in SIGNATURE_ALGORITHMS:
            return False
        if not verify_required or not algorithm.startswith("sk-"):
            return True
        packet.get_string()
        return bool(packet.get_byte() & SK_USER_VERIFIED)
    except PacketDecodeError:
        return False


class GateConnection(PacedConnection):
    """asyncssh's connection, with what it lacks: proof of identity, limits of attempts and of bytes."""

    handler: AuthHandler
    progress = ARRIVED  # how far the login has come; less is closed first when places are needed
    turned_out = ""  # why this node has ended it, for the log
    _login_bytes = 0

    def turn_out(self, reason: str) -> None:
        """End it at once, for `reason`."""
        self.turned_out = reason
        self.abort()

    def is_at(self, floating: frozenset[str] | None) -> bool:
        """See `AuthHandler.is_at`. False before the connection is made."""
        handler = getattr(self, "handler", None)
        return handler is not None and handler.is_at(floating)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Let the kernel acknowledge at once. The option must be set for each read (tcp(7), TCP_QUICKACK).

        Without a terminal OpenSSH's client sends a small packet only when the packet before it was
        acknowledged, and the kernel delays an acknowledgement by up to 40 ms to send it along with data.
        """
        sock = self.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if self.handler.identity is None:
            self._login_bytes += len(data)
            if self._login_bytes > LOGIN_BYTES:
                self.turn_out("it has sent more than a login needs")
                return
        super().data_received(data, datatype)

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool | Awaitable[None]:
        """As asyncssh's; see `_judge_guess`."""
        payload = packet.get_remaining_payload()
        result = super().process_packet(pkttype, pktid, packet)
        if pkttype == MSG_KEXINIT and not isinstance(result, bool):
            return self._judge_guess(payload, result)
        return result

    async def _judge_guess(self, kexinit: bytes, negotiating: Awaitable[None]) -> None:
        """Drop a first packet that the client sent on a wrong guess (RFC 4253, section 7).

        The guess is also wrong if the two sides' first key exchanges, or their first kinds of host key,
        differ. asyncssh only looks whether the client's first key exchange was chosen.
        """
        await negotiating
        # asyncssh has read the packet; read it again for the two lists and the flag that it does not keep.
        packet = SSHPacket(kexinit)
        packet.get_bytes(KEXINIT_COOKIE_BYTES)
        theirs = [packet.get_namelist() for _ in range(KEXINIT_NAMELISTS)]
        ours = (list(self._kex_algs[:1]), list(self._server_host_key_algs or ())[:1])
        if packet.get_boolean() and (theirs[0][:1], theirs[1][:1]) != ours:
            self._ignore_first_kex = True

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """asyncssh: a client offers a key, or proves it by a signature.

        Nothing is awaited between the choice of the candidate and its proof, so that no other key can take
        its place. An unknown key is not decoded: that costs time, for a certificate even the check of a
        signature whose size the stranger chooses.
        """
        if not self.handler.knows(username, key_data):
            return False
        valid = await super().validate_public_key(username, key_data, msg, signature)
        if valid and msg:
            return self.handler.prove(signature)
        if valid:
            self.handler.attempt()
        return valid

    def send_userauth_failure(self, partial_success: bool) -> None:  # noqa: FBT001  # the signature of asyncssh's method
        """asyncssh: refuse a key or a method."""
        super().send_userauth_failure(partial_success)
        # paramiko asks for the service again before each key. asyncssh would disconnect; sshd does not.
        self._next_service = USERAUTH_SERVICE
        self.handler.attempt()

    def get_key_option(self, option: str, default: object = None) -> object:
        """asyncssh: an option of the line of the key that is being checked. It asks for this one only."""
        return not self.handler.touch_required if option == "no-touch-required" else default


class ExecSession(asyncssh.SSHServerSession[bytes]):
    """One channel: turns asyncssh's callbacks into a `Request` and an `SshChannel`."""

    def __init__(self, handler: AuthHandler, registry: "ConnectionRegistry", *, stall_limit_s: float) -> None:
        self._handler = handler
        self._registry = registry
        self._stall_limit_s = stall_limit_s
        self._command: str | None = None
        self._terminal = False
        self._started = False
        self._limit: asyncio.TimerHandle | None = None
        self._raw: SSHServerChannel[bytes]
        self.channel: SshChannel
        self.task: asyncio.Task[None] | None = None
        self.leaving = False  # this node is about to end its connection

    @property
    def connection(self) -> GateConnection:
        """The connection of this channel."""
        return self._handler.connection

    def connection_made(self, chan: SSHServerChannel[bytes]) -> None:
        """asyncssh: the channel is open."""
        self._raw = chan
        self._limit = asyncio.get_running_loop().call_later(COMMAND_LIMIT_S, chan.close)
        self.channel = SshChannel(chan, self._handler.connection, stall_limit_s=self._stall_limit_s)

    def pty_requested(self, *_: object) -> bool:
        """asyncssh: a request for a terminal. Accepted, and without effect but on line ends."""
        self._terminal = True
        return True

    def shell_requested(self) -> bool:
        """asyncssh: plain `ssh`."""
        return True

    def exec_requested(self, command: str) -> bool:
        """asyncssh: `ssh … command`."""
        self._command = command
        return True

    def session_started(self) -> None:
        """asyncssh: the client has been told that its request was accepted."""
        self._started = True
        self._stop_limit()
        self._handler.command_started()
        self._registry.serve(self)

    def _stop_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def request(self) -> Request:
        """The request of this channel."""
        identity = self._handler.identity
        if identity is None:
            raise RuntimeError("a session opened before authentication")
        now = self._handler.identity_now()
        git_protocol = self._raw.get_environment_bytes().get(b"GIT_PROTOCOL")
        return Request(
            identity=now or identity,
            revoked=now is None,
            command=self._command,
            git_protocol=None if git_protocol is None else git_protocol.decode("ascii", "replace"),
            session_id=secrets.token_hex(SESSION_ID_BYTES),
            terminal=self._terminal,
        )

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """asyncssh: the client has sent data. Servers receive no extended data."""
        del datatype
        self.channel.feed(data)

    def eof_received(self) -> bool:
        """asyncssh: the client sends no more. True keeps the channel open, so that it can still read."""
        self.channel.feed_eof()
        return True

    def pause_writing(self) -> None:
        """asyncssh: the client's window is full."""
        self.channel.pause_writing()

    def resume_writing(self) -> None:
        """asyncssh: everything has been sent."""
        self.channel.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncssh: the channel or the connection is gone. End the session."""
        del exc
        self._stop_limit()
        self._handler.session_closed(had_command=self._started)
        self.channel.feed_lost()
        if self.task is not None:
            self.task.cancel()
