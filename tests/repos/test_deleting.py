"""A deleted repository goes to the trash as a whole, and stays there for its days."""

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stargate_gate.datadir.files import read_json
from stargate_gate.errors import (
    NoSuchRepositoryError,
)
from stargate_gate.formats import TRASH
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from tests.support.git import bare_copy, git
from tests.support.room import Room, entries, names

A = RepositoryName("a")


async def test_a_deleted_repository_is_in_the_trash_with_its_story(room: Room, work: Path) -> None:
    """Whole, beside a file with name, id and time; the empty folders above it are gone."""
    path = bare_copy(work, room.datadir.repositories / "org/team/app.git")
    repository = await room.store.require(parse_repository_name("org/team/app"))
    identity = repository.id()
    await room.store.create(RepositoryName("org/other"))
    await room.store.delete(repository.name)
    assert not path.exists()
    assert entries(room.datadir.repositories / "org") == ["other.git"]
    (entry,) = room.datadir.trash.iterdir()
    assert entry.name.endswith(f"Z-{identity}")
    about = read_json(entry / "about.json", TRASH)
    assert about is not None
    assert (about["name"], about["id"]) == ("org/team/app", identity)
    assert datetime.now(UTC) - datetime.fromisoformat(about["deleted_at"]) < timedelta(minutes=1)
    assert git("rev-parse", "main", cwd=entry / "org/team/app.git")
    with pytest.raises(NoSuchRepositoryError):
        await room.store.delete(repository.name)
    again, created = await room.store.ensure(repository.name)
    assert created
    assert again.id() != identity


async def test_one_of_many_deletions_wins(room: Room) -> None:
    """The others hear that there is none."""
    await room.store.create(A)
    results = await asyncio.gather(*(room.store.delete(A) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, NoSuchRepositoryError) for result in results) == 4
    assert len(list(room.datadir.trash.iterdir())) == 1


async def test_damaged_repositories_can_be_deleted(room: Room, work: Path) -> None:
    """Also one that was never adopted."""
    path = bare_copy(work, room.datadir.repositories / "a.git")
    (path / "config").write_text("[core\n")
    await room.store.delete(A)
    assert len(list(room.datadir.trash.iterdir())) == 1


async def test_a_deletion_that_fails_leaves_the_repository(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no empty entry in the trash."""
    await room.store.create(A)

    def refuse(self: Path, _target: Path) -> Path:
        if self.name == "a.git":
            raise OSError("disk")
        return self

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(OSError, match="disk"):
            await room.store.delete(A)
    assert await names(room.store) == ["a"]
    assert list(room.datadir.trash.iterdir()) == []


async def test_the_trash_is_kept_for_its_days(room: Room) -> None:
    """Then it is emptied, read-only files and strange entries included; the rest stays."""
    for name in ("a", "b"):
        await room.store.create(RepositoryName(name))
    await room.store.delete(A)
    (room.datadir.trash / "strange").mkdir()
    for folder in room.datadir.trash.glob("*/a.git/objects"):
        (folder / "x").touch()
        (folder / "x").chmod(stat.S_IRUSR)
    now = datetime.now(UTC)
    assert await room.store.empty_trash(now) == []
    assert await room.store.empty_trash(now + timedelta(days=6.9)) == []
    await room.store.delete(RepositoryName("b"))
    assert await room.store.empty_trash(now + timedelta(days=7.1)) == ["a", "b", "strange"]
    assert list(room.datadir.trash.iterdir()) == []


async def test_what_was_rescued_stays_in_the_trash_and_is_found_there(room: Room) -> None:
    """Whatever its age, until nobody wants it any more."""
    kept, gone = [
        (await room.store.create(parse_repository_name(name))).id() for name in ("org/kept", "gone")
    ]
    for name in ("org/kept", "gone"):
        await room.store.delete(parse_repository_name(name))
    room.store._must_stay = kept.__eq__
    later = datetime.now(UTC) + timedelta(days=1000)
    assert await room.store.empty_trash(later) == ["gone"]
    found = await room.store.in_trash(kept)
    assert found is not None
    assert (str(found.name), found.id()) == ("org/kept", kept)
    assert await room.store.in_trash(gone) is None
    room.store._must_stay = lambda _: False
    assert await room.store.empty_trash(later) == ["org/kept"]
