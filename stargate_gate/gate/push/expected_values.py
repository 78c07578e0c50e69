"""Which refs a push names, and the value that its client takes each to have now. Pure.

Read from the head of what git-receive-pack is given. Whether git may be given it at all is decided in
push_commands.py, which sees the bytes first.

gitprotocol-pack(5), "Reference Update Request": pkt-lines `old new ref`, the first with capabilities after
a NUL, up to a flush-pkt; `shallow …` lines may stand before them; a `push-cert` stands in their place.
Then come push options and the pack.
"""

from stargate_gate.repos.pktline import HEADER_BYTES, PktLineError, packet_length

MAX_BYTES = 4 * 1024 * 1024  # some 30,000 refs; what a longer list asks for is not remembered
_WORDS = 3


class ExpectedValues:
    """Fed with the client's bytes as they are given to git.

    complete  git may act on the list from now on: its flush-pkt has been given
    expected  ref → the value that the client takes it to have, in hex, zeros for none; None if that is not
              known: the list is too long, is signed, or is none
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.complete = False
        self.expected: dict[bytes, bytes] | None = {}
        self._left = max_bytes
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        """The next bytes; what comes after the flush-pkt is not looked at."""
        if self.complete:
            return
        self._left -= len(data)
        self._held += data
        try:
            while not self.complete and self._take_packet():
                pass
        except PktLineError:
            self._give_up()
        if self._left < 0 and not self.complete:
            self._give_up()

    def _take_packet(self) -> bool:
        if len(self._held) < HEADER_BYTES:
            return False
        length = packet_length(bytes(self._held[:HEADER_BYTES]))
        if length == 0:
            self.complete = True
            self._held.clear()
            return False
        if len(self._held) < length:
            return False
        self._command(bytes(self._held[HEADER_BYTES:length]))
        del self._held[: max(length, HEADER_BYTES)]
        return True

    def _command(self, packet: bytes) -> None:
        line = packet.partition(b"\0")[0].rstrip(b"\n")
        if line.startswith(b"shallow ") or self.expected is None:
            return
        words = line.split(b" ", _WORDS - 1)
        if len(words) != _WORDS or len(words[0]) != len(words[1]) or words[2] in self.expected:
            self.expected = None
            return
        self.expected[words[2]] = words[0].lower()  # git takes capital letters in an object id as well

    def _give_up(self) -> None:
        """From now on anything may happen."""
        self.complete = True
        self.expected = None
        self._held.clear()
