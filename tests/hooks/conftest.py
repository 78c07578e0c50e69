"""A data_dir with a repository, and pushes by local path in the pusher's own environment."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stargate_gate.repos.names import parse_repository_name
from tests.support.git import make_work
from tests.support.room import Room, open_room


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
async def repository(room: Room) -> Path:
    return (await room.store.create(parse_repository_name("org/app"))).path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_work(tmp_path / "work")
