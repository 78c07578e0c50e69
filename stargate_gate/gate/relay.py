"""The pumps between a client and a git process. Knows nothing of who may do what.

Each direction holds at most one chunk, the pipe and one stream buffer: a slow side holds the other
back. However it ends, the process has been reaped when `relay` returns or raises.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from stargate_gate.aio.tasks import finish
from stargate_gate.gate.ports import Channel
from stargate_gate.repos.process import GitProcess

CHUNK_BYTES = 64 * 1024  # the size of a pipe on Linux
SILENCE_LIMIT_S = 3600.0  # no byte either way: a side hangs. Counting the objects of a push takes minutes
LINGER_S = 2.0  # git has exited, but a child of it keeps a pipe open
END_GRACE_S = 2.0  # from SIGTERM to SIGKILL; git removes its lock files on SIGTERM


async def relay(process: GitProcess, channel: Channel, *, silence_limit_s: float = SILENCE_LIMIT_S) -> int:
    """Connect `channel` with `process` until git exits; returns its exit status, 128+n for signal n.

    The client's end of file becomes git's, while git's output goes on. What the client sends after
    git has closed its input is thrown away.

    Raises:
        ConnectionError: the client is gone, or has taken nothing for its stall limit.
        TimeoutError: no byte went either way for `silence_limit_s`.
    """
    return await Pumps(process, channel, silence_limit_s).run()


class Pumps:
    """Three of them; every chunk puts the silence limit off. Good for one `run`; see `relay`."""

    def __init__(self, process: GitProcess, channel: Channel, silence_limit_s: float) -> None:
        self._process = process
        self._channel = channel
        self._silence_limit_s = silence_limit_s
        self._silence = asyncio.timeout(None)
        self._patience = 0
        self._moves = 0
        self._sending = 0

    async def run(self) -> int:
        """Until git has exited and its output is with the client; its status as in `relay`."""
        try:
            async with self._silence:
                self._moved()
                status = await self._pump()
        finally:
            await self._process.end(END_GRACE_S)
        return status if status >= 0 else 128 - status

    async def _pump(self) -> int:
        feeding = asyncio.create_task(self._feed(), name="relay-in")
        output = asyncio.create_task(self._answer(), name="relay-out")
        errors = asyncio.create_task(self._complain(), name="relay-err")
        exited = asyncio.create_task(self._process.wait(), name="relay-wait")
        tasks: set[asyncio.Task[Any]] = {feeding, output, errors, exited}
        try:
            await self._until(exited, tasks)
            await self._linger({output, errors})
            return exited.result()
        finally:
            for task in tasks:
                task.cancel()
            await finish(_settle(tasks))

    async def _until(self, exited: asyncio.Task[int], tasks: set[asyncio.Task[Any]]) -> None:
        """Wait for git's exit; raise at once what a pump raises."""
        waiting = tasks
        while not exited.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _linger(self, pumps: set[asyncio.Task[Any]]) -> None:
        """Wait for what git has left in its pipes; not for a child of it that keeps them open."""
        waiting, moves = pumps, -1
        while waiting and (self._sending or self._moves != moves):
            moves = self._moves
            done, waiting = await asyncio.wait(waiting, timeout=LINGER_S)
            for task in done:
                task.result()

    async def _feed(self, first: bytes = b"") -> None:
        """Client to git, after what was read already; then git's input is closed."""
        stdin = self._process.stdin
        takes = True
        data = first or await self._channel.read(CHUNK_BYTES)
        while data:
            self._moved()
            if takes and (passing := self._checked(data)):
                self._giving(passing)
                try:
                    stdin.write(passing)
                    await stdin.drain()
                except (BrokenPipeError, ConnectionResetError):
                    takes = False
            data = await self._channel.read(CHUNK_BYTES)
        stdin.close()

    def _checked(self, data: bytes) -> bytes:
        """What of it git may have. What this raises, `run` raises."""
        return data

    def _giving(self, data: bytes) -> None:
        """`data` is about to be given to git."""

    async def _answer(self) -> None:
        """Git to the client's stdout."""
        while data := await self._process.stdout.read(CHUNK_BYTES):
            self._moved()
            await self._send(data)

    async def _complain(self) -> None:
        """Git to the client's stderr."""
        while data := await self._process.stderr.read(CHUNK_BYTES):
            self._moved()
            await self._send(data, error=True)

    async def _send(self, data: bytes, *, error: bool = False) -> None:
        send = self._channel.write_error if error else self._channel.write
        self._sending += 1
        await send(data)
        self._sending -= 1

    @contextlib.contextmanager
    def _patient(self) -> Iterator[None]:
        """What waits inside has a limit of its own: the silence limit does not count."""
        self._patience += 1
        self._silence.reschedule(None)
        try:
            yield
        finally:
            self._patience -= 1
            self._moved()

    def _moved(self) -> None:
        self._moves += 1
        if not self._patience and not self._silence.expired():
            self._silence.reschedule(asyncio.get_running_loop().time() + self._silence_limit_s)


async def _settle(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
