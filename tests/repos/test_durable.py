"""What is put on disk, and what is not put there twice."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stargate_gate.repos import durable
from stargate_gate.repos.durable import FolderSyncs, sync_everything

HOUR_NS = 3600 * 10**9
ALL = {".", "objects", "objects/aa", "objects/pack", "refs", "refs/heads"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A repository's folders."""
    made = tmp_path / "repositories" / "org" / "app.git"
    for folder in ("objects/aa", "objects/pack", "refs/heads"):
        (made / folder).mkdir(parents=True)
    return made


@pytest.fixture
def synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """The folders of it that were synced since the last call; others as absolute paths."""
    order: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda fd: order.append(Path(f"/proc/self/fd/{fd}").readlink()))

    def take() -> set[str]:
        taken = {str(one.relative_to(path) if one.is_relative_to(path) else one) for one in order}
        order.clear()
        return taken

    return take


class Clock:
    """The clock that can be set, an hour ahead of the kernel's; the one that cannot be set goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set_by_ns = HOUR_NS  # what was made until now is old
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + self.set_by_ns)

    def stamp(self, folder: Path) -> None:
        """As the kernel does when a name in it changes now."""
        now = time.time_ns()
        os.utime(folder, ns=(now, now))


async def test_the_first_time_everything_and_then_what_has_changed(
    path: Path, synced: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the stamps of folders, later than the tick of the clock that stamps them."""
    clock = Clock(monkeypatch)
    folders = FolderSyncs()
    await folders.sync(path)
    assert synced() == ALL
    await folders.sync(path)
    assert synced() == set()
    clock.stamp(path / "refs/heads")
    await folders.sync(path)
    assert synced() == {"refs/heads"}


async def test_a_clock_that_was_set_back_hides_no_change(
    path: Path, synced: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change after the last sync may bear an older stamp: then everything is synced."""
    clock = Clock(monkeypatch)
    folders = FolderSyncs()
    await folders.sync(path)
    synced()
    clock.set_by_ns = 0
    await folders.sync(path)
    assert synced() == ALL


async def test_what_was_settled_counts_until_it_is_distrusted(
    path: Path, synced: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every repository below, also the names of those; after `distrust` all of it anew."""
    monkeypatch.setattr(durable, "sync_file_system", lambda _: False)
    Clock(monkeypatch)
    top = path.parents[1]
    folders = FolderSyncs()
    await folders.settle(top)
    assert synced() == ALL | {str(top), str(path.parent)}
    await folders.settle(top)
    await folders.sync(path)
    assert synced() == set()
    folders.distrust()
    await folders.settle(top)
    assert str(top) in synced()


async def test_what_is_changing_and_was_not_synced_is_settled(
    path: Path, synced: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was cut: its repository, and no other; a repository that is gone is no fault."""
    clock = Clock(monkeypatch)
    folders = FolderSyncs()
    await folders.settle(path.parents[1])
    folders.changing(path)
    folders.changing(path.with_name("gone.git"))
    clock.stamp(path / "refs/heads")
    synced()
    await folders.settle(path.parents[1])
    assert synced() == {"refs/heads"}
    await folders.settle(path.parents[1])
    assert synced() == set()


def test_a_folder_that_cannot_be_listed_is_no_success(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is below it may not be on disk."""
    monkeypatch.setattr(durable, "sync_file_system", lambda _: False)
    real = os.scandir

    def scandir(folder: str) -> object:
        if str(folder).endswith("heads"):
            raise PermissionError(13, "not for you")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        sync_everything(path.parents[1])


async def test_the_quarantine_of_a_push_is_not_complete(path: Path, synced: Callable[[], set[str]]) -> None:
    """Its own push syncs it, once it is."""
    (path / "objects/tmp_objdir-incoming-x/aa").mkdir(parents=True)
    await FolderSyncs().sync(path)
    assert synced() == ALL
