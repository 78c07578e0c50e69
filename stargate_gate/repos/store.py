"""The repositories of a node: find, create, delete, list. Names become paths here and nowhere else."""

import asyncio
import builtins
import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from stargate_gate.datadir.files import fsync_dir, write_durably
from stargate_gate.datadir.layout import DataDir
from stargate_gate.errors import NoSuchRepositoryError, UnavailableError, UsageError
from stargate_gate.repos import trash
from stargate_gate.repos.adoption import Adopted, Adoption, new_id, write_fresh_config
from stargate_gate.repos.git import git_argv, repository_argv
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import decode_ref, encode_ref
from stargate_gate.repos.process import GitProcesses, finish
from stargate_gate.repos.replacing import finish_replacement, make_place, put_in_place
from stargate_gate.repos.repository import (
    ID_FILE,
    Repository,
    is_remains,
    is_there,
    read_head,
    read_id,
)
from stargate_gate.repos.sweep import NEW_PREFIX
from stargate_gate.repos.walk import candidates, check_folders, locate, walk

log = structlog.get_logger()

__all__ = ["Repository", "Store"]

INIT_LIMIT_S = 20.0
ADOPTIONS_AT_ONCE = 4
FILE_MODE = 0o640
MOVE_ATTEMPTS = 5  # an operator may remove an empty folder just when something is moved into it
REFS_LIMIT_S = 60.0
OBJECT_FORMATS = ("sha1", "sha256")

_SYMBOLIC_HEAD = re.compile(r"ref: refs/[^\x00-\x20\x7f]+")


class Store:
    """Every repository on this node. Safe for many tasks at once; there is one per node."""

    def __init__(
        self,
        datadir: DataDir,
        processes: GitProcesses,
        *,
        default_branch: str,
        trash_days: float,
        must_stay: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`must_stay`, asked with the id of a repository in the trash: whether it stays, whatever its age."""
        self._datadir = datadir
        self._processes = processes
        self._default_branch = default_branch
        self._keep = timedelta(days=trash_days)
        self._must_stay = must_stay
        self._adoption = Adoption(processes, datadir.hooks)
        self._by_name: WeakValueDictionary[RepositoryName, asyncio.Lock] = WeakValueDictionary()
        self._folders = asyncio.Lock()  # held while folders are made for a repository, or removed after one
        self._reported: set[str] = set()

    @property
    def root(self) -> Path:
        """The folder that all of them are below."""
        return self._datadir.repositories

    def find(self, name: RepositoryName) -> Repository | None:
        """The repository of that name, adopted or not yet; a few stat calls.

        Raises:
            UsageError: a part of the name is a repository or a file itself.
            UnavailableError: what is there must not be served, like a link to another place.
        """
        return locate(self._datadir.repositories, name)

    async def require(self, name: RepositoryName) -> Repository:
        """The repository of that name, adopted if it was copied in.

        Raises:
            NoSuchRepositoryError: there is none.
            UsageError, UnavailableError: as `find`; or it is damaged.
        """
        repository = self.find(name)
        if repository is None:
            raise NoSuchRepositoryError(f"no repository {name} on this node")
        await self._adoption.adopt(repository)
        return repository

    async def ensure(self, name: RepositoryName, *, object_format: str = "sha1") -> tuple[Repository, bool]:
        """The repository of that name, and whether it was made now. Many at once get the same one."""
        if self.find(name) is None:
            async with self._one_at_a_time(name):
                if self.find(name) is None:
                    return await self._create(name, object_format, None, None), True
        return await self.require(name), False

    async def create(
        self,
        name: RepositoryName,
        *,
        object_format: str = "sha1",
        head: str | None = None,
        id: str | None = None,  # noqa: A002 - the word in the feed
    ) -> Repository:
        """Make an empty repository, durably: it is there as a whole or not at all.

        head  what HEAD says, if "ref: refs/…"; else the default branch
        id    its id, if it is a copy of another node's; else a fresh one

        Raises:
            UsageError: there is one, or there cannot be one of that name.
            UnavailableError, OSError: it could not be made.
        """
        async with self._one_at_a_time(name):
            if self.find(name) is not None:
                raise _exists(name)
            return await self._create(name, object_format, head, id)

    def remains(self, name: RepositoryName) -> Repository | None:
        """What is left of a repository of that name that is no whole one any more; a few stat calls.

        A folder that has the id of one, or most of its parts: a power cut, or a backup without empty
        folders, takes HEAD or refs/ away. To be taken for a deletion it has too much.
        """
        for path in candidates(self._datadir.repositories, name):
            if is_remains(path):
                return Repository(name, path)
        return None

    async def make_beside(
        self,
        old: Repository,
        *,
        object_format: str,
        head: str | None,
        id: str,  # noqa: A002 - the word in the feed
    ) -> Repository:
        """An empty repository that nobody sees, to take the place of `old`: `take_place` or `discard` it.

        Raises:
            UnavailableError, OSError: it could not be made.
        """
        identity = await asyncio.to_thread(_id_or_fresh, old.path)
        beside = await asyncio.to_thread(make_place, self._datadir.repositories, old.name, identity)
        try:
            await self._init(beside.path, object_format)
            await asyncio.to_thread(
                _furnish, beside.path, object_format, self._datadir.hooks, _line(head), id
            )
        except BaseException:
            await finish(self.discard(beside))
            raise
        return beside

    async def take_place(self, beside: Repository, old: Repository) -> Repository:
        """Put `beside`, complete and on disk, where `old` is, which goes to the trash; where it is now.

        Raises:
            UnavailableError, OSError: all is as it was.
        """
        async with self._one_at_a_time(old.name), self._processes.alone(old.path):
            now, trash_folder = datetime.now(UTC), self._datadir.trash
            await finish(asyncio.to_thread(put_in_place, beside, old.path, trash_folder, now))
        return old

    async def discard(self, beside: Repository) -> None:
        """Remove it; nobody has seen it. Harmless after `take_place`, whatever that has raised."""
        with contextlib.suppress(OSError):  # the next start of the node tries again
            await asyncio.to_thread(
                finish_replacement, beside.path.parent, self._datadir.trash, datetime.now(UTC)
            )

    async def delete(self, name: RepositoryName) -> None:
        """Move the repository to the trash, durably. Empty folders above it go.

        Raises:
            NoSuchRepositoryError: there is none.
        """
        async with self._one_at_a_time(name):
            repository = self.find(name)
            if repository is None:
                raise NoSuchRepositoryError(f"no repository {name} on this node")
            await finish(self._delete(repository))
        log.info("repository_deleted", repository=str(name))

    async def list(self) -> list[Repository]:
        """All repositories, by name. Those copied in are adopted; what cannot be served is reported once."""
        found = await asyncio.to_thread(self._walk)
        slots = asyncio.Semaphore(ADOPTIONS_AT_ONCE)
        served = [repository for repository, known in found if known is not None]

        async def adopt(repository: Repository) -> None:
            async with slots:
                with contextlib.suppress(UnavailableError):  # logged by the adoption
                    await self._adoption.adopt(repository)
                    served.append(repository)

        async with asyncio.TaskGroup() as group:
            for repository, known in found:
                if known is None:
                    group.create_task(adopt(repository))
        await self._separate_copies(found)
        return sorted(served, key=lambda repository: repository.name)

    async def empty_trash(self, now: datetime) -> builtins.list[str]:
        """Remove for good what was deleted more than trash_days before `now`; the names."""
        return await asyncio.to_thread(
            trash.empty_trash, self._datadir.trash, self._keep, now, self._must_stay
        )

    async def in_trash(self, identity: str) -> Repository | None:
        """The repository of that id, as it lies in the trash; the one deleted last, if it is there twice."""
        return await asyncio.to_thread(trash.in_trash, self._datadir.trash, identity)

    async def settle_head(self, repository: Repository) -> str | None:
        """Let HEAD follow the first branch pushed; the new HEAD ("ref: …"), or None if it stays.

        HEAD moves when the branch it names is not there and others are: to the default branch, main or
        master, or else to the first by name. Costs no process while that branch is a loose ref.

        Raises:
            GitFailedError, OSError: HEAD could not be read or changed.
        """
        head = await asyncio.to_thread(_unborn, repository.path)
        if head is None or await self._is_born(repository, head):
            return None
        argv = repository_argv(repository, "for-each-ref", "--format=%(refname)", "refs/heads/")
        output = await self._processes.run(argv, limit_s=REFS_LIMIT_S)
        branches = [decode_ref(line) for line in output.split(b"\n")[:-1]]
        if not branches:
            return None
        wanted = [f"refs/heads/{branch}" for branch in (self._default_branch, "main", "master")]
        target = next((ref for ref in wanted if ref in branches), branches[0])
        argv = repository_argv(repository, "symbolic-ref", "HEAD", os.fsdecode(encode_ref(target)))
        await self._processes.run(argv, limit_s=REFS_LIMIT_S, writes=repository.path)
        log.info("head_follows_first_branch", repository=str(repository.name), head=target)
        return f"ref: {target}"

    async def _is_born(self, repository: Repository, head: str) -> bool:
        """Whether the branch that HEAD names is there, maybe packed."""
        argv = repository_argv(
            repository, "show-ref", "--verify", "--quiet", "--", os.fsdecode(encode_ref(head))
        )
        return (await self._processes.complete(argv, limit_s=REFS_LIMIT_S)).status == 0

    async def _create(
        self, name: RepositoryName, object_format: str, head: str | None, identity: str | None
    ) -> Repository:
        if object_format not in OBJECT_FORMATS:
            raise UsageError(f"no object format {object_format!a}: sha1 or sha256")
        new = self._datadir.repositories / f"{NEW_PREFIX}{secrets.token_hex(8)}"
        try:
            await self._init(new, object_format)
            await finish(self._complete(new, name, object_format, head, identity or new_id()))
        except BaseException:
            await finish(asyncio.to_thread(shutil.rmtree, new, ignore_errors=True))
            raise
        log.info("repository_created", repository=str(name), object_format=object_format)
        return Repository(name, candidates(self._datadir.repositories, name)[0])

    async def _init(self, path: Path, object_format: str) -> None:
        argv = git_argv("init", "--quiet", "--bare", "--template=", f"--object-format={object_format}")
        argv += [f"--initial-branch={self._default_branch}", str(path)]
        await self._processes.run(argv, limit_s=INIT_LIMIT_S, writes=path)

    async def _complete(
        self, new: Path, name: RepositoryName, object_format: str, head: str | None, identity: str
    ) -> None:
        await asyncio.to_thread(_furnish, new, object_format, self._datadir.hooks, _line(head), identity)
        async with self._folders:
            await asyncio.to_thread(_move_in, self._datadir.repositories, new, name)

    async def _delete(self, repository: Repository) -> None:
        now = datetime.now(UTC)
        identity = await asyncio.to_thread(_id_or_fresh, repository.path)
        async with self._folders:
            await asyncio.to_thread(trash.move_to_trash, self._datadir.trash, repository, identity, now)
            await asyncio.to_thread(_remove_empty_folders, self._datadir.repositories, repository.path.parent)

    async def _separate_copies(self, found: Sequence[tuple[Repository, Adopted | None]]) -> None:
        """Give all but the oldest of the repositories with one id an id of their own."""
        by_id: dict[str, tuple[Repository, Adopted]] = {}
        for repository, known in found:
            if known is None:
                continue
            first = by_id.setdefault(known.id, (repository, known))
            if first[0] != repository:
                older, younger = sorted((first, (repository, known)), key=lambda item: item[1].since)
                by_id[known.id] = older
                await self._adoption.renew_id(younger[0])

    def _walk(self) -> builtins.list[tuple[Repository, Adopted | None]]:
        found = []
        for repository in walk(self._datadir.repositories, self._skipped):
            with contextlib.suppress(OSError):  # removed meanwhile
                found.append((repository, self._adoption.adopted(repository.path)))
        self._adoption.forget_all_but([repository.path for repository, _ in found])
        return found

    def _skipped(self, path: str, reason: str) -> None:
        if path not in self._reported:
            self._reported.add(path)
            log.warning("not_a_repository_to_serve", path=path, reason=reason)

    def _one_at_a_time(self, name: RepositoryName) -> asyncio.Lock:
        """The turn of all who would create or delete a repository of that name."""
        return self._by_name.setdefault(name, asyncio.Lock())


def _line(head: str | None) -> str | None:
    """What a new HEAD may say; None: the default branch."""
    return head if head is not None and _SYMBOLIC_HEAD.fullmatch(head) else None


def _unborn(path: Path) -> str | None:
    """The branch that HEAD names, unless it is certainly there."""
    head = read_head(path)
    if not head.startswith("ref: "):
        return None
    ref = head.removeprefix("ref: ")
    return None if (path / ref).is_file() else ref


def _furnish(new: Path, object_format: str, hooks: Path, head: str | None, identity: str) -> None:
    """Write what git init does not, and put all on disk, bottom up."""
    write_fresh_config(new, object_format, hooks)
    write_durably(new / ID_FILE, identity.encode("ascii") + b"\n", mode=FILE_MODE)
    head_line = encode_ref(head) + b"\n" if head else (new / "HEAD").read_bytes()
    write_durably(new / "HEAD", head_line, mode=FILE_MODE)
    for folder, _, _ in os.walk(new, topdown=False):
        fsync_dir(Path(folder))


def _move_in(root: Path, new: Path, name: RepositoryName) -> None:
    """Rename the finished repository to its place, durably. Nobody else of this node moves folders now."""
    target = candidates(root, name)[0]
    for _ in range(MOVE_ATTEMPTS):
        try:
            check_folders(root, name)
            for folder in reversed([folder for folder in _above(root, target) if not is_there(folder)]):
                folder.mkdir()
                fsync_dir(folder.parent)
            new.rename(target)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                raise _exists(name) from error
            raise
        fsync_dir(target.parent)
        return
    raise UnavailableError(f"the folders of {name} vanish while it is made: try again")


def _remove_empty_folders(root: Path, folder: Path) -> None:
    for empty in (folder, *_above(root, folder)):
        if empty == root:
            return
        try:
            empty.rmdir()
        except OSError:
            return  # not empty
        fsync_dir(empty.parent)


def _above(root: Path, path: Path) -> list[Path]:
    """The folders between `root` and `path`, the nearest to `path` first."""
    return [folder for folder in path.parents if folder != root and folder.is_relative_to(root)]


def _id_or_fresh(path: Path) -> str:
    try:
        return read_id(path) or new_id()
    except FileNotFoundError:
        return new_id()  # copied in and deleted before anybody looked at it


def _exists(name: RepositoryName) -> UsageError:
    return UsageError(f"there is already something called {name}: choose another name, or delete it first")
