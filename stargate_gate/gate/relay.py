"""The pumps between a client and a git process. Knows nothing of who may do what.

Each direction holds at most one chunk, the pipe and one stream buffer: a slow side holds the other
back. However it ends, the process has been reaped when `relay` returns or raises.
"""

import asyncio
from typing import Any

from stargate_gate.gate.ports import Channel
from stargate_gate.repos.process import GitProcess, finish

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
    try:
        async with asyncio.timeout(silence_limit_s) as silence:
            status = await _Pumps(process, channel, silence, silence_limit_s).run()
    finally:
        await process.end(END_GRACE_S)
    return status if status >= 0 else 128 - status


class _Pumps:
    """Three of them; every chunk puts the silence limit off."""

    def __init__(
        self, process: GitProcess, channel: Channel, silence: asyncio.Timeout, silence_limit_s: float
    ) -> None:
        self._process = process
        self._channel = channel
        self._silence = silence
        self._silence_limit_s = silence_limit_s
        self._moves = 0
        self._sending = 0

    async def run(self) -> int:
        """Until git has exited and its output is with the client."""
        feeding = asyncio.create_task(self._feed(), name="relay-in")
        output = asyncio.create_task(self._drain(self._process.stdout, error=False), name="relay-out")
        errors = asyncio.create_task(self._drain(self._process.stderr, error=True), name="relay-err")
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

    async def _feed(self) -> None:
        """Client to git; then git's input is closed."""
        stdin = self._process.stdin
        takes = True
        while data := await self._channel.read(CHUNK_BYTES):
            self._moved()
            if takes:
                try:
                    stdin.write(data)
                    await stdin.drain()
                except (BrokenPipeError, ConnectionResetError):
                    takes = False
        stdin.close()

    async def _drain(self, stream: asyncio.StreamReader, *, error: bool) -> None:
        """Git to client."""
        send = self._channel.write_error if error else self._channel.write
        while data := await stream.read(CHUNK_BYTES):
            self._moved()
            self._sending += 1
            await send(data)
            self._sending -= 1

    def _moved(self) -> None:
        self._moves += 1
        self._silence.reschedule(asyncio.get_running_loop().time() + self._silence_limit_s)


async def _settle(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
