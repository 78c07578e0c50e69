"""An entry of the trash that a newer version has made stays, and is named."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.errors import NewerFormatError
from stargate_gate.formats import TRASH
from stargate_gate.repos.trash import ABOUT, empty_trash, in_trash, was_deleted

ID = "b" * 32


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """An old entry with a deleted repository."""
    entry = tmp_path / f"20200101T000000.000000Z-{ID}"
    for folder in ("objects", "refs"):
        (entry / "gone.git" / folder).mkdir(parents=True)
    for name in ("HEAD", "config"):
        (entry / "gone.git" / name).write_text("ref: refs/heads/main\n")
    about = {"name": "gone", "id": ID, "deleted_at": "2020-01-01T00:00:00+00:00", "deleted": True}
    (entry / ABOUT).write_text(json.dumps(about))
    return entry


def test_an_entry_without_a_number_is_of_version_0_1(entry: Path) -> None:
    """It counts as deleted, can be found, and goes when its days are over."""
    assert was_deleted(entry.parent, ID)
    found = in_trash(entry.parent, ID)
    assert found is not None
    assert empty_trash(entry.parent, timedelta(days=7), datetime.now(UTC)) == ["gone"]
    assert not entry.exists()


def test_an_entry_of_a_newer_version_stays(entry: Path) -> None:
    """Nothing is known of it here, so it is neither removed nor taken for a deletion; others go."""
    about = json.loads((entry / ABOUT).read_text())
    (entry / ABOUT).write_text(json.dumps({**about, "format": TRASH.number + 1}))
    other = entry.with_name(f"20200101T000000.000000Z-{'d' * 32}")
    other.mkdir()
    (other / ABOUT).write_text(json.dumps({**about, "id": "d" * 32}))
    with capture_logs() as logs:
        assert empty_trash(entry.parent, timedelta(days=7), datetime.now(UTC)) == ["gone"]
    assert entry.exists()
    assert not other.exists()
    (line,) = [line for line in logs if line["event"] == "trash_not_emptied"]
    assert f"{ABOUT} has format {TRASH.number + 1}" in line["error"]
    assert "update stargate on this node" in line["error"]
    assert not was_deleted(entry.parent, ID)
    with pytest.raises(NewerFormatError, match="update stargate on this node"):
        in_trash(entry.parent, ID)
