"""One run of `stargate serve`: the elector, the tenure and the campaign, each effect a step of its own.

Follows election/elector.py, lease.py, flock/engine.py and node/lifecycle.py line by line; what these decide
by pure functions is decided by the same functions here.
"""

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.eligibility import Known, Standing, Try, Unavailable, first_record
from stargate_gate.election.flock.slots import in_force
from stargate_gate.election.flock.steps import Read
from stargate_gate.election.incarnation import noted, settled
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.status import Advertised
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
from stargate_gate.replication.standby.following import to_follow
from tests.simulation.applying import complete_intents
from tests.simulation.disk import Disk, FullError, Repo
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.following import Mirror
from tests.simulation.leading import Leading
from tests.simulation.store import Store
from tests.simulation.volume import Hold

if TYPE_CHECKING:
    from tests.simulation.network import Connection
    from tests.simulation.node import Node
    from tests.simulation.world import World

HEARTBEAT_S = 1.0
RETRY_S = 0.3
HANDOVER_WAIT_S = 3.0
DRAIN_S = 4.0
SYNCS_S = (0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 2.0)  # what syncing takes at most


class TooLateError(Exception):
    """No answer within the limit; the outcome is unknown."""


class _Answer:
    __slots__ = ("done", "error", "event", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: Exception | None = None
        self.event = Event()


class Tenure:
    """See election/lease.py."""

    def __init__(self, process: "Process", hold: Hold, asked_at: float) -> None:
        self.process = process
        self.hold = hold
        self.proved_at = asked_at
        self.lost: str | None = None
        self.changed = Event()

    def left_s(self) -> float:
        return self.proved_at + self.process.world.lease_s - self.process.world.engine.now

    def valid(self) -> bool:
        if not self.process.rules.lease:
            return self.lost is None
        return self.lost is None and self.left_s() > 0

    def lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
            process = self.process
            if process.leading is not None:
                process.leading.is_open = False
                process.world.say(process.node, f"loses term {process.leading.number}: {reason}")
            process.world.cover(f"leadership lost: {reason}")
            process.world.engine.wake(self.changed)

    def keep(self) -> Steps:
        process, pause = self.process, 0.0
        while self.lost is None:
            yield None, max(0.0, min(pause, self.left_s()))
            asked_at = process.world.engine.now
            pause = RETRY_S
            try:
                if self.left_s() > 0:
                    yield from process.ask(process.prove(self.hold), self.left_s())
                    self.proved_at = asked_at
                    pause = HEARTBEAT_S
            except LeadershipLostError:
                self.lose("by another's record")
            except (ElectionUnavailableError, TooLateError):
                process.world.cover("a heartbeat fails")
            if self.left_s() <= 0:
                if process.rules.lease:
                    self.lose("no proof in time")
                pause = RETRY_S


class Folders:
    """What a process knows to be on disk: FolderSyncs in repos/durable.py, as the mirror uses it.

    changing  ids of repositories that were written to and not synced since
    """

    def __init__(self) -> None:
        self.changing: set[str] = set()
        self._settled = False

    def settle(self, disk: Disk) -> Steps:
        """All that was written so far is safe: the first time everything, later what was cut."""
        for repo in list(disk.repos.values()):
            if not self._settled or repo.id in self.changing:
                yield
                disk.sync(repo)
        self.changing.clear()
        self._settled = True

    def sync(self, disk: Disk, repo: Repo) -> None:
        disk.sync(repo)
        self.changing.discard(repo.id)

    def distrust(self) -> None:
        """Pushes write from now on, and do not say so here."""
        self._settled = False


class Process:
    """From its start to its crash. `frozen` and `parked` belong to the engine."""

    def __init__(self, world: "World", node: "Node") -> None:
        self.world = world
        self.node = node
        self.rules = world.rules
        self.frozen = False
        self.parked: list[Task] = []
        self.tasks: list[Task] = []
        self.connections: dict[Connection, None] = {}  # in the order they came
        self.durable_term = -1
        self.record: ClusterRecord | None = None
        self.record_since = 0.0
        self.checked: tuple[int, int] | None = None
        self._known: tuple[Known, tuple[int, int], Known] | None = None  # as it was put together last
        self.aside_until = 0.0
        self.override_until = 0.0
        self.not_opened = 0  # terms in a row
        self.folders = Folders()
        self.taking_over = False
        self.tenure: Tenure | None = None
        self.leading: Leading | None = None
        self.led_until = -1e9
        self.former: Member | None = None
        self.stopping = False
        self.stopped = False
        self.view_changed = Event()
        self.mirror = Mirror(self)
        self.store = Store(self)
        self._jobs: deque[tuple[Steps, _Answer]] = deque()
        self._more = Event()

    @property
    def disk(self) -> Disk:
        return self.node.disk

    def start(self, name: str, steps: Steps) -> Task:
        if len(self.tasks) > 60:
            self.tasks = [task for task in self.tasks if task.alive]
        task = self.world.engine.start(name, steps, self)
        self.tasks.append(task)
        return task

    def wait_for_disk(self) -> Steps:
        """Something is being synced; a disk that is busy takes its time."""
        chance = self.world.engine.chance
        yield None, chance.random() * chance.choice(SYNCS_S)

    def sync_journal(self) -> Steps:
        """What was taken before is on disk. Raises FullError."""
        yield from self.wait_for_disk()
        crash, self.disk.at_journal_sync = self.disk.at_journal_sync, None
        if crash is not None and not self.world.healing:
            crash()
            yield Event(), None
        self.disk.journal.sync(self.disk.write)
        yield

    def run(self) -> Steps:
        """The node's life."""
        yield from self.store.census()  # so that what was there before is known before anything comes
        self.start("worker", self._work())
        self.start("follow", self.mirror.run())
        while not self.stopping:
            hold, asked_at = yield from self._win()
            yield from self._reign(hold, asked_at)
            yield None, RETRY_S
        self.stopped = True

    # -- the worker that does the I/O on the shared volume --------------------------------------------

    def ask(self, steps: Steps, limit_s: float) -> Steps:
        """Have it done there. Raises what it raises, or TooLateError while it goes on."""
        answer = _Answer()
        self._jobs.append((steps, answer))
        engine = self.world.engine
        engine.wake(self._more)
        deadline = engine.now + limit_s
        while not answer.done:
            if engine.now >= deadline:
                raise TooLateError
            yield answer.event, deadline - engine.now
        if answer.error is not None:
            raise answer.error
        return answer.value

    @property
    def busy(self) -> bool:
        """Something is under way to the volume."""
        return bool(self._jobs) or self._running

    _running = False

    def _work(self) -> Steps:
        while True:
            while not self._jobs:
                yield self._more, None
            steps, answer = self._jobs.popleft()
            self._running = True
            try:
                answer.value = yield from steps
            except (ElectionUnavailableError, LeadershipLostError) as error:
                answer.error = error
            self._running = False
            answer.done = True
            self.world.engine.wake(answer.event)

    def prove(self, hold: Hold) -> Steps:
        if hold.let_go:
            raise LeadershipLostError("the leader lock was let go")
        if hold.mine is None:
            yield from self.world.volume.reach(self)
            yield
        else:
            yield from self.world.volume.drive(hold, self.rules.keep(hold.mine, mend=hold.settled))

    def write(self, hold: Hold, record: ClusterRecord) -> Steps:
        if hold.let_go:
            raise LeadershipLostError("the leader lock was let go")
        hold.mine, hold.settled = record, False
        yield from self.world.volume.drive(hold, self.rules.write(record))
        hold.settled = True

    def _claim(self, hold: Hold, opening: ClusterRecord, former: ClusterRecord) -> Steps:
        hold.mine = yield from self.world.volume.drive(hold, self.rules.claim(opening, former))
        hold.settled = True
        return hold.mine

    # -- what this data_dir knows ---------------------------------------------------------------------

    def note(self, **changes: Any) -> Steps:
        """As identity.py: the old content or the new. Raises ElectionUnavailableError if the disk is full."""
        yield
        try:
            self.disk.write()
        except FullError as error:
            raise ElectionUnavailableError("election.json cannot be written") from error
        self.disk.known = replace(self.disk.known, **changes)
        self.world.ledger.dirty = True

    def known(self) -> Known:
        known = self.disk.known
        if self.checked is None:
            return known
        if self._known is None or self._known[0] is not known or self._known[1] != self.checked:
            more = replace(known, checked_term=self.checked[0], position=self.checked[1])
            self._known = known, self.checked, more
        return self._known[2]

    def level(self, term: int, position: int) -> None:
        """Elector.checked: every repository equals that of the leader of `term`, up to `position`."""
        news = self.checked is None or self.checked[0] != term
        self.checked = (term, position)
        if news:
            self.world.cover("a standby is fully checked")
            self.start("note checked", self._note_checked(term, position))
            self.world.ledger.dirty = True

    def _note_checked(self, term: int, position: int) -> Steps:
        try:
            yield from self.note(checked_term=term, position=position)
        except ElectionUnavailableError:
            self.world.cover("a full check is not noted")

    def note_replicated(self, term: int, through: int) -> None:
        """Every member of the sync set has everything of that term up to there."""
        if self.disk.journal.replicated(term, through):
            self.world.say(self.node, f"knows term {term} to be replicated through {through}")

    # -- the elector ----------------------------------------------------------------------------------

    def _win(self) -> Steps:
        engine, volume = self.world.engine, self.world.volume
        while True:
            pause = RETRY_S
            deadline = engine.now + self.world.lease_s
            hold = Hold(self)
            try:
                record = yield from self.ask(volume.read(self), self.world.lease_s)
                yield from self._admit(record)
                decision = self._decide(record)
                if isinstance(decision, Unavailable):
                    raise ElectionUnavailableError(decision.reason)  # noqa: TRY301 - as elector.py
                self._show(record)
                if isinstance(decision, Try):
                    asked_at = engine.now
                    if (yield from self.ask(volume.acquire(hold), max(0.0, deadline - engine.now))):
                        return hold, asked_at
            except ElectionUnavailableError:
                self.world.cover("the election is unavailable")
                pause = HEARTBEAT_S
            except TooLateError:
                volume.release(hold)
                self.world.cover("the volume hangs")
            yield None, pause

    def _admit(self, record: ClusterRecord) -> Steps:
        known = self.disk.known
        if (problem := self.rules.distrust(record, known, "the lock")) is not None:
            self.world.cover("an older record is distrusted")
            raise ElectionUnavailableError(problem.reason)
        if known.cluster_id is None or record.term > known.highest_term:
            yield from self.note(
                cluster_id=record.cluster_id, highest_term=max(record.term, known.highest_term)
            )
        if settled(known.incarnations, record) != known.incarnations:
            yield from self.note(incarnations=settled(self.disk.known.incarnations, record))

    def _decide(self, record: ClusterRecord) -> Any:
        now = self.world.engine.now
        seen_s = now - self.record_since if record == self.record else 0.0
        aside = "it stepped down" if now < self.aside_until else None
        override = now < self.override_until
        standing = Standing(self.node.member, self.known(), seen_s=seen_s, aside=aside, override=override)
        return self.rules.decide(record, standing, place="the lock", handover_wait_s=HANDOVER_WAIT_S)

    def _show(self, record: ClusterRecord) -> None:
        if record != self.record:
            self.record, self.record_since = record, self.world.engine.now
            self.world.engine.wake(self.view_changed)

    def target(self) -> ClusterRecord | None:
        """Whom to mirror."""
        leads = self.leading is not None or self.taking_over
        return to_follow(self.record, self.node.member, leads=leads)

    # -- a leadership ---------------------------------------------------------------------------------

    def _reign(self, hold: Hold, asked_at: float) -> Steps:
        engine = self.world.engine
        self.tenure = tenure = Tenure(self, hold, asked_at)
        beat = self.start("heartbeat", tenure.keep())
        body = self.start("lead", self._lead(tenure))
        while body.alive and tenure.lost is None:
            yield tenure.changed, None
        yield
        engine.end(body)
        if self.leading is not None:
            self.leading.is_open = False
            yield from self.leading.close()
        engine.end(beat)
        self.leading, self.tenure, self.taking_over = None, None, False
        self.led_until = engine.now
        engine.wake(self.view_changed)
        yield
        self.world.volume.release(hold)

    def _lead(self, tenure: Tenure) -> Steps:
        try:
            leading = yield from self._take_over(tenure)
            if leading is not None:
                yield from self._hold_office(leading)
        except (ElectionUnavailableError, LeadershipLostError, TooLateError, FullError) as error:
            self.world.cover(f"no term begins: {type(error).__name__}")
        finally:
            self.world.engine.wake(tenure.changed)

    def _take_over(self, tenure: Tenure) -> Steps:
        hold, volume = tenure.hold, self.world.volume
        if self.rules.look_again_under_lock:
            slots_read = yield from self.ask(volume.drive(hold, _read_once()), self.world.lease_s)
            record = slots_read
        else:
            record = self.record
        if record is None:
            raise ElectionUnavailableError("the record is damaged")
        yield from self._admit(record)
        decision = self._decide(record)
        if not isinstance(decision, Try):
            self.world.cover("not this node's turn, under the lock")
            return None
        self.taking_over = True
        self._show(record)
        self.former = record.leader
        if self.rules.end_mirror_before_claim:
            yield from self.mirror.end()
        yield from self.folders.settle(self.disk)
        self.folders.distrust()
        yield from complete_intents(self)
        incarnation = self.world.new_id("i")
        self.node.joins(self.world.engine.taken)
        yield from self.note(incarnations=noted(self.disk.known.incarnations, incarnation))
        opening = first_record(
            record,
            self.node.member,
            self.disk.known,
            Advertised(mode=self.world.mode),
            members=self.rules.carried_over(record, self.node.member),
            incarnation=incarnation,
            forced=decision.forced,
        )
        if not decision.forced and not self.rules.carry_forced:
            opening = replace(opening, forced=0)
        claimed = yield from self.ask(self._claim(hold, opening, record), 60.0)
        yield from self.note(
            highest_term=claimed.term, incarnations=settled(self.disk.known.incarnations, claimed)
        )
        self._show(claimed)
        self.leading = leading = Leading(self, tenure, claimed)
        self.override_until = self.aside_until = 0.0
        yield from self._carry_over(leading)
        yield
        leading.open()
        self.not_opened = 0
        if decision.forced:
            self.world.cover("a leadership is forced")
        return leading

    def _carry_over(self, leading: Leading) -> Steps:
        """A term that cannot be opened is left to others for a while."""
        try:
            yield from leading.carry_over(self.former)
        except (ElectionUnavailableError, TooLateError):
            self.not_opened += 1
            backoff = Backoff(1.0, 30.0, self.world.engine.chance.random)
            self.aside_until = self.world.engine.now + backoff.delay_s(self.not_opened)
            raise

    def _hold_office(self, leading: Leading) -> Steps:
        while not self.stopping:
            yield None, HEARTBEAT_S
        yield from leading.step_down(DRAIN_S)
        self.world.cover("a leader steps down")
        self.aside_until = self.world.engine.now + HANDOVER_WAIT_S


def _read_once() -> Any:
    return in_force((yield Read()))
