"""The real console script, run as a user would run it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stargate_gate.control.server import ControlServer
from stargate_gate.errors import NotLeaderError

LIMIT_S = 60.0


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str


Stargate = Callable[..., Any]


def console_script(name: str) -> str:
    """The installed script beside the interpreter that runs the tests."""
    return str(Path(sys.executable).parent / name)


async def finished(*argv: str, cwd: Path, env: Mapping[str, str] | None = None) -> Done:
    """Run a program to its end."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Done(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
def stargate(tmp_path: Path) -> Stargate:
    """`await stargate("status", "-c", …)`."""

    async def run(*args: str, env: Mapping[str, str] | None = None) -> Done:
        return await finished(console_script("stargate"), *args, cwd=tmp_path, env=env)

    return run


@dataclass
class FakeNode:
    """What the control socket was asked; answers as a node would."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def handle(self, command: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append((command, dict(args)))
        match command:
            case "health":
                return {"exit": 69, "output": "not healthy: git: git does not start"}
            case "ready":
                raise NotLeaderError("node-b is a standby")
            case "repo-list":
                return {"output": "".join(f"org/app{index}\n" for index in range(20_000))}
        return {"output": f"did {command}"}


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """The YAML file of a single node."""
    file = tmp_path / "node.yaml"
    file.write_text("node: {name: node-b, data_dir: data}\n")
    return file


@pytest.fixture
async def node(tmp_path: Path, config_file: Path) -> AsyncIterator[FakeNode]:
    """A node's control socket where that file says."""
    assert config_file.exists()
    (tmp_path / "data" / "run").mkdir(parents=True, mode=0o700)
    node = FakeNode()
    server = ControlServer(tmp_path / "data" / "run" / "control.sock", node)
    await server.start()
    yield node
    await server.close()
