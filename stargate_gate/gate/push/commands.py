"""The commands of a push, read on their way from the client to git. Pure.

After git has shown its refs, a client sends pkt-lines (gitprotocol-pack(5), "Reference Update Request and
Packfile Transfer"; as builtin/receive-pack.c reads them in git 2.39 to 2.55):

    commands     shallow OID | OLD NEW REF, capabilities after a NUL in the first | push-cert, with more
                 lines up to push-cert-end in which commands are lines of text; then a flush-pkt
    options      only with the capability push-options: one in each packet, then a flush-pkt
    the pack     everything after that

`PushCommands` sees the bytes first and refuses a push that no node could carry out. Git does nothing before
it has the last of these flush-pkts. So a push that is refused here has changed nothing: no ref, and no folder
for a ref, which a ref whose name is too long would leave behind for ever.

`ExpectedValues` sees the bytes that git is given, and remembers the value that each ref is to have before the
push. So it can be checked afterwards whether a push that was cut off has changed anything.
"""

import enum
import re
from collections.abc import Iterator

from stargate_gate.gate.push.report import REPORT_BAND
from stargate_gate.repos.names import ref_problem
from stargate_gate.repos.pktline import FLUSH, HEADER_BYTES, PktLineError, encode, packet_length

MAX_OPTIONS = 1_000
# Git passes them to its hook as environment variables, which may have 2 MiB with the arguments (execve(2)).
MAX_OPTIONS_BYTES = 512 * 1024
MAX_LINE_BYTES = 64 * 1024  # of a line in a certificate; it may be spread over several packets
MAX_NAMED_BYTES = 1024 * 1024  # of the answer to a refused push; it does not name refs beyond that
MAX_EXPECTED_BYTES = (
    4 * 1024 * 1024
)  # of a list of commands, some 30,000; the values of more are not remembered
_BAND_BYTES = 60_000
_LINE_COST_BYTES = 200  # of a line in that answer, without the ref's name

_COMMAND_WORDS = 3  # OLD NEW REF
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
    """The commands of one push. `feed` it what the client sends until it is `done` or `refused`.

    problem  the first thing that is wrong. Git must get neither the bytes that were fed last nor any that
             follow. The push is `refused` when all its refs were read, or as many as the answer can name
    """

    def __init__(self) -> None:
        self._held = bytearray()  # a packet that is not complete yet
        self._part = _Part.COMMANDS
        self._capabilities: set[bytes] = set()
        self._refs: list[bytes] = []
        self._named_bytes = 0
        self._line = b""  # the part of a certificate's line that has been read
        self._options = 0
        self._options_bytes = 0
        self._broken = False
        self.problem: str | None = None

    @property
    def done(self) -> bool:
        """Whether the commands are complete: the pack follows."""
        return self._part is _Part.PACK

    @property
    def refused(self) -> bool:
        """Whether the push is refused now: nothing more has to be read for the answer."""
        if self.problem is None:
            return False
        reads_refs = self._part in {_Part.COMMANDS, _Part.CERTIFICATE}
        return self._broken or not reads_refs or self._named_bytes >= MAX_NAMED_BYTES

    def feed(self, data: bytes) -> None:
        """The next bytes from the client. Bytes of the pack are ignored."""
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
        """A report with the problem for each ref, in the client's form; empty if it wants none."""
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
        """A flush-pkt, or another special packet, which git takes in the same way."""
        if self._part is _Part.OPTIONS:
            self._part = _Part.PACK
            return
        self._end_certificate()
        self._part = _Part.OPTIONS if b"push-options" in self._capabilities else _Part.PACK

    def _take(self, packet: bytes) -> None:
        """A packet of the current part. Git reads it as a C string, so it ends at a NUL."""
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


class ExpectedValues:
    """The refs that a push names, and the value that its client expects each to have before the push.

    complete  git may carry out the commands from now on, since it was given their flush-pkt
    expected  ref → that value, in hex; zeros if there must be no such ref. None if the values are not known:
              there are too many commands, they are signed, or this is not a list of commands
    """

    def __init__(self, max_bytes: int = MAX_EXPECTED_BYTES) -> None:
        self.complete = False
        self.expected: dict[bytes, bytes] | None = {}
        self._left = max_bytes
        self._held = bytearray()

    def feed(self, data: bytes) -> None:
        """The next bytes that git is given. Those after the flush-pkt are ignored."""
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
        words = line.split(b" ", _COMMAND_WORDS - 1)
        if len(words) != _COMMAND_WORDS or len(words[0]) != len(words[1]) or words[2] in self.expected:
            self.expected = None
            return
        self.expected[words[2]] = words[0].lower()  # git takes capital letters in an object id as well

    def _give_up(self) -> None:
        """Assume that git may do anything from now on."""
        self.complete = True
        self.expected = None
        self._held.clear()
