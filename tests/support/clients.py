"""Real clients for tests whose server runs on the test's own event loop."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 30.0


@dataclass(frozen=True)
class Done:
    """What a program left."""

    status: int
    stdout: str
    stderr: str


async def run(
    *argv: str | Path,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    cwd: Path | None = None,
    limit_s: float = LIMIT_S,
) -> Done:
    """Run a program to its end, killing it at the limit.

    Raises:
        TimeoutError: it took too long; it is gone.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    try:
        async with asyncio.timeout(limit_s):
            out, err = await process.communicate(stdin)
    except BaseException:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return Done(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


@contextlib.asynccontextmanager
async def tcp_connection(
    port: int, source: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TCP connection to loopback, from `source`. Closed in any case: an open one fails later tests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        yield reader, writer
    finally:
        writer.close()


def ssh_argv(port: int, key: Path, *options: str, login: str = "git") -> list[str]:
    """OpenSSH's client without any configuration but this; `options` win. The command comes after it."""
    return [
        *("ssh", "-F", "none", "-p", str(port), "-i", str(key)),
        *(word for option in (*options, *SSH_OPTIONS) for word in ("-o", option)),
        f"{login}@127.0.0.1",
    ]


SSH_OPTIONS: Sequence[str] = (
    "BatchMode=yes",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "StrictHostKeyChecking=no",
    "UserKnownHostsFile=/dev/null",
    "LogLevel=ERROR",
)


def git_ssh_environment(key: Path) -> dict[str, str]:
    """Makes git use that ssh; the port comes with the URL."""
    options = " ".join(f"-o {option}" for option in SSH_OPTIONS)
    return {"GIT_SSH_COMMAND": f"ssh -F none -i {key} {options}", "GIT_SSH_VARIANT": "ssh"}
