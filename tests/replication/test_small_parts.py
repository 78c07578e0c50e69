"""The small parts: lines over a channel, backoff, answers, the bridge to git, nodes that are confused."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.aio.backoff import SPREAD, Backoff
from stargate_gate.election.port import Member
from stargate_gate.replication.leader.sync_rules import conflict
from stargate_gate.replication.peer.fd_bridge import bridge
from stargate_gate.replication.standby.acks import Acks
from stargate_gate.replication.standby.answers import OnDisk
from stargate_gate.replication.standby.instructions import Send
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import (
    MAX_LINE_BYTES,
    Alive,
    Applied,
    Checked,
    Message,
    MessageError,
    decode,
)

LIMIT_S = 10.0
A, B = "a" * 32, "b" * 32


class Pieces:
    """A channel that delivers given pieces, and keeps what is written. A read takes what is there."""

    def __init__(self, *pieces: bytes) -> None:
        self.given: asyncio.Queue[bytes] = asyncio.Queue()
        self.written: list[bytes] = []
        self.taken = asyncio.Semaphore(1000)
        self.ended = asyncio.Event()
        self.broken = False
        for piece in pieces:
            self.given.put_nowait(piece)

    async def read(self, n: int) -> bytes:
        piece = await self.given.get()
        if piece == b"broken":
            raise ConnectionError("the line is cut")
        assert len(piece) <= n
        return piece

    async def write(self, data: bytes) -> None:
        await self.taken.acquire()
        if self.broken:
            raise ConnectionError("the line is cut")
        self.written.append(data)

    def write_eof(self) -> None:
        self.ended.set()

    def messages(self) -> list[Message]:
        return [decode(line) for line in self.written]


# -- lines ---------------------------------------------------------------------------------------------


@given(
    lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=6),
    cuts=st.lists(st.integers(1, 200), max_size=8),
)
def test_lines_arrive_whole_however_the_stream_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    """Pieces of any size give the same lines, and then the end."""
    stream = b"".join(line + b"\n" for line in lines)
    places = sorted({cut for cut in cuts if cut < len(stream)})
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True) if a < b]

    async def read() -> None:
        reader = LineReader(Pieces(*pieces, b""))
        assert [await reader.line() for _ in lines] == lines
        with pytest.raises(EOFError):
            await reader.line()

    asyncio.run(read())


async def test_a_stream_that_ends_within_a_line_is_an_error() -> None:
    """Half a message counts for nothing."""
    reader = LineReader(Pieces(b"whole\nha", b"lf", b""))
    assert await reader.line() == b"whole"
    with pytest.raises(MessageError, match="in the middle"):
        await reader.line()


async def test_a_line_without_end_is_given_up_at_its_bound() -> None:
    """A peer that never ends its line costs a bounded amount of memory."""
    piece = b"x" * 65536
    channel = Pieces(*[piece] * 40)
    with pytest.raises(MessageError, match="more than"):
        await LineReader(channel).line()
    assert 40 - channel.given.qsize() <= MAX_LINE_BYTES // len(piece) + 1


async def test_a_cancelled_wait_for_a_line_loses_nothing() -> None:
    """What had arrived by then is the beginning of the line that is read later."""
    channel = Pieces(b"one ")
    reader = LineReader(channel)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await reader.line()
    channel.given.put_nowait(b"line\n")
    assert await reader.line() == b"one line"


# -- retry ---------------------------------------------------------------------------------------------


@given(
    st.floats(0.001, 10), st.floats(0.001, 1000), st.integers(-1, 10**6), st.floats(0, 1, exclude_max=True)
)
def test_a_wait_is_positive_and_never_above_its_bound(
    first_s: float, most_s: float, failures: int, chance: float
) -> None:
    """After any number of failures a retry comes, and comes within `most_s`."""
    delay_s = Backoff(first_s, most_s, chance=lambda: chance).delay_s(failures)
    assert 0 < delay_s <= most_s
    assert delay_s >= min(first_s, most_s) * (1 - SPREAD)


def test_waits_double_up_to_the_bound_and_chance_only_shortens_them() -> None:
    """1, 2, 4, 8, 8, …; half of it at the least."""
    assert [Backoff(1, 8, chance=lambda: 0.0).delay_s(n) for n in range(1, 7)] == [1, 2, 4, 8, 8, 8]
    assert Backoff(1, 8, chance=lambda: 1.0).delay_s(3) == 2


# -- acks -----------------------------------------------------------------------------------------------

ON_DISK = OnDisk("all of it")


def test_of_each_repository_only_the_newest_acknowledgement_is_held() -> None:
    """A leader that does not read makes the queue grow with the repositories, not with the changes."""
    acks = Acks(7)
    for seq in (3, 9, 5):
        acks.applied(A, seq, ON_DISK)
    acks.applied(B, 4, ON_DISK)
    assert acks.take() == Send((Applied(7, 9, A), Applied(7, 4, B)), (ON_DISK, ON_DISK))
    assert acks.take() is None


def test_what_is_done_is_said_before_what_it_adds_up_to() -> None:
    """A position never reaches the leader before the changes that it covers."""
    acks = Acks(7)
    acks.alive(9)
    acks.checked(2)
    acks.applied(A, 9, ON_DISK)
    assert acks.take() == Send((Applied(7, 9, A), Checked(7, 2), Alive(7, 9)), (ON_DISK,))


def test_what_is_held_back_is_not_sent_as_nothing() -> None:
    """Else empty messages follow each other as fast as the connection takes them."""
    unsound = {A}
    acks = Acks(7, unsound)
    acks.applied(A, 5, ON_DISK)
    assert acks.take() is None
    unsound.clear()
    assert acks.take() == Send((Applied(7, 5, A),), (ON_DISK,))


# -- bridge --------------------------------------------------------------------------------------------


def _nothing(_: int = 0) -> None:
    """Nobody asks how the bytes get on."""


async def test_the_bridge_passes_both_streams_and_both_ends() -> None:
    """All bytes each way, then the end of each; and it returns."""
    channel, (ours, gits) = Pieces(*[b"d" * 65536] * 40, b""), socket.socketpair()
    gits.setblocking(False)
    with ours, gits:
        task = asyncio.create_task(bridge(channel, ours, _nothing))  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LIMIT_S):
            received = 0
            while data := await loop.sock_recv(gits, 65536):
                received += len(data)
            await loop.sock_sendall(gits, b"u" * 300_000)
            gits.shutdown(socket.SHUT_WR)
            await task
        assert received == 40 * 65536
        assert b"".join(channel.written) == b"u" * 300_000
        assert channel.ended.is_set()


async def test_a_broken_connection_ends_what_git_reads() -> None:
    """git sees an end of file at once, and the caller the reason."""
    channel, (ours, gits) = Pieces(b"some", b"broken"), socket.socketpair()
    gits.setblocking(False)
    with ours, gits:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(bridge(channel, ours, _nothing))  # type: ignore[arg-type]
        async with asyncio.timeout(LIMIT_S):
            assert await loop.sock_recv(gits, 100) == b"some"
            assert await loop.sock_recv(gits, 100) == b""
            with pytest.raises(ConnectionError, match="cut"):
                await task


async def test_a_git_that_has_died_ends_the_bridge_without_an_error() -> None:
    """git's own exit status says what was wrong; the bridge just ends."""
    channel, (ours, gits) = Pieces(*[b"d" * 65536] * 40, b""), socket.socketpair()
    with ours:
        gits.close()
        async with asyncio.timeout(LIMIT_S):
            await bridge(channel, ours, _nothing)  # type: ignore[arg-type]


async def test_the_bridge_holds_nothing_that_the_leader_does_not_take() -> None:
    """While a write waits, no more is read from git: its socket fills, and git waits."""
    channel, (ours, gits) = Pieces(), socket.socketpair()
    channel.taken = asyncio.Semaphore(0)
    gits.setblocking(False)
    with ours, gits:
        task = asyncio.create_task(bridge(channel, ours, _nothing))  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await loop.sock_sendall(gits, b"u" * 50_000_000)
        assert channel.written == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()


# -- two nodes that cannot be told apart ---------------------------------------------------------------


def test_two_nodes_of_one_name_or_one_data_dir_are_told_what_to_do() -> None:
    """A copied data_dir or a name given twice is refused in words; the same node coming back is not."""
    me = Member("node-b", "id-b")
    assert conflict(me, [Member("node-a", "id-a"), me]) is None
    assert conflict(me, []) is None
    assert "node.name" in str(conflict(me, [Member("node-a", "id-a"), Member("node-b", "id-x")]))
    assert "empty data_dir" in str(conflict(me, [Member("node-a", "id-b")]))
