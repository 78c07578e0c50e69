"""Runs the product's `Placement` and `Rescue` on a simulated disk, for one session of a standby."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from stargate_gate.errors import NoSuchRepositoryError
from stargate_gate.replication.rescue.keep import Rescue
from stargate_gate.replication.rescue.values import Rescued
from stargate_gate.replication.standby.placement import Placement
from stargate_gate.replication.wire.messages import Gone
from stargate_gate.repos.repository import Repository
from tests.simulation.engine import Steps
from tests.simulation.store import Store, Turn, Waiting, run

if TYPE_CHECKING:
    from tests.simulation.applying import Applier


@dataclass(frozen=True)
class Named:
    """A repository of the leader's, and what it is called there."""

    name: Any


class Placing:
    """`rescue` and `placement` are the product's own."""

    def __init__(self, applier: "Applier") -> None:
        self._applier = applier
        self.rescue = _Rescue(applier)
        names, refs, folders = _Names(applier), _Refs(applier), _Folders(applier)
        store = _Store(applier)
        self.placement = Placement(
            names,
            cast("Any", store),
            cast("Any", refs),
            rescue=self.rescue,
            folders=cast("Any", folders),
            require_current=applier.require_current,
        )
        cast("Any", self.placement)._turn = Turn(applier.world.engine)

    def at_its_place(self, identity: str, name: str) -> Steps:
        """The folder with that id, under that name; None if it is not here."""
        found = yield from run(self.placement.at_its_place(identity, cast("Any", name)))
        return None if found is None else self._applier.process.disk.repos.get(str(found.path))

    def come(self, made: Any, name: str) -> Steps:
        """A repository that is complete comes to its place."""
        yield from run(self.placement.come(made, cast("Any", name), None))

    def gone(self, identity: str, *, deleted: bool) -> Steps:
        """The leader has none of that id."""
        yield from run(self.placement.gone(identity, deleted=deleted))

    def put_away_stray(self, name: str) -> Steps:
        """Nobody knows whose repository that is."""
        yield from run(self.placement.put_away_stray(cast("Any", name)))


class _Names:
    """As leader_client.py."""

    def __init__(self, applier: "Applier") -> None:
        self._applier = applier

    async def repository(self, identity: str) -> Named | Gone:
        """As `placement.Names`."""
        shown = await Waiting(self._applier.ask(identity))
        if shown.id is None:
            return Gone(self._applier.term, shown.seq, identity, shown.deleted)
        return Named(shown.name)


class _Store(Store):
    """The process's, for a mirror: what goes to the trash is told to the ledger."""

    def __init__(self, applier: "Applier") -> None:
        self.__dict__.update(applier.process.store.__dict__)
        self._applier = applier

    async def put_away(self, repository: Repository, *, deleted: bool, entry_id: str | None = None) -> None:
        """As the product's."""
        await Waiting(_one_step())
        self.disk.write()
        repo = self.disk.repos.get(str(repository.path))
        if repo is None:
            raise FileNotFoundError(str(repository.path))
        applier = self._applier
        line = applier.line_of(repo.id) | applier.leader_disk.line(repo.id)
        self.world.ledger.trashes(applier, repo, line, deleted=deleted)
        self.put_away_now(repository, deleted=deleted)
        if entry_id is None:
            self.disk.lines[repo.id] = line


class _Rescue(Rescue):
    """Its decisions are the product's; where it keeps what it rescues is the simulated disk."""

    def __init__(self, applier: "Applier") -> None:
        journal = cast("Any", applier.process.disk.journal)
        super().__init__(applier.term, "", journal, cast("Any", _Kept(applier)), cast("Any", None))

    def _say(self, *_: Any) -> None:
        """Nobody reads it."""


class _Kept:
    """As rescue/store.py: what is rescued, and repositories that stay in the trash."""

    def __init__(self, applier: "Applier") -> None:
        self._applier = applier

    async def add(self, identity: str, name: str, rescued: Iterable[Rescued], *, in_trash: bool) -> None:
        """On disk when it returns. Raises FullError."""
        await Waiting(_one_step())
        disk = self._applier.process.disk
        disk.write()
        for one in rescued:
            self._applier.rescue(name, one.value.ref, one.value.oid, self._applier.line_of(identity))
        if in_trash and (repo := disk.repos.get(name)) is not None:
            disk.kept.update(repo.refs.values(), repo.stable.values())


class _Refs:
    """As RefReader."""

    def __init__(self, applier: "Applier") -> None:
        self._applier = applier

    async def snapshot(self, repository: Repository) -> Any:
        """Raises NoSuchRepositoryError."""
        repo = self._applier.process.disk.repos.get(str(repository.path))
        if repo is None:
            raise NoSuchRepositoryError(f"no repository {repository.name}")
        return repo.snapshot()


class _Folders:
    """As FolderSyncs."""

    def __init__(self, applier: "Applier") -> None:
        self._process = applier.process

    def changing(self, path: Any) -> None:
        """It is written to."""
        if (repo := self._process.disk.repos.get(str(path))) is not None:
            self._process.folders.changing.add(repo.id)

    async def sync(self, path: Any) -> None:
        """It is on disk."""
        await Waiting(_one_step())
        if (repo := self._process.disk.repos.get(str(path))) is not None:
            self._process.folders.sync(self._process.disk, repo)


def _one_step() -> Steps:
    yield
