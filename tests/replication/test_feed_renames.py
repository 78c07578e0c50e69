"""An operator renames folders on the leader while the full list for a standby is made: nothing is missed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from stargate_gate.replication.wire.messages import ListEnd, ListPart, SnapshotBegin
from stargate_gate.repos import store as store_module
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.repository import Repository, find_all
from tests.support.feeds import APP_ID, C, House, Standby, opened

IDS = {"a/first": "1" * 32, "org/app": APP_ID, "org/lib": "2" * 32, "z/last": "3" * 32}
ONE = (("org/app", "org/renamed"),)
INTO_WHAT_WAS_LISTED = (("org/app", "a/app"),)
SWAP = (("org/app", "aside"), ("z/last", "org/app"), ("aside", "z/last"))
CHAIN = (("z/last", "free"), ("org/lib", "z/last"), ("org/app", "org/lib"), ("a/first", "org/app"))
NAMESPACE = (("org", "org2"),)

Moves = tuple[tuple[str, str], ...]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path, "sync") as one:
        for name, identity in IDS.items():
            await one.room.store.create(parse_repository_name(name), id=identity)
        await one.push()
        yield one


def move(root: Path, moves: Moves) -> None:
    """As `mv`, one after the other. A repository's folder has the suffix, a folder of them has not."""
    for one, other in moves:
        suffix = ".git" if (root / f"{one}.git").exists() else ""
        (root / f"{one}{suffix}").rename(root / f"{other}{suffix}")


async def listed(standby: Standby) -> set[str]:
    """The ids in the full list that the standby gets."""
    ids: set[str] = set()
    count = 0
    while isinstance(message := await standby.pipe.hear(ListPart, ListEnd), ListPart):
        ids |= {one.id for one in message.repositories}
        count += len(message.repositories)
    assert isinstance(message, ListEnd)
    assert message.count == count
    return ids


async def name_of(house: House) -> str:
    """What the standby is told that asks for the repository by its id."""
    begin = (await house.refs())[0]
    assert isinstance(begin, SnapshotBegin)
    return str(begin.name)


@pytest.mark.parametrize(
    ("moves", "name"),
    [
        (ONE, "org/renamed"),
        (INTO_WHAT_WAS_LISTED, "a/app"),
        (SWAP, "z/last"),
        (CHAIN, "org/lib"),
        (NAMESPACE, "org2/app"),
    ],
)
async def test_what_is_renamed_after_the_search_is_in_the_list(
    house: House, moves: Moves, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found under one name and looked up under it when it has another: the list names its id."""
    store = house.room.store
    search = store.list

    async def search_and_move() -> list[Repository]:
        found = await search()
        monkeypatch.undo()
        await asyncio.to_thread(move, store.root, moves)
        return found

    monkeypatch.setattr(store, "list", search_and_move)
    assert await listed(house.join()) == set(IDS.values())
    assert await name_of(house) == name


async def test_what_the_search_misses_under_both_names_is_in_the_list(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved into a folder that was searched already, out of one that is searched later."""
    root = house.room.store.root

    def walk(below: Path, skipped: Callable[[str, str], None]) -> Iterator[Repository]:
        for repository in find_all(below, skipped):
            if str(repository.name) == "a/first":
                monkeypatch.undo()
                move(root, INTO_WHAT_WAS_LISTED)
            yield repository

    monkeypatch.setattr(store_module, "find_all", walk)
    assert await listed(house.join()) == set(IDS.values())
    assert await name_of(house) == "a/app"


async def test_a_search_for_another_repository_does_not_hide_one_that_is_moved(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search just now has missed it, because it was moved then: it is searched for once more."""
    store = house.room.store
    walks = 0

    def walk(below: Path, skipped: Callable[[str, str], None]) -> Iterator[Repository]:
        nonlocal walks
        walks += 1
        last = walks == 2
        for repository in find_all(below, skipped):
            if last and str(repository.name) == "a/first":
                move(store.root, INTO_WHAT_WAS_LISTED)
            yield repository

    monkeypatch.setattr(store_module, "find_all", walk)
    assert await store.by_id("f" * 32, search=True) is None
    assert await name_of(house) == "a/app"


async def test_what_was_moved_away_is_asked_for_once(house: House) -> None:
    """No folder has it any more: a standby is told so, and the next list is without it."""
    root = house.room.store.root
    (root / "org" / "app.git").rename(root.parent / "elsewhere")
    assert await listed(house.join()) == set(IDS.values())
    await house.refs()
    assert await listed(house.join(C)) == set(IDS.values()) - {APP_ID}
