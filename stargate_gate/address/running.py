"""Runs a program to its end with a time limit. When `run` returns, nothing of it is left running."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

from stargate_gate.aio.children import exited
from stargate_gate.aio.tasks import finish
from stargate_gate.config.values import search_path
from stargate_gate.errors import AddressError

KEPT_BYTES = 16 * 1024  # of what it writes, for an error message; the rest is read and dropped
CHUNK_BYTES = 64 * 1024
KILL_LIMIT_S = 2.0  # after SIGKILL only I/O that hangs in the kernel keeps a process


def environment(**extra: str) -> dict[str, str]:
    """The whole environment of such a program: PATH, messages in English, and `extra`."""
    return {"PATH": search_path(), "LC_ALL": "C", **extra}


async def run(argv: Sequence[str], env: Mapping[str, str], limit_s: float) -> str:
    """Run `argv` and return what it wrote to stdout and stderr, at most KEPT_BYTES of it.

    It has a process group of its own, which is killed at the limit and if the caller is cancelled. Processes
    that it left in the background when it exited are not killed.

    Raises:
        AddressError: it does not start, exits with another status than 0, or takes too long.
    """
    try:
        process = subprocess.Popen(  # noqa: ASYNC220 - it forks, and does not wait
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=dict(env),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AddressError(f"{argv[0]} does not start: {reason}") from error
    output = _Output(process)
    try:
        async with asyncio.timeout(limit_s):
            await exited(process.pid)
    except TimeoutError:
        raise AddressError(f"{argv[0]} was ended: it took more than {limit_s:g} s") from None
    finally:
        await finish(_end(process))
        text = output.close()
    if process.returncode:
        raise AddressError(f"{argv[0]} {_how(process.returncode)}{_last_line(text)}")
    return text


async def _end(process: "subprocess.Popen[bytes]") -> None:
    """Reap it; if it still runs, kill its group first."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_LIMIT_S):
            await exited(process.pid)
    process.poll()


def _how(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"exited {status}"


def _last_line(text: str) -> str:
    """Programs say in their last line why they failed."""
    lines = text.strip().splitlines()
    return f": {lines[-1].strip()[:200]}" if lines else ""


class _Output:
    """Reads what a process writes, so that the process never waits, and keeps the end of it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        self._pipe = process.stdout
        self._kept = b""
        os.set_blocking(self._pipe.fileno(), False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pipe.fileno(), self._take)

    def _take(self) -> bool:
        """Read one chunk. False at the end, or if there is nothing to read now."""
        try:
            part = os.read(self._pipe.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return False
        self._kept = (self._kept + part)[-KEPT_BYTES:]
        if not part:
            self._loop.remove_reader(self._pipe.fileno())
        return bool(part)

    def close(self) -> str:
        """What was written so far. Does not wait for other processes that have the pipe open."""
        for _ in range(2 * 65536 // CHUNK_BYTES):  # as much as a pipe holds
            if not self._take():
                break
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()
        return self._kept.decode("utf-8", "replace")
