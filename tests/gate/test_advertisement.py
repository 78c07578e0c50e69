"""The list of refs is kept whole until it may be shown, in little memory."""

import asyncio
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.gate.push.advertisement import Advertisement, AdvertisementTooLongError, FlushFinder
from stargate_gate.repos.pktline import PktLineError
from tests.gate.receive_pack import pkt
from tests.support.small_disk import fill, small_disk

LIST = (
    pkt("version 1\n")
    + pkt("0" * 40 + " refs/heads/a\0report-status\n")
    + pkt("")
    + pkt("x" * 3000)
    + b"0000"
)


async def pass_through(advertisement: Advertisement, stream: bytes, at: list[int]) -> tuple[bytes, bytes]:
    """What it keeps of `stream`, cut at `at`, and what it gives back."""
    rest = b""
    for start, end in pairwise([0, *sorted(at), len(stream)]):
        if advertisement.complete:
            rest += stream[start:end]
        else:
            rest += await advertisement.feed(stream[start:end])
    assert advertisement.complete
    kept = b"".join([chunk async for chunk in advertisement.chunks()])
    advertisement.close()
    return kept, rest


@given(st.lists(st.integers(0, len(LIST) + 7), max_size=30), st.sampled_from([1, 100, 1_000_000]))
def test_it_ends_with_the_first_flush_however_it_arrives(at: list[int], memory_bytes: int) -> None:
    """Bytes after it are returned. What was kept, in memory or in a file, is unchanged."""
    rest = b"0008ok! "[:7]
    with tempfile.TemporaryDirectory() as folder:
        advertisement = Advertisement(Path(folder), memory_bytes=memory_bytes)
        assert asyncio.run(pass_through(advertisement, LIST + rest, at)) == (LIST, rest)
        assert list(Path(folder).iterdir()) == []


def test_a_list_that_breaks_off_is_not_complete() -> None:
    """Wherever it is cut."""
    for end in range(len(LIST)):
        assert FlushFinder().feed(LIST[:end]) is None
    assert FlushFinder().feed(LIST) == len(LIST)


def test_what_is_no_list_is_an_error() -> None:
    """Bytes that are not pkt-lines."""
    with pytest.raises(PktLineError):
        FlushFinder().feed(b"hello world")


async def test_it_is_bounded(tmp_path: Path) -> None:
    """A longer advertisement is an error."""
    advertisement = Advertisement(tmp_path, max_bytes=1000)
    with pytest.raises(AdvertisementTooLongError):
        await advertisement.feed(LIST)
    advertisement.close()


async def test_a_long_one_is_kept_in_a_file_of_the_folder(tmp_path: Path) -> None:
    """A short one is kept in memory and makes no file."""
    folder = tmp_path / "missing"
    short = Advertisement(folder, memory_bytes=len(LIST))
    assert await pass_through(short, LIST, []) == (LIST, b"")
    long = Advertisement(folder, memory_bytes=len(LIST) - 1)
    with pytest.raises(FileNotFoundError):
        await long.feed(LIST)
    long.close()


@pytest.mark.parametrize("packets", [1, 20])
async def test_no_room_is_an_error(tmp_path: Path, packets: int) -> None:
    """It is raised before any of the list is returned: at the write that fails, or at the end of the list."""
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        fill(disk)
        advertisement = Advertisement(disk, memory_bytes=100)
        with pytest.raises(OSError, match="No space left"):
            await advertisement.feed(pkt("x" * 1000) * packets + b"0000")
        advertisement.close()
