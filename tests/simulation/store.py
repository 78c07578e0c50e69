"""The repositories of one process: folders by name, and the product's own `Register` over them.

What a program does here takes steps, as on a disk: between any two of them an operator may move a folder.

    require, identity, whereabouts   for the gate and the leader
    by_id, find_whole, move, …       for a mirror; coroutines as those of repos/store.py, for `run`

`run` lets a coroutine of the product's take steps of the simulator: what it waits for is a `Waiting`.
"""

from collections.abc import Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any, cast

from stargate_gate.errors import NoSuchRepositoryError, UnavailableError
from stargate_gate.repos.identities import Census, Folder, Look, RepositoryIdentity
from stargate_gate.repos.register import IdFiles, Register
from stargate_gate.repos.repository import Repository
from tests.simulation.disk import DEVICE, Repo
from tests.simulation.engine import Engine, Event, Steps

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulation.process import Process


class Waiting:
    """Steps of the simulator that a coroutine waits for."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __await__(self) -> Generator[Any, None, Any]:
        return (yield from self._steps)


def run(coroutine: Coroutine[Any, Any, Any]) -> Steps:
    """What a coroutine of the product's does, as steps."""
    return (yield from coroutine.__await__())


def _one_step() -> Steps:
    yield


class Turn:
    """In the place of an asyncio.Lock."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._taken = False
        self._free = Event()

    async def __aenter__(self) -> None:
        while self._taken:
            await Waiting(self._wait())
        self._taken = True

    async def __aexit__(self, *_: object) -> None:
        self._taken = False
        self._engine.wake(self._free)

    def _wait(self) -> Steps:
        yield self._free, None


class SimulatedIds(IdFiles):
    """The id files of a simulated disk. A path is a name."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self._disk = process.disk

    def look(self, path: "Path", before: Look | None) -> Look:
        """Raises FileNotFoundError."""
        del before
        repo = self._there(path)
        folder = Folder(DEVICE, repo.inode)
        return Look(repo.id or None, folder, home=repo.home == repo.inode, since=repo.since, signature=())

    async def look_at_all(self, before: Mapping["Path", Look]) -> list[tuple[Repository, Look]]:
        """No moment: what is moved meanwhile may be missed, or found twice."""
        found = []
        for name in sorted(self._disk.repos):
            await Waiting(_one_step())
            if name in self._disk.repos:
                found.append((where(name), self.look(where(name).path, None)))
        return found

    async def give_id(self, path: "Path", identity: str) -> None:
        """The home first, then the id; a crash may come between. Raises FileNotFoundError, FullError."""
        await self.note_home(path)
        await Waiting(_one_step())
        repo = self._there(path)
        self._disk.write()
        ledger = self._process.world.ledger
        ledger.gives_id(self._process, repo, identity)
        repo.id, repo.safe_home = identity, repo.home
        repo.since = self._process.world.engine.taken

    async def note_home(self, path: "Path") -> None:
        """Not synced. Raises FileNotFoundError, FullError."""
        await Waiting(_one_step())
        repo = self._there(path)
        self._disk.write()
        repo.home = repo.inode

    def _there(self, path: "Path") -> Repo:
        repo = self._disk.repos.get(str(path))
        if repo is None:
            raise FileNotFoundError(str(path))
        return repo


class _NewRepositories:
    """As node/publisher.py."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    async def expect(self, identity: str, name: Any) -> None:
        """As `register.NewRepositories`."""
        if (leading := self._process.leading) is not None:
            await Waiting(leading.expect(identity, str(name)))

    async def appeared(self, identity: RepositoryIdentity) -> None:
        """As `register.NewRepositories`."""
        if (leading := self._process.leading) is not None:
            self._process.world.cover("a new repository is told of")
            await Waiting(leading.written(identity))


class Store:
    """One per process."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.world = process.world
        self.disk = process.disk
        engine = self.world.engine
        self.register = Register(
            SimulatedIds(process), lambda: process.leading is not None, now=lambda: engine.now
        )
        self.register.new_repositories = _NewRepositories(process)
        cast("Any", self.register)._turn = Turn(engine)

    # -- the gate and the leader -----------------------------------------------------------------------

    def require(self, name: str) -> Steps:
        """The folder of that name, on a leader with an id of its own; None if it is not there or not now."""
        if name not in self.disk.repos:
            return None
        try:
            yield from run(self.register.identify(where(name)))
        except (NoSuchRepositoryError, UnavailableError):
            return None
        repo = self.disk.repos.get(name)
        return repo if repo is not None and repo.id else None

    def identity(self, repo: Repo) -> RepositoryIdentity:
        """Who it is: its id and its folder."""
        return RepositoryIdentity(repo.id, Folder(DEVICE, repo.inode))

    def whereabouts(self, identity: RepositoryIdentity) -> Steps:
        """That very folder, if it is here with that id; None if it is gone, or is another one by now."""
        return self._folder((yield from run(self.register.whereabouts(identity))))

    def find(self, identity: str, *, search: bool = False) -> Steps:
        """The folder that has that id; None: there is none. `search`: it may have been moved."""
        return self._folder((yield from run(self.register.by_id(identity, search=search))))

    def census(self) -> Steps:
        """As `Register.census`."""
        census: Census = yield from run(self.register.census())
        return census

    def all_known(self) -> Mapping[str, Any]:
        """As the product's `Store.known`: what must be here, by id."""
        return {identity: one.name for identity, one in self.register.known().items()}

    def known(self, identity: str) -> Repo | None:
        """The folder that is known to have that id, where it was last; at once."""
        return self._folder(self.register._found(identity))

    def _folder(self, repository: Repository | None) -> Repo | None:
        return None if repository is None else self.disk.repos.get(str(repository.path))

    # -- a mirror: coroutines, as those of repos/store.py ------------------------------------------------

    async def by_id(self, identity: str, *, search: bool = False) -> Repository | None:
        """As the product's."""
        return await self.register.by_id(identity, search=search)

    def find_whole(self, name: Any) -> Repository | None:
        """As the product's."""
        return where(str(name)) if str(name) in self.disk.repos else None

    async def adopt(self, repository: Repository) -> Repository:
        """All of them are fit to be served."""
        return repository

    async def move(self, repository: Repository, name: Any) -> Repository:
        """As the product's: one rename. Raises OSError, UnavailableError."""
        await Waiting(_one_step())
        self.disk.write()
        if str(name) in self.disk.repos or str(repository.path) not in self.disk.repos:
            raise UnavailableError(f"{name} cannot be moved now")
        self.disk.rename(str(repository.path), str(name))
        moved = where(str(name))
        self.register.put(moved)
        self.world.cover("a repository is moved by the mirror")
        return moved

    async def exchange(self, one: Repository, other: Repository) -> tuple[Repository, Repository]:
        """As the product's: in one step. Raises OSError."""
        await Waiting(_one_step())
        self.disk.write()
        if not {str(one.path), str(other.path)} <= self.disk.repos.keys():
            raise FileNotFoundError(str(one.path))
        self.disk.exchange(str(one.path), str(other.path))
        for moved in (one, other):
            self.register.put(moved)
        self.world.cover("two repositories change places")
        return other, one

    async def complete(self, made: Any, name: Any, instead_of: Repository | None) -> Repository:
        """What was made beside comes to its place. Raises OSError, UnavailableError."""
        await Waiting(_one_step())
        self.disk.write()
        if instead_of is not None:
            self.put_away_now(instead_of, deleted=False)  # in one step: a starting node does the rest
        if str(name) in self.disk.repos:
            raise UnavailableError(f"there is already something called {name}")
        for other in self.disk.repos.values():
            if other.id == made.id:
                other.original = False  # put back by an operator meanwhile
        self.disk.put_under(str(name), made)
        made.since = self.world.engine.taken
        self.disk.deleted.discard(made.id)
        place = where(str(name))
        self.register.put(place)
        self.world.ledger.dirty = True
        return place

    async def put_away(self, repository: Repository, *, deleted: bool, entry_id: str | None = None) -> None:
        """Into the trash. Raises OSError."""
        del entry_id
        await Waiting(_one_step())
        self.disk.write()
        self.put_away_now(repository, deleted=deleted)

    def put_away_now(self, repository: Repository, *, deleted: bool) -> None:
        """Into the trash, in this step."""
        repo = self.disk.repos.pop(str(repository.path), None)
        if repo is None:
            raise FileNotFoundError(str(repository.path))
        known = self.register._identities.get(repo.id)
        if known is not None and known.folder.inode == repo.inode:
            self.register.forget(repo.id)
            if deleted:
                self.disk.deleted.add(repo.id)
        self.world.ledger.dirty = True
        self.world.cover("a repository goes to the trash")


def where(name: str) -> Repository:
    """The product's way to say which folder: here, a path is a name."""
    return Repository(cast("Any", name), cast("Any", name))
