"""What a data_dir knows of its cluster: on disk before it is acted upon, and never less than before."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from stargate_gate.election.eligibility import Known
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.state import FILE_NAME, ElectionState
from stargate_gate.errors import ConfigurationError, ElectionUnavailableError

A = Member("node-a", "a" * 32)


def record(term: int, cluster_id: str = "cluster") -> ClusterRecord:
    return ClusterRecord(cluster_id, term, 1, A)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def test_a_new_data_dir_knows_nothing_and_looking_makes_no_file(path: Path):
    """Reading is not joining."""
    assert ElectionState(path).known == Known()
    assert not path.exists()


def test_what_was_noted_is_known_after_a_restart(path: Path):
    """Everything, in one file that only its owner reads."""
    state = ElectionState(path)
    state.note(record(3))
    state.reserve(7)
    state.note_checked(3, 40)
    state.note_lock_file((8, 99))
    expected = Known("cluster", 3, 7, 3, 40, (8, 99))
    assert state.known == expected
    assert ElectionState(path).known == expected
    assert path.stat().st_mode & 0o077 == 0


def test_terms_never_go_back(path: Path):
    """An older record, or a smaller reservation, takes nothing back."""
    state = ElectionState(path)
    state.note(record(5))
    state.note(record(4))
    state.reserve(9)
    state.reserve(8)
    assert (state.known.highest_term, state.known.reserved_term) == (5, 9)


def test_the_cluster_that_was_joined_stays(path: Path):
    """Judging a foreign record is `distrust`'s business; noting it joins nothing."""
    state = ElectionState(path)
    state.note(record(1))
    state.note(record(2, "other"))
    assert state.known.cluster_id == "cluster"


def test_only_news_is_noted(path: Path):
    """A standby that reads the record ten times a second does not write ten times a second."""
    state = ElectionState(path)
    assert not state.noted(record(0))
    state.note(record(2))
    assert state.noted(record(2))
    assert state.noted(record(1))
    assert not state.noted(record(3))
    before = path.stat().st_ino
    state.note(record(2))
    assert path.stat().st_ino == before


def test_a_disk_that_fails_leaves_what_was_known(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not noted is not known: whoever acts on it is told not to."""
    state = ElectionState(path)
    state.note(record(2))

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ElectionUnavailableError, match="No space left on device"):
            state.note(record(3))
    assert state.known.highest_term == 2
    assert ElectionState(path).known.highest_term == 2
    state.note(record(3))
    assert ElectionState(path).known.highest_term == 3


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"highest_term": "many"}', '{"cluster_id": 7}', '{"lock_file": [1]}',
     '{"lock_file": {}}', '{"lock_file": 3}', '{"checked_term": []}'],
)  # fmt: skip
def test_a_damaged_file_stops_the_start_and_says_what_to_do(path: Path, content: str):
    """A node that does not know its cluster must not take the next best one for it."""
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="restore the file, or move it away") as raised:
        ElectionState(path)
    assert str(path) in raised.value.message


def test_a_file_of_an_older_version_is_understood(path: Path):
    """Keys that it did not write have their defaults."""
    path.write_text(json.dumps({"cluster_id": "cluster", "highest_term": 3}))
    assert ElectionState(path).known == Known("cluster", 3)


def test_notes_from_two_threads_are_all_kept(path: Path):
    """The elector's thread and the engine's write one file."""
    state = ElectionState(path)
    count = 20

    def reserve() -> None:
        for term in range(1, count + 1):
            state.reserve(term)

    thread = threading.Thread(target=reserve)
    thread.start()
    for term in range(1, count + 1):
        state.note(record(term))
    thread.join(30)
    assert ElectionState(path).known == Known("cluster", count, count)
