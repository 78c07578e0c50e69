"""The standby's SSH connection to the leader: one connection, a channel for each command.

It trusts only the cluster's host keys, and offers only the cluster's key: no agent, no ~/.ssh, no
configuration files. A channel holds at most about two windows of data. asyncssh opens the whole window again
as soon as a paused session takes anything, so a session here takes all that waits before it pauses again.
"""

import asyncio
import collections
import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR
from asyncssh.kex import get_kex_algs

from stargate_gate.access.host_keys import load_private_key
from stargate_gate.config.endpoint import Endpoint
from stargate_gate.errors import ConfigurationError, StargateError, UnavailableError
from stargate_gate.net.algorithms import MACS, PEER_CIPHERS, PEER_KEY_EXCHANGES, available
from stargate_gate.net.peer_pass import NONCE_BYTES, make_pass, secret_of
from stargate_gate.replication.peer.unreachable import connect_problem

LOGIN_NAME = "git"
WINDOW_BYTES = 1024 * 1024  # of one channel; twice that is the memory of a fetch
CONNECT_LIMIT_S = 5.0  # TCP; a live leader answers in a round trip
LOGIN_LIMIT_S = 10.0  # key exchange and authentication; a busy machine takes a second
OPEN_LIMIT_S = 30.0  # one channel, while the leader forks
CLOSE_LIMIT_S = 2.0  # for asyncssh to see that it is cut
KEEPALIVE_S = 10.0  # below the feed's own heartbeats, for what hangs in a channel
MAX_STDERR_BYTES = 4096


@dataclass(frozen=True)
class Credentials:
    """What a node shows to its peers, and what it expects of them: public halves of its own host keys."""

    cluster_key: asyncssh.SSHKey
    host_keys: tuple[asyncssh.SSHKey, ...]

    @classmethod
    def load(cls, cluster_key: Path, host_keys: Sequence[Path]) -> Self:
        """Read the files that cluster.key and ssh.host_keys name.

        Raises:
            ConfigurationError: one of them is missing, damaged or encrypted.
        """
        own = load_private_key("cluster.key", cluster_key)
        return cls(
            own, tuple(load_private_key("ssh.host_keys", path).convert_to_public() for path in host_keys)
        )

    def fresh_pass(self) -> str:
        """What lets this node in while strangers crowd the other one's listener; see net/peer_pass.py."""
        secret = secret_of(self.cluster_key.export_private_key("pkcs8-der"))
        return make_pass(secret, time.time(), secrets.token_bytes(NONCE_BYTES))

    def mismatch(self, leader: str, fingerprints: Sequence[str]) -> ConfigurationError | None:
        """What is wrong if the leader's record names other host keys than this node has; None if nothing."""
        mine = sorted(key.get_fingerprint() for key in self.host_keys)
        if not fingerprints or set(mine) & set(fingerprints):
            return None
        theirs = ", ".join(sorted(fingerprints))
        problem = f"the leader {leader} has {theirs}, this node {', '.join(mine)}"
        return ConfigurationError([f"ssh.host_keys: {problem}: give all nodes the same host keys"])


class Peer:
    """A connection to another node. Made by `connect`; `close` it."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection
        self._received = _Count()

    @property
    def received_bytes(self) -> int:
        """What its channels have received so far, all together."""
        return self._received.bytes

    @classmethod
    async def connect(cls, where: Endpoint, credentials: Credentials) -> Self:
        """Connect and log in.

        Raises:
            UnavailableError: nobody answers there, or not in time.
            ConfigurationError: it shows another host key, or does not take the cluster's key.
        """
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S + LOGIN_LIMIT_S):
                return cls(await asyncssh.connect(where.host, where.port, **_options(credentials)))
        except asyncssh.HostKeyNotVerifiable as error:
            raise ConfigurationError(
                [f"ssh.host_keys: {where} shows another host key: give all nodes the same host keys"]
            ) from error
        except asyncssh.PermissionDenied as error:
            raise ConfigurationError(
                [f"cluster.key: {where} does not take it: give all nodes the same key"]
            ) from error
        except OSError as error:  # TimeoutError is one
            raise UnavailableError(f"cannot connect to {where}: {connect_problem(error)}") from error
        except (asyncssh.Error, ValueError) as error:
            raise UnavailableError(f"cannot log in to {where}: {_one_line(error)}") from error

    async def open(self, command: str, *, git_protocol: str | None = None) -> "PeerChannel":
        """Start `command` over there.

        Raises:
            UnavailableError: the leader opens no channel, or not in time.
            ConnectionError: the connection is gone.
        """
        environment: dict[bytes | str, bytes | str] = (
            {} if git_protocol is None else {"GIT_PROTOCOL": git_protocol}
        )
        try:
            async with asyncio.timeout(OPEN_LIMIT_S):
                session = _Session(self._received)
                await self._connection.create_session(
                    lambda: session, command, env=environment, encoding=None, window=WINDOW_BYTES
                )
        except TimeoutError as error:
            raise UnavailableError("the leader does not open a channel in time") from error
        except asyncssh.ChannelOpenError as error:
            raise UnavailableError(f"the leader opens no channel: {_one_line(error)}") from error
        except (OSError, asyncssh.Error) as error:
            raise ConnectionResetError(f"the connection to the leader is gone: {_one_line(error)}") from error
        return PeerChannel(session)

    async def close(self) -> None:
        """Cut it at once, and everything in it: a leader that is dead must not hold up a promotion."""
        self._connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._connection.wait_closed()


@dataclass
class _Count:
    """Of all channels of a connection."""

    bytes: int = 0


class _Session(asyncssh.SSHClientSession[bytes]):
    """What asyncssh tells of one channel. `PeerChannel` is how it is used."""

    def __init__(self, received: _Count) -> None:
        self._counted = received
        self.received: collections.deque[bytes] = collections.deque()
        self.stderr = bytearray()
        self.ended = False
        self.lost = False
        self.problem: Exception | None = None
        self.readable = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self.raw: asyncssh.SSHClientChannel[bytes]
        self._taking_all = False

    def connection_made(self, chan: "asyncssh.SSHClientChannel[bytes]") -> None:
        self.raw = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == EXTENDED_DATA_STDERR:
            self.stderr += data[: MAX_STDERR_BYTES - len(self.stderr)]
            return
        self.received.append(data)
        self._counted.bytes += len(data)
        self.readable.set()
        if not self._taking_all:
            self.raw.pause_reading()

    def take_more(self) -> None:
        """Nothing waits here: take what waits in asyncssh, all of it, and pause again."""
        self._taking_all = True
        try:
            self.raw.resume_reading()
        finally:
            self._taking_all = False
        if self.received:
            self.raw.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        self.readable.set()
        return True  # this side may still write

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.problem = exc
        self.readable.set()
        self.writable.set()


class PeerChannel:
    """A running command at the leader's; implements `ports.Channel`."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    @property
    def stderr(self) -> str:
        """The beginning of what it wrote there, as one line."""
        return " ".join(bytes(self._session.stderr).decode("utf-8", "replace").split())

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes; b"" at the end. Raises ConnectionError if the connection breaks before it."""
        session = self._session
        while not session.received:
            if session.lost and session.problem is not None:
                raise ConnectionResetError(
                    f"the connection to the leader is gone: {_one_line(session.problem)}"
                )
            if session.ended or session.lost:
                return b""
            session.readable.clear()
            session.take_more()
            if not session.received:
                await session.readable.wait()
        data = session.received.popleft()
        if len(data) > n:
            session.received.appendleft(data[n:])
            data = data[:n]
        return data

    async def write(self, data: bytes) -> None:
        """Send; returns when the leader's window took it. Raises ConnectionError if it is gone."""
        await self._session.writable.wait()
        self._require_open()
        try:
            self._session.raw.write(data)
        except OSError as error:
            raise ConnectionResetError("the leader has closed the channel") from error
        await self._session.writable.wait()
        self._require_open()

    def write_eof(self) -> None:
        """Nothing more will be written."""
        if not self._session.lost:
            self._session.raw.write_eof()

    def close(self) -> None:
        """End it; what was not read is lost."""
        self._session.raw.abort()

    def _require_open(self) -> None:
        if self._session.lost:
            raise ConnectionResetError("the leader has closed the channel")


def _options(credentials: Credentials) -> dict[str, object]:
    return {
        "config": None,
        "username": LOGIN_NAME,
        "client_keys": [credentials.cluster_key],
        "known_hosts": (list(credentials.host_keys), [], []),
        "agent_path": None,
        "x509_trusted_certs": None,
        "x509_trusted_cert_paths": [],
        "gss_host": None,
        "preferred_auth": ["publickey"],
        "password_auth": False,
        "kbdint_auth": False,
        "host_based_auth": False,
        "kex_algs": available(PEER_KEY_EXCHANGES, get_kex_algs()),
        "encryption_algs": PEER_CIPHERS,
        "mac_algs": MACS,
        "compression_algs": None,
        "connect_timeout": CONNECT_LIMIT_S,
        "login_timeout": LOGIN_LIMIT_S,
        "keepalive_interval": KEEPALIVE_S,
        "client_version": f"Stargate {credentials.fresh_pass()}",
    }


def _one_line(error: BaseException) -> str:
    if isinstance(error, StargateError):
        return error.message
    return " ".join(str(error).split()) or type(error).__name__
