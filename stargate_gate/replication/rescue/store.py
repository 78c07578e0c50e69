"""Rescued values on disk: data_dir/state/rescued/, one file for each repository that has some.

Order: first the refs that keep the values, then this file, and only then a value is overwritten. A repository
in the trash that has such a file is never removed (`repos/trash.py`).
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import structlog

from stargate_gate.datadir.files import fsync_dir, read_json, write_json_durably
from stargate_gate.formats import RESCUED
from stargate_gate.replication.rescue.values import (
    Rescued,
    RescuedRepository,
    from_json,
    to_json,
)

log = structlog.get_logger()

FOLDER = "rescued"
SUFFIX = ".json"


class Rescues:
    """One per node. Made by `open`; what it tells is from memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._repositories: dict[str, RescuedRepository] = {}
        self._damaged: dict[str, str] = {}  # repository id → what is wrong
        self._turn = asyncio.Lock()

    @classmethod
    def open(cls, folder: Path) -> "Rescues":
        """Read all files in `folder`. Blocks: for a starting node.

        Raises:
            OSError: they cannot be read.
            NewerFormatError: a newer version has written one.
        """
        rescues = cls(folder)
        for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
            identity = path.name.removesuffix(SUFFIX)
            try:
                rescues._repositories[identity] = from_json(read_json(path, RESCUED) or {})
            except ValueError as error:
                log.error("rescued_damaged", path=str(path), error=str(error))  # noqa: TRY400 - no bug of ours
                rescues._damaged[identity] = f"{path} is damaged: {error}"
        return rescues

    @property
    def count(self) -> int:
        """How many values there are. A repository with a damaged file, or kept as a whole, is one."""
        return sum(max(1, len(one.values)) for one in self._repositories.values()) + len(self._damaged)

    @property
    def problems(self) -> tuple[str, ...]:
        """Files that cannot be read, a line each."""
        return tuple(self._damaged.values())

    def has(self, repository_id: str) -> bool:
        """Whether anything of that repository was rescued, so that it must stay."""
        return repository_id in self._repositories or repository_id in self._damaged

    def all(self) -> tuple[RescuedRepository, ...]:
        """By name."""
        return tuple(sorted(self._repositories.values(), key=lambda one: (one.name, one.id)))

    async def add(self, repository_id: str, name: str, more: Iterable[Rescued], *, in_trash: bool) -> None:
        """These are kept: on disk when this returns. Idempotent.

        Raises:
            OSError: it is not on disk; nothing may be overwritten.
        """
        async with self._turn:
            before = self._repositories.get(repository_id)
            if before is None:
                before = RescuedRepository(repository_id, name, (), in_trash=False)
            await self._put(before.with_more(more, in_trash=in_trash))

    async def remove(self, repository_id: str, oid: str) -> None:
        """That value is needed no more; with the last of a repository its file goes.

        Raises:
            OSError: it may come back.
        """
        async with self._turn:
            before = self._repositories.get(repository_id)
            if before is None:
                return
            after = before.without(oid)
            if after.values:
                await self._put(after)
                return
            await asyncio.to_thread(self._unlink, repository_id)
            del self._repositories[repository_id]

    async def _put(self, repository: RescuedRepository) -> None:
        await asyncio.to_thread(self._write, repository)
        self._repositories[repository.id] = repository

    def _write(self, repository: RescuedRepository) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700)
            fsync_dir(self._folder.parent)
        write_json_durably(self._path(repository.id), to_json(repository), RESCUED)

    def _unlink(self, repository_id: str) -> None:
        self._path(repository_id).unlink(missing_ok=True)
        fsync_dir(self._folder)

    def _path(self, repository_id: str) -> Path:
        return self._folder / f"{repository_id}{SUFFIX}"
