"""A standby's ear: the next word of the leader's, within a time."""

import asyncio
from collections.abc import Callable

from stargate_gate.replication.peer.connection import PeerChannel
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import Message, MessageError, decode


class SessionEndedError(Exception):
    """The session is over; the message says why, for operators."""


async def hear(
    channel: PeerChannel, lines: LineReader, limit_s: float, seen_at: Callable[[], float] = lambda: 0.0
) -> Message:
    """The next message. `seen_at` tells when another sign of life came last: the limit counts from there."""
    due = asyncio.get_running_loop().time() + limit_s
    try:
        while True:
            try:
                async with asyncio.timeout_at(due):
                    return decode(await lines.line())
            except TimeoutError:
                if (later := seen_at() + limit_s) <= due:
                    raise SessionEndedError(f"the leader has said nothing for {limit_s:g} s") from None
                due = later
    except EOFError:
        raise SessionEndedError(channel.stderr or "the leader has ended the feed") from None
    except MessageError as error:
        raise SessionEndedError(str(error)) from error
