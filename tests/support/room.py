"""A data_dir with everything that runs git in it, as a node puts it together."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.datadir.layout import DataDir, open_data_dir
from stargate_gate.datadir.writers import WritersLock
from stargate_gate.repos.hooks import install_hooks
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.store import Store


@dataclass(frozen=True)
class Room:
    """What the rooms above `repos` are given."""

    datadir: DataDir
    processes: GitProcesses
    store: Store
    refs: RefReader


@contextlib.asynccontextmanager
async def open_room(
    root: Path, *, default_branch: str = "main", trash_days: float = 7
) -> AsyncIterator[Room]:
    """Open the data_dir at `root`; at the end every git process is reaped, and none may be left."""
    datadir = open_data_dir(root)
    install_hooks(datadir)

    async def nothing(_paths: frozenset[Path] | None) -> None:
        """Nothing to sweep in an empty data_dir."""

    writers = await WritersLock.open_exclusively_then_share(datadir, nothing)
    processes = GitProcesses(datadir, writers)
    try:
        yield Room(
            datadir,
            processes,
            Store(datadir, processes, default_branch=default_branch, trash_days=trash_days),
            RefReader(processes),
        )
    finally:
        await processes.end_all()
        writers.close()
    assert list(datadir.writers.iterdir()) == []


def entries(path: Path) -> list[str]:
    """The names in that folder, sorted."""
    return sorted(entry.name for entry in path.iterdir())


async def names(store: Store) -> list[str]:
    """The names of all repositories of that store, in the order of its list."""
    return [str(repository.name) for repository in await store.list()]
