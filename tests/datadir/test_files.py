"""Small files, and the data_dir itself."""

import errno
import os
from pathlib import Path

import pytest

from stargate_gate.datadir.files import read_json, write_durably, write_json_durably
from stargate_gate.datadir.layout import open_data_dir
from stargate_gate.errors import ConfigurationError
from stargate_gate.formats import IN_STEP


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk does not cost what was there."""
    path = tmp_path / "state"
    write_durably(path, b"old")

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_read_back_and_damage_is_told_from_absence(tmp_path: Path) -> None:
    """No file is None; anything but an object is an error."""
    path = tmp_path / "x.json"
    assert read_json(path, IN_STEP) is None
    write_json_durably(path, {"a": 1}, IN_STEP)
    assert read_json(path, IN_STEP) == {"a": 1}
    for damaged in (b"", b"[]", b'{"a":'):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"."):
            read_json(path, IN_STEP)


def test_a_data_dir_keeps_its_id_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The id is made once; permissions are tightened."""
    root = tmp_path / "deep" / "data"
    first = open_data_dir(root)
    root.chmod(0o755)
    assert open_data_dir(root) == first
    assert root.stat().st_mode & 0o777 == 0o700
    assert open_data_dir(tmp_path / "other").id != first.id


def test_a_damaged_id_is_a_configuration_error(tmp_path: Path) -> None:
    """A node never takes a new identity by itself."""
    datadir = open_data_dir(tmp_path / "data")
    (datadir.state / "data_dir_id").write_text("")
    with pytest.raises(ConfigurationError, match="damaged"):
        open_data_dir(tmp_path / "data")


def test_a_data_dir_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    """A file in the way is one clear problem."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"node\.data_dir"):
        open_data_dir(tmp_path / "file" / "data")


def test_a_folder_with_foreign_things_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Its mode, too: it may be somebody's home, or a web server's root."""
    root = tmp_path / "www"
    root.mkdir(mode=0o755)
    (root / "index.html").write_text("hello")
    with pytest.raises(ConfigurationError, match=r"not empty \(index\.html\)"):
        open_data_dir(root)
    assert root.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in root.iterdir()] == ["index.html"]


@pytest.mark.parametrize("name", ["lost+found", "authorized_keys", "repositories", "state.lost"])
def test_what_may_be_there_before_the_first_start(tmp_path: Path, name: str) -> None:
    """A disk of its own, keys, copied-in repositories, what the runbook puts aside."""
    root = tmp_path / "data"
    (root / name).mkdir(parents=True)
    assert len(open_data_dir(root).id) == 32
    (root / "notes.txt").write_text("once it is a data_dir, it stays one")
    open_data_dir(root)
