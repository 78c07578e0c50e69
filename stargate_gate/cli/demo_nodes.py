"""The demo's nodes as child processes: starts them, asks them over HTTP, ends and reaps them."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from stargate_gate.cli.demo_files import LOOPBACK, NodeFiles

ASK_LIMIT_S = 1.0
POLL_S = 0.02
END_LIMIT_S = 12.0  # a little more than election.drain_s


class DemoNode:
    """One `stargate serve`, which writes to `files.log_file`. `environment` is added to the demo's own."""

    def __init__(self, files: NodeFiles, *, environment: Mapping[str, str]) -> None:
        self.files = files
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.files.name

    @property
    def pid(self) -> int:
        """Its process id; 0 while it does not run."""
        return self._process.pid if self._process is not None and self.alive else 0

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C goes only to the demo, which then ends it.

        With setpriv(1), the kernel kills it when the demo dies, even by `kill -9`.
        """
        with self.files.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *_ended_with_parent(),
                *(sys.executable, "-P", "-m", "stargate_gate.cli.main"),
                *("serve", "-c", str(self.files.config_file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self._environment},
            )

    def reload(self) -> None:
        """Send SIGHUP, if it has logged something: before that, the signal might end it."""
        if self._process is not None and self.alive and self.files.log_file.stat().st_size:
            self._process.send_signal(signal.SIGHUP)

    async def wait(self) -> int:
        """Wait for its end; returns the exit status, negative for a signal."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return await self._process.wait()

    async def end(self) -> None:
        """Send SIGTERM, and SIGKILL after END_LIMIT_S; returns when it has ended."""
        if self._process is None:
            return
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_LIMIT_S):
                    await self._process.wait()
        finally:
            if self.alive:
                os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()

    async def status(self) -> dict[str, Any]:
        """Its /status; {} if it does not answer."""
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                return await _get_json(self.files.http_port, "/status")
        except (OSError, TimeoutError, ValueError):
            return {}

    async def wait_status(self, accept: Callable[[dict[str, Any]], bool], limit_s: float) -> dict[str, Any]:
        """The first status for which `accept` is true; {} after `limit_s` seconds, or if it has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.alive:
                    status = await self.status()
                    if status and accept(status):
                        return status
                    await asyncio.sleep(POLL_S)
        return {}


def _ended_with_parent() -> tuple[str, ...]:
    program = shutil.which("setpriv")
    return (program, "--pdeathsig", "KILL") if program else ()


async def _get_json(port: int, path: str) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = await reader.read(-1)
    finally:
        writer.close()
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))
