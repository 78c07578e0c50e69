"""`stargate-shell`: a session that sshd accepted, handed to the node by its descriptors."""

import asyncio
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stargate_gate.control.server import ControlServer
from stargate_gate.control.sessions import FdChannel, request_of
from stargate_gate.errors import UsageError

from .conftest import FakeNode, console_script, finished

LIMIT_S = 60.0


class Sessions:
    """Echoes what comes, upper case on stderr, until the end of input; then exits with 7."""

    def __init__(self) -> None:
        self.args: Mapping[str, Any] = {}
        self.ended = asyncio.Event()
        self.echoed_bytes = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def session(self, args: Mapping[str, Any], stdin: int, stdout: int, stderr: int) -> int:
        self.args = args
        request_of(args)
        try:
            with FdChannel(stdin, stdout, stderr, stall_limit_s=1) as channel:
                if args["command"] == "silent":
                    await asyncio.Event().wait()
                while data := await channel.read(100_000):
                    await self.hold.wait()
                    await channel.write(data)
                    self.echoed_bytes += len(data)
                await channel.write_error(b"END\n")
        finally:
            self.ended.set()
        return 7


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[Sessions]:
    """A node that takes sessions."""
    (tmp_path / "data" / "run").mkdir(parents=True, mode=0o700)
    sessions = Sessions()
    server = ControlServer(tmp_path / "data" / "run" / "control.sock", FakeNode(), sessions)
    await server.start()
    yield sessions
    await server.close()


def argv(config_file: Path) -> list[str]:
    """As an authorized_keys line has it."""
    return [console_script("stargate-shell"), "-c", str(config_file), "--user", "alice", "--access", "read"]


async def start(config_file: Path, command: str = "echo", stdin: Any = None) -> asyncio.subprocess.Process:
    """Run it as sshd would."""
    return await asyncio.create_subprocess_exec(
        *argv(config_file),
        stdin=asyncio.subprocess.PIPE if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "SSH_ORIGINAL_COMMAND": command,
            "SSH_CONNECTION": "192.0.2.7 5000 192.0.2.1 22",
            "GIT_PROTOCOL": "version=2",
            "STARGATE_ACCESS": "admin",
            "STARGATE_USER": "mallory",
        },
    )


async def test_a_session_goes_through_the_node(config_file: Path, sessions: Sessions) -> None:
    """Input, output, error output and exit status; the user is sshd's, not the client's environment's."""
    process = await start(config_file)
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate(b"hello")
    assert (process.returncode, out, err) == (7, b"hello", b"END\n")
    assert sessions.args == {
        "user": "alice",
        "access": "read",
        "command": "echo",
        "git_protocol": "version=2",
        "source": "192.0.2.7",
    }


@pytest.mark.usefixtures("sessions")
async def test_large_sessions_arrive_whole(config_file: Path) -> None:
    """Every byte, also with a reader that starts late."""
    data = os.urandom(20_000_000)
    process = await start(config_file)
    async with asyncio.timeout(LIMIT_S):
        out, _ = await process.communicate(data)
    assert out == data


async def test_a_reader_that_stops_holds_the_sender_back(config_file: Path, sessions: Sessions) -> None:
    """The node buffers nothing: what is not read stays with the sender."""
    process = await start(config_file)
    assert process.stdin is not None
    sent = asyncio.create_task(process.communicate(bytes(50_000_000)))
    sessions.hold.clear()
    await asyncio.wait({sent}, timeout=0.3)
    assert not sent.done()
    assert sessions.echoed_bytes < 5_000_000
    sessions.hold.set()
    async with asyncio.timeout(LIMIT_S):
        out, _ = await sent
    assert len(out) == 50_000_000


async def test_a_client_that_never_reads_is_given_up(config_file: Path, sessions: Sessions) -> None:
    """After the stall limit the session ends; nothing waits for ever."""
    readable, writable = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *argv(config_file),
        stdin=asyncio.subprocess.PIPE,
        stdout=writable,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(writable)
    try:
        assert process.stdin is not None
        process.stdin.write(bytes(1_000_000))
        async with asyncio.timeout(LIMIT_S):
            await sessions.ended.wait()
            assert await process.wait() == 70  # this test's handler lets the error through; the gate does not
    finally:
        os.close(readable)


async def test_a_shell_that_dies_ends_its_session(config_file: Path, sessions: Sessions) -> None:
    """As when sshd ends it because the connection is gone: no git stays behind."""
    process = await start(config_file, "silent")
    async with asyncio.timeout(LIMIT_S):
        while not sessions.args:
            await asyncio.sleep(0.01)
        process.kill()
        await sessions.ended.wait()
        await process.communicate()


@pytest.mark.usefixtures("sessions")
async def test_files_and_dev_null_can_be_input(config_file: Path, tmp_path: Path) -> None:
    """Descriptors that epoll does not take."""
    (tmp_path / "input").write_bytes(b"from a file")
    async with asyncio.timeout(LIMIT_S):
        with (tmp_path / "input").open("rb") as file:
            process = await start(config_file, stdin=file)
            assert (await process.communicate())[0] == b"from a file"
        process = await start(config_file, stdin=asyncio.subprocess.DEVNULL)
        assert (await process.communicate())[0] == b""


@pytest.mark.usefixtures("sessions")
async def test_a_terminal_is_left_blocking(config_file: Path) -> None:
    """The user's login shell shares it."""
    ours, theirs = pty.openpty()
    try:
        process = await start(config_file, stdin=theirs)
        os.write(ours, b"line\n\x04")
        async with asyncio.timeout(LIMIT_S):
            assert (await process.communicate())[0] == b"line\n"
        assert os.get_blocking(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


async def test_without_a_node_the_client_gets_one_line_without_paths(config_file: Path) -> None:
    """Where things are on the server is none of the client's business."""
    process = await start(config_file)
    async with asyncio.timeout(LIMIT_S):
        _, err = await process.communicate()
    assert process.returncode == 69
    assert (
        err == b"stargate: the node behind this SSH server does not answer: try again, or tell an operator\n"
    )


@pytest.mark.usefixtures("node")
async def test_a_node_that_takes_no_sessions_says_so(config_file: Path) -> None:
    """Refused, never pretended."""
    process = await start(config_file)
    async with asyncio.timeout(LIMIT_S):
        _, err = await process.communicate()
    assert process.returncode == 69
    assert b"takes no sessions" in err


@pytest.mark.parametrize(
    "change",
    [{"access": "peer"}, {"access": None}, {"user": ""}, {"user": 7}, {"command": 7}, {"git_protocol": []}],
)
def test_a_session_cannot_be_more_than_an_administrators(change: dict[str, Any]) -> None:
    """Above all not a peer's: that needs the cluster key, on the node's own listener."""
    good = {"user": "alice", "access": "admin", "source": "::1", "command": None, "git_protocol": None}
    assert request_of(good).identity.access == "admin"
    with pytest.raises(UsageError):
        request_of({**good, **change})


async def test_ctrl_c_ends_it(config_file: Path, sessions: Sessions) -> None:
    """With 130, and the node ends the session."""
    process = await start(config_file, "silent")
    async with asyncio.timeout(LIMIT_S):
        while not sessions.args:
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        await process.communicate()
        await sessions.ended.wait()
    assert process.returncode == 130


async def test_the_data_dir_names_the_node_as_well(
    config_file: Path, sessions: Sessions, tmp_path: Path
) -> None:
    """As stargate-authorized-keys writes it: no YAML file is read, and options may be joined by "="."""
    config_file.unlink()
    program = console_script("stargate-shell")
    done = await finished(program, f"--data-dir={tmp_path / 'data'}", "--user=-x y", cwd=Path("/"))
    assert (done.status, done.err) == (7, "END\n")
    assert sessions.args == {
        "user": "-x y", "access": "write", "command": None, "git_protocol": None, "source": "",
    }  # fmt: skip


async def test_bytes_of_any_kind_reach_the_node_as_they_are(config_file: Path, sessions: Sessions) -> None:
    """Whatever the locale says: UTF-8 as text, other bytes as surrogates, too much of it cut."""
    command = b"git-upload-pack '\xc3\xa9\xff'" + b"x" * 100_000
    process = await asyncio.create_subprocess_exec(
        *argv(config_file),
        stdin=asyncio.subprocess.DEVNULL,
        env={
            b"SSH_ORIGINAL_COMMAND": command,
            b"LC_ALL": b"C",
            b"PYTHONUTF8": b"0",
            b"GIT_PROTOCOL": b"\x01",
        },
    )
    async with asyncio.timeout(LIMIT_S):
        assert await process.wait() == 7
    assert (
        sessions.args["command"]
        == command.decode("utf-8", "surrogateescape")[: len(sessions.args["command"])]
    )
    assert sessions.args["command"].startswith("git-upload-pack '\xe9\udcff'xxx")
    assert 4096 < len(sessions.args["command"]) < 10_000
    assert sessions.args["git_protocol"] == "\x01"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--user",),
        ("--user=",),
        ("--user=a", "--access=peer"),
        ("--user=a", "b"),
        ("--user=a", "--command=x"),
    ],
)
async def test_options_that_cannot_be_meant_are_64(words: tuple[str, ...], tmp_path: Path) -> None:
    """Said in one line; a user's name never comes from the environment."""
    program = console_script("stargate-shell")
    done = await finished(program, *words, cwd=tmp_path, env={"STARGATE_USER": "x"})
    assert (done.status, done.out) == (64, "")
    assert done.err.startswith("stargate: ")
    assert len(done.err.splitlines()) == 1


async def test_help_and_version(tmp_path: Path) -> None:
    """For those who type it nevertheless."""
    program = console_script("stargate-shell")
    assert "--data-dir" in (await finished(program, "-h", cwd=tmp_path)).out
    assert (await finished(program, "--version", cwd=tmp_path)).out.startswith("stargate-shell ")


async def test_it_imports_next_to_nothing(tmp_path: Path) -> None:
    """Each session waits for it: bench/shell.py has the figures."""
    code = "import sys, stargate_gate.cli.shell; print(*sys.modules)"
    done = await finished(sys.executable, "-c", code, cwd=tmp_path)
    loaded = set(done.out.split())
    assert "stargate_gate.control.client" in loaded
    assert not loaded & {
        "click",
        "pydantic",
        "asyncssh",
        "asyncio",
        "yaml",
        "structlog",
        "dataclasses",
        "inspect",
    }
