"""What lies where a repository should be, and is none."""

from pathlib import Path

import pytest

from stargate_gate.repos import repository
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import is_in_the_way
from tests.repos.conftest import Room

APP = RepositoryName("org/app")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_or_a_folder_with_something_in_it_is_in_the_way(tmp_path: Path, kind: str) -> None:
    """An empty folder is not: a repository can come there."""
    place = tmp_path / "app.git"
    assert not is_in_the_way(place)
    if kind == "file":
        place.write_text("x")
    else:
        place.mkdir()
        assert not is_in_the_way(place)
        (place / "x").write_text("x")
    assert is_in_the_way(place)


async def test_a_repository_that_is_moved_away_meanwhile_is_not_in_the_way(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job puts it into the trash: what comes to its place is not damaged for that."""
    path = (await room.store.create(APP)).path
    really = repository.is_repository

    def moved_then_looked_at(place: Path) -> bool:
        place.rename(place.with_name("elsewhere.git"))
        return really(place)

    assert not is_in_the_way(path)
    monkeypatch.setattr(repository, "is_repository", moved_then_looked_at)
    assert not is_in_the_way(path)
    assert not path.exists()
