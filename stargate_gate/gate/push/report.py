"""Git's answer to a push: progress, which is sent at once, and the report, which is kept. Pure.

What git-receive-pack sends after the client's commands (gitprotocol-pack(5), "Report Status"; seen with git
2.39.5):

    without side band   unpack …, then per ref: ok REF | ng REF why | option … (belongs to the ok before
                        it), then a flush-pkt; or nothing at all, if the client wants no report
    with side band      packets whose first byte is the band. Band 1 carries the same report, itself as
                        pkt-lines and split anywhere; band 2 is progress, band 3 a fatal error; empty
                        packets of band 1 keep the connection alive. At the very end a flush-pkt

Git's own bytes show which of the two forms it is, so the client's capabilities need not be known. A client
believes the report when it has it. So the report is kept here, with everything after it on the same band.
"""

from collections.abc import Iterable, Iterator

from stargate_gate.printable import printable
from stargate_gate.repos.pktline import (
    FLUSH,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Packet,
    Parser,
    PktLineError,
    Special,
    encode,
)

# A line of a report is about as long as its ref's name: enough for a push of some hundred thousand refs.
# The limit is there because reports are kept in memory, for all pushes that run at the same time.
MAX_REPORT_BYTES = 64 * 1024 * 1024
BANDS = frozenset({b"\1", b"\2", b"\3"})
REPORT_BAND = b"\1"
PROGRESS_BAND = b"\2"
CHUNK_BYTES = 64 * 1024  # sent, and parsed, at a time
# The limit of the old "side-band", 1000 bytes with length and band, which every client takes. Git itself uses
# side-band-64k, and answers a client that asks for the old one without side band.
BAND_PAYLOAD_BYTES = 995


class ReportTooLongError(Exception):
    """The report is longer than MAX_REPORT_BYTES. It was dropped."""


class Report:
    """One answer. `feed` it what git writes, cut anywhere; then send `released` or `rewritten`.

    Only those two return lines about refs. The first of them to yield has taken the report; the other one
    is empty then.
    """

    def __init__(self, max_bytes: int = MAX_REPORT_BYTES) -> None:
        self._parser = Parser()
        self._held = bytearray()  # whole packets
        self._max_bytes = max_bytes
        self._ended = False  # git's last flush-pkt is kept: nothing that follows may be sent before it

    @property
    def banded(self) -> bool:
        """Whether the report has a side band. Then band 2 may be sent before it."""
        return bytes(self._held[HEADER_BYTES : HEADER_BYTES + 1]) == REPORT_BAND

    def feed(self, data: bytes) -> bytes:
        """The part of git's answer that may be sent now.

        Raises:
            PktLineError: git-receive-pack does not write this.
            ReportTooLongError
        """
        passing = bytearray()
        for packet in self._parser.feed(data):
            if self._passes(packet):
                passing += _raw(packet)
            else:
                self._hold(packet)
        return bytes(passing)

    def released(self) -> Iterator[bytes]:
        """The report as git wrote it, with an incomplete packet at the end if git died while writing."""
        yield from _slices([self._take()], CHUNK_BYTES)
        if rest := self._parser.pending:
            yield rest

    def rewritten(self, reason: str) -> Iterator[bytes]:
        """The report with each `ok` changed to `ng … reason`. Empty if git has written no report.

        reason  one line. Control characters become spaces.
        """
        banded = self.banded
        held = self._take()
        if not banded:
            lines = (packet for packet in _packets([held]) if _band(packet) is None)
            yield from _slices(map(_raw, _refused(lines, reason)), CHUNK_BYTES)
            return
        nested = _packets(_payloads(held, REPORT_BAND))
        for part in _slices(map(_raw, _refused(nested, reason)), BAND_PAYLOAD_BYTES):
            yield encode(REPORT_BAND + part)
        if self._ended:
            yield FLUSH

    def _passes(self, packet: Packet) -> bool:
        if self._ended or isinstance(packet, Special):
            return False
        band = _band(packet)
        if band is None:
            return not self._held and not packet.startswith(b"unpack ")
        return band != REPORT_BAND or len(packet) == 1

    def _hold(self, packet: Packet) -> None:
        self._ended = self._ended or isinstance(packet, Special)
        self._held += _raw(packet)
        if len(self._held) > self._max_bytes:
            self._take()
            raise ReportTooLongError

    def _take(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        return held


def _band(packet: Packet) -> bytes | None:
    """The band of a packet; None without side band. Lines of a report begin with a letter."""
    return packet[:1] if isinstance(packet, bytes) and packet[:1] in BANDS else None


def _raw(packet: Packet) -> bytes:
    return packet.value if isinstance(packet, Special) else encode(packet)


def _packets(parts: Iterable[bytes]) -> Iterator[Packet]:
    """The complete packets in these bytes, up to and including the first flush-pkt."""
    parser = Parser()
    for part in parts:
        for start in range(0, len(part), CHUNK_BYTES):
            try:
                packets = parser.feed(part[start : start + CHUNK_BYTES])
            except PktLineError:
                return
            for packet in packets:
                yield packet
                if isinstance(packet, Special):
                    return


def _payloads(held: bytes, band: bytes) -> Iterator[bytes]:
    """The payloads that were sent on that band."""
    for packet in _packets([held]):
        if isinstance(packet, bytes) and _band(packet) == band:
            yield packet[1:]


def _slices(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of `size`; the last one may be smaller."""
    rest = bytearray()
    for part in parts:
        rest += part
        while len(rest) >= size:
            yield bytes(rest[:size])
            del rest[:size]
    if rest:
        yield bytes(rest)


def _refused(report: Iterable[Packet], reason: str) -> Iterator[Packet]:
    """The lines of `report`, with each ref refused."""
    refused: bytes | None = None  # the ref of the last ok: proc-receive can report several for one ref
    for packet in report:
        if isinstance(packet, bytes) and packet.startswith(b"ok "):
            ref = packet[3:].rstrip(b"\n")
            if ref != refused:
                yield _ng(ref, reason)
            refused = ref
        elif isinstance(packet, bytes) and packet.startswith(b"option "):
            continue
        else:
            refused = None
            yield packet


def _ng(ref: bytes, reason: str) -> bytes:
    text = printable(reason, instead=" ").encode()
    room = max(0, MAX_PAYLOAD_BYTES - len(ref) - len(b"ng  \n"))
    return b"ng " + ref + b" " + text[:room] + b"\n"
