"""The list of refs is kept whole until it may be shown, in little memory."""

import errno
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.gate.advertisement import Advertisement, AdvertisementTooLongError, FlushFinder
from stargate_gate.repos.pktline import PktLineError
from tests.gate.receive_pack import pkt

LIST = (
    pkt("version 1\n")
    + pkt("0" * 40 + " refs/heads/a\0report-status\n")
    + pkt("")
    + pkt("x" * 3000)
    + b"0000"
)


@given(st.lists(st.integers(0, len(LIST) + 7), max_size=30), st.sampled_from([1, 100, 1_000_000]))
def test_it_ends_with_the_first_flush_however_it_arrives(at: list[int], memory_bytes: int) -> None:
    """Whatever comes after it is given back; in memory or in a file, nothing is changed."""
    stream = LIST + b"0008ok! "[:7]
    advertisement = Advertisement(memory_bytes=memory_bytes)
    edges = [0, *sorted(at), len(stream)]
    rest = b""
    for start, end in pairwise(edges):
        if advertisement.complete:
            rest += stream[start:end]
        else:
            rest += advertisement.feed(stream[start:end])
    assert advertisement.complete
    assert b"".join(advertisement.chunks()) == LIST
    assert rest == stream[len(LIST) :]
    advertisement.close()


def test_a_list_that_breaks_off_is_not_complete() -> None:
    """At no byte before its end."""
    for end in range(len(LIST)):
        assert FlushFinder().feed(LIST[:end]) is None
    assert FlushFinder().feed(LIST) == len(LIST)


def test_what_is_no_list_is_an_error() -> None:
    """Other bytes than pkt-lines."""
    with pytest.raises(PktLineError):
        FlushFinder().feed(b"hello world")


def test_it_is_bounded() -> None:
    """Beyond the limit it is an error."""
    advertisement = Advertisement(max_bytes=1000)
    with pytest.raises(AdvertisementTooLongError):
        advertisement.feed(LIST)
    advertisement.close()


def test_no_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full TMPDIR shows at once."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    advertisement = Advertisement(memory_bytes=100)
    with pytest.raises(OSError, match="No space left"):
        advertisement.feed(LIST)
    advertisement.close()
