"""The control socket, the client's side: plain blocking sockets, so that commands start fast."""

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stargate_gate.control.path import short_path
from stargate_gate.errors import NotAllowedError, UnavailableError
from stargate_gate.formats import CONTROL, FIRST

MAX_ANSWER_BYTES = 64 * 2**20  # a hundred thousand repository names and room to spare
CHUNK_BYTES = 64 * 2**10
ANSWER_LIMIT_S = 10.0


class Answer(NamedTuple):
    """What the node said: exit status, what goes to stdout and stderr, and values for programs."""

    exit: int
    output: str = ""
    error: str = ""
    data: Any = None


def ask(
    path: Path, command: str, args: Mapping[str, Any] | None = None, *, limit_s: float = ANSWER_LIMIT_S
) -> Answer:
    """Send one command to the node whose control socket is `path`; wait at most `limit_s` in all.

    Raises:
        UnavailableError: no node listens there, or it gives no answer in time.
        NotAllowedError: the socket belongs to somebody else.
    """
    data_dir = path.parent.parent
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        _connect(sock, path, limit_s)
        try:
            sock.sendall(_request(command, args))
            return _parse(_receive(sock, time.monotonic() + limit_s), data_dir)
        except TimeoutError:
            raise UnavailableError(
                f"the stargate serve on {data_dir} gave no answer in {limit_s:g} s: see its log"
            ) from None
        except OSError as error:
            raise UnavailableError(
                f"the stargate serve on {data_dir} went away while answering ({error.strerror}): ask again"
            ) from error


def hand_over(path: Path, args: Mapping[str, Any], descriptors: tuple[int, int, int]) -> Answer:
    """Let the node serve a session on `descriptors`: stdin, stdout, stderr; wait as long as it runs.

    `args` are those of `server.SessionHandler`.

    Raises:
        UnavailableError: no node listens there, or it went away.
        NotAllowedError: the socket belongs to somebody else.
    """
    data_dir = path.parent.parent
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        _connect(sock, path, ANSWER_LIMIT_S)
        try:
            socket.send_fds(sock, [_request("session", args)], descriptors)
            return _parse(_receive(sock, None), data_dir)
        except OSError as error:
            raise UnavailableError(
                f"the stargate serve on {data_dir} went away in the middle ({error.strerror}): try again"
            ) from error


def _request(command: str, args: Mapping[str, Any] | None) -> bytes:
    return (
        json.dumps({"protocol": CONTROL.number, "command": command, "args": dict(args or {})}).encode()
        + b"\n"
    )


def _connect(sock: socket.socket, path: Path, limit_s: float) -> None:
    data_dir = path.parent.parent
    sock.settimeout(limit_s)
    try:
        with short_path(path) as name:
            sock.connect(name)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise UnavailableError(
            f"no stargate serve runs on {data_dir}: start it, or name its YAML file with -c"
        ) from None
    except PermissionError:
        raise NotAllowedError(
            f"the node on {data_dir} belongs to somebody else: run this as the user that runs stargate serve"
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"no connection to the node on {data_dir}: {error.strerror or error}"
        ) from error


def _receive(sock: socket.socket, deadline_s: float | None) -> bytes:
    """All that comes until the other side closes, at most MAX_ANSWER_BYTES; None: no deadline."""
    parts: list[bytes] = []
    size = 0
    while size <= MAX_ANSWER_BYTES:
        sock.settimeout(None if deadline_s is None else max(0.001, deadline_s - time.monotonic()))
        part = sock.recv(CHUNK_BYTES)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _parse(line: bytes, data_dir: Path) -> Answer:
    try:
        answer = json.loads(line)
        if answer.get("protocol", FIRST) > CONTROL.number:
            raise UnavailableError(
                f"the stargate serve on {data_dir} is of a newer version than this command: run the "
                f"stargate command of the version that the node runs"
            )
        return Answer(int(answer["exit"]), str(answer["output"]), str(answer["error"]), answer["data"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UnavailableError(
            f"the stargate serve on {data_dir} went away while answering: ask again"
        ) from None
