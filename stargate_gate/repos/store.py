"""The repositories of a node: find, adopt, create, move, delete, list.

Everything that is done to a repository as a whole goes through `Store`; only here is a client's name turned
into a path. Users' requests use names, a mirror uses ids.
"""

import asyncio
import builtins
import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from stargate_gate.aio.tasks import TaskGroup, finish
from stargate_gate.datadir.layout import DataDir
from stargate_gate.errors import BrokenRepositoryError, NoSuchRepositoryError, UnavailableError, UsageError
from stargate_gate.repos import folders, trash
from stargate_gate.repos.adoption import Adoption, new_id
from stargate_gate.repos.folders import NEW_PREFIX, mark_complete, place_beside, remove_beside
from stargate_gate.repos.furnishing import furnish, is_begun
from stargate_gate.repos.git import git_argv, repository_argv
from stargate_gate.repos.identities import Census
from stargate_gate.repos.names import RepositoryName, decode_ref, encode_ref
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.register import IdFiles, NewRepositories, Register
from stargate_gate.repos.repository import (
    Repository,
    find_all,
    locate,
    read_head,
    readable_id,
    remains,
)
from stargate_gate.repos.unsound import FILE_NAME as UNSOUND
from stargate_gate.repos.unsound import UnsoundCopies

log = structlog.get_logger()


INIT_LIMIT_S = 20.0
ADOPTIONS_AT_ONCE = 4
REFS_LIMIT_S = 60.0
OBJECT_FORMATS = ("sha1", "sha256")

_SYMBOLIC_HEAD = re.compile(r"ref: refs/[^\x00-\x20\x7f]+")


class Store:
    """All repositories of this node. There is one per node; many tasks may use it at once.

    unsound  copies in which damage was found, and that were not replaced yet
    """

    def __init__(
        self,
        datadir: DataDir,
        processes: GitProcesses,
        *,
        default_branch: str,
        trash_days: float,
        must_stay: Callable[[str], bool] = lambda _: False,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """What the store asks the node.

        must_stay  called with the id of a repository in the trash: whether it must be kept, whatever its age
        leads      whether this node leads, and so gives ids to repositories without one

        Raises:
            NewerFormatError: a newer version has noted which copies are unsound.
        """
        self._datadir = datadir
        self._processes = processes
        self._default_branch = default_branch
        self._keep = timedelta(days=trash_days)
        self._must_stay = must_stay
        self._adoption = Adoption(processes, datadir)
        self._by_name: WeakValueDictionary[RepositoryName, asyncio.Lock] = WeakValueDictionary()
        self._folders = asyncio.Lock()  # held while folders of repositories are made, moved or removed
        self.unsound = UnsoundCopies.open(datadir.state / UNSOUND)
        self.register = Register(IdFiles(self._find_all), leads)
        self._skipped: dict[str, str] = {}  # by the last search: path → reason

    @property
    def not_served(self) -> tuple[str, ...]:
        """What is in the folder of repositories and is not served, and why: one line each, sorted.

        From the last `list`, and from requests since then.
        """
        root = self._datadir.repositories
        refused = {str(path.relative_to(root)): why for path, why in self._adoption.refused.items()}
        return tuple(f"{path}: {why}" for path, why in sorted({**self._skipped, **refused}.items()))

    @property
    def local_policies(self) -> tuple[str, ...]:
        """Repositories with settings that other nodes may lack: one line each, with the keys, sorted."""
        root = self._datadir.repositories
        found = {str(path.relative_to(root)): keys for path, keys in self._adoption.policies.items()}
        return tuple(f"{path}: {', '.join(keys)}" for path, keys in sorted(found.items()))

    @property
    def root(self) -> Path:
        """The folder that contains all repositories."""
        return self._datadir.repositories

    def report_new_to(self, new_repositories: NewRepositories) -> None:
        """From now on, call `new_repositories` for each repository that is new on this leader."""
        self.register.new_repositories = new_repositories

    def find(self, name: RepositoryName) -> Repository | None:
        """The repository of that name, whether it is adopted or not; a few stat calls.

        Raises:
            UsageError: a part of the name is a repository or a file itself.
            UnavailableError: what is there must not be served, such as a link to another place.
        """
        return locate(self._datadir.repositories, name)

    def find_whole(self, name: RepositoryName) -> Repository | None:
        """As `find`, but None if an incomplete repository is there. See `remains`."""
        try:
            return self.find(name)
        except BrokenRepositoryError:
            return None

    async def require(self, name: RepositoryName) -> Repository:
        """The repository of that name, ready to be served: adopted, and on a leader with an id of its own.

        Raises:
            NoSuchRepositoryError: there is none.
            UsageError, UnavailableError: as `find`; or it is damaged, or noted as unsound.
        """
        repository = self.find(name)
        if repository is None:
            raise _missing(name)
        repository = await self.adopt(repository)
        await self.register.identify(repository)
        self._require_sound(repository)
        return repository

    async def by_id(self, identity: str, *, search: bool = False) -> Repository | None:
        """The adopted repository of that id, whatever its name; None if there is none.

        search  look in every folder before returning None, because an operator may have moved it

        Raises:
            BrokenRepositoryError: it is damaged.
            UnavailableError: it cannot be adopted now.
        """
        repository = await self.register.by_id(identity, search=search)
        return None if repository is None else await self.adopt(repository)

    async def adopt(self, repository: Repository) -> Repository:
        """Make it safe to run git in the repository; returns it, because its folder may be renamed.

        Raises:
            BrokenRepositoryError: it must not be served, or it is damaged.
            UnavailableError: it cannot be adopted now.
        """
        adopted = await self._adoption.adopt(repository)
        if adopted != repository:
            self.register.renamed(repository, adopted)
        return adopted

    async def ensure(self, name: RepositoryName, *, object_format: str = "sha1") -> tuple[Repository, bool]:
        """The repository of that name, and whether it was created now. Safe for calls at the same time."""
        if self.find(name) is None:
            async with self._one_at_a_time(name):
                if self.find(name) is None:  # the call that had the lock before may have created it
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
        """Create an empty repository, durably: either the whole repository exists or nothing.

        head  the content of HEAD if it is "ref: refs/…"; else HEAD names the default branch
        id    its id if it is a copy of another node's repository; else it gets a new one

        Raises:
            UsageError: the name is taken, or nothing can have that name.
            UnavailableError, OSError: it could not be made.
        """
        async with self._one_at_a_time(name):
            if self.find(name) is not None:
                raise folders.exists(name)
            return await self._create(name, object_format, head, id)

    async def delete(self, name: RepositoryName) -> str:
        """Move the repository to the trash, durably, because a user deletes it; returns its id.

        Empty folders above it are removed. If it is a copy that has another repository's id, it gets a new id
        in the trash.

        Raises:
            NoSuchRepositoryError: there is none.
        """
        async with self._one_at_a_time(name):
            repository = self.find(name)
            if repository is None:
                raise _missing(name)
            with contextlib.suppress(UnavailableError):
                await self.register.identify(repository)
            identity = await finish(self._to_trash(repository, deleted=True))
        log.info("repository_deleted", repository=str(name), id=identity)
        return identity

    # -- a mirror's side: repositories by id ------------------------------------------------------------

    async def census(self) -> Census:
        """All repositories by id, and those without an id of their own. Gives no ids and adopts nothing."""
        return await self.register.census()

    async def begin(
        self, name: RepositoryName, identity: str, *, object_format: str, head: str | None
    ) -> Repository:
        """Make the repository of that id where nobody finds it, until `complete` puts it into its place.

        What an earlier attempt left there is used if it has the same object format.

        Raises:
            UnavailableError, OSError, GitFailedError: it could not be made.
        """
        path = await asyncio.to_thread(place_beside, self.root, identity, name)
        if not await asyncio.to_thread(is_begun, path, identity, object_format):
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
            await self._init(path, object_format, head, identity)
        return Repository(name, path)

    async def complete(
        self, made: Repository, name: RepositoryName, instead_of: Repository | None
    ) -> Repository:
        """Put the repository from `begin` into its place. Before that, `instead_of` is moved to the trash.

        If the node is killed in between, it does the rest when it starts again.

        Raises:
            UsageError: the name is taken by another repository, or nothing can have that name.
            UnavailableError, OSError: it is not in its place.
        """
        if instead_of is None:
            return await finish(self._place_made(made, name, None))
        async with self._processes.alone(instead_of.path):  # no running process may go on writing to it
            return await finish(self._place_made(made, name, instead_of))

    def remains(self, name: RepositoryName) -> Repository | None:
        """What is left of a repository of that name that cannot be served any more; a few stat calls.

        A folder with an id or with most parts of a repository. A power cut, or a backup without empty
        folders, can lose HEAD or refs/. Such a folder must not count as a deleted repository. Or anything
        else, also a file, in the place of a repository: no other one could come there. Or a repository whose
        id file is damaged; one without an id file is none of this node's.
        """
        return remains(self._datadir.repositories, name)

    async def move(self, repository: Repository, name: RepositoryName) -> Repository:
        """Give it another name, which must be free, durably.

        Raises:
            UsageError: the name is taken, or nothing can have that name.
            UnavailableError, OSError: it was not moved.
        """
        return await finish(self._move(repository, name))

    async def exchange(self, one: Repository, other: Repository) -> tuple[Repository, Repository]:
        """Exchange the names of two repositories, durably; returns both with their new names.

        Raises:
            OSError: one of them may have a temporary name now; see folders.py.
        """
        return await finish(self._exchange(one, other))

    async def put_away(self, repository: Repository, *, deleted: bool, entry_id: str | None = None) -> None:
        """Move it to the trash, durably.

        deleted   a user has deleted it
        entry_id  the id to use in the trash if it has no id of its own

        Raises:
            OSError: it was not moved.
        """
        await finish(self._to_trash(repository, deleted=deleted, entry_id=entry_id))

    async def was_deleted(self, identity: str) -> bool:
        """Whether a user has deleted the repository of that id. Known as long as it is in the trash."""
        return await asyncio.to_thread(trash.was_deleted, self._datadir.trash, identity)

    async def list(self) -> list[Repository]:
        """All repositories, sorted by name. New ones are adopted; one that cannot be is logged once."""
        found = await asyncio.to_thread(self._find_all)
        slots = asyncio.Semaphore(ADOPTIONS_AT_ONCE)
        served = []

        async def adopt(repository: Repository) -> None:
            async with slots:
                with contextlib.suppress(UnavailableError, NoSuchRepositoryError):  # logged by the adoption
                    repository = await self._adoption.adopt(repository)
                    await self.register.identify(repository)
                    served.append(repository)

        async with TaskGroup() as group:
            for repository in found:
                group.create_task(adopt(repository))
        return sorted(served, key=lambda repository: repository.name)

    def known(self) -> dict[str, RepositoryName]:
        """All repositories that must be here, by id, with the name that each had last.

        Also those that the last search did not find. Without those that `adopt` has refused where they are.
        """
        refused = self._adoption.refused
        return {
            identity: one.name
            for identity, one in self.register.known().items()
            if one.path not in refused or not self.register.is_at_its_place(identity)
        }

    async def empty_trash(self, now: datetime) -> builtins.list[str]:
        """Delete from disk what users deleted more than trash_days before `now`; returns the names."""
        return await asyncio.to_thread(
            trash.empty_trash, self._datadir.trash, self._keep, now, self._must_stay
        )

    async def in_trash(self, identity: str) -> Repository | None:
        """The repository of that id in the trash; if there are several, the one that was moved there last."""
        return await asyncio.to_thread(trash.in_trash, self._datadir.trash, identity)

    async def settle_head(self, repository: Repository) -> str | None:
        """Let HEAD name a branch that exists; returns the new HEAD ("ref: …"), or None if it has not changed.

        Called after a push. If the branch that HEAD names does not exist and others do, HEAD changes to the
        default branch, main or master if one of these exists, else to the first by name. Starts no process if
        the branch is a loose ref.

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
        """Whether the branch that HEAD names exists; it may be packed."""
        argv = repository_argv(
            repository, "show-ref", "--verify", "--quiet", "--", os.fsdecode(encode_ref(head))
        )
        return (await self._processes.complete(argv, limit_s=REFS_LIMIT_S)).status == 0

    def _require_sound(self, repository: Repository) -> None:
        """Raises BrokenRepositoryError if it is noted as unsound."""
        if self.unsound.notes():
            with contextlib.suppress(OSError, ValueError):  # without an id nothing was noted of it
                self.unsound.require_sound(repository.id())

    async def _create(
        self, name: RepositoryName, object_format: str, head: str | None, identity: str | None
    ) -> Repository:
        new = self._datadir.repositories / f"{NEW_PREFIX}{secrets.token_hex(8)}"
        if identity is None:
            identity = new_id()
            # Noted before the repository exists: whatever is pushed to it later counts as not replicated.
            await self.register.new_repositories.expect(identity, name)
        await self._init(new, object_format, head, identity)
        try:
            path = await finish(self._move_in(new, name))
        except BaseException:
            await finish(asyncio.to_thread(remove_beside, new))
            raise
        repository = Repository(name, path)
        self.register.put(repository)
        log.info("repository_created", repository=str(name), object_format=object_format, id=identity)
        return repository

    async def _init(self, new: Path, object_format: str, head: str | None, identity: str) -> None:
        """Make an empty repository at `new`, durably."""
        if object_format not in OBJECT_FORMATS:
            raise UsageError(f"no object format {object_format!a}: sha1 or sha256")
        argv = git_argv("init", "--quiet", "--bare", "--template=", f"--object-format={object_format}")
        argv += [f"--initial-branch={self._default_branch}", str(new)]
        head_line = head if head is not None and _SYMBOLIC_HEAD.fullmatch(head) else None
        try:
            await self._processes.run(argv, limit_s=INIT_LIMIT_S, writes=new)
            made = asyncio.to_thread(furnish, new, object_format, self._datadir, head_line, identity)
            await finish(made)
        except BaseException:
            await finish(asyncio.to_thread(remove_beside, new))
            raise

    async def _move_in(self, new: Path, name: RepositoryName) -> Path:
        async with self._folders:
            return await asyncio.to_thread(folders.move_in, self.root, new, name)

    async def _place_made(
        self, made: Repository, name: RepositoryName, instead_of: Repository | None
    ) -> Repository:
        # The order is what makes a crash harmless. From the mark on, a node that was killed puts the new
        # repository into its place itself. The old one leaves its name only after that, and the new one gets
        # the name last.
        await asyncio.to_thread(mark_complete, made.path, name)
        identity = self.register.identity(made)
        if instead_of is not None:
            own = await asyncio.to_thread(readable_id, instead_of.path)
            await self._to_trash(instead_of, deleted=False, entry_id=own or identity.id)
        repository = Repository(name, await self._move_in(made.path, name))
        await asyncio.to_thread(trash.forget_deletion, self._datadir.trash, identity.id)
        await asyncio.to_thread(remove_beside, made.path.parent)
        self.register.put(repository)
        return repository

    async def _move(self, repository: Repository, name: RepositoryName) -> Repository:
        async with self._folders:
            path = await asyncio.to_thread(folders.move, self.root, repository.path, name)
        moved = Repository(name, path)
        self.register.put(moved)
        log.info("repository_moved", repository=str(name), before=str(repository.name))
        return moved

    async def _exchange(self, one: Repository, other: Repository) -> tuple[Repository, Repository]:
        async with self._folders:
            await asyncio.to_thread(folders.exchange, one.path, other.path)
        first, second = Repository(other.name, other.path), Repository(one.name, one.path)
        for moved in (first, second):
            with contextlib.suppress(UnavailableError):  # one that has no id
                self.register.put(moved)
        log.info("repositories_changed_places", repository=str(first.name), other=str(second.name))
        return first, second

    async def _to_trash(self, repository: Repository, *, deleted: bool, entry_id: str | None = None) -> str:
        """Move it to the trash under its own id if it is known to have that id; returns the id there."""
        own = None
        with contextlib.suppress(UnavailableError, NoSuchRepositoryError):
            identity = self.register.identity(repository)
            own = identity.id if self.register.holds(repository, identity) else None
        name = (own if entry_id is None else entry_id) or new_id()
        async with self._folders:
            await asyncio.to_thread(
                trash.move_to_trash,
                self._datadir.trash,
                repository,
                name,
                datetime.now(UTC),
                deleted=deleted and own is not None,
            )
            await asyncio.to_thread(folders.remove_empty_folders, self.root, repository.path.parent)
        if own is not None:
            self.register.forget(own)
        return name

    def _find_all(self) -> builtins.list[Repository]:
        skipped: dict[str, str] = {}
        found = [*find_all(self._datadir.repositories, skipped.__setitem__)]
        self._adoption.forget_all_but([repository.path for repository in found])
        for path, reason in skipped.items():
            if self._skipped.get(path) != reason:
                log.warning("not_a_repository_to_serve", path=path, reason=reason)
        self._skipped = skipped
        return found

    def _one_at_a_time(self, name: RepositoryName) -> asyncio.Lock:
        """The lock for creating or deleting a repository of that name."""
        return self._by_name.setdefault(name, asyncio.Lock())


def _unborn(path: Path) -> str | None:
    """The branch that HEAD names; None if it is a loose ref, and so exists, or if HEAD names no branch."""
    head = read_head(path)
    if not head.startswith("ref: "):
        return None
    ref = head.removeprefix("ref: ")
    return None if (path / ref).is_file() else ref


def _missing(name: RepositoryName) -> NoSuchRepositoryError:
    return NoSuchRepositoryError(f"no repository {name} on this node")
