"""What the scrub knows survives a restart; a damaged file costs only checks."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.errors import NewerFormatError
from stargate_gate.formats import RUNNING, SCRUB
from stargate_gate.repos.names import RepositoryName
from stargate_gate.scrub.progress import FILE_NAME, Progress, RunningMark, note_unclean_end
from stargate_gate.scrub.schedule import Entry
from tests.support.room import Room

NOW = 1_000_000_000.0


def entry(key: str, **values: object) -> Entry:
    """Of a repository that is called as its key."""
    return Entry(key, key, seen=1.0, verified=NOW, tried=NOW, result="sound", **values)  # type: ignore[arg-type]


def test_the_last_fact_counts_and_the_file_stays_small(tmp_path: Path) -> None:
    """Thousands of checks of three copies."""
    path = tmp_path / FILE_NAME
    progress = Progress.open(path)
    for number in range(4000):
        progress.put([entry(f"k{number % 3}", folder=number)])
    progress.forget(["k0"])
    again = Progress.open(path)
    assert again.entries == {"k1": entry("k1", folder=3997), "k2": entry("k2", folder=3998)}
    assert path.read_bytes().count(b"\n") < 1100
    assert path.read_bytes().startswith(SCRUB.header)


def test_damaged_lines_are_left_out_and_the_file_is_written_anew(tmp_path: Path) -> None:
    """A line that is cut, one with a wrong bit, one that is no line: the others count."""
    path = tmp_path / FILE_NAME
    Progress.open(path).put([entry("a"), entry("b")])
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content) + b"\0\0\0\nhalf a li")
    with capture_logs() as logs:
        progress = Progress.open(path)
    assert [one["event"] for one in logs] == ["scrub_progress_damaged"]
    assert list(progress.entries) == ["a"]
    progress.put([entry("c")])
    assert list(Progress.open(path).entries) == ["a", "c"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """And the file is not changed."""
    path = tmp_path / FILE_NAME
    path.write_bytes(SCRUB._replace(number=SCRUB.number + 1).header)
    with pytest.raises(NewerFormatError):
        Progress.open(path)


def test_a_disk_that_takes_no_writes_costs_only_the_progress(tmp_path: Path) -> None:
    """It is logged, and the file is written once it can be."""
    path = tmp_path / "none" / FILE_NAME
    with capture_logs() as logs:
        progress = Progress.open(path)
        progress.put([entry("a")])
        path.parent.mkdir()
        progress.put([entry("b")])
    assert [one["event"] for one in logs] == ["scrub_progress_not_written"]
    assert list(Progress.open(path).entries) == ["a", "b"]


async def test_what_was_written_at_an_unclean_end_is_suspect(room: Room) -> None:
    """By the records of the writers; or, after a reboot, by when a folder was changed last."""
    datadir, state = room.datadir, room.datadir.state
    one = await room.store.create(RepositoryName("org/one"))
    note_unclean_end(datadir, frozenset({one.path}), NOW)
    assert not (state / FILE_NAME).exists(), "no node ran before this one"
    note_unclean_end(datadir, frozenset({one.path, datadir.repositories / "gone.git"}), NOW)
    found = Progress.open(state / FILE_NAME)
    assert {key: known.suspect for key, known in found.entries.items()} == {one.id(): 1}
    assert found.unclean is None
    note_unclean_end(datadir, None, NOW + 50)
    assert Progress.open(state / FILE_NAME).unclean == NOW - 600
    RunningMark(datadir).clear()
    (state / FILE_NAME).unlink()
    note_unclean_end(datadir, None, NOW)
    assert not (state / FILE_NAME).exists(), "the one before was stopped in order"


def test_a_running_mark_that_cannot_be_read_means_that_a_node_ran(room: Room) -> None:
    """Then everything is suspect."""
    path = room.datadir.root / RUNNING.where
    path.write_bytes(b"\0\0")
    note_unclean_end(room.datadir, None, NOW)
    assert Progress.open(room.datadir.state / FILE_NAME).unclean == 0.0
