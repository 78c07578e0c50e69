"""Two data_dirs in this process, and the applier of the second one: real git on both sides."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from stargate_gate.replication.notes import Notes
from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.standby.apply_steps import ApplySteps
from stargate_gate.replication.standby.damage import DamageSteps
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.intent_steps import complete
from stargate_gate.replication.standby.placement import Placement
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.rescue_steps import RescueSteps
from stargate_gate.replication.standby.step_runner import Leader, StepRunner, carry_out_all
from stargate_gate.replication.standby.steps import Steps, TakeTurn
from stargate_gate.replication.wire.messages import Changed
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.repository import Repository
from tests.support.git import git, git_run
from tests.support.leading import RealLeader
from tests.support.room import Room

if TYPE_CHECKING:
    from stargate_gate.replication.standby.answers import Unsound

APP = parse_repository_name("org/app")
MAIN = "refs/heads/main"
HEAD = f"ref: {MAIN}"


class Applier:
    """The jobs of a session of term 3 without the session: each runs when it is called.

    runner     carries out their steps
    placement  of the session
    """

    def __init__(self, runner: StepRunner) -> None:
        self.runner = runner
        rescue = RescueSteps(3, "node-a")
        self.placement = Placement(rescue)
        self.unsound: dict[str, Unsound] = {}
        self._steps = ApplySteps(3, rescue, self.placement, DamageSteps(time.monotonic), self.unsound)

    async def change(self, change: Changed, progress: Progress) -> Repository | None:
        applied = await self._run(self._steps.change(change), progress)
        return None if applied is None else applied.copy

    async def compare(self, identity: str, progress: Progress) -> Repository | None:
        return (await self._run(self._steps.compare(identity), progress)).copy

    async def _run(self, steps: Steps, progress: Progress):  # type: ignore[type-arg]
        return await carry_out_all(self._in_turns(steps), self.runner, progress)

    def _in_turns(self, steps: Steps) -> Steps:  # type: ignore[type-arg]
        """Says so if two jobs move folders at a time, which a session does not let happen."""
        answer, error = None, None
        while True:
            try:
                step = steps.send(answer) if error is None else steps.throw(error)
            except StopIteration as done:
                return done.value
            if isinstance(step, TakeTurn):
                assert not self.placement.turn.taken
                self.placement.turn.taken = True
            answer, error = None, None
            try:
                answer = yield step
            except Exception as raised:  # noqa: BLE001 - handed on
                error = raised


def runner_of(
    room: Room,
    journal: Journal,
    rescues: Rescues,
    *,
    leader: Leader | None = None,
    notes: Notes | None = None,
    is_current: Callable[[], bool] = lambda: True,
    term: int = 3,
    leader_name: str = "node-a",
    kind: type[StepRunner] = StepRunner,
) -> StepRunner:
    """Carries out steps in that data_dir."""
    return kind(
        term,
        leader,
        leader_name,
        store=room.store,
        processes=room.processes,
        refs=room.refs,
        intents=Intents(room.datadir.state / "intents"),
        journal=journal,
        rescues=rescues,
        folders=FolderSyncs(),
        notes=notes or Notes("note", time.monotonic),
        is_current=is_current,
    )


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
            runner_of(
                standby,
                journal,
                rescues,
                leader=self.leader,  # type: ignore[arg-type] # its channels are pipes
                notes=self.notes,
                is_current=self._is_current,
            )
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
        runner = runner_of(self.standby, self.journal, self.rescues)
        await carry_out_all(complete(), runner, Progress())
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
