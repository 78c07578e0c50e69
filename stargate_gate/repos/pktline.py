"""pkt-lines, the frames of git's protocol: gitprotocol-common(5). Pure."""

import enum
import re
from typing import TypeAlias

from stargate_gate.printable import printable

HEADER_BYTES = 4
MAX_PAYLOAD_BYTES = 65516  # LARGE_PACKET_DATA_MAX
MAX_PACKET_BYTES = HEADER_BYTES + MAX_PAYLOAD_BYTES


class Special(enum.Enum):
    """Packets without content, whose length has a meaning."""

    FLUSH = b"0000"
    DELIMITER = b"0001"  # protocol v2
    RESPONSE_END = b"0002"  # protocol v2, stateless


Packet: TypeAlias = bytes | Special

FLUSH = Special.FLUSH.value
_LENGTH = re.compile(rb"[0-9a-fA-F]{4}")
_SPECIALS = {int(special.value, 16): special for special in Special}


class PktLineError(ValueError):
    """The received bytes are not pkt-lines."""


def encode(payload: bytes) -> bytes:
    """One data packet.

    Raises:
        ValueError: the payload is longer than MAX_PAYLOAD_BYTES.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a pkt-line takes {MAX_PAYLOAD_BYTES} bytes, not {len(payload)}")
    return b"%04x" % (HEADER_BYTES + len(payload)) + payload


def error_line(message: str) -> bytes:
    """The packet that makes any git client stop with `fatal: remote error: <message>`.

    Control characters become spaces, so that a message stays one line; too long a one is cut.
    """
    text = printable(message, instead=" ")
    return encode(b"ERR " + text.encode()[: MAX_PAYLOAD_BYTES - 4])


class Parser:
    """Divides a stream into packets, however the bytes arrive. It keeps less than one packet.

    After a PktLineError the rest of the stream cannot be read; every later call raises the error again.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._broken: PktLineError | None = None

    @property
    def pending(self) -> bytes:
        """The bytes of a packet that is not complete yet."""
        return bytes(self._held)

    def feed(self, data: bytes) -> list[Packet]:
        """Every packet that `data` completes, in order.

        Raises:
            PktLineError: an invalid length. Packets before it in the same `data` are lost.
        """
        if self._broken is not None:
            raise self._broken
        self._held += data
        packets: list[Packet] = []
        start = 0
        while len(self._held) - start >= HEADER_BYTES:
            length = self._length(bytes(self._held[start : start + HEADER_BYTES]))
            special = _SPECIALS.get(length)
            if special is not None:
                packets.append(special)
                start += HEADER_BYTES
                continue
            if len(self._held) - start < length:
                break
            packets.append(bytes(self._held[start + HEADER_BYTES : start + length]))
            start += length
        del self._held[:start]
        return packets

    def _length(self, header: bytes) -> int:
        try:
            return packet_length(header)
        except PktLineError as error:
            self._broken = error
            raise


def packet_length(header: bytes) -> int:
    """The length of a packet from its first four bytes, which it includes; below 4: a `Special`.

    Raises:
        PktLineError: it is invalid.
    """
    # int(…, 16) alone would accept "+0x1" and "1_2a" as well
    if _LENGTH.fullmatch(header):
        length = int(header, 16)
        if length in _SPECIALS or HEADER_BYTES <= length <= MAX_PACKET_BYTES:
            return length
    raise PktLineError(f"not the length of a pkt-line: {header!r}")
