"""Messages over a channel, one a line, of bounded size."""

from stargate_gate.replication.ports import Channel
from stargate_gate.replication.wire.messages import MAX_LINE_BYTES, MessageError

CHUNK_BYTES = 64 * 1024


class LineReader:
    """Cuts what a channel delivers into lines. For one task at a time; a cancelled `line` loses nothing."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._held = bytearray()
        self._looked_at = 0

    async def line(self) -> bytes:
        """The next line, without its end.

        Raises:
            EOFError: the other side has ended the stream between two lines.
            MessageError: a line that is too long, or that the stream ends in.
            ConnectionError: the other side is gone.
        """
        while (end := self._held.find(b"\n", self._looked_at)) < 0:
            self._looked_at = len(self._held)
            if len(self._held) > MAX_LINE_BYTES:
                raise MessageError(f"a line of more than {MAX_LINE_BYTES} bytes")
            data = await self._channel.read(CHUNK_BYTES)
            if not data and self._held:
                raise MessageError("the stream ended in the middle of a line")
            if not data:
                raise EOFError("the stream has ended")
            self._held += data
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        self._looked_at = 0
        return line
