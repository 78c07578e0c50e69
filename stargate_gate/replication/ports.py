"""What replication asks of the rest of the node. All protocols, no code."""

from typing import Protocol


class Channel(Protocol):
    """A stream of bytes both ways: the gate's end of a standby's request, or the standby's end of it.

    Every call raises ConnectionError once the other side is gone.
    """

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes; b"" at the end of what the other side sends."""

    async def write(self, data: bytes) -> None:
        """Send; returns when it is on its way and not buffered here."""
