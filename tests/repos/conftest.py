"""A room for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.git import make_work
from tests.support.room import Room, open_room


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working copy with one commit."""
    return make_work(tmp_path / "work")
