"""One SSH connection: who is it, and what may it open.

Identity is bound to the key that made a valid signature. asyncssh asks for validation of mere offers
too (RFC 4252, section 7, the query without a signature), and it merges what a client sends by SetEnv
into a key's environment=; neither counts here.
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
from stargate_gate.access.sources import client_address
from stargate_gate.gate.ports import Request
from stargate_gate.gate.ssh.backpressure import PacedConnection
from stargate_gate.gate.ssh.channel import SshChannel
from stargate_gate.gate.ssh.login_log import LoginLog
from stargate_gate.gate.ssh.lost_address import is_at, may_outlive_its_address

log = structlog.get_logger()

LOGIN_NAME = "git"
USERAUTH_SERVICE = b"ssh-userauth"  # RFC 4252, section 4
MAX_ATTEMPTS = 20  # offered keys and failures; agents with many keys offer them all, OpenSSH's server takes 6
MAX_CHANNELS = 10  # sessions at a time on one connection, as OpenSSH's MaxSessions
MAX_PEER_CHANNELS = 100  # a standby's feed, its fetches (at most 64) and its comparisons
IDLE_LIMIT_S = 600.0  # a connection that runs nothing for that long is closed; keepalives do not count
FIRST_COMMAND_LIMIT_S = 60.0  # one that has not run anything yet; a client logs in with a command at hand
COMMAND_LIMIT_S = 20.0  # a channel that has not asked for a command by then is closed; clients ask at once
LOGIN_BYTES = 256 * 1024  # all that a client may send before it has logged in; 20 large keys take 40 KiB
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
ARRIVED, EXCHANGED, OFFERED = 0, 1, 2  # before a login: connected, keys exchanged, a known key offered
SK_USER_VERIFIED = 0x04  # flag of a security key's signature: OpenSSH, PROTOCOL.u2f


@dataclass(frozen=True)
class _Match:
    """A key that may log in: a line of authorized_keys, or the cluster's own key (entry None)."""

    identity: Identity
    entry: KeyEntry | None


class FrontDesk(Protocol):
    """Where connections and sessions are kept. `SshServer` is it."""

    def logged_in(self, visitor: "Visitor") -> None:
        """This one has proved who it is."""

    def left(self, visitor: "Visitor") -> None:
        """This one is gone, logged in or not."""

    def serve(self, session: "ExecSession") -> None:
        """A client asks for a command: start it, and put its task into `session.task`."""


class Visitor(asyncssh.SSHServer):
    """What asyncssh asks about one connection. Made by `SshServer` for each."""

    def __init__(
        self,
        keys: KeyFile,
        cluster_key: bytes | None,
        desk: "FrontDesk",
        login_log: LoginLog,
        *,
        stall_limit_s: float,
        floating: frozenset[str] | None = frozenset(),
    ) -> None:
        self._floating = floating
        self._keys = keys
        self._cluster_key = cluster_key
        self._desk = desk
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
        """A TCP connection is there."""
        if not isinstance(conn, GateConnection):
            raise TypeError("a Visitor belongs to a GateConnection")
        self.connection = conn
        conn.visitor = self
        self.source = client_address(str(conn.get_extra_info("peername", ("unknown",))[0]))
        self.local = str(conn.get_extra_info("sockname", ("unknown",))[0])
        if self.is_at(self._floating) and (sock := conn.get_extra_info("socket")) is not None:
            may_outlive_its_address(sock)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
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
        self._desk.left(self)

    async def begin_auth(self, username: str) -> bool:
        """Authentication is always needed. What was written into the key file before counts from here on."""
        self._login = username
        self.connection.progress = max(self.connection.progress, EXCHANGED)
        await self._keys.look()
        return True

    def public_key_auth_supported(self) -> bool:
        """The only way in."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether `key` might log in as `username`: for an offer as well as before a signature is checked."""
        blob = key.public_data
        self._candidate = self._match(username, blob)
        if self._candidate is None:
            return False
        self.connection.progress = OFFERED
        return True

    def auth_completed(self) -> None:
        """A signature was valid, and the client knows."""
        if self._proved is None:  # asyncssh let somebody in whom validate_public_key did not
            self.connection.abort()
            return
        self.identity = self._proved.identity
        self._log.accepted(self.identity, self._login or "")
        self._desk.logged_in(self)
        self._start_idling(FIRST_COMMAND_LIMIT_S)

    def session_requested(self) -> "tuple[SSHServerChannel[bytes], ExecSession] | bool":
        """A channel for one command, unless there are too many."""
        most = MAX_PEER_CHANNELS if self.identity and self.identity.access == "peer" else MAX_CHANNELS
        if self.identity is None or self._sessions >= most:
            return False
        channel = self.connection.create_paced_channel()
        self._sessions += 1
        return channel, ExecSession(self, self._desk, stall_limit_s=self._stall_limit_s)

    # --- GateConnection's and ExecSession's side ------------------------------------------------

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
        """Whether there is such a key at all, as it was sent; why not is kept for the log."""
        found = self._match(username, blob) is not None
        self._refused_keys[fingerprint_of(blob)] = (
            "was not proved" if found else self._why_not(username, blob)
        )
        return found

    @property
    def touch_required(self) -> bool:
        """Whether the key in question must have been touched, if it is a security key."""
        entry = self._candidate.entry if self._candidate else None
        return entry is None or entry.options.touch_required

    def prove(self, signature: bytes) -> bool:
        """The candidate's signature is mathematically valid: does it satisfy the line's options too?"""
        entry = self._candidate.entry if self._candidate else None
        if not signature_is_acceptable(
            signature, verify_required=entry is not None and entry.options.verify_required
        ):
            return False
        self._proved = self._candidate
        return True

    def is_at(self, floating: frozenset[str] | None) -> bool:
        """Whether this connection breaks with the node's floating addresses; a peer's is to another."""
        peer = self.identity is not None and self.identity.access == "peer"
        return not peer and is_at(self.local, floating)

    def attempt(self) -> None:
        """One more key offered, or one more failure: close when there are too many."""
        self._attempts += 1
        if self._attempts >= MAX_ATTEMPTS:
            self.connection.disconnect(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many authentication failures"
            )

    def identity_now(self) -> Identity | None:
        """Who this is by the key file as it is in force now; None if its key may not log in any more.

        A connection can outlive the line that let it in, so each command asks anew. From memory.
        """
        if self._proved is None or self._proved.entry is None:
            return self.identity
        match = self._match(LOGIN_NAME, self._proved.entry.blob)
        return None if match is None else match.identity

    def command_started(self) -> None:
        """A channel runs a command from now on: this connection is in use."""
        self._commands += 1
        self._stop_idling()

    def session_closed(self, *, had_command: bool) -> None:
        """A channel is gone."""
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
    """Whether the algorithm is one of ours, and a security key has checked its user where it must.

    RFC 4253, section 6.6; OpenSSH's PROTOCOL.u2f: flags and a counter end a security key's signature.
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
    """The wire side of a connection: asyncssh's, with what it lacks: proof of identity, a cap on attempts."""

    visitor: Visitor
    progress = ARRIVED  # how far the login has come, for whoever must choose who goes
    turned_out = ""  # why this side has ended it, for the log
    _login_bytes = 0

    def turn_out(self, reason: str) -> None:
        """End it at once: somebody else needs its place."""
        self.turned_out = reason
        self.abort()

    def visitor_is_at(self, floating: frozenset[str] | None) -> bool:
        """See `Visitor.is_at`. False before the connection is made."""
        visitor = getattr(self, "visitor", None)
        return visitor is not None and visitor.is_at(floating)

    def data_received(self, data: bytes, datatype: int | None = None) -> None:
        """Let the kernel acknowledge at once, which it forgets each time (tcp(7), TCP_QUICKACK).

        OpenSSH's client waits with a small packet until the one before is acknowledged, unless it has a
        terminal; and the kernel waits up to 40 ms for something to send along with an acknowledgement.
        """
        sock = self.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if self.visitor.identity is None:
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
        """A first packet that was sent on a guess is dropped if the guess was wrong (RFC 4253, section 7).

        It is also wrong if the two sides' first key exchanges, or their first kinds of host key, differ;
        asyncssh looks only at whether the client's first key exchange was chosen.
        """
        await negotiating
        packet = SSHPacket(kexinit)
        packet.get_bytes(KEXINIT_COOKIE_BYTES)
        theirs = [packet.get_namelist() for _ in range(KEXINIT_NAMELISTS)]
        ours = (list(self._kex_algs[:1]), list(self._server_host_key_algs or ())[:1])
        if packet.get_boolean() and (theirs[0][:1], theirs[1][:1]) != ours:
            self._ignore_first_kex = True

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Called with and without a signature; only a valid one proves anything.

        Nothing is awaited between the candidate's choice and the proof, so that no other key can
        come between them. What a stranger offers is not decoded: that costs time, of a certificate a
        signature of a size that the stranger chooses.
        """
        if not self.visitor.knows(username, key_data):
            return False
        valid = await super().validate_public_key(username, key_data, msg, signature)
        if valid and msg:
            return self.visitor.prove(signature)
        if valid:
            self.visitor.attempt()
        return valid

    def send_userauth_failure(self, partial_success: bool) -> None:  # noqa: FBT001  # asyncssh's signature
        """A key or a method was refused."""
        super().send_userauth_failure(partial_success)
        # paramiko asks for the service again before each key; asyncssh would disconnect (sshd does not).
        self._next_service = USERAUTH_SERVICE
        self.visitor.attempt()

    def get_key_option(self, option: str, default: object = None) -> object:
        """What authorized_keys says of the key in question; asyncssh asks for this one option."""
        return not self.visitor.touch_required if option == "no-touch-required" else default


class ExecSession(asyncssh.SSHServerSession[bytes]):
    """One channel: turns asyncssh's callbacks into a `Request` and an `SshChannel`."""

    def __init__(self, visitor: Visitor, desk: "FrontDesk", *, stall_limit_s: float) -> None:
        self._visitor = visitor
        self._desk = desk
        self._stall_limit_s = stall_limit_s
        self._command: str | None = None
        self._terminal = False
        self._started = False
        self._limit: asyncio.TimerHandle | None = None
        self._raw: SSHServerChannel[bytes]
        self.channel: SshChannel
        self.task: asyncio.Task[None] | None = None
        self.leaving = False  # its connection is about to be ended by this node

    @property
    def connection(self) -> GateConnection:
        """The one that it belongs to."""
        return self._visitor.connection

    def connection_made(self, chan: SSHServerChannel[bytes]) -> None:
        """The channel is open."""
        self._raw = chan
        self._limit = asyncio.get_running_loop().call_later(COMMAND_LIMIT_S, chan.close)
        self.channel = SshChannel(chan, self._visitor.connection, stall_limit_s=self._stall_limit_s)

    def pty_requested(self, *_: object) -> bool:
        """Accepted and ignored, except for the line ends."""
        self._terminal = True
        return True

    def shell_requested(self) -> bool:
        """Plain `ssh`."""
        return True

    def exec_requested(self, command: str) -> bool:
        """`ssh … command`."""
        self._command = command
        return True

    def session_started(self) -> None:
        """The client knows that its request was accepted."""
        self._started = True
        self._stop_limit()
        self._visitor.command_started()
        self._desk.serve(self)

    def _stop_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def request(self) -> Request:
        """What is asked for, and by whom."""
        identity = self._visitor.identity
        if identity is None:
            raise RuntimeError("a session opened before authentication")
        now = self._visitor.identity_now()
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
        """There is data; servers receive no extended data."""
        del datatype
        self.channel.feed(data)

    def eof_received(self) -> bool:
        """The client sends no more, but may still read: keep the channel open."""
        self.channel.feed_eof()
        return True

    def pause_writing(self) -> None:
        """The client's window is full."""
        self.channel.hold()

    def resume_writing(self) -> None:
        """Everything has been sent."""
        self.channel.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel or the connection is gone: whatever runs for it ends."""
        del exc
        self._stop_limit()
        self._visitor.session_closed(had_command=self._started)
        self.channel.feed_lost()
        if self.task is not None:
            self.task.cancel()
