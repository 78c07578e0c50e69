"""`stargate demo`, as a new user meets it: read the page, paste its commands, kill the leader."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stargate_gate.cli.demo_files import HTTP_PORTS, LOOPBACK, SSH_PORTS

from .conftest import console_script

LIMIT_S = 60.0


class Demo:
    """A running demo and everything that it printed."""

    def __init__(self, process: asyncio.subprocess.Process, tmp: Path) -> None:
        self.process = process
        self.tmp = tmp
        self.lines: list[str] = []

    async def until(self, pattern: str) -> re.Match[str]:
        """Read on until a line matches."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            while raw := await self.process.stdout.readline():
                line = raw.decode().rstrip("\n")
                self.lines.append(line)
                if found := re.search(pattern, line):
                    return found
        raise AssertionError("the demo ended:\n" + "\n".join(self.lines))

    async def page(self) -> list[str]:
        """The commands of the page, once it is there."""
        assert self.process.stdout is not None
        rules = 0
        commands = []
        async with asyncio.timeout(LIMIT_S):
            while rules < 2:
                raw = await self.process.stdout.readline()
                assert raw, "the demo ended:\n" + "\n".join(self.lines)
                line = raw.decode().rstrip("\n")
                self.lines.append(line)
                rules += line.startswith("────")
                if rules == 1 and line.startswith("    "):
                    commands.append(line.strip())
        assert await self.process.stdout.readline() == b"\n"
        return commands

    def nodes(self) -> list[int]:
        """The process ids of the nodes."""
        found = subprocess.run(
            ["pgrep", "-f", f"serve -c {self.tmp}/stargate-demo-"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        return [int(pid) for pid in found.split()]


async def start_demo(tmp: Path) -> Demo:
    """Run it without a terminal, with its folder in `tmp`."""
    tmp.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        console_script("stargate"), "demo",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(tmp)},
        limit=2**20,
    )  # fmt: skip
    return Demo(process, tmp)


async def gone(demo: Demo, limit_s: float = 20) -> bool:
    """No node is left; waits for that."""
    deadline = time.monotonic() + limit_s
    while demo.nodes():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


@pytest.fixture
async def demo(tmp_path: Path) -> AsyncIterator[Demo]:
    """A running demo, ended whatever happens. Its temp dir has a name that needs quotes."""
    demo = await start_demo(tmp_path / "a b")
    yield demo
    if demo.process.returncode is None:
        demo.process.terminate()
        try:
            async with asyncio.timeout(30):
                await demo.process.communicate()
        except TimeoutError:
            demo.process.kill()
            await demo.process.communicate()
    await gone(demo)


class Terminal:
    """A second terminal: one shell that keeps its state, as a user's does."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def paste(self, command: str) -> tuple[int, str]:
        """Exit status and output of one line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\ns=$?; echo; echo ::$s::\n".encode())
        output = b""
        async with asyncio.timeout(LIMIT_S):
            while True:
                line = await self._process.stdout.readline()
                assert line, output
                if line.startswith(b"::"):
                    return int(line.strip(b":\n")), output.decode()
                output += line


@pytest.fixture(params=["sh", "bash"])
async def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Terminal]:
    """In an empty home."""
    process = await asyncio.create_subprocess_exec(
        request.param,
        cwd=tmp_path,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={key: value for key, value in os.environ.items() if not key.startswith("GIT_AUTHOR")},
    )
    yield Terminal(process)
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(LIMIT_S):
        await process.wait()


@pytest.fixture(params=["free", "taken"])
def ports(request: pytest.FixtureRequest) -> Iterator[None]:
    """The ports that a demo asks for first: as this machine has them, or surely in use by somebody else."""
    with contextlib.ExitStack() as held:
        for port in (*SSH_PORTS, *HTTP_PORTS) if request.param == "taken" else ():
            with contextlib.suppress(OSError):  # they are in use already
                held.enter_context(socket.create_server((LOOPBACK, port)))
        yield


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("ports")
async def test_the_page_works_when_pasted(demo: Demo, terminal: Terminal) -> None:
    """Every command, verbatim and in order: clone, push, ask, be refused, kill the leader, push on."""
    commands = await demo.page()
    refused = 0
    for command in commands:
        status, output = await terminal.paste(command)
        if command.startswith("git push ssh://") and "not leader" in output:  # to the standby, in step 4
            assert status != 0
            assert "the leader is node-a" in output
            refused += 1
            continue
        assert status == 0, (command, output)
        if " health" in command:
            assert "healthy" in output
        if " status" in command:
            assert output.startswith("node-a leads demo in term 1")
        if command.startswith("curl"):
            assert "200 OK" in output
        if command.startswith("kill"):
            gap = await demo.until(r"node-b leads now, in term 2, ([0-9.]+) s later")
            assert float(gap[1]) < 5
    assert refused == 1
    again = await demo.until(r"(kill -9 [0-9]+)")
    assert any("node-a is back as a standby, in the sync set" in line for line in demo.lines)
    status, _ = await terminal.paste(again[1])
    assert status == 0
    await demo.until(r"node-a leads now, in term 3")
    status, output = await terminal.paste("echo three >> README.md; git commit -qam three; git push")
    assert status == 0, output
    demo.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(LIMIT_S):
        rest, _ = await demo.process.communicate()
    assert demo.process.returncode == 0, rest
    assert b"Traceback" not in rest
    assert re.search(
        rf"ended; {re.escape(str(demo.tmp))}/stargate-demo-\S+ is removed$".encode(), rest.strip()
    )
    assert await gone(demo)
    assert list(demo.tmp.glob("stargate-demo-*")) == []


@pytest.mark.timeout(120)
async def test_a_killed_demo_leaves_no_node_and_the_next_one_cleans_up(demo: Demo) -> None:
    """`kill -9` of the demo itself: the kernel ends the nodes, the next run removes the folder."""
    await demo.page()
    assert len(demo.nodes()) == 2
    demo.process.kill()
    await demo.process.communicate()
    assert await gone(demo)
    (left,) = demo.tmp.glob("stargate-demo-*")
    second = await start_demo(demo.tmp)
    try:
        await second.page()
        assert not left.exists()
    finally:
        second.process.terminate()
        async with asyncio.timeout(LIMIT_S):
            await second.process.communicate()
    assert second.process.returncode == 0


@pytest.mark.timeout(120)
async def test_a_demo_beside_another_takes_other_ports(demo: Demo) -> None:
    """Ports in use are no reason to fail."""
    first = await demo.page()
    second = await start_demo(demo.tmp)
    try:
        page = await second.page()
        assert not set(page) & {line for line in first if "127.0.0.1" in line}
        port = next(
            match[1] for line in page if (match := re.search(r"clone ssh://git@127\.0\.0\.1:(\d+)/", line))
        )
        told = [file.read_text() for file in demo.tmp.glob("*/node-b.yaml")]
        assert any(f"address: 127.0.0.1:{port}\n" in text for text in told), "the address users are told"
    finally:
        second.process.terminate()
        async with asyncio.timeout(LIMIT_S):
            await second.process.communicate()


@pytest.mark.timeout(120)
async def test_a_hangup_reaches_the_nodes_and_ends_nothing(demo: Demo) -> None:
    """`kill -HUP`, as for any server; without a terminal that could have been closed."""
    await demo.page()
    before = demo.nodes()
    demo.process.send_signal(signal.SIGHUP)
    await demo.until("SIGHUP: the nodes read keys and log settings again")
    logs = sorted(demo.tmp.glob("stargate-demo-*/*.log"))
    async with asyncio.timeout(LIMIT_S):
        while not all("reloaded" in log.read_text() for log in logs):
            await asyncio.sleep(0.05)
    assert len(logs) == 2
    assert demo.nodes() == before


@pytest.mark.timeout(120)
async def test_what_the_nodes_log_is_in_files_and_has_no_noise(demo: Demo) -> None:
    """The page is not pushed away by their lines; a first run says nothing that is not so."""
    await demo.page()
    assert not any("leadership_" in line for line in demo.lines)
    files = sorted(demo.tmp.glob("stargate-demo-*/*.log"))
    async with asyncio.timeout(LIMIT_S):
        while "leadership_taking_over" not in files[0].read_text():
            await asyncio.sleep(0.05)
    logs = [file.read_text() for file in files]
    assert len(logs) == 2
    assert not [log for log in logs if "=None" in log or "mirror_ended" in log]


@pytest.mark.timeout(120)
async def test_on_a_terminal_enter_prints_the_page_again(tmp_path: Path) -> None:
    """What happened since has pushed it away."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        console_script("stargate"), "demo",
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=own_terminal,
        env={**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        for pages in (1, 2):
            async with asyncio.timeout(LIMIT_S):
                while seen.count(b"kill -9") < pages:
                    seen += await asyncio.to_thread(os.read, ours, 4096)
            os.write(ours, b"\n")
    finally:
        process.terminate()
        with contextlib.suppress(OSError):  # EIO: the terminal's last program has ended
            while chunk := await asyncio.to_thread(os.read, ours, 4096):
                seen += chunk
        await process.wait()
        os.close(ours)
    assert process.returncode == 0
    assert b"is removed" in seen.splitlines()[-1]


def own_terminal() -> None:
    """Make stdin the controlling terminal of this session, with this process in its foreground."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def test_ending_it_early_ends_everything(demo: Demo) -> None:
    """Ctrl-C before the nodes are up."""
    await demo.until("starting two nodes")
    demo.process.send_signal(signal.SIGINT)
    async with asyncio.timeout(LIMIT_S):
        await demo.process.communicate()
    assert demo.process.returncode == 0
    assert await gone(demo)
    assert list(demo.tmp.glob("stargate-demo-*")) == []
