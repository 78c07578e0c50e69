"""The pumps of a push: git's advertisement and git's report wait for the sync set.

    git starts ─ advertisement captured ─ vouched for ─ released ─┐
    ┌─ the client's first bytes ─ noted as a write ─ given to git ┘  its commands are looked at on their way
    └─ progress passes ─ the report is held ─ git exits ─ (settled and vouched for by the caller) ─ released

Standard error and the silence limit are as in relay.py, but no waiting for the sync set is silence.
"""

import asyncio
from pathlib import Path
from typing import Protocol

from stargate_gate.errors import TryAgainError, UnavailableError, UsageError
from stargate_gate.gate.ports import Channel
from stargate_gate.gate.push.advertisement import Advertisement, AdvertisementTooLongError
from stargate_gate.gate.push.push_commands import PushCommands
from stargate_gate.gate.push.report import (
    BAND_PAYLOAD_BYTES,
    MAX_REPORT_BYTES,
    PROGRESS_BAND,
    Report,
    ReportTooLongError,
)
from stargate_gate.gate.relay import CHUNK_BYTES, SILENCE_LIMIT_S, Pumps
from stargate_gate.repos.pktline import FLUSH, HEADER_BYTES, encode
from stargate_gate.repos.process import GitProcess

UNKNOWN = "outcome unknown"
TOO_LONG = f"its report is longer than {MAX_REPORT_BYTES >> 20} MB: push fewer refs at a time"


class Witness(Protocol):
    """Who is asked at the turning points of a push."""

    async def advertised(self) -> None:
        """Git has read its refs: returns when what it read may be shown to the client.

        Raises:
            StargateError: it may not; git is ended.
        """

    async def writing(self) -> None:
        """The client wants something: returns when git may have it.

        Raises:
            StargateError: it may not; git is ended.
        """

    def given(self, data: bytes) -> None:
        """Git is about to get `data` of the client's."""


class Answer:
    """What git has to say of a push, until it may be said. `release` or `revise` it.

    The first of the two to be called counts, even if it is cancelled: a client that has got some of
    git's own report gets nothing that contradicts it.
    """

    def __init__(self) -> None:
        self.report = Report()
        self.quiet = False  # the client wants no lines of progress (`git push -q`)

    async def remark(self, channel: Channel, line: str, *, on_stderr: bool = True) -> None:
        """Say it to the pusher before the report: in side band 2, else on stderr if that is wanted too."""
        text = f"{line}\n".encode()
        if self.report.banded:
            await channel.write(encode(PROGRESS_BAND + text[: BAND_PAYLOAD_BYTES - 1]))
        elif on_stderr:
            await channel.write_error(text)

    async def release(self, channel: Channel) -> None:
        """The sync set has it: send what git wrote."""
        for chunk in self.report.released():
            await channel.write(chunk)

    async def revise(self, channel: Channel, reason: str) -> None:
        """Nobody vouches for it: say so of each ref."""
        for chunk in self.report.rewritten(f"{reason}; {UNKNOWN}"):
            await channel.write(chunk)


class PushPumps(Pumps):
    """As `Pumps`, for git-receive-pack; `run` raises what `witness` raises, too.

    A long list of refs is kept in a file in the folder `spill` until it may be shown.
    When `run` returns or raises, `answer` holds git's report, as far as there is one.
    """

    def __init__(
        self,
        process: GitProcess,
        channel: Channel,
        witness: Witness,
        answer: Answer,
        spill: Path,
        *,
        silence_limit_s: float = SILENCE_LIMIT_S,
    ) -> None:
        super().__init__(process, channel, silence_limit_s)
        self._witness = witness
        self._report = answer.report
        self._said = answer
        self._spill = spill
        self._shown = asyncio.Event()
        self._commands = PushCommands()

    async def _feed(self, first: bytes = b"") -> None:
        """Nothing is read before git's refs are shown: a client speaks after that.

        Git reads commands up to a flush-pkt. A client that begins with one has none, and nothing of
        what follows is a command: it writes nothing. Neither do less than four bytes.
        """
        await self._shown.wait()
        lead = first
        while len(lead) < HEADER_BYTES and (data := await self._channel.read(CHUNK_BYTES)):
            self._moved()
            lead += data
        self._said.quiet = wants_quiet(lead)
        if len(lead) >= HEADER_BYTES and not lead.startswith(FLUSH):
            with self._patient():
                await self._witness.writing()
        await super()._feed(lead)

    def _checked(self, data: bytes) -> bytes:
        """Nothing of a push that is refused, once that is known: git has done nothing by then."""
        commands = self._commands
        if not commands.done:
            commands.feed(data)
            if commands.refused:
                for part in commands.answer():
                    self._report.feed(part)
                raise UsageError(f"push refused: {commands.problem}; nothing was changed")
        return b"" if commands.problem is not None else data

    def _giving(self, data: bytes) -> None:
        self._witness.given(data)

    async def _answer(self) -> None:
        await self._take(await self._advertise())
        while data := await self._process.stdout.read(CHUNK_BYTES):
            self._moved()
            await self._take(data)

    async def _advertise(self) -> bytes:
        """Capture, have it vouched for, show; what came after it is returned.

        Git that ends before its flush-pkt has shown nothing that a client could believe, so that
        passes as it is.
        """
        advertisement = Advertisement(self._spill)
        try:
            rest = await self._capture(advertisement)
            if advertisement.complete:
                with self._patient():
                    await self._witness.advertised()
            async for chunk in advertisement.chunks():
                await self._send(chunk)
        finally:
            advertisement.close()
        self._shown.set()
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

    async def _take(self, data: bytes) -> None:
        try:
            passing = self._report.feed(data)
        except ReportTooLongError as error:
            raise TryAgainError(f"{TOO_LONG}; {UNKNOWN}") from error
        if passing:
            await self._send(passing)


def wants_quiet(lead: bytes) -> bool:
    """Whether the client's first command asks for quiet: gitprotocol-capabilities(5)."""
    try:
        length = int(lead[:HEADER_BYTES], 16)
    except ValueError:
        return False
    capabilities = lead[HEADER_BYTES:length].partition(b"\0")[2]
    return b"quiet" in capabilities.split()
