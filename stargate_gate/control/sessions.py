"""Serves SSH sessions that OpenSSH's sshd has accepted.

`stargate-shell` sends its own stdin, stdout and stderr over the control socket; the bytes then go
between sshd and git through this node, as they do for its own SSH listener.
"""

import asyncio
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

from stargate_gate.access.identity import MAX_USER_LENGTH, Access, Identity
from stargate_gate.errors import UsageError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.gate.ports import Request
from stargate_gate.gate.session import Gate
from stargate_gate.gate.ssh.channel import CHUNK_BYTES, STALL_LIMIT_S
from stargate_gate.printable import printable

SESSION_ID_BYTES = 8
ACCESSES = ("read", "write", "admin")  # never "peer": that is the cluster key's, on the node's own listener


class LocalSessions:
    """The control socket's `SessionHandler`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def session(self, args: Mapping[str, Any], stdin: int, stdout: int, stderr: int) -> int:
        """See `server.SessionHandler`."""
        request = request_of(args)
        with FdChannel(stdin, stdout, stderr) as channel:
            status = await self._gate.handle(request, channel)
        return ExitCode.UNAVAILABLE if status is None else status


def request_of(args: Mapping[str, Any]) -> Request:
    """The request that stargate-shell describes.

    Raises:
        UsageError: something is missing or of the wrong kind.
    """
    access, user = args.get("access"), args.get("user")
    command, git_protocol = args.get("command"), args.get("git_protocol")
    if access not in ACCESSES:
        raise UsageError(f"access is one of {', '.join(ACCESSES)}")
    if not isinstance(user, str) or not user:
        raise UsageError("a session needs a user's name")
    if not isinstance(command, str | None) or not isinstance(git_protocol, str | None):
        raise UsageError("command and git_protocol are texts, or null")
    identity = Identity(
        user=printable(user, MAX_USER_LENGTH),
        access=cast("Access", access),
        fingerprint="",
        source=printable(str(args.get("source") or "sshd"), MAX_USER_LENGTH),
    )
    return Request(identity, command, git_protocol, secrets.token_hex(SESSION_ID_BYTES))


class FdChannel:
    """`gate.ports.Channel` on three descriptors that stay the caller's: pipes, sockets, files, terminals.

    Pipes and sockets are made non-blocking inside the `with`. Back-pressure is the kernel's.
    """

    def __init__(self, stdin: int, stdout: int, stderr: int, *, stall_limit_s: float = STALL_LIMIT_S) -> None:
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._stall_limit_s = stall_limit_s
        self._were_blocking: list[int] = []

    def __enter__(self) -> Self:
        for fd in (self._stdin, self._stdout, self._stderr):
            mode = os.fstat(fd).st_mode
            if (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and os.get_blocking(fd):
                os.set_blocking(fd, False)
                self._were_blocking.append(fd)
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._were_blocking:
            os.set_blocking(fd, True)

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes; b"" at the end. Raises ConnectionError."""
        loop = asyncio.get_running_loop()
        while True:
            await _ready(self._stdin, loop.add_reader, loop.remove_reader)
            try:
                return os.read(self._stdin, min(n, CHUNK_BYTES))
            except BlockingIOError:
                continue
            except ConnectionError:
                raise
            except OSError as error:
                raise ConnectionResetError(f"the client's input fails: {error.strerror}") from error

    async def write(self, data: bytes) -> None:
        """To the client's stdout. Raises ConnectionError, also after a stall."""
        await self._send(self._stdout, data)

    async def write_error(self, data: bytes) -> None:
        """To the client's stderr. Raises as `write`."""
        await self._send(self._stderr, data)

    async def exit(self, status: int) -> None:
        """Nothing is buffered here. The caller gets the status, and closes the descriptors that it passed."""

    async def _send(self, fd: int, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        rest = memoryview(data)
        while rest:
            try:
                async with asyncio.timeout(self._stall_limit_s):
                    await _ready(fd, loop.add_writer, loop.remove_writer)
                rest = rest[os.write(fd, rest[:CHUNK_BYTES]) :]
            except TimeoutError:
                raise ConnectionAbortedError(
                    f"the client has read nothing for {self._stall_limit_s:g} s"
                ) from None
            except BlockingIOError:
                continue
            except ConnectionError:
                raise
            except OSError as error:
                raise ConnectionResetError(f"the client's output fails: {error.strerror}") from error


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
    """Wait until `fd` can be read or written; files, which epoll(7) does not take, always can."""
    ready = asyncio.Event()
    try:
        add(fd, ready.set)
    except PermissionError:
        return
    try:
        await ready.wait()
    finally:
        remove(fd)
