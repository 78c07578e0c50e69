"""Moves bytes between a client and a git process. Who may do what is not decided here.

Each direction holds at most one chunk, the pipe and one stream buffer, so a slow side slows the other one.
When `relay` or `PushRelay.run` has returned or raised, the process was reaped.

A fetch is relayed as it is. In a push two things that git says wait until the sync set has them, see
push/acknowledge.py: the list of refs that git shows first, and the report at the end.

    git starts
    -> its list of refs is captured -> wait -> the list is sent
    -> the client's first bytes: `observer.writing` -> given to git, after its commands were checked
    -> progress goes to the client at once, the report is kept
    -> git exits; the caller waits, and then sends the report or a changed one
"""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from stargate_gate.aio.tasks import task_group
from stargate_gate.errors import StargateError, TryAgainError, UnavailableError, UsageError
from stargate_gate.gate.ports import Channel
from stargate_gate.gate.push.advertisement import Advertisement, AdvertisementTooLongError
from stargate_gate.gate.push.commands import PushCommands
from stargate_gate.gate.push.report import (
    BAND_PAYLOAD_BYTES,
    MAX_REPORT_BYTES,
    PROGRESS_BAND,
    Report,
    ReportTooLongError,
)
from stargate_gate.repos.pktline import FLUSH, HEADER_BYTES, encode
from stargate_gate.repos.process import GitProcess

CHUNK_BYTES = 64 * 1024  # the size of a pipe on Linux
# Without a byte in either direction for that long one side hangs. Counting a push's objects takes minutes.
SILENCE_LIMIT_S = 3600.0
LINGER_S = 2.0  # after git has exited, for a child of it that keeps a pipe open
END_GRACE_S = 2.0  # from SIGTERM to SIGKILL; git removes its lock files on SIGTERM
UNKNOWN = "outcome unknown"
TOO_LONG = f"its report is longer than {MAX_REPORT_BYTES >> 20} MB: push fewer refs at a time"


async def relay(process: GitProcess, channel: Channel, *, silence_limit_s: float = SILENCE_LIMIT_S) -> int:
    """Connect `channel` with `process` until git exits; returns its exit status, 128+n for signal n.

    The client's end of file is passed on to git, and git's output still goes to the client. What the client
    sends after git has closed its input is dropped.

    Raises:
        ConnectionError: the client is gone, or has taken nothing for its stall limit.
        TimeoutError: no byte in either direction for `silence_limit_s`.
    """
    return await Relay(process, channel, silence_limit_s).run()


class Relay:
    """One run of `relay`: three tasks forward bytes while the caller waits for git's exit."""

    def __init__(self, process: GitProcess, channel: Channel, silence_limit_s: float) -> None:
        self._process = process
        self._channel = channel
        self._silence_limit_s = silence_limit_s
        self._silence = asyncio.timeout(None)
        self._suspended = 0  # how many waits are going on during which silence is allowed
        self._moves = 0  # chunks that were moved
        self._sending = 0  # chunks that the client has to take
        self._exited = False  # git has, and was reaped

    async def run(self) -> int:
        """Until git has exited and its output was sent. Returns and raises as `relay`."""
        try:
            async with self._silence:
                self._moved()
                status = await self._forward_all()
        finally:
            await self._process.end(END_GRACE_S)
        return status if status >= 0 else 128 - status

    async def _forward_all(self) -> int:
        """Forward until git has exited and its output was sent; git's exit status.

        What a task raises is raised at once. If this call is cancelled (the client is gone, the term is over,
        the node stops), it raises CancelledError, also if the client's end has made a task fail as well.
        """
        async with task_group(expected=(ConnectionError, StargateError)) as group:
            feeding = group.create_task(self._feed(), name="relay-in")
            output = group.create_task(self._forward_output(), name="relay-out")
            errors = group.create_task(self._forward_errors(), name="relay-err")
            status = await self._process.wait()
            self._exited = True
            await self._linger({output, errors})
            for task in (feeding, output, errors):
                task.cancel()
        return status

    async def _feed(self) -> None:
        """As `_forward_input`. Once git has exited, nothing of it matters, not even an error."""
        try:
            await self._forward_input()
        except (ConnectionError, StargateError):
            if not self._exited:
                raise

    async def _linger(self, forwarding: set[asyncio.Task[None]]) -> None:
        """Wait until git's pipes are empty, but not for a child of git that keeps them open and is silent."""
        # After each LINGER_S: go on if something has moved, or if a chunk is on its way to a slow client.
        waiting, moves = forwarding, -1
        while waiting and (self._sending or self._moves != moves):
            moves = self._moves
            _, waiting = await asyncio.wait(waiting, timeout=LINGER_S)

    async def _forward_input(self, first: bytes = b"") -> None:
        """Client to git, beginning with `first`, which was read already. Closes git's input at the end."""
        stdin = self._process.stdin
        takes = True
        data = first or await self._channel.read(CHUNK_BYTES)
        while data:
            self._moved()
            if takes and (allowed := self._check_input(data)):
                self._before_input(allowed)
                try:
                    stdin.write(allowed)
                    await stdin.drain()
                except (BrokenPipeError, ConnectionResetError):
                    takes = False  # the rest is read and dropped, so that the client comes to read the answer
            data = await self._channel.read(CHUNK_BYTES)
        stdin.close()

    def _check_input(self, data: bytes) -> bytes:
        """The part of `data` that git may have. What this raises, `run` raises."""
        return data

    def _before_input(self, data: bytes) -> None:
        """Called right before `data` is given to git."""

    async def _forward_output(self) -> None:
        """Git's stdout to the client."""
        while data := await self._process.stdout.read(CHUNK_BYTES):
            self._moved()
            await self._send(data)

    async def _forward_errors(self) -> None:
        """Git's stderr to the client."""
        while data := await self._process.stderr.read(CHUNK_BYTES):
            self._moved()
            await self._send(data, error=True)

    async def _send(self, data: bytes, *, error: bool = False) -> None:
        send = self._channel.write_error if error else self._channel.write
        self._sending += 1  # stays higher after an error, which ends the relay
        await send(data)
        self._sending -= 1

    @contextlib.contextmanager
    def _silence_allowed(self) -> Iterator[None]:
        """For a wait that has its own limit: it does not count toward the silence limit."""
        self._suspended += 1
        self._silence.reschedule(None)
        try:
            yield
        finally:
            self._suspended -= 1
            self._moved()

    def _moved(self) -> None:
        """Something has moved: the silence limit begins anew."""
        self._moves += 1
        if not self._suspended and not self._silence.expired():
            self._silence.reschedule(asyncio.get_running_loop().time() + self._silence_limit_s)


class PushObserver(Protocol):
    """Is called at the points of a push at which something must be noted or waited for.

    `advertised` and `writing` may raise a StargateError: then git is ended, and `PushRelay.run` raises it.
    """

    async def advertised(self) -> None:
        """Git has read its refs. Returns when they may be shown to the client."""

    async def writing(self) -> None:
        """The client wants to change something. Returns when git may have its commands."""

    def given(self, data: bytes) -> None:
        """`data` of the client is about to be given to git."""


class HeldReport:
    """Git's report about a push, kept until it is known what the client may be told.

    Either `release` or `rewrite` sends it. The first of them to be called counts, even if it is cancelled: a
    client that has got a part of git's own report gets nothing that contradicts it.
    """

    def __init__(self) -> None:
        self.report = Report()
        self.quiet = False  # the client wants no progress (`git push -q`)

    async def send_message(self, channel: Channel, line: str, *, or_stderr: bool = True) -> None:
        """Send a line for people before the report: in side band 2, else on stderr if `or_stderr`."""
        text = f"{line}\n".encode()
        if self.report.banded:
            await channel.write(encode(PROGRESS_BAND + text[: BAND_PAYLOAD_BYTES - 1]))
        elif or_stderr:
            await channel.write_error(text)

    async def release(self, channel: Channel) -> None:
        """The push is acknowledged: send the report as git wrote it."""
        for chunk in self.report.released():
            await channel.write(chunk)

    async def rewrite(self, channel: Channel, reason: str) -> None:
        """The push is not acknowledged: send the report with each ref refused, for `reason`."""
        for chunk in self.report.rewritten(f"{reason}; {UNKNOWN}"):
            await channel.write(chunk)


class PushRelay(Relay):
    """As `Relay`, for git-receive-pack. When `run` returns or raises, `held` has git's report, if any.

    spill  a folder for the file of a long list of refs, which is kept until it may be sent
    """

    def __init__(
        self,
        process: GitProcess,
        channel: Channel,
        observer: PushObserver,
        held: HeldReport,
        spill: Path,
        *,
        silence_limit_s: float = SILENCE_LIMIT_S,
    ) -> None:
        super().__init__(process, channel, silence_limit_s)
        self._observer = observer
        self._held = held
        self._spill = spill
        self._advertised = asyncio.Event()
        self._commands = PushCommands()

    async def _forward_input(self, first: bytes = b"") -> None:
        """Reads nothing before git's refs were sent: a client speaks after that.

        Git reads commands up to a flush-pkt. A client that begins with a flush-pkt has no commands and writes
        nothing, whatever follows. The same is true of a client that sends less than four bytes.
        """
        await self._advertised.wait()
        lead = first
        while len(lead) < HEADER_BYTES and (data := await self._channel.read(CHUNK_BYTES)):
            self._moved()
            lead += data
        self._held.quiet = wants_quiet(lead)
        if len(lead) >= HEADER_BYTES and not lead.startswith(FLUSH):
            with self._silence_allowed():
                await self._observer.writing()
        await super()._forward_input(lead)

    def _check_input(self, data: bytes) -> bytes:
        """Nothing, once the push is known to be refused: git has done nothing by then."""
        commands = self._commands
        if not commands.done:
            commands.feed(data)
            if commands.refused:
                for part in commands.answer():
                    self._held.report.feed(part)
                raise UsageError(f"push refused: {commands.problem}; nothing was changed")
        return b"" if commands.problem is not None else data

    def _before_input(self, data: bytes) -> None:
        self._observer.given(data)

    async def _forward_output(self) -> None:
        await self._forward_report(await self._advertise())
        while data := await self._process.stdout.read(CHUNK_BYTES):
            self._moved()
            await self._forward_report(data)

    async def _advertise(self) -> bytes:
        """Capture git's list of refs, wait until it may be sent, send it. Returns the bytes after it.

        If git ends before the flush-pkt of the list, what it wrote is no list that a client could believe,
        and it is sent as it is.
        """
        advertisement = Advertisement(self._spill)
        try:
            rest = await self._capture(advertisement)
            if advertisement.complete:
                with self._silence_allowed():
                    await self._observer.advertised()
            async for chunk in advertisement.chunks():
                await self._send(chunk)
        finally:
            advertisement.close()
        self._advertised.set()
        return rest

    async def _capture(self, advertisement: Advertisement) -> bytes:
        rest = b""
        while not advertisement.complete and (data := await self._process.stdout.read(CHUNK_BYTES)):
            self._moved()
            try:
                rest = await advertisement.feed(data)
            except (AdvertisementTooLongError, OSError) as error:
                raise UnavailableError(
                    "this node has no room for the list of this repository's refs"
                ) from error
        return rest

    async def _forward_report(self, data: bytes) -> None:
        """Send what does not belong to the report, and keep the rest."""
        try:
            passing = self._held.report.feed(data)
        except ReportTooLongError as error:
            raise TryAgainError(f"{TOO_LONG}; {UNKNOWN}") from error
        if passing:
            await self._send(passing)


def wants_quiet(lead: bytes) -> bool:
    """Whether the client's first command has the capability "quiet": gitprotocol-capabilities(5)."""
    try:
        length = int(lead[:HEADER_BYTES], 16)
    except ValueError:
        return False
    capabilities = lead[HEADER_BYTES:length].partition(b"\0")[2]
    return b"quiet" in capabilities.split()
