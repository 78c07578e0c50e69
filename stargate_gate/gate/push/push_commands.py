"""What a push asks for, read on its way to git, and refused if no node could do it. Pure.

After git's refs have been shown, a client sends pkt-lines (gitprotocol-pack(5), "Reference Update Request
and Packfile Transfer"; as builtin/receive-pack.c reads them, git 2.39 to 2.55):

    commands     shallow OID | OLD NEW REF, the capabilities behind a NUL | push-cert, with more lines up to
                 push-cert-end, in which commands are lines of text; then a flush-pkt
    options      only with the capability push-options: one a packet, then a flush-pkt
    the pack     whatever comes then

Git does nothing before it has the last of these flush-pkts. So what is refused here has changed nothing:
not a ref, and not a folder for one either, which a name that is too long would leave behind for good.
"""

import enum
import re
from collections.abc import Iterator

from stargate_gate.gate.push.report import REPORT_BAND
from stargate_gate.repos.names import ref_problem
from stargate_gate.repos.pktline import FLUSH, HEADER_BYTES, PktLineError, encode, packet_length

MAX_OPTIONS = 1_000
# Git hands them to its hook as environment variables; with the arguments they may have 2 MiB (execve(2)).
MAX_OPTIONS_BYTES = 512 * 1024
MAX_LINE_BYTES = 64 * 1024  # of a line in a certificate, which may be spread over packets
MAX_NAMED_BYTES = 1024 * 1024  # of the answer to a refused push; refs beyond it are not named in it
_BAND_BYTES = 60_000
_LINE_COST_BYTES = 200  # of a line in that answer, besides the ref's name

# Git takes capital letters in an object id as well.
_COMMAND = re.compile(rb"[0-9a-fA-F]{40,64} [0-9a-fA-F]{40,64} (.+)", re.DOTALL)
_CERTIFICATE = b"push-cert"
_CERTIFICATE_END = b"push-cert-end\n"


class _Part(enum.Enum):
    COMMANDS = enum.auto()
    CERTIFICATE = enum.auto()
    OPTIONS = enum.auto()
    PACK = enum.auto()


class PushCommands:
    """The client's side of one push. `feed` it what the client sends until it is `done` or `refused`.

    problem  why git must get nothing of what was fed last, nor of what follows: the first thing wrong.
             The push is `refused` once all refs of it were read, as far as there is room for their names
    """

    def __init__(self) -> None:
        self._held = bytearray()  # of a packet that is not complete
        self._part = _Part.COMMANDS
        self._capabilities: set[bytes] = set()
        self._refs: list[bytes] = []
        self._named_bytes = 0
        self._line = b""  # of a certificate, as far as it has come
        self._options = 0
        self._options_bytes = 0
        self._broken = False
        self.problem: str | None = None

    @property
    def done(self) -> bool:
        """Whether what comes now is the pack."""
        return self._part is _Part.PACK

    @property
    def refused(self) -> bool:
        """Whether nothing more is to be read before the client is told of the `problem`."""
        if self.problem is None:
            return False
        reads_refs = self._part in {_Part.COMMANDS, _Part.CERTIFICATE}
        return self._broken or not reads_refs or self._named_bytes >= MAX_NAMED_BYTES

    def feed(self, data: bytes) -> None:
        """Read on. What belongs to the pack is left alone."""
        self._held += data
        at = 0
        while not self.done and not self.refused and len(self._held) - at >= HEADER_BYTES:
            try:
                length = packet_length(bytes(self._held[at : at + HEADER_BYTES]))
            except PktLineError:
                self._broken = True
                self._wrong("it is not in git's protocol")
                break
            end = at + max(length, HEADER_BYTES)
            if len(self._held) < end:
                break
            if length < HEADER_BYTES:
                self._end_part()
            else:
                self._take(bytes(self._held[at + HEADER_BYTES : end]))
            at = end
        del self._held[:at]
        if self.done or self.refused:
            self._held.clear()

    def answer(self) -> Iterator[bytes]:
        """A report that says why of each ref, as the client wants it; nothing if it wants none."""
        if not self._capabilities & {b"report-status", b"report-status-v2"}:
            return
        lines = [encode(b"unpack ok\n")]
        reason = (self.problem or "").encode()
        lines += [encode(b"ng " + ref + b" " + reason + b"\n") for ref in self._refs]
        lines.append(FLUSH)
        if not self._capabilities & {b"side-band-64k", b"side-band"}:
            yield from lines
            return
        report = b"".join(lines)
        for start in range(0, len(report), _BAND_BYTES):
            yield encode(REPORT_BAND + report[start : start + _BAND_BYTES])
        yield FLUSH

    def _wrong(self, problem: str) -> None:
        self.problem = self.problem or problem

    def _end_part(self) -> None:
        """A flush-pkt, or another special one: git reads on in the same way after it."""
        if self._part is _Part.OPTIONS:
            self._part = _Part.PACK
            return
        self._end_certificate()
        self._part = _Part.OPTIONS if b"push-options" in self._capabilities else _Part.PACK

    def _take(self, packet: bytes) -> None:
        """A packet of whichever part. Git reads it as a C string: it ends at a NUL."""
        text, nul, behind = packet.partition(b"\0")
        match self._part:
            case _Part.OPTIONS:
                self._take_option(packet)
            case _Part.CERTIFICATE if text == _CERTIFICATE_END:
                self._end_certificate()
                self._part = _Part.COMMANDS
            case _Part.CERTIFICATE:
                *lines, self._line = (self._line + text).split(b"\n")
                for line in lines:
                    self._take_command(line)
                if len(self._line) > MAX_LINE_BYTES:
                    self._broken = True
                    self._wrong("a line of its certificate is too long")
            case _:
                if nul:
                    self._capabilities |= {word.partition(b"=")[0] for word in behind.split()}
                else:
                    text = text.removesuffix(b"\n")
                if text == _CERTIFICATE:
                    self._part = _Part.CERTIFICATE
                else:
                    self._take_command(text)

    def _end_certificate(self) -> None:
        self._take_command(self._line)
        self._line = b""

    def _take_command(self, line: bytes) -> None:
        command = _COMMAND.fullmatch(line)
        if command is None:
            return
        ref = command[1]
        if (problem := ref_problem(ref)) is not None:
            self._wrong(problem)
        if self._named_bytes < MAX_NAMED_BYTES:
            self._refs.append(ref)
        self._named_bytes += len(ref) + _LINE_COST_BYTES

    def _take_option(self, packet: bytes) -> None:
        self._options += 1
        self._options_bytes += len(packet)
        if self._options > MAX_OPTIONS:
            self._wrong(f"it has more than {MAX_OPTIONS} push options")
        elif self._options_bytes > MAX_OPTIONS_BYTES:
            self._wrong(f"its push options have more than {MAX_OPTIONS_BYTES >> 10} KiB together")
        elif b"\0" in packet:
            self._wrong("one of its push options has a zero byte in it")
