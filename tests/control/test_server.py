"""The control socket: real sockets, hostile and broken peers on both sides."""

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stargate_gate.control import server as server_module
from stargate_gate.control.client import Answer, ask
from stargate_gate.control.path import short_path
from stargate_gate.control.server import ControlServer
from stargate_gate.errors import NoSuchRepositoryError, NotAllowedError, UnavailableError
from stargate_gate.formats import CONTROL


class Handler:
    """Answers with what it was asked, or fails as told."""

    def __init__(self) -> None:
        self.stuck = asyncio.Event()

    async def handle(self, command: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        match command:
            case "missing":
                raise NoSuchRepositoryError("no repository 'x'")
            case "bug":
                raise RuntimeError("secret detail")
            case "large":
                return {"output": "x" * 5_000_000}
            case "stuck":
                self.stuck.set()
                await asyncio.Event().wait()
        return {"output": f"{command} {args}", "data": dict(args)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket is; longer than a socket address may be."""
    run = tmp_path / ("long" * 40) / "run"
    run.mkdir(parents=True, mode=0o700)
    return run / "control.sock"


@pytest.fixture
async def handler() -> Handler:
    """The node's side."""
    return Handler()


@pytest.fixture
async def server(path: Path, handler: Handler) -> AsyncIterator[ControlServer]:
    """A running server."""
    server = ControlServer(path, handler)
    await server.start()
    yield server
    await server.close()


async def raw(path: Path, request: bytes) -> dict[str, Any]:
    """Send bytes, half-close, and read the answer."""
    with short_path(path) as name:
        reader, writer = await asyncio.open_unix_connection(name)
    try:
        writer.write(request)
        if not request.endswith(b"\n"):
            writer.write_eof()
        async with asyncio.timeout(10):
            return dict(json.loads(await reader.read(-1)))
    finally:
        writer.close()


@pytest.mark.usefixtures("server")
async def test_a_command_reaches_the_node_over_a_long_path(path: Path) -> None:
    """Socket addresses hold 107 bytes; data_dirs may be deeper."""
    assert len(str(path)) > 107
    answer = await asyncio.to_thread(ask, path, "status", {"json": True})
    assert answer == Answer(0, "status {'json': True}", "", {"json": True})


@pytest.mark.usefixtures("server")
async def test_only_the_owner_can_connect(path: Path) -> None:
    """Whoever connects may do everything."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.usefixtures("server")
async def test_errors_keep_their_exit_status(path: Path) -> None:
    """A refusal inside the node is the command's exit status and error line."""
    assert await asyncio.to_thread(ask, path, "missing") == Answer(66, "", "no repository 'x'")


@pytest.mark.usefixtures("server")
async def test_a_large_answer_arrives_whole(path: Path) -> None:
    """As the names of a hundred thousand repositories, to a client that reads slowly."""
    assert len((await asyncio.to_thread(ask, path, "large")).output) == 5_000_000


@pytest.mark.usefixtures("server")
async def test_a_bug_is_told_without_its_detail(path: Path) -> None:
    """Exit 70 and one line; the traceback is in the node's log."""
    with capture_logs() as logs:
        answer = await asyncio.to_thread(ask, path, "bug")
    assert answer.exit == 70
    assert "secret" not in answer.error
    assert [line["event"] for line in logs] == ["control_command_failed"]


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "request_line",
    [
        b"", b"\n", b"hello\n", b"[]\n", b"\xff\n", b'{"command": 1}\n', b'{"command": "x", "args": []}\n',
        b"[" * 50_000 + b"\n", b'{"command": "' + b"x" * 70_000 + b'"}\n', b'{"args": {}}\n',
    ],
)  # fmt: skip
async def test_garbage_is_a_usage_error(path: Path, request_line: bytes) -> None:
    """One clear line with exit 64, and the server goes on."""
    answer = await raw(path, request_line)
    assert answer["exit"] == 64
    assert (await asyncio.to_thread(ask, path, "status")).exit == 0


@pytest.mark.usefixtures("server")
async def test_an_endless_request_is_cut_off(path: Path) -> None:
    """Memory for a request is bounded; the server goes on."""
    with pytest.raises((ConnectionError, json.JSONDecodeError)):
        await raw(path, b"x" * 50_000_000 + b"\n")
    assert (await asyncio.to_thread(ask, path, "status")).exit == 0


@pytest.mark.usefixtures("server")
async def test_a_client_that_says_nothing_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a connection for a bounded time."""
    monkeypatch.setattr(server_module, "READ_LIMIT_S", 0.1)
    with short_path(path) as name:
        reader, writer = await asyncio.open_unix_connection(name)
    async with asyncio.timeout(10):
        assert json.loads(await reader.read(-1))["exit"] == 64
    writer.close()


@pytest.mark.usefixtures("server")
async def test_a_command_that_hangs_ends_at_the_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for ever: 75, outcome unknown."""
    monkeypatch.setattr(server_module, "HANDLE_LIMIT_S", 0.1)
    answer = await asyncio.to_thread(ask, path, "stuck")
    assert answer.exit == 75
    assert "unknown" in answer.error


async def test_closing_ends_what_runs_and_removes_the_socket(
    path: Path, server: ControlServer, handler: Handler
) -> None:
    """A client of a stopping node hears that it went away."""
    asking = asyncio.create_task(asyncio.to_thread(ask, path, "stuck"))
    await handler.stuck.wait()
    await server.close()
    with pytest.raises(UnavailableError, match="went away"):
        await asking
    assert not path.exists()


async def test_a_socket_left_behind_is_replaced(path: Path, handler: Handler) -> None:
    """As after kill -9."""
    with socket.socket(socket.AF_UNIX) as dead, short_path(path) as name:
        dead.bind(name)
    server = ControlServer(path, handler)
    await server.start()
    try:
        assert (await asyncio.to_thread(ask, path, "status")).exit == 0
    finally:
        await server.close()


async def test_a_file_in_the_way_is_not_removed(path: Path, handler: Handler) -> None:
    """Only sockets are ours to remove."""
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        await ControlServer(path, handler).start()
    assert path.read_text() == "precious"


def test_no_node_is_one_clear_line(path: Path, tmp_path: Path) -> None:
    """Whether there is no data_dir, no socket, or a dead one: 69 and what to do."""
    for missing in (path, tmp_path / "nowhere" / "run" / "control.sock"):
        with pytest.raises(UnavailableError, match=r"no stargate serve runs on .*: start it"):
            ask(missing, "status")
    with socket.socket(socket.AF_UNIX) as dead, short_path(path) as name:
        dead.bind(name)
    with pytest.raises(UnavailableError, match="no stargate serve runs on"):
        ask(path, "status")


@pytest.fixture
def stranger() -> Iterator[None]:
    """As another user, when the tests run as root; else as ourselves."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    yield
    if root:
        os.seteuid(0)


@pytest.fixture
def locked_socket(path: Path) -> Iterator[Path]:
    """A node's socket that its owner may not even use."""
    with socket.socket(socket.AF_UNIX) as node, short_path(path) as name:
        node.bind(name)
        node.listen()
        path.chmod(0)
        yield path


@pytest.mark.usefixtures("locked_socket", "stranger")
def test_somebody_elses_node_is_told(path: Path) -> None:
    """Exit 77 and as whom to run it."""
    with pytest.raises(NotAllowedError, match="belongs to somebody else: run this as the user") as caught:
        ask(path, "status")
    assert caught.value.exit_code == 77


def fake_node(path: Path, answer: bytes) -> threading.Thread:
    """Something on the socket that sends `answer` and closes."""
    listener = socket.socket(socket.AF_UNIX)
    with short_path(path) as name:
        listener.bind(name)
    listener.listen()

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("answer", [b"", b"half {", b"[]\n", b'{"exit": "x"}\n'])
def test_a_broken_answer_is_one_clear_line(path: Path, answer: bytes) -> None:
    """As from a node that dies while it answers."""
    thread = fake_node(path, answer)
    with pytest.raises(UnavailableError, match="went away while answering"):
        ask(path, "status")
    thread.join(5)


def test_a_node_that_hangs_is_told_after_the_limit(path: Path) -> None:
    """As a node under SIGSTOP: the kernel takes the connection, nobody answers."""
    with socket.socket(socket.AF_UNIX) as hung, short_path(path) as name:
        hung.bind(name)
        hung.listen()
        with pytest.raises(UnavailableError, match=r"gave no answer in 0\.2 s"):
            ask(path, "status", limit_s=0.2)


@pytest.mark.usefixtures("server")
async def test_a_command_of_a_newer_version_is_told_to_update_the_node(path: Path) -> None:
    """Exit 64 with both versions; a request without a version is of the first one."""
    newer = {"protocol": CONTROL.number + 1, "command": "status", "args": {}}
    answer = await raw(path, json.dumps(newer).encode() + b"\n")
    assert answer["exit"] == 64
    assert f"speaks version {CONTROL.number + 1} of the control protocol" in answer["error"]
    assert "update stargate on this node" in answer["error"]
    first = await raw(path, b'{"command": "status", "args": {}}\n')
    assert (first["exit"], first["protocol"]) == (0, CONTROL.number)


async def test_an_answer_of_a_newer_node_is_told(path: Path) -> None:
    """The command ends with 69, and says which command to run instead."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(json.dumps({"protocol": CONTROL.number + 1, "exit": 0}).encode() + b"\n")
        writer.close()

    with short_path(path) as name:
        server = await asyncio.start_unix_server(answer, name)
    async with server:
        with pytest.raises(UnavailableError, match="is of a newer version than this command"):
            await asyncio.to_thread(ask, path, "status")
