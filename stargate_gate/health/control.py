"""The control socket: how the commands about a running node reach it. The server's side.

One request per connection: a JSON object in one line, {"command": TEXT, "args": {...}}; the answer
is one line as well: {"exit": STATUS, "output": TEXT, "error": TEXT, "data": any}. The socket is
0600 in a 0700 folder, so only the node's own user (and root) can connect: whoever can may do
everything. `control_client` is the other side.

    command       args                       what it does
    health        {}                         exit 0 while the node works, else 69
    ready         {}                         exit 0 if it leads and takes writes, else 9
    status        {"json": bool}             the report
    repo-list     {}                         one name a line
    repo-create   {"name", "object_format"}  through the gate
    repo-delete   {"name"}                   through the gate
    promote       {"accept_data_loss": true} override eligibility for the next attempt to lead
"""

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import structlog

from stargate_gate.errors import StargateError, UsageError
from stargate_gate.exitcodes import ExitCode
from stargate_gate.health.control_path import short_path

MAX_REQUEST_BYTES = 64 * 2**10  # names and flags only
MAX_CONNECTIONS = 32  # people and scripts on this machine; each waits in the backlog beyond
BACKLOG = 64
READ_LIMIT_S = 5.0  # a client sends its line at once
HANDLE_LIMIT_S = 120.0  # covers ack_max_s of a repository command and a promotion
WRITE_LIMIT_S = 10.0

log = structlog.get_logger()


class ControlHandler(Protocol):
    """The node's side: what each command does."""

    async def handle(self, command: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one command; any of "exit", "output", "error", "data" in the answer.

        Raises:
            StargateError: becomes the answer's exit status and error line.
        """


def answer_of(error: StargateError) -> dict[str, Any]:
    """The answer that tells a client of `error`."""
    return {"exit": int(error.exit_code), "error": error.message}


class ControlServer:
    """Listens on `path` from `start` to `close`. The caller holds the node lock: one owner per socket."""

    def __init__(self, path: Path, handler: ControlHandler) -> None:
        self._path = path
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._identity: tuple[int, int] | None = None

    async def start(self) -> None:
        """Listen; a socket that an ended node left behind is removed.

        Raises:
            OSError: the socket cannot be made.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(self._path) as name:
                self._remove_stale()
                sock.bind(name)
                os.chmod(name, 0o600)  # noqa: PTH101 # before listen: nobody connects in between
                info = os.stat(name)  # noqa: PTH116
            self._identity = info.st_dev, info.st_ino
            self._server = await asyncio.start_unix_server(
                self._serve, sock=sock, limit=MAX_REQUEST_BYTES, backlog=BACKLOG
            )
        except BaseException:
            sock.close()
            raise

    async def close(self) -> None:
        """Stop listening, end what runs, remove the socket."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            info = self._path.lstat()
            if (info.st_dev, info.st_ino) == self._identity:
                self._path.unlink()

    def _remove_stale(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 # asyncio runs this as a task
        self._tasks.add(task)
        try:
            if len(self._tasks) > MAX_CONNECTIONS:
                answer: Mapping[str, Any] = {
                    "exit": ExitCode.UNAVAILABLE,
                    "error": "the node is busy; try again",
                }
            else:
                answer = await self._answer(reader)
            async with asyncio.timeout(WRITE_LIMIT_S):
                writer.write(_line(answer))
                writer.close()
                await writer.wait_closed()  # all of it is out
        except (OSError, TimeoutError):
            pass  # the client has gone, or does not read: nobody to tell
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(READ_LIMIT_S):
                line = await reader.readline()
        except (TimeoutError, ValueError):
            return answer_of(UsageError(f"a request is one line of at most {MAX_REQUEST_BYTES} bytes"))
        try:
            command, args = parse_request(line)
            async with asyncio.timeout(HANDLE_LIMIT_S):
                return await self._handler.handle(command, args)
        except StargateError as error:
            return answer_of(error)
        except TimeoutError:
            error_text = f"no result within {HANDLE_LIMIT_S:.0f} s; the outcome is unknown"
            return {"exit": ExitCode.TRY_AGAIN, "error": error_text}
        except Exception:
            log.exception("control_command_failed", request=line[:200])
            return {
                "exit": ExitCode.INTERNAL,
                "error": "the command failed inside the node; its log says why",
            }


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
    if not isinstance(command, str) or not isinstance(args, dict):
        raise UsageError('a request is a JSON object: {"command": "status", "args": {}}')
    return command, args


def _line(answer: Mapping[str, Any]) -> bytes:
    whole = {"exit": int(ExitCode.OK), "output": "", "error": "", "data": None, **answer}
    return json.dumps(whole).encode() + b"\n"
