"""Copies bytes between a channel of the leader's and a socket; git has the socket's other end."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from stargate_gate.aio.tasks import beside, task_group
from stargate_gate.replication.peer.connection import PeerChannel

CHUNK_BYTES = 64 * 1024
GOODBYE_LIMIT_S = 5.0  # for the leader's git to end after ours has all it wants


@contextlib.asynccontextmanager
async def gits_end(channel: PeerChannel, name: str, came: Callable[[int], None]) -> AsyncIterator[int]:
    """A descriptor for git's `fd::` transport, bridged to `channel` while the body runs.

    Left in the ordinary way, it lets the leader's git end by itself. In any case the channel is closed,
    and nothing of it runs any more.
    """
    ours, gits = socket.socketpair()
    with ours:
        async with beside(_bridge_quietly(channel, ours, came), name) as pump:
            try:
                yield gits.fileno()
                gits.close()  # the leader's git sees the end, and ends
                await asyncio.wait({pump}, timeout=GOODBYE_LIMIT_S)
            finally:
                gits.close()
                channel.close()


async def bridge(channel: PeerChannel, end: socket.socket, came: Callable[[int], None]) -> None:
    """Pass bytes both ways until both sides have ended. Each waits for the other: nothing piles up.

    `came` is called with the number of bytes whenever git has taken some of the leader's. The end of what
    one side sends is passed on. A broken channel ends the socket, and so git.

    Raises:
        ConnectionError: the connection to the leader broke; git has been told by an end of file.
    """
    end.setblocking(False)
    async with task_group() as group:
        group.create_task(_down(channel, end, came), name="fetch-down")
        group.create_task(_up(channel, end), name="fetch-up")


async def _down(channel: PeerChannel, end: socket.socket, came: Callable[[int], None]) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await channel.read(CHUNK_BYTES):
            try:
                await loop.sock_sendall(end, data)
            except OSError:  # git has ended, and will say itself why
                return
            came(len(data))
    finally:
        _shut(end, socket.SHUT_WR)


async def _up(channel: PeerChannel, end: socket.socket) -> None:
    while data := await _from_git(end):
        try:
            await channel.write(data)
        except ConnectionError:  # `_down` sees it too, and says it
            _shut(end, socket.SHUT_RD)
            return
    channel.write_eof()


async def _from_git(end: socket.socket) -> bytes:
    """What git has sent; b"" once it has ended.

    A git that finds everything here already ends without having read what was sent to it, and the kernel
    calls that a reset. The leader's git has to be told all the same: it waits for a request.
    """
    try:
        return await asyncio.get_running_loop().sock_recv(end, CHUNK_BYTES)
    except OSError:
        return b""


def _shut(end: socket.socket, how: int) -> None:
    try:
        end.shutdown(how)
    except OSError:
        return  # it is closed already


async def _bridge_quietly(channel: PeerChannel, end: socket.socket, came: Callable[[int], None]) -> None:
    """As `bridge`. If the connection breaks, git gets an end of file, and reports what it lacks."""
    with contextlib.suppress(ConnectionError):
        await bridge(channel, end, came)
