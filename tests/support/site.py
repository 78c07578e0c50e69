"""Two data_dirs in this process, and the applier of the second one: real git on both sides."""

import time
from collections.abc import Mapping

from stargate_gate.replication.notes import Notes
from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.keep import Rescue
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.standby.apply import Applier
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.ref_writer import Writer
from stargate_gate.replication.wire.messages import Changed
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.repository import Repository
from tests.support.git import git, git_run
from tests.support.leading import RealLeader
from tests.support.room import Room

APP = parse_repository_name("org/app")
MAIN = "refs/heads/main"
HEAD = f"ref: {MAIN}"


class Site:
    """The leader's and the standby's data_dir, and the standby's applier.

    steps  how many steps that ask for it may still be done, before the term is over
    moves  how often something of a fetch has come
    """

    def __init__(self, leader: Room, standby: Room) -> None:
        self.leader, self.standby = RealLeader(leader), standby
        self.intents = Intents(standby.datadir.state / "intents")
        self.steps = 1_000
        self.moves = 0
        state = standby.datadir.state
        self.journal = journal = Journal.open(state / "unreplicated.log", has_repositories=False)
        self.rescues = rescues = Rescues.open(state / "rescued")
        self.notes = Notes("note", time.monotonic)
        self.applier = Applier(
            self.leader,  # type: ignore[arg-type] # its channels are pipes
            standby.store,
            standby.processes,
            standby.refs,
            rescue=Rescue(3, "node-a", journal, rescues, standby.processes),
            intents=self.intents,
            folders=FolderSyncs(),
            is_current=self._is_current,
            notes=self.notes,
        )

    def _is_current(self) -> bool:
        self.steps -= 1
        return self.steps >= 0

    def moved(self) -> None:
        self.moves += 1

    async def there(self) -> Repository:
        """The leader's, made if it is not there."""
        repository, _ = await self.leader.room.store.ensure(APP)
        return repository

    async def compare(self, identity: str | None = None) -> Repository | None:
        """That of org/app of the leader, or of this id."""
        if identity is None:
            identity = (await self.leader.room.store.require(APP)).id()
        return await self.applier.compare(identity, Progress(self.moved))

    async def change(self, there: Repository, *delta: RefChange, head: str = HEAD) -> Repository | None:
        return await self.applier.change(Changed(3, 7, APP, there.id(), head, delta), Progress(self.moved))

    async def restarted(self) -> None:
        """What the next session, or a promotion, does first."""
        room = self.standby
        writer = Writer(
            room.store,
            room.processes,
            room.refs,
            intents=self.intents,
            folders=FolderSyncs(),
            is_current=lambda: True,
        )
        await writer.complete()
        assert await self.intents.all() == []


def set_refs(repository: Repository, refs: Mapping[str, str | None]) -> None:
    """Give the repository these refs, whatever stands in the way; None removes one."""
    gone = [ref for ref, oid in refs.items() if oid is None]
    for ref in gone:
        git("update-ref", "-d", ref, cwd=repository.path)
    for ref, oid in refs.items():
        if oid is not None:
            git("update-ref", ref, oid, cwd=repository.path)


def refs_of(repository: Repository) -> dict[str, str]:
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=repository.path).splitlines()
    return dict(line.split(" ") for line in lines)


def whole(repository: Repository) -> bool:
    return git_run("fsck", "--full", "--strict", "--no-dangling", cwd=repository.path).returncode == 0
