"""Adoption: makes a repository that was copied in safe to serve.

    inspect         one that must not be served is refused, with the reason; nothing in it is changed
    config          is replaced by the keys that are allowed (gitconfig.py), under git's lock, and sealed;
                    it then names our hooks and no programs
    folder's name   gets .git at its end

Before all that is done, the repository is not served. The seal is a checksum with a secret key: if somebody
changes the config later, the seal does not fit, and everything is done again. Ids are given by the leader,
not here: see identities.py and `Store`.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

import structlog

from stargate_gate.aio.foreign_files import read_file, reason_of
from stargate_gate.datadir.files import fsync_dir, write_durably
from stargate_gate.datadir.layout import DataDir
from stargate_gate.errors import BrokenRepositoryError, GitFailedError, UnavailableError
from stargate_gate.repos import gitconfig
from stargate_gate.repos.git import git_argv
from stargate_gate.repos.inspection import inspect
from stargate_gate.repos.names import SUFFIX
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.repository import MAX_CONFIG_BYTES, Repository, is_there, leads_away, what_is_wrong

log = structlog.get_logger()

CONFIG_LIMIT_S = 10.0
ID_BYTES = 16
SEAL_KEY = "seal_key"  # in state/
SEAL_KEY_BYTES = 32
CONFIG_MODE = 0o640
KEPT_CONFIG = "config.before-stargate"

Signature: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Adopted:
    """What is known of an adopted repository.

    policy  keys of its config that change what users may do, and that may be missing on other nodes
    """

    signature: Signature
    policy: tuple[str, ...] = ()


def new_id() -> str:
    """A fresh repository id."""
    return secrets.token_hex(ID_BYTES)


class Adoption:
    """Adopts repositories. It remembers those it has seen, by the stat of their config files."""

    def __init__(self, processes: GitProcesses, datadir: DataDir) -> None:
        self._processes = processes
        self._hooks = datadir.hooks
        self._key = seal_key(datadir)
        self._seen: dict[Path, Adopted] = {}
        self._turns: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()
        self._reported: set[tuple[Path, str]] = set()
        self._refused: dict[Path, str] = {}

    @property
    def refused(self) -> Mapping[Path, str]:
        """Folders of repositories that cannot be served → why, from the last attempt to adopt each."""
        return self._refused

    @property
    def policies(self) -> Mapping[Path, tuple[str, ...]]:
        """Folders of repositories → keys of their configs that may be missing on other nodes."""
        return {path: known.policy for path, known in self._seen.items() if known.policy}

    def adopted(self, path: Path) -> Adopted | None:
        """What is known of the adopted repository at `path`; None if it has to be adopted (again).

        Costs a few stat calls if it was seen before.

        Raises:
            OSError: it is gone, or cannot be read.
        """
        if leads_away(path):  # somebody has put such a file there later
            return None
        signature = _signature((path / "config").lstat())
        known = self._seen.get(path)
        if known is not None and known.signature == signature:
            return known
        try:
            config = read_file(path / "config", MAX_CONFIG_BYTES)
        except OSError as error:
            if error.errno == errno.EINVAL:  # it is not a file: `inspect` reports that
                return None
            raise
        if not gitconfig.is_sealed(config, self._hooks, self._key):
            return None
        self._seen[path] = Adopted(signature, gitconfig.local_policy(config))
        self._refused.pop(path, None)
        return self._seen[path]

    def forget_all_but(self, paths: Collection[Path]) -> None:
        """Forget the repositories that are not in `paths`."""
        for path in self._seen.keys() - set(paths):
            del self._seen[path]
        for path in self._refused.keys() - set(paths):
            del self._refused[path]

    async def adopt(self, repository: Repository) -> Repository:
        """Adopt the repository; returns it, because its folder may get another name.

        Idempotent; many tasks may call it at once.

        Raises:
            BrokenRepositoryError: it must not be served as it is, or its config is damaged or gone.
            UnavailableError: its config cannot be read or written now.
        """
        turn = self._turns.setdefault(repository.path, asyncio.Lock())
        async with turn:
            try:
                if self.adopted(repository.path) is not None:
                    return repository
                repository = await self._adopt(repository)
                self.adopted(repository.path)  # notes its policies
            except FileNotFoundError as error:
                if is_there(renamed := _with_suffix(repository.path)) and not is_there(repository.path):
                    return Repository(repository.name, renamed)  # another task did it first
                if (problem := await asyncio.to_thread(_remains_without, repository.path)) is not None:
                    self._report(repository, problem)
                    raise BrokenRepositoryError(
                        f"repository {repository.name} is damaged ({problem}): ask its operator", problem
                    ) from error
                raise self._not_now(repository, error) from error
            except GitFailedError as error:
                self._report(repository, str(error))
                raise BrokenRepositoryError(
                    f"repository {repository.name} is damaged: ask its operator",
                    f"git cannot read its config: {error.message}",
                ) from error
            except OSError as error:
                raise self._not_now(repository, error) from error
        return repository

    def _not_now(self, repository: Repository, error: OSError) -> UnavailableError:
        self._report(repository, str(error))
        return UnavailableError(
            f"repository {repository.name} cannot be served now ({reason_of(error)}): try again later"
        )

    async def _adopt(self, repository: Repository) -> Repository:
        path = repository.path
        if (problem := await asyncio.to_thread(inspect, path)) is not None:
            raise self._refuse(repository, problem)
        content = await asyncio.to_thread(read_file, path / "config", MAX_CONFIG_BYTES)
        if not gitconfig.is_sealed(content, self._hooks, self._key):
            await self._replace_config(repository, content)
        self._refused.pop(path, None)
        return Repository(repository.name, await asyncio.to_thread(_give_suffix, path))

    def _refuse(self, repository: Repository, problem: str) -> BrokenRepositoryError:
        self._report(repository, problem)
        return BrokenRepositoryError(f"repository {repository.name} cannot be served: {problem}", problem)

    def _report(self, repository: Repository, error: str) -> None:
        """Log each repository and reason once: repositories are listed every minute."""
        self._refused[repository.path] = error
        if (repository.path, error) not in self._reported:
            self._reported.add((repository.path, error))
            log.warning("repository_not_adopted", repository=str(repository.name), error=error)

    async def _replace_config(self, repository: Repository, before: bytes) -> None:
        argv = git_argv("config", "--file", "-", "--no-includes", "--list", "-z")
        entries = gitconfig.parse_list(await self._processes.run(argv, limit_s=CONFIG_LIMIT_S, input=before))
        if (problem := gitconfig.unsupported(entries)) is not None:
            raise self._refuse(repository, problem)
        after = gitconfig.seal(gitconfig.adopted(entries, self._hooks), self._key)
        await asyncio.to_thread(_replace, repository.path, before, after)
        dropped = sorted(
            {entry.key.decode("utf-8", "replace") for entry in entries if gitconfig.is_dropped(entry)}
        )
        log.info("repository_adopted", repository=str(repository.name), config_dropped=dropped)


def write_fresh_config(path: Path, object_format: str, datadir: DataDir) -> None:
    """Write the config of a new repository at `path`, as adoption would leave it."""
    config = gitconfig.seal(gitconfig.fresh(object_format, datadir.hooks), seal_key(datadir))
    write_durably(path / "config", config, mode=CONFIG_MODE)


def seal_key(datadir: DataDir) -> bytes:
    """The secret key of the seals, made if there is none.

    If the file is lost, every repository is adopted again; nothing else happens.

    Raises:
        OSError: it cannot be read or written.
    """
    path = datadir.state / SEAL_KEY
    if not is_there(path):
        write_durably(path, secrets.token_bytes(SEAL_KEY_BYTES))
    return path.read_bytes()


def _remains_without(path: Path) -> str | None:
    """What the folder at `path` lacks of a repository; None if it is a whole one, or no folder is there."""
    try:
        return what_is_wrong(path) if path.is_dir() else None
    except OSError:
        return None


def _signature(info: os.stat_result) -> Signature:
    return (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _with_suffix(path: Path) -> Path:
    """The path with .git at its end."""
    return path if path.name.endswith(SUFFIX) else path.with_name(path.name + SUFFIX)


def _give_suffix(path: Path) -> Path:
    """Rename the folder `a` of a repository to `a.git`, durably; returns the new path.

    Other nodes create it as `a.git`, and so could have a repository `a/b`. Here that needs the name `a` to be
    free.
    """
    target = _with_suffix(path)
    if target == path or is_there(target):
        return path
    path.rename(target)
    fsync_dir(target.parent)
    log.info("repository_folder_renamed", old=path.name, new=target.name)
    return target


def _replace(path: Path, before: bytes, after: bytes) -> None:
    """Replace the config under git's own lock file, unless it is not `before` any more."""
    lock = path / "config.lock"
    os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, CONFIG_MODE))
    try:
        config = path / "config"
        # Under the lock no git changes it. But it was read before the lock was taken.
        if read_file(config, MAX_CONFIG_BYTES) != before:
            raise OSError(errno.EBUSY, "the config changes while it is being read", str(config))
        kept = path / KEPT_CONFIG
        if not is_there(kept):  # the first one is the original; a second adoption must not replace it
            write_durably(kept, before, mode=CONFIG_MODE)
        write_durably(config, after, mode=CONFIG_MODE)
    finally:
        with contextlib.suppress(FileNotFoundError):
            lock.unlink()
