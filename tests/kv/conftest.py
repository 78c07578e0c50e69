"""A bare repository to serve, and clients of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.git import git
from tests.support.kv import Kv, make_clone


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A plain bare repository that takes pushes by its path."""
    path = tmp_path / "served.git"
    git("init", "-q", "--bare", path)
    return path


@pytest.fixture
def new_client(tmp_path: Path, served: Path) -> Callable[..., Kv]:
    """Makes clients of `served`."""
    made: list[Kv] = []

    def make(**options: bool) -> Kv:
        made.append(make_clone(tmp_path / f"client-{len(made)}", str(served), **options))
        return made[-1]

    return make


@pytest.fixture
def kv(new_client: Callable[..., Kv]) -> Kv:
    """One client of `served`."""
    return new_client()
