"""Explores every order in which several writers of one record file can take their steps.

The programs yield the steps of `stargate_gate.election.flock.steps`, which the real engine performs with
real I/O; here a model of a disk performs them, one at a time, in every order that is possible. Equal
states are visited once, so the exploration is complete, not sampled. The leader lock is not in the
model: every node writes whenever it likes, as if each had lost the lock without noticing.

Beside the disk the model keeps what must hold: who believes that it leads and whose acknowledgements
it asks for, who can still give them, and which nodes hold what was acknowledged.
"""

from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from stargate_gate.election.eligibility import carried_over
from stargate_gate.election.flock.slots import SLOT_COUNT, Slot, Slots, Torn, in_force
from stargate_gate.election.flock.steps import Read, Reserve, Steps, Sync, Write, claim, write
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError


@dataclass(frozen=True)
class Leads:
    """The node believes that it leads `term`, and acknowledges when all of `needed` have."""

    term: int
    needed: frozenset[Member]


@dataclass(frozen=True)
class Leaves:
    """The node leads nobody and follows nobody: it acknowledges nothing."""


@dataclass(frozen=True)
class Follows:
    """The node follows whom the record names, and does not believe that it leads."""


@dataclass(frozen=True)
class Saw:
    """The node has seen `term` in force: it acknowledges to no older one."""

    term: int


Program = Callable[[], Generator[Any, Any, None]]


def leader(
    record: ClusterRecord,
    sync_sets: Iterable[Collection[Member]],
    *,
    write: Callable[..., Steps[None]] = write,
) -> Generator[Any, Any, None]:
    """A leader that rewrites its record, once per sync set, by the rules of `Term.update`."""
    needed = frozenset(record.sync_set)
    yield Leads(record.term, needed)
    for version, sync_set in enumerate(sync_sets, record.version + 1):
        needed |= frozenset(sync_set)
        yield Leads(record.term, needed)
        try:
            yield from write(replace(record, version=version, sync_set=tuple(sorted(sync_set))))
        except LeadershipLostError:
            yield from _follow_again()
            return
        except ElectionUnavailableError:
            continue
        needed = frozenset(sync_set)
        yield Leads(record.term, needed)


def successor(
    me: Member,
    *,
    attempts: int = 1,
    sync_sets: Iterable[Collection[Member]] = (),
    claim: Callable[..., Steps[ClusterRecord]] = claim,
    write: Callable[..., Steps[None]] = write,
) -> Generator[Any, Any, None]:
    """A node that takes over when it is eligible, as `Elector` does, and then leads."""
    for _ in range(attempts):
        former = in_force((yield Read()))
        if former is None:
            return
        yield Saw(former.term)
        if me not in former.eligible:
            continue
        yield Leaves()
        wanted = replace(former, term=former.term + 1, leader=me, sync_set=carried_over(former, me))
        try:
            first = yield from claim(wanted, former)
        except (LeadershipLostError, ElectionUnavailableError):
            yield from _follow_again()
            continue
        yield from leader(first, sync_sets, write=write)
        return


def _follow_again() -> Generator[Any, Any, None]:
    """Back to the mirror, of whoever the record names now."""
    yield Leaves()
    record = in_force((yield Read()))
    if record is not None:
        yield Saw(record.term)
        yield Follows()


@dataclass(frozen=True)
class Process:
    """One writer: where it is in its program, and what the others can know of it."""

    name: Member
    at: int
    unsynced: tuple[tuple[int, Slot], ...] = ()
    reading: tuple[Slot, ...] | None = None
    leads: Leads | None = None
    mirrors: bool = True
    seen: int = 0
    dead: bool = False


@dataclass(frozen=True)
class World:
    """Everything at one moment."""

    disk: tuple[Slot, ...]
    processes: tuple[Process, ...]
    opened: int  # the largest term that somebody opened
    held_by: frozenset[frozenset[Member]] = frozenset()  # for each acknowledged push: who has it
    tears: int = 0  # how many more writes may tear


@dataclass
class Explorer:
    """The rules of the model.

    visible_at_sync   others see a write when its writer syncs (NFS), not at once (a local file)
    split_reads       a reading takes the slots one after the other, not all at one moment
    slot_map          on which slot of the disk a slot of the program lies (weaker layouts)
    blind             (who, what it read before, what it reads now) -> what it is told (weaker rules)
    """

    programs: dict[Member, Program]
    visible_at_sync: bool = False
    split_reads: bool = False
    slot_map: tuple[int, ...] = tuple(range(SLOT_COUNT))
    blind: Callable[[Member, list[Slots], Slots], Slots] | None = None
    states: int = 0
    openings: int = 0
    _histories: list[tuple[int, Any]] = field(default_factory=lambda: [(-1, None)])
    _index: dict[tuple[Member, int, Any], int] = field(default_factory=dict)
    _places: dict[Any, int] = field(default_factory=dict)
    _next: dict[tuple[Member, int], Any] = field(default_factory=dict)

    def started(self, name: Member) -> Process:
        """`name`, before anything that others could notice."""
        return self._settle(Process(name, 0))

    def frozen_before_write(self, name: Member, disk: tuple[Slot, ...]) -> Process:
        """`name`, run alone on an old disk and stopped right before its first write."""
        process = Process(name, 0)
        while not isinstance(step := self._step(process), Write):
            process = self._advance(process, Slots(disk) if isinstance(step, Read) else None, step)
        return process

    def explore(self, start: World) -> list[str] | None:
        """A shortest trace to a violation, or None if there is none. Counts what was visited."""
        seen: dict[World, tuple[World, str] | None] = {start: None}
        level = [start]
        while level:
            following = []
            for world in level:
                for label, successor_world in self._moves(world):
                    if successor_world in seen:
                        continue
                    seen[successor_world] = (world, label)
                    problem, judged = self._judge(successor_world)
                    if problem is not None:
                        self.states = len(seen)
                        return [*_trace(seen, successor_world), problem]
                    if judged != successor_world:
                        seen.setdefault(judged, (world, label))
                    following.append(judged)
            level = list(dict.fromkeys(following))
        self.states = len(seen)
        return None

    def _step(self, process: Process) -> Any:
        """What the process does next; None at its end."""
        if process.at == 0 and (process.name, 0) not in self._next:
            self._run(process.name, 0)
        return self._next[process.name, process.at]

    def _after(self, name: Member, at: int, answer: Any) -> int:
        """Where the program `name` is when it was `at` and got `answer`.

        A place is a history of answers; histories that leave the program at the same line with the
        same variables are one place.
        """
        key = (name, at, answer)
        if key not in self._index:
            place = len(self._histories)
            self._histories.append((at, answer))
            self._index[key] = self._places.setdefault((name, self._run(name, place)), place)
        return self._index[key]

    def _run(self, name: Member, at: int) -> Any:
        """Run the program from its start to the place `at`; what its future depends on."""
        answers, place = [], at
        while place:
            place, answer = self._histories[place]
            answers.append(answer)
        program = self.programs[name]()
        try:
            step = next(program)
            for answer in reversed(answers):
                step = program.send(answer)
            self._next[name, at] = step
            return _variables(program)
        except StopIteration:
            self._next[name, at] = None
            return None
        finally:
            program.close()

    def _advance(self, process: Process, answer: Any, step: Any) -> Process:
        process = replace(process, at=self._after(process.name, process.at, answer), reading=None)
        match step:
            case Leads():
                return replace(process, leads=step, seen=max(process.seen, step.term))
            case Leaves():
                return replace(process, leads=None, mirrors=False)
            case Follows():
                return replace(process, mirrors=True)
            case Saw(term):
                return replace(process, seen=max(process.seen, term))
        return process

    def _settle(self, process: Process) -> Process:
        """Take the steps that nobody else can see or get in the way of."""
        while isinstance(step := self._step(process), Leads | Leaves | Follows | Saw | Reserve) or (
            isinstance(step, Sync) and not process.unsynced
        ):
            process = self._advance(process, None, step)
        return process

    def _moves(self, world: World) -> Iterable[tuple[str, World]]:
        for number, process in enumerate(world.processes):
            step = None if process.dead else self._step(process)
            if step is None:
                continue
            for disk, moved, tears in self._perform(world, process, step):
                moved = moved if moved.dead else self._settle(moved)  # noqa: PLW2901
                processes = (*world.processes[:number], moved, *world.processes[number + 1 :])
                yield (
                    f"{process.name.name}: {_describe(step)}{' tears' if moved.dead else ''}",
                    replace(world, disk=disk, processes=processes, tears=tears),
                )

    def _perform(
        self, world: World, process: Process, step: Any
    ) -> Iterable[tuple[tuple[Slot, ...], Process, int]]:
        match step:
            case Read():
                yield world.disk, self._read(world, process, step), world.tears
            case Write(slot, record):
                where = self.slot_map[slot]
                if self.visible_at_sync:
                    moved = replace(process, unsynced=(*process.unsynced, (where, record)))
                    yield world.disk, self._advance(moved, None, step), world.tears
                else:
                    yield _put(world.disk, where, record), self._advance(process, None, step), world.tears
                if world.tears:
                    torn = _put(
                        world.disk, where, Torn(f"{record.leader.name} {record.term}.{record.version}")
                    )
                    yield torn, replace(process, dead=True), world.tears - 1
            case Sync():
                disk = world.disk
                for where, content in process.unsynced:
                    disk = _put(disk, where, content)
                yield disk, self._advance(replace(process, unsynced=()), None, step), world.tears

    def _read(self, world: World, process: Process, step: Read) -> Process:
        mine = dict(process.unsynced)
        disk = tuple(mine.get(index, content) for index, content in enumerate(world.disk))
        taken = process.reading or ()
        taken = (
            (*taken, disk[self.slot_map[len(taken)]])
            if self.split_reads
            else tuple(disk[i] for i in self.slot_map)
        )
        if len(taken) < SLOT_COUNT:
            return replace(process, reading=taken)
        answer = Slots(taken)
        if self.blind is not None:
            answer = self.blind(process.name, self._readings(process), answer)
        return self._advance(process, answer, step)

    def _readings(self, process: Process) -> list[Slots]:
        """What the process has read so far."""
        found, at = [], process.at
        while at:
            at, answer = self._histories[at]
            if isinstance(answer, Slots):
                found.append(answer)
        return found[::-1]

    def _judge(self, world: World) -> tuple[str | None, World]:
        """What is wrong with this state, if anything; and the state with its acknowledgements."""
        opened, held_by = world.opened, world.held_by
        leading = [(p.name, p.leads) for p in world.processes if p.leads is not None and not p.dead]
        if len({leads.term for _, leads in leading}) < len(leading):
            return "two nodes lead in one term", world
        for name, leads in leading:
            if leads.term > opened:
                self.openings += 1
                if any(name not in holders for holders in held_by):
                    return f"{name.name} opened term {leads.term} without an acknowledged push", world
                opened = leads.term
        for name, leads in leading:
            if all(_acknowledges(member, leads.term, world) for member in leads.needed):
                if leads.term < opened:
                    return f"{name.name} acknowledges in term {leads.term} after term {opened} opened", world
                held_by |= {leads.needed | {name}}
        if (problem := self._resurrected(world.disk, opened, held_by)) is not None:
            return problem, world
        held_by = frozenset(one for one in held_by if not any(other < one for other in held_by))
        return None, replace(world, opened=opened, held_by=held_by)

    def _resurrected(
        self, disk: tuple[Slot, ...], opened: int, held_by: frozenset[frozenset[Member]]
    ) -> str | None:
        """What is wrong with the record that a node would find now, if anything."""
        record = in_force(Slots(tuple(disk[index] for index in self.slot_map)))
        if record is None or record.term < opened:
            return f"the record of term {opened} is gone"
        for member in record.eligible:
            if any(member not in holders for holders in held_by):
                return f"{member.name} may take over without an acknowledged push"
        return None


def _acknowledges(member: Member, term: int, world: World) -> bool:
    for process in world.processes:
        if process.name == member:
            return not process.dead and process.leads is None and process.mirrors and process.seen <= term
    return True  # a node that takes no part acknowledges to anybody


def _variables(program: Generator[Any, Any, None]) -> Any:
    """Where a generator is, with what it still may look at, down to the one it delegates to.

    `now` is left out: it is read anew before anybody looks at it. Functions close over what is here.
    """
    found = []
    inner: Any = program
    while inner is not None and inner.gi_frame is not None:
        kept = {k: v for k, v in inner.gi_frame.f_locals.items() if k not in {"now", "check", "sync_sets"}}
        values = tuple(
            (k, tuple(v) if isinstance(v, list) else v) for k, v in kept.items() if not callable(v)
        )
        found.append((inner.gi_code.co_name, inner.gi_frame.f_lasti, values))
        inner = inner.gi_yieldfrom
    return tuple(found)


def _put(disk: tuple[Slot, ...], where: int, content: Slot) -> tuple[Slot, ...]:
    return (*disk[:where], content, *disk[where + 1 :])


def _describe(step: Any) -> str:
    if isinstance(step, Write):
        return f"writes {step.record.term}.{step.record.version} to slot {step.slot}"
    return type(step).__name__.lower()


def _trace(seen: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    lines = []
    while (before := seen[world]) is not None:
        lines.append(before[1])
        world = before[0]
    return lines[::-1]
