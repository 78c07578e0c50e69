"""A sync set that holds what a test says, and is late when a test says so."""

import asyncio
from typing import Any

import asyncssh

from stargate_gate.errors import StargateError, TryAgainError
from tests.gate.conftest import Node, connect

LIMIT_S = 20.0
NEVER = 0
ALWAYS = 1_000_000
LATE = "not replicated in time: node-c has not confirmed it; the outcome is unknown"
REASON = "not replicated in time; outcome unknown"


class Replicas:
    """`Ledger.replicas`: returns once `confirm` has come to the position, raises after `fail`."""

    def __init__(self, reached: int = NEVER) -> None:
        self._reached = reached
        self._refusal: StargateError | None = None
        self._waiting: list[tuple[str, int]] = []
        self._changed = asyncio.Condition()

    async def __call__(self, name: str, position: int) -> None:
        async with self._changed:
            self._waiting.append((name, position))
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: self._reached >= position or self._refusal)
            finally:
                self._waiting.remove((name, position))
            if self._reached < position and self._refusal is not None:
                raise self._refusal

    async def confirm(self, position: int = ALWAYS) -> None:
        """All members have everything up to there."""
        async with self._changed:
            self._reached = position
            self._refusal = None
            self._changed.notify_all()

    async def fail(self, refusal: StargateError | None = None) -> None:
        """Whoever waits, and will, is refused."""
        async with self._changed:
            self._refusal = refusal or TryAgainError(LATE)
            self._changed.notify_all()

    async def waited_for(self, position: int = 1, *, by: int = 1) -> None:
        """Return once `by` requests wait for `position` or a later one.

        Raises:
            TimeoutError: nobody does.
        """
        async with asyncio.timeout(LIMIT_S), self._changed:
            await self._changed.wait_for(lambda: sum(at >= position for _, at in self._waiting) >= by)


def sync_set(node: Node, reached: int = NEVER) -> Replicas:
    """Put the node's sync set into the hands of a test."""
    node.ledger.replicas = replicas = Replicas(reached)
    return replicas


async def held_back(node: Node, replicas: Replicas) -> None:
    """The next push, into a repository that is there, gets to see the refs and waits with its report."""
    await replicas.confirm(node.ledger.position + 1)


class RawPush:
    """A client that speaks git-receive-pack by hand, over a connection of its own."""

    def __init__(self, connection: Any, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self.connection = connection
        self.process = process

    async def advertisement(self) -> bytes:
        """All of it."""
        return await asyncio.wait_for(self.process.stdout.readuntil(b"0000"), LIMIT_S)

    async def send(self, data: bytes) -> None:
        """To git."""
        self.process.stdin.write(data)
        await asyncio.wait_for(self.process.stdin.drain(), LIMIT_S)

    async def done(self) -> tuple[int | None, bytes, bytes]:
        """Exit status, the rest of stdout, stderr."""
        done = await asyncio.wait_for(self.process.wait(), LIMIT_S)
        self.connection.abort()
        await self.connection.wait_closed()
        out, err = done.stdout, done.stderr
        assert isinstance(out, bytes)
        assert isinstance(err, bytes)
        return done.exit_status, out, err

    async def die(self) -> None:
        """Without a word."""
        self.connection.abort()
        await self.connection.wait_closed()


async def raw_push(node: Node, key: str = "write") -> RawPush:
    """Ask for git-receive-pack."""
    connection = await connect(node, key)
    return RawPush(connection, await connection.create_process("git-receive-pack org/app", encoding=None))
