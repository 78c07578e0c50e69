"""The control socket: how the commands about a running node reach it. The server's side.

One request per connection: a JSON object in one line, {"protocol": NUMBER, "command": TEXT, "args": {...}};
the answer is one line as well: {"protocol": NUMBER, "exit": STATUS, "output": TEXT, "error": TEXT,
"data": any}. Without a protocol it is 1; a larger one than formats.CONTROL's is refused. The socket is
0600 in a 0700 folder, so only the node's own user (and root) can connect, and each of them
may do everything. client.py is the other side.

    command       args                       what it does
    health        {}                         exit 0 while the node works, else 69
    ready         {}                         exit 0 if it leads and takes writes, else 9
    status        {"json": bool}             the report
    repo-list     {}                         one name a line
    repo-create   {"name", "object_format"}  through the gate
    repo-delete   {"name"}                   through the gate
    repo-verify   {"name"}                   check the copy on this node now; exit 69 if it is damaged
    repo-verify-names {}                     which copies there are to check, as data
    promote       {"accept_data_loss": true} override eligibility for the next attempt to lead
    promote-risk  {}                         what may be lost by that; nothing is done
    rescued-list  {"json": bool}             what was rescued here
    rescued-restore {"name", "oid", "as", "to"}  push it to the leader; "as" and "to" may be null
    rescued-drop  {"name", "oid"}            stop keeping it
    session       see SessionHandler         one SSH session that somebody else accepted
"""

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog

from stargate_gate.aio.tasks import HeldTasks, run_until
from stargate_gate.control.path import short_path
from stargate_gate.errors import StargateError, TryAgainError, UnavailableError, UsageError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.formats import CONTROL, FIRST

MAX_REQUEST_BYTES = 64 * 2**10  # names and flags only
MAX_REQUESTS = 250  # people and scripts on this machine, and the gate's max_sessions
BACKLOG = 64
CHUNK_BYTES = 64 * 2**10
SESSION = "session"
SESSION_DESCRIPTORS = 3  # stdin, stdout, stderr
ACCEPT_PAUSE_S = 0.1
READ_LIMIT_S = 5.0  # a client sends its line at once
HANDLE_LIMIT_S = 3660.0  # covers ack_max_s of a repository command
LONG_LIMITS_S = {
    "rescued-restore": 3660.0,  # a push of a whole repository
    "repo-verify": 8 * 86_400.0,  # as long as one check may take, after another one
}
WRITE_LIMIT_S = 10.0

log = structlog.get_logger()


class ControlHandler(Protocol):
    """The node's side: what each command does."""

    async def handle(self, command: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one command; any of "exit", "output", "error", "data" in the answer.

        Raises:
            StargateError: becomes the answer's exit status and error line.
        """


class SessionHandler(Protocol):
    """The node's side of sessions that stock OpenSSH accepted: `stargate-shell` hands them over."""

    async def session(self, args: Mapping[str, Any], stdin: int, stdout: int, stderr: int) -> int:
        """Serve one session on three descriptors, which stay the caller's; its exit status.

        args    "user", "access" (read, write, admin), "source" (address of the client), "command"
                (text or null), "git_protocol" (text or null), as stargate-shell found them

        Cancelled when the client is gone.

        Raises:
            StargateError: the arguments are invalid.
        """


def answer_of(error: StargateError) -> dict[str, Any]:
    """The answer that tells a client of `error`."""
    return {"exit": int(error.exit_code), "error": error.message}


class ControlServer:
    """Listens on `path` from `start` to `close`. The caller holds the node lock: one owner per socket.

    Without `sessions`, a request for one is refused.
    """

    def __init__(self, path: Path, handler: ControlHandler, sessions: SessionHandler | None = None) -> None:
        self._path = path
        self._handler = handler
        self._sessions = sessions
        self._tasks = HeldTasks()
        self._identity: tuple[int, int] | None = None

    async def start(self) -> None:
        """Listen; a socket that an ended node left behind is removed.

        Raises:
            OSError: the socket cannot be made.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            with short_path(self._path) as name:
                self._remove_stale()
                sock.bind(name)
                os.chmod(name, 0o600)  # noqa: PTH101 # before listen: nobody connects in between
                info = os.stat(name)  # noqa: PTH116 - as above
            self._identity = info.st_dev, info.st_ino
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        self._tasks.start(self._accept(sock), "control-socket")

    async def close(self) -> None:
        """Stop listening, end what runs, remove the socket."""
        await self._tasks.close()
        with contextlib.suppress(OSError):
            info = self._path.lstat()
            if (info.st_dev, info.st_ino) == self._identity:
                self._path.unlink()

    def _remove_stale(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                except OSError as error:  # out of descriptors: others must end first
                    log.warning("control_accept_failed", error=error.strerror)
                    await asyncio.sleep(ACCEPT_PAUSE_S)
                else:
                    self._tasks.start(self._serve(sock), "control-request")

    async def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, TimeoutError):  # the client has gone, or does not read
            sock.setblocking(False)
            answer = await self._answer(sock)
            async with asyncio.timeout(WRITE_LIMIT_S):
                await asyncio.get_running_loop().sock_sendall(sock, _line(answer))

    async def _answer(self, sock: socket.socket) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                line, descriptors = await receive_line(sock, MAX_REQUEST_BYTES)
        except TimeoutError:
            return answer_of(UsageError("no request came in time"))
        try:
            return await self._carry_out(sock, line, descriptors)
        except StargateError as error:
            return answer_of(error)
        except Exception:
            log.exception("control_command_failed", request=line[:200])
            return {
                "exit": ExitCode.INTERNAL,
                "error": "the command failed inside the node; its log says why",
            }
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _carry_out(
        self, sock: socket.socket, line: bytes, descriptors: Sequence[int]
    ) -> Mapping[str, Any]:
        if len(line) > MAX_REQUEST_BYTES:
            raise UsageError(f"a request has at most {MAX_REQUEST_BYTES} bytes")
        command, args = parse_request(line)
        if len(self._tasks) > MAX_REQUESTS:
            raise UnavailableError("the node is busy: try again")
        if command == SESSION:
            return await self._session(sock, args, descriptors)
        limit_s = LONG_LIMITS_S.get(command, HANDLE_LIMIT_S)
        try:
            async with asyncio.timeout(limit_s):
                return await self._handler.handle(command, args)
        except TimeoutError:
            raise TryAgainError(f"no result within {limit_s:g} s; the outcome is unknown") from None

    async def _session(
        self, sock: socket.socket, args: Mapping[str, Any], descriptors: Sequence[int]
    ) -> Mapping[str, Any]:
        """Run one session; it is cancelled when the client's side of the socket closes."""
        if self._sessions is None:
            raise UnavailableError("this node takes no sessions here; connect to its own SSH port")
        if len(descriptors) != SESSION_DESCRIPTORS:
            raise UsageError("a session comes with its stdin, stdout and stderr")
        stdin, stdout, stderr = descriptors
        status = await run_until(_gone(sock), self._sessions.session(args, stdin, stdout, stderr))
        return {"exit": ExitCode.UNAVAILABLE if status is None else status}


async def receive_line(sock: socket.socket, limit_bytes: int) -> tuple[bytes, list[int]]:
    """What comes up to an end of line, the end, or more than `limit_bytes`; and descriptors with it.

    The descriptors are close-on-exec and the caller's to close.
    """
    data = b""
    descriptors: list[int] = []
    try:
        while b"\n" not in data and len(data) <= limit_bytes:
            await _readable(sock)
            with contextlib.suppress(BlockingIOError):
                part, more, _, _ = socket.recv_fds(
                    sock, CHUNK_BYTES, SESSION_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
                data += part
                descriptors += more
                if not part:
                    break
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return data, descriptors


async def _gone(sock: socket.socket) -> None:
    """Return when the client has closed its side, or has sent something that is not part of the protocol."""
    with contextlib.suppress(OSError):  # it has gone
        await receive_line(sock, 0)


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def parse_request(line: bytes) -> tuple[str, dict[str, Any]]:
    """Command and arguments of a request line.

    Raises:
        UsageError: it is not a request.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError('a request is a JSON object: {"command": "status", "args": {}}') from None
    command = request.get("command") if isinstance(request, dict) else None
    args = request.get("args", {}) if isinstance(request, dict) else None
    protocol = request.get("protocol", FIRST) if isinstance(request, dict) else None
    if type(protocol) is not int or not isinstance(command, str) or not isinstance(args, dict):
        raise UsageError('a request is a JSON object: {"command": "status", "args": {}}')
    if protocol > CONTROL.number:
        raise UsageError(
            f"this command speaks version {protocol} of the control protocol, and the running node version "
            f"{CONTROL.number}: update stargate on this node, and restart the node"
        )
    return command, args


def _line(answer: Mapping[str, Any]) -> bytes:
    whole = {
        "protocol": CONTROL.number,
        "exit": int(ExitCode.OK),
        "output": "",
        "error": "",
        "data": None,
        **answer,
    }
    return json.dumps(whole).encode() + b"\n"
