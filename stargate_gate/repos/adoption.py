"""Making a repository that was copied in safe to serve: our hooks, and no programs in its config.

Ids are the leader's to give: see identities.py, and `Store`.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

import structlog

from stargate_gate.datadir.files import write_durably
from stargate_gate.errors import GitFailedError, UnavailableError
from stargate_gate.repos import gitconfig
from stargate_gate.repos.git import git_argv
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.repository import Repository

log = structlog.get_logger()

CONFIG_LIMIT_S = 10.0
ID_BYTES = 16
CONFIG_MODE = 0o640
KEPT_CONFIG = "config.before-stargate"

Signature: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Adopted:
    """What is known of an adopted repository."""

    signature: Signature


def new_id() -> str:
    """A fresh repository id."""
    return secrets.token_hex(ID_BYTES)


class Adoption:
    """Adopts repositories, and remembers which it has seen, by the stat of their config files."""

    def __init__(self, processes: GitProcesses, hooks: Path) -> None:
        self._processes = processes
        self._hooks = hooks
        self._seen: dict[Path, Adopted] = {}
        self._turns: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self._reported: set[tuple[Path, str]] = set()

    def adopted(self, path: Path) -> Adopted | None:
        """What is known of the repository at `path`; None if its config is not ours.

        One stat call once it is known.

        Raises:
            OSError: it is gone meanwhile, or cannot be read.
        """
        signature = _signature((path / "config").lstat())
        known = self._seen.get(path)
        if known is not None and known.signature == signature:
            return known
        if not gitconfig.is_sealed((path / "config").read_bytes(), self._hooks):
            return None
        self._seen[path] = Adopted(signature)
        return self._seen[path]

    def forget_all_but(self, paths: Collection[Path]) -> None:
        """Forget repositories that are not among `paths` any more."""
        for path in self._seen.keys() - set(paths):
            del self._seen[path]

    async def adopt(self, repository: Repository) -> None:
        """Give it what it lacks. Harmless when repeated, and by many at once.

        Raises:
            UnavailableError: its config cannot be read or written, so it cannot be served.
        """
        path = repository.path
        turn = self._turns.setdefault(path, asyncio.Lock())
        async with turn:
            try:
                if self.adopted(path) is None:
                    await self._adopt(repository)
            except GitFailedError as error:
                self._report(repository, str(error))
                raise UnavailableError(
                    f"repository {repository.name} is damaged: ask its operator"
                ) from error
            except OSError as error:
                self._report(repository, str(error))
                reason = (error.strerror or str(error)).lower()
                raise UnavailableError(
                    f"repository {repository.name} cannot be served now ({reason}): try again later"
                ) from error

    async def _adopt(self, repository: Repository) -> None:
        path = repository.path
        content = await asyncio.to_thread((path / "config").read_bytes)
        if not gitconfig.is_sealed(content, self._hooks):
            await self._replace_config(repository, content)

    def _report(self, repository: Repository, error: str) -> None:
        """Say it once for each repository and reason: a list is made every minute."""
        if (repository.path, error) not in self._reported:
            self._reported.add((repository.path, error))
            log.warning("repository_not_adopted", repository=str(repository.name), error=error)

    async def _replace_config(self, repository: Repository, before: bytes) -> None:
        config = repository.path / "config"
        argv = git_argv("config", "--file", str(config), "--no-includes", "--list", "-z")
        entries = gitconfig.parse_list(await self._processes.run(argv, limit_s=CONFIG_LIMIT_S))
        unsupported = gitconfig.unsupported(entries)
        if unsupported is not None:
            self._report(repository, unsupported)
            raise UnavailableError(f"repository {repository.name} cannot be served: {unsupported}")
        after = gitconfig.seal(gitconfig.adopted(entries, self._hooks))
        await asyncio.to_thread(_replace, repository.path, before, after)
        dropped = sorted({os.fsdecode(entry.key) for entry in entries if gitconfig.is_dropped(entry)})
        log.info("repository_adopted", repository=str(repository.name), config_dropped=dropped)


def write_fresh_config(path: Path, object_format: str, hooks: Path) -> None:
    """Give the new repository at `path` the config that adoption would give it."""
    write_durably(path / "config", gitconfig.seal(gitconfig.fresh(object_format, hooks)), mode=CONFIG_MODE)


def _signature(info: os.stat_result) -> Signature:
    return (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Replace the config under git's own lock for it, unless it has changed from `before` meanwhile."""
    lock = path / "config.lock"
    os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, CONFIG_MODE))
    try:
        config = path / "config"
        if config.read_bytes() != before:
            raise OSError(errno.EBUSY, "the config changes while it is being read", str(config))
        kept = path / KEPT_CONFIG
        if not kept.exists():
            write_durably(kept, before, mode=CONFIG_MODE)
        write_durably(config, after, mode=CONFIG_MODE)
    finally:
        with contextlib.suppress(FileNotFoundError):
            lock.unlink()
