"""What is synced, and when: everything at first contact, then what has changed, and nothing twice."""

import os
from pathlib import Path

import pytest

from stargate_gate.repos import durable
from stargate_gate.repos.durable import CLOCK_TICK_NS, FolderSyncs
from tests.support.git import git, make_work

SECOND_NS = 1_000_000_000


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "app.git"
    git("clone", "-q", "--bare", make_work(tmp_path / "work", commits=2), path)
    age(path)
    return path


def age(path: Path) -> None:
    """Nothing there was changed just now, as far as its stamps tell."""
    for folder, _, _ in os.walk(path):
        os.utime(folder, (1, 1))


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    paths: list[str] = []
    monkeypatch.setattr(durable, "fsync_dir", lambda path: paths.append(str(path)))
    return paths


class Clock:
    """The time of day, which can be set, and the steady one."""

    def __init__(self) -> None:
        self.day_ns = 4_000_000_000 * SECOND_NS  # all that is done in this test looks old then
        self.steady_ns = SECOND_NS

    def syncs(self) -> FolderSyncs:
        return FolderSyncs(clock_ns=lambda: self.day_ns, steady_ns=lambda: self.steady_ns)

    def passes(self, ns: int) -> None:
        self.day_ns += ns
        self.steady_ns += ns


def folders_of(path: Path) -> set[str]:
    return {folder for folder, _, _ in os.walk(path) if "/objects/info/" not in folder}


async def test_first_everything_then_only_what_has_changed(bare: Path, synced: list[str]) -> None:
    """An earlier process may have left anything; what it left is acknowledged by this one."""
    syncs = FolderSyncs()
    await syncs.sync(bare)
    wanted = {str(bare), *folders_of(bare / "objects"), *folders_of(bare / "refs")}
    assert set(synced) == wanted
    assert synced[-1] == str(bare)
    assert synced.index(str(bare / "objects")) < synced.index(str(bare / "refs"))


async def test_what_has_not_changed_costs_no_sync(bare: Path, synced: list[str]) -> None:
    """And what has changed costs its own folders."""
    clock = Clock()
    syncs = clock.syncs()
    await syncs.sync(bare)
    synced.clear()
    clock.passes(SECOND_NS)
    await syncs.sync(bare)
    assert synced == []
    os.utime(bare / "refs/heads", ns=(clock.day_ns, clock.day_ns - CLOCK_TICK_NS))
    await syncs.sync(bare)
    assert synced == [str(bare / "refs/heads")]


async def test_a_clock_that_was_set_back_costs_a_whole_sync(bare: Path, synced: list[str]) -> None:
    """What has changed since looks older than the last sync; going forward costs nothing."""
    clock = Clock()
    syncs = clock.syncs()
    await syncs.sync(bare)
    whole = set(synced)
    synced.clear()
    clock.passes(SECOND_NS)
    clock.day_ns += 3600 * SECOND_NS
    await syncs.sync(bare)
    assert synced == []
    clock.day_ns -= SECOND_NS
    await syncs.sync(bare)
    assert set(synced) == whole
    synced.clear()
    clock.passes(SECOND_NS)
    await syncs.sync(bare)
    assert synced == []


async def test_the_quarantine_of_a_push_is_not_complete(bare: Path, synced: list[str]) -> None:
    """Its own push syncs it, once it is."""
    (bare / "objects/tmp_objdir-incoming-x").mkdir()
    await FolderSyncs().sync(bare)
    assert not any("incoming" in folder for folder in synced)
