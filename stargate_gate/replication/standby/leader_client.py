"""What a standby asks of the leader about one repository: its refs, and its objects."""

import asyncio

from stargate_gate.errors import UnavailableError
from stargate_gate.replication.peer.connection import Peer, PeerChannel
from stargate_gate.replication.standby.answers import LeaderCannotReadError, LeaderRepository
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import (
    Gone,
    MessageError,
    OfRefs,
    RefsPart,
    SnapshotBegin,
    SnapshotEnd,
    Unreadable,
    decode,
    out_of_place,
)
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.snapshot import RefSnapshot

SILENCE_LIMIT_S = 150.0  # while the leader reads refs; it allows itself 120 s for one repository


class AskedLeader:
    """Implements `step_runner.Leader` over a connection. What is of another term than `term` is refused."""

    def __init__(self, peer: Peer, term: int) -> None:
        self._peer = peer
        self._term = term

    async def repository(self, identity: str) -> LeaderRepository | Gone:
        """As `step_runner.Leader`. Nothing is believed of an answer that is not complete."""
        channel = await self._peer.open(f"stargate-refs {identity}")
        try:
            return await self._receive(identity, LineReader(channel))
        except MessageError as error:
            raise UnavailableError(f"the leader's refs cannot be read: {error}") from error
        except EOFError as error:
            reason = channel.stderr or "the answer is not complete"
            raise UnavailableError(f"the leader does not tell the refs: {reason}") from error
        except TimeoutError as error:
            raise UnavailableError("the leader does not tell the refs in time") from error
        finally:
            channel.close()

    async def upload_pack(self, name: RepositoryName) -> PeerChannel:
        """As `step_runner.Leader`."""
        return await self._peer.open(f"git-upload-pack '{name}'", git_protocol="version=2")

    async def _receive(self, identity: str, lines: LineReader) -> LeaderRepository | Gone:
        begin = await self._next(lines)
        if isinstance(begin, Gone) and begin.id == identity:
            return begin
        if isinstance(begin, Unreadable) and begin.id == identity:
            raise LeaderCannotReadError(begin.name, begin.reason, begin.last)
        if not isinstance(begin, SnapshotBegin) or begin.id != identity:
            raise out_of_place(begin)
        refs: dict[str, str] = {}
        while isinstance(part := await self._next(lines), RefsPart):
            refs.update(part.refs)
            await asyncio.sleep(0)  # all of it may be here already, and others want their turn
        if not isinstance(part, SnapshotEnd):
            raise out_of_place(part)
        if part.count != len(refs):
            raise MessageError(f"{len(refs)} refs have come, and {part.count} were announced")
        snapshot = RefSnapshot(begin.object_format, begin.head, refs, frozenset(part.broken))
        return LeaderRepository(begin.id, begin.name, snapshot, begin.seq)

    async def _next(self, lines: LineReader) -> OfRefs:
        async with asyncio.timeout(SILENCE_LIMIT_S):
            message = decode(await lines.line())
        if not isinstance(message, OfRefs):
            raise out_of_place(message)
        if message.term != self._term:
            raise MessageError(f"it is of term {message.term}, and this mirror follows term {self._term}")
        return message
