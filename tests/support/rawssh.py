"""A small SSH client with every packet in the caller's hands: for attacks and for wrong order of things.

curve25519-sha256, any host key (it is not checked), aes128-gcm@openssh.com; user keys are ed25519.
RFC 4253 (transport), RFC 4252 (login), RFC 4254 (channels), RFC 5647 (AES-GCM).
"""

import base64
import contextlib
import hashlib
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

LIMIT_S = 20.0
DISCONNECT, IGNORE, UNIMPLEMENTED, DEBUG, SERVICE_REQUEST, SERVICE_ACCEPT, EXT_INFO = 1, 2, 3, 4, 5, 6, 7
KEXINIT, NEWKEYS, KEX_INIT, KEX_REPLY = 20, 21, 30, 31
AUTH_REQUEST, AUTH_FAILURE, AUTH_SUCCESS, AUTH_BANNER = 50, 51, 52, 53
GLOBAL_REQUEST, OPEN, OPENED, REFUSED, ADJUST, DATA, MORE_DATA = 80, 90, 91, 92, 93, 94, 95
EOF, CLOSE, REQUEST, SUCCESS, FAILURE = 96, 97, 98, 99, 100
WINDOW_BYTES, MAX_PACKET_BYTES = 2**21, 2**15
NOISE = (IGNORE, DEBUG, EXT_INFO, AUTH_BANNER, GLOBAL_REQUEST)


class ClosedError(Exception):
    """The server has closed the connection, or refused; the text is its reason, if it gave one."""


def string(data: bytes | str) -> bytes:
    """RFC 4251, section 5: string."""
    raw = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(raw)) + raw


def uint32(number: int) -> bytes:
    """RFC 4251, section 5: uint32."""
    return struct.pack(">I", number)


def mpint(number: int) -> bytes:
    """RFC 4251, section 5: mpint, not negative."""
    return string(number.to_bytes((number.bit_length() + 8) // 8, "big") if number else b"")


def packet(payload: bytes) -> bytes:
    """An unencrypted binary packet."""
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def kexinit(
    *key_exchanges: str,
    host_keys: str = "ssh-ed25519,rsa-sha2-256,ecdsa-sha2-nistp256",
    guess: bool = False,
) -> bytes:
    """The payload of a KEXINIT that asks for these."""
    lists = [
        ",".join(key_exchanges),
        host_keys,
        *["aes128-gcm@openssh.com"] * 2,
        *["hmac-sha2-256"] * 2,
        *["none"] * 2,
        *[""] * 2,
    ]
    return bytes([KEXINIT]) + os.urandom(16) + b"".join(map(string, lists)) + bytes([guess]) + bytes(4)


def connect(
    port: int, source: str = "127.0.0.1", *, limit_s: float = LIMIT_S, receive_buffer_bytes: int | None = None
) -> socket.socket:
    """A TCP connection to a node on loopback, from `source`; reads and writes are limited to `limit_s`.

    `receive_buffer_bytes` is what the kernel takes (it doubles it) for a client that does not read. Without
    it that is between some KiB and many MiB, by the machine. It must be set before the connection is made.
    """
    with contextlib.ExitStack() as on_failure:
        sock = on_failure.enter_context(socket.socket())
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(limit_s)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
        on_failure.pop_all()
    return sock


@dataclass(frozen=True)
class UserKey:
    """An ed25519 key that can sign."""

    private: Ed25519PrivateKey

    @classmethod
    def load(cls, path: Path) -> Self:
        """The key that ssh-keygen wrote at `path`."""
        private = load_ssh_private_key(path.read_bytes(), None)
        assert isinstance(private, Ed25519PrivateKey)
        return cls(private)

    @property
    def blob(self) -> bytes:
        """The public half, as RFC 4253, section 6.6, encodes it."""
        line = self.private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return base64.b64decode(line.split()[1])

    def sign(self, data: bytes) -> bytes:
        """A signature with its algorithm before it."""
        return string("ssh-ed25519") + string(self.private.sign(data))


class RawClient:
    """One connection. The key exchange is done unless `exchange` is False; then `login`, `open`, `ask`.

    Use it with `with`, which closes it: a socket that a failed test leaves open fails another test later.
    """

    def __init__(
        self,
        port: int,
        source: str = "127.0.0.1",
        *,
        version: str = "SSH-2.0-raw",
        exchange: bool = True,
        limit_s: float = LIMIT_S,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        self.sock = connect(port, source, limit_s=limit_s, receive_buffer_bytes=receive_buffer_bytes)
        self._data = b""
        self._sending: tuple[AESGCM, bytearray] | None = None
        self._receiving: tuple[AESGCM, bytearray] | None = None
        self._session_id = b""
        self.version = version
        try:
            self.sock.sendall(version.encode() + b"\r\n")
            if exchange:
                self.server_version = self.line()
                self.exchange_keys()
        except (OSError, ClosedError):
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def line(self) -> bytes:
        """What the server says up to the next end of line, without it."""
        while b"\n" not in self._data:
            self._fill()
        found, self._data = self._data.split(b"\n", 1)
        return found.rstrip(b"\r")

    def send(self, *payloads: bytes) -> None:
        """Packets, in one write."""
        self.sock.sendall(b"".join(self._sealed(payload) for payload in payloads))

    def receive(self, *skipped: int) -> bytes:
        """The next payload whose type is not noise and not in `skipped`."""
        while True:
            payload = self._receive_one()
            if payload[0] == DISCONNECT:
                raise ClosedError(payload[9:200].decode("utf-8", "replace"))
            if payload[0] not in (*NOISE, *skipped):
                return payload

    def exchange_keys(self) -> None:
        """curve25519-sha256: RFC 8731."""
        ours = kexinit("curve25519-sha256")
        secret = X25519PrivateKey.generate()
        public = secret.public_key().public_bytes_raw()
        self.send(ours)
        theirs = self.receive()
        self.send(bytes([KEX_INIT]) + string(public))
        reply = self.receive()
        host_key, their_public, _signature = _strings(reply[1:], 3)
        shared = mpint(
            int.from_bytes(secret.exchange(X25519PublicKey.from_public_bytes(their_public)), "big")
        )
        parts = (self.version.encode(), self.server_version, ours, theirs, host_key, public, their_public)
        digest = hashlib.sha256(b"".join(map(string, parts)) + shared).digest()
        self._session_id = self._session_id or digest

        def derived(letter: bytes, length: int) -> bytes:
            return hashlib.sha256(shared + digest + letter + self._session_id).digest()[:length]

        self.send(bytes([NEWKEYS]))
        self.receive()
        self._sending = AESGCM(derived(b"C", 16)), bytearray(derived(b"A", 12))
        self._receiving = AESGCM(derived(b"D", 16)), bytearray(derived(b"B", 12))

    def request_service(self) -> None:
        """Ask to log in."""
        self.send(bytes([SERVICE_REQUEST]) + string("ssh-userauth"))
        self.receive()

    def offer(self, key: UserKey, user: str = "git") -> int:
        """Offer a key without a signature; the type of the answer (60: it might do)."""
        self.send(self._auth(key, user, signed=False))
        return self.receive()[0]

    def sign_in(self, key: UserKey, user: str = "git") -> int:
        """Prove a key; the type of the answer."""
        body = self._auth(key, user, signed=True)
        self.send(body + string(key.sign(string(self._session_id) + body)))
        return self.receive()[0]

    def login(self, key: UserKey, user: str = "git") -> Self:
        """The whole login. Closes the connection if it fails.

        Raises:
            ClosedError: refused.
            OSError: the connection is gone.
        """
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.sock.close)
            self.request_service()
            if self.sign_in(key, user) != AUTH_SUCCESS:
                raise ClosedError("the key was refused")
            on_failure.pop_all()
        return self

    def open(
        self, number: int = 0, *, window_bytes: int = WINDOW_BYTES, packet_bytes: int = MAX_PACKET_BYTES
    ) -> int:
        """A session channel; the server's number of it.

        Raises:
            ClosedError: the channel was refused.
        """
        self.send(
            bytes([OPEN]) + string("session") + b"".join(map(uint32, (number, window_bytes, packet_bytes)))
        )
        answer = self.receive(ADJUST)
        if answer[0] != OPENED:
            raise ClosedError("the channel was refused")
        return int.from_bytes(answer[5:9], "big")

    def ask(self, channel: int, kind: str, rest: bytes = b"") -> bool:
        """A channel request; whether it succeeded."""
        self.send(bytes([REQUEST]) + uint32(channel) + string(kind) + b"\x01" + rest)
        return self.receive(ADJUST)[0] == SUCCESS

    def run(self, command: str, *, number: int = 0) -> tuple[int | None, bytes]:
        """A whole command: exit status and stdout."""
        channel, status, out = self.open(number), None, b""
        self.ask(channel, "exec", string(command))
        self.send(bytes([EOF]) + uint32(channel))
        while (payload := self.receive())[0] != CLOSE:
            if payload[0] == DATA:
                out += payload[9:]
            elif payload[0] == REQUEST and b"exit-status" in payload:
                status = int.from_bytes(payload[-4:], "big")
        self.send(bytes([CLOSE]) + uint32(channel))
        return status, out

    def _auth(self, key: UserKey, user: str, *, signed: bool) -> bytes:
        head = bytes([AUTH_REQUEST]) + string(user) + string("ssh-connection") + string("publickey")
        return head + bytes([signed]) + string("ssh-ed25519") + string(key.blob)

    def _fill(self) -> None:
        data = self.sock.recv(2**18)
        if not data:
            raise ClosedError("closed")
        self._data += data

    def _take(self, length: int) -> bytes:
        while len(self._data) < length:
            self._fill()
        taken, self._data = self._data[:length], self._data[length:]
        return taken

    def _sealed(self, payload: bytes) -> bytes:
        if self._sending is None:
            return packet(payload)
        cipher, counter = self._sending
        padding = 16 - (len(payload) + 1) % 16
        padding += 16 if padding < 4 else 0
        length = uint32(len(payload) + padding + 1)
        sealed = cipher.encrypt(bytes(counter), bytes([padding]) + payload + bytes(padding), length)
        _advance(counter)
        return length + sealed

    def _receive_one(self) -> bytes:
        length = self._take(4)
        size = int.from_bytes(length, "big")
        if self._receiving is None:
            plain = self._take(size)
        else:
            cipher, counter = self._receiving
            plain = cipher.decrypt(bytes(counter), self._take(size + 16), length)
            _advance(counter)
        return plain[1 : len(plain) - plain[0]]


def _advance(counter: bytearray) -> None:
    """RFC 5647, section 7.1: the last eight bytes count invocations."""
    counter[4:] = ((int.from_bytes(counter[4:], "big") + 1) % 2**64).to_bytes(8, "big")


def _strings(data: bytes, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        length = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found
