"""Everything that a standby decides about one connection to the leader of one term. Pure.

`StandbySession.handle(event)` returns what is to be done now. The shell (session.py) does it, and reports the
results as the next events. The simulator's shell (tests/simulation/following.py) uses the same class.

Theory of operation
===================

    NEW ──Begun──→ PREPARING ──prepared──→ OPENING ──Connected──→ JOINING ──Welcome──→ FOLLOWING
                       └────────────────────────┴─────────────────────┴──────────────────┴──→ ENDED

PREPARING  what a crash, or the connection before, has left undone is done, before anything is compared
OPENING    the channel of the feed is being opened
JOINING    Join was sent; the leader takes this standby in, or refuses it
FOLLOWING  lists and changes come. What is to be done goes into the job queue, by repository; up to
           `parallel` jobs run at a time
ENDED      the reason was given; no event is allowed any more

A *job* is a generator of steps (apply_steps.py, placement.py): `Do` carries out one step, `StepDone` goes on
with it. Four kinds: to prepare; to compare a complete list with what is here; to note an incarnation; and
one for each repository that is worked on. When the session ends, all of them are dropped where they are:
each step leaves something that the next session, or a promotion, can go on from.

What is confirmed, and when:

    Applied   a job of the change is done: its last step has put it on disk
    Checked   all jobs that were there when the list was compared are done. What was worked on when the list
              was complete equals no list, whatever it looks like: a job that runs may be on its way back to
              what the leader had before. So it is compared once more
    Alive     with the position up to which everything is here: that of the list, and then that of the last
              heartbeat at which nothing was left to do

Rejected: an event for each kind of answer ("RefsRead", "ObjectsFetched"), with the state of each job as a
value. The order of a job's steps would be spread over as many methods; as a generator it is read from the top
to the bottom, and `try` and `finally` mean what they always mean.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeAlias

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.port import Member
from stargate_gate.errors import StargateError
from stargate_gate.replication.illegal_event import IllegalEventError
from stargate_gate.replication.standby import events
from stargate_gate.replication.standby.acks import Acks
from stargate_gate.replication.standby.answers import SessionOverError, TermOverError, Unsound
from stargate_gate.replication.standby.apply_steps import Applied, ApplySteps
from stargate_gate.replication.standby.damage import DamageSteps
from stargate_gate.replication.standby.enrolment import enroll
from stargate_gate.replication.standby.instructions import (
    End,
    Equal,
    Instruction,
    OpenFeed,
    Send,
    Wake,
    Welcomed,
)
from stargate_gate.replication.standby.intent import Intent
from stargate_gate.replication.standby.intent_steps import prepare
from stargate_gate.replication.standby.introductions import Introductions, welcomed
from stargate_gate.replication.standby.job_queue import Job, JobQueue, Stray
from stargate_gate.replication.standby.jobs import RunningJobs
from stargate_gate.replication.standby.list_check import CompleteList, ListCheck, WorkedOff
from stargate_gate.replication.standby.placement import Placement
from stargate_gate.replication.standby.rescue_steps import RescueSteps
from stargate_gate.replication.standby.states import State
from stargate_gate.replication.standby.steps import Log, LookAfter, NoteReplicated, NoteSettled, Steps
from stargate_gate.replication.wire.about import About, Reached, Refilling, Whoami
from stargate_gate.replication.wire.messages import (
    PROTOCOL,
    Changed,
    Compare,
    Deleted,
    Enroll,
    Heartbeat,
    Join,
    ListBegin,
    ListEnd,
    ListPart,
    Message,
    News,
    Refused,
    out_of_place,
)
from stargate_gate.repos.names import RepositoryName

MISSED_BEATS = 3  # a leader that has said nothing for so many heartbeats is taken for dead
WELCOME_LIMIT_S = 15.0  # the leader may first want to see whether another node of this name is alive
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 30.0  # of what fails: a full disk is not asked all the time


class StandbySession:
    """Made for one connection. `instance` is random for each start of the node.

    `unsound`: the copies that were noted as damaged before, by id; they are replaced.

    leader         whom this follows
    queue          what is to be done still
    checked        a whole list of the leader's has once been confirmed
    position       everything up to there is here; 0: nobody knows yet
    equal_at       when `equal` was true last, by the leader's clock, in seconds since 1970; 0: never
    introductions  what the leader has told of itself, and of the way to this node
    """

    def __init__(
        self,
        me: Member,
        instance: str,
        leader: Member,
        term: int,
        *,
        parallel: int,
        retry_s: float = LAST_RETRY_S,
        unsound: Mapping[str, Unsound] | None = None,
    ) -> None:
        self.leader = leader
        self.state = State.NEW
        self.now = 0.0
        self.checked = False
        self.position = 0
        self.equal_at = 0
        self._me, self._instance = me, instance
        self._term = term
        self._parallel = parallel
        self._chance = 0.0
        self._backoff = Backoff(FIRST_RETRY_S, retry_s, chance=lambda: self._chance)
        self.queue = JobQueue(self._backoff)
        rescue = RescueSteps(term, leader.name)
        self.placement = Placement(rescue)
        self._unsound = dict(unsound or {})
        damage = DamageSteps(lambda: self.now)
        self._apply = ApplySteps(term, rescue, self.placement, damage, self._unsound)
        self._acks = Acks(term, self._unsound)
        self.introductions = Introductions(term, self._acks)
        self._out: list[Instruction] = []
        self._jobs = RunningJobs(self.placement.turn)
        self._lists = ListCheck(self._apply, self.placement, self._unsound)
        self._comparing: int | None = None
        self._enrolling: int | None = None
        self._check_of: WorkedOff | None = None
        self._sending = False
        self._told = 0  # the leader has told of everything up to there
        self._told_at = 0  # and at that time of its clock there was nothing more to tell
        self._beat_s = 0.0  # between two heartbeats of the leader's
        self._alive_at = 0.0  # the last sign of life
        self._wake_at: float | None = None

    # -- for status ------------------------------------------------------------------------------------

    @property
    def equal(self) -> bool:
        """Everything that the leader has announced is here."""
        return self.checked and not len(self.queue)

    @property
    def orphans(self) -> Mapping[str, RepositoryName]:
        """What is here and should be on the leader, which has lost it: by id."""
        return self.placement.orphans

    def refilling(self) -> Refilling | None:
        """How far this node is with the first list; None once it was confirmed."""
        if self.checked:
            return None
        done, total = self._check_of.progress if self._check_of is not None else (0, 0)
        return self.introductions.refilling(done, total)

    # -- events ----------------------------------------------------------------------------------------

    def handle(self, event: events.Event) -> list[Instruction]:
        """What to do now that `event` has happened, in that order.

        Raises:
            IllegalEventError: that cannot happen in this state; the session is as it was.
        """
        if __debug__:
            self._check()
        handler = self._ALLOWED[self.state].get(type(event))
        if handler is None:
            raise IllegalEventError(event, self.state.value)
        self.now = event.now
        out: list[Instruction] = []
        self._out = out
        try:
            handler(self, event)
            self._go_on()
        except SessionOverError as error:
            self._end(str(error))
        if __debug__:
            self._check()
        return out

    def _check(self) -> None:
        """What holds between two events."""
        follows, working = self.state is State.FOLLOWING, self._jobs.working
        if working and not follows:
            raise AssertionError("only who follows works on repositories")
        if working > self._parallel:
            raise AssertionError("so many jobs at a time and no more")
        if self.state is State.ENDED and len(self._jobs):
            raise AssertionError("no job outlives the session")
        if self.checked and self.position > self._told:
            raise AssertionError("nothing is here that was not told of")
        if self._check_of is not None and not self._check_of.tickets and not self._replaces():
            raise AssertionError("a list that is done is confirmed")

    def _go_on(self) -> None:
        """What may follow from any event."""
        self._see_whether_checked()
        while self.state is State.FOLLOWING and self._jobs.working < self._parallel:
            job = self.queue.next(self.now)
            if job is None:
                break
            self._jobs.start(self._work_on(job), self._out, job)
        if not self._sending and self.state is State.FOLLOWING and (send := self._acks.take()) is not None:
            self._sending = True
            self._out.append(send)
        due = self._next_due()
        if due is not None and (self._wake_at is None or due < self._wake_at):
            self._wake_at = due
            self._out.append(Wake(due))

    def _end(self, reason: str) -> None:
        self.state = State.ENDED
        self._jobs.drop_all()
        self._out.append(End(reason))

    def _begun(self, _: events.Begun) -> None:
        self.state = State.PREPARING
        self._jobs.start(self._prepare(), self._out)

    def _connected(self, event: events.Connected) -> None:
        self.state = State.JOINING
        self._alive_at = event.now
        self._out.append(Send((Join(PROTOCOL, self._me, self._instance),), ()))
        self._sending = True

    def _sent(self, _: events.Sent) -> None:
        self._sending = False

    def _measured(self, event: events.Measured) -> None:
        self.introductions.measured(event.now, event.profile, event.received_bytes)

    def _ended(self, event: events.ConnectionEnded) -> None:
        raise SessionOverError(event.reason)

    def _tick(self, _: events.Tick) -> None:
        """A `Wake` is over. Jobs whose time has come start by themselves; only silence is looked at here."""
        self._wake_at = None
        if (limit_s := self._silence_limit_s()) is not None and self.now >= self._alive_at + limit_s:
            raise SessionOverError(f"the leader has said nothing for {limit_s:g} s")

    def _silence_limit_s(self) -> float | None:
        if self.state is State.JOINING:
            return WELCOME_LIMIT_S
        return MISSED_BEATS * self._beat_s if self.state is State.FOLLOWING else None

    def _next_due(self) -> float | None:
        limit_s = self._silence_limit_s()
        silent_at = None if limit_s is None else self._alive_at + limit_s
        if self.state is State.FOLLOWING and self._jobs.working < self._parallel:
            due = self.queue.next_due()
            if due is not None and (silent_at is None or due < silent_at):
                return due
        return silent_at

    def _found_unsound(self, event: events.FoundUnsound) -> None:
        """It is replaced, and nothing of it is confirmed before that."""
        if event.id not in self._unsound:  # else that is being done, or will be when the leader lists it
            self._replace(event)

    def _replace(self, event: events.FoundUnsound) -> None:
        self._unsound[event.id] = Unsound(event.name, event.why)
        self.queue.add(Compare(self._term, 0, event.name, event.id), self.now)

    # -- what the leader says --------------------------------------------------------------------------

    def _welcome(self, event: events.Heard) -> None:
        """The leader that was looked for takes this standby in, or the session ends."""
        welcome = welcomed(event.message, self.leader, self._term)
        self.state = State.FOLLOWING
        self._beat_s = welcome.heartbeat_s
        self._alive_at = event.now
        self._out.append(Welcomed())
        self.introductions.tell()

    def _heard(self, event: events.Heard) -> None:
        self._alive_at = event.now
        message = event.message
        if isinstance(message, Refused):
            raise SessionOverError(f"{self.leader.name} refuses this node: {message.reason}")
        self._require_term(message)
        match message:
            case ListBegin():
                self._lists.begin(message)
            case ListPart() | ListEnd():
                self._receive_list(message)
            case Changed() | Compare() | Deleted():
                self._owe(message)
            case Enroll():
                self._jobs.cancel(self._enrolling, self._out)
                steps = enroll(message.incarnation, self.leader.name, self._acks, self._backoff)
                self._enrolling = self._jobs.start(steps, self._out)
            case Heartbeat():
                self._hear_heartbeat(message)
            case About() | Reached():
                self.introductions.hear(message)
            case _:
                raise SessionOverError(str(out_of_place(message)))

    def _owe(self, news: News) -> None:
        self.queue.add(news, self.now)

    def _require_term(self, message: Message) -> None:
        if isinstance(message, Join | Whoami | Refused) or message.term != self._term:
            raise SessionOverError(f"the leader speaks of another term than {self._term}")

    def _hear_heartbeat(self, message: Heartbeat) -> None:
        self._told = max(self._told, message.seq)
        self._told_at = message.at
        self._out.append(NoteReplicated(self._term, message.replicated))
        self._see_whether_equal()
        self.introductions.beat(self.now, self.refilling())
        self._acks.alive(self.position)

    def _receive_list(self, message: ListPart | ListEnd) -> None:
        """Nothing follows from a list before all of it is there; then it is compared with what is here."""
        complete = self._lists.receive(message)
        if complete is not None:
            self._jobs.cancel(self._comparing, self._out)
            compare = self._compare(complete, self._busy())
            self._comparing = self._jobs.start(compare, self._out)

    def _bytes_came(self, event: events.BytesCame) -> None:
        """Both sides live, though their heartbeats wait behind the objects on a slow line."""
        self._alive_at = event.now
        if self.state is State.FOLLOWING:
            self._acks.alive_unasked(self.position, event.now, self._beat_s)

    def _made_progress(self, event: events.MadeProgress) -> None:
        """What is tried again makes none: on a full disk bytes move all the time."""
        job = self._jobs.job(event.job)
        if job is not None and job.news.seq and not job.failed:
            self._acks.progress(job.id, job.news.seq, event.received, event.now)

    # -- jobs ------------------------------------------------------------------------------------------

    def _step_done(self, event: events.StepDone) -> None:
        self._jobs.done(event.job, event.answer, self._out)

    def _step_failed(self, event: events.StepFailed) -> None:
        self._chance = event.chance
        self._jobs.failed(event.job, event.error, self._out)

    def _prepare(self) -> Steps[None]:
        try:
            given_up = yield from self._preparation()
        except StargateError as error:
            raise SessionOverError(error.message) from error
        except OSError as error:
            raise SessionOverError(f"what was received cannot be completed: {error}") from error
        for one in given_up:  # whatever the leader's list says, half of a change may be there
            self.queue.add(Compare(self._term, 0, RepositoryName(one.name), one.repository_id), self.now)
        self.state = State.OPENING
        self._out.append(OpenFeed())

    def _preparation(self) -> Steps[list[Intent]]:
        return prepare()

    # -- lists -----------------------------------------------------------------------------------------

    def _busy(self) -> dict[str, RepositoryName]:
        """What equals no list: it is being worked on."""
        return self.queue.busy()

    def _compare(self, complete: CompleteList, busy: Mapping[str, RepositoryName]) -> Steps[None]:
        """Put into the queue whatever differs, and see when all of that is done."""
        strays, different = yield from self._lists.differences(complete)
        for stray in strays:
            self.queue.add(Stray(self._term, stray), self.now)
        for identity, name in {**busy, **different}.items():
            self.queue.add(Compare(self._term, 0, name, identity), self.now)
        tickets = self._tickets()
        self._check_of = WorkedOff(complete.check, complete.seq, tickets, len(tickets))
        self._see_whether_checked()

    def _tickets(self) -> dict[str, int]:
        """What has to be done before the list is confirmed."""
        return self.queue.tickets()

    def _see_whether_checked(self) -> None:
        check = self._check_of
        if check is None or check.tickets or self._replaces():
            return
        self._check_of = None
        self.checked = True
        self._settle_all(check.seq)
        self._told = max(self._told, check.seq)
        self.position = max(self.position, check.seq)
        self._out.append(
            Log.of("debug", "mirror_checked", term=self._term, check=check.number, position=self.position)
        )
        self._out.append(Equal(self.position, self.equal_at))
        self._acks.checked(check.number)
        self._see_whether_equal()

    def _replaces(self) -> bool:
        """A damaged copy is to be replaced. Until that is done no list is here, though it may have been."""
        return any(self.queue.has(identity) for identity in self._unsound)

    def _settle_all(self, seq: int) -> None:
        """Everything here is the leader's as of `seq`, or was rescued."""
        self._out.append(NoteSettled(self._term, seq, None, None))

    def _see_whether_equal(self) -> None:
        if self.equal:
            self.position = self._told
            self.equal_at = max(self.equal_at, self._told_at)
            self._out.append(Equal(self.position, self.equal_at))

    # -- the work on repositories ----------------------------------------------------------------------

    def _work_on(self, job: Job) -> Steps[None]:
        try:
            applied = yield from self._apply_job(job)
        except TermOverError as error:
            raise SessionOverError(error.message) from error
        except (StargateError, OSError, ValueError) as error:
            self._failed(job, " ".join(str(error).split()))
            return
        if applied.copy is not None and self._is_unsound(job.id):
            self._failed(job, "its copy here was found damaged meanwhile, and is fetched anew")
            return
        self.queue.done(job)
        if job.failed:
            tries = job.failed + 1
            yield Log.of("info", "repository_mirrored_again", repository=str(job.name), tries=tries)
        if job.news.seq:
            self._acks.applied(job.id, job.news.seq, applied.on_disk)
        if applied.copy is not None:
            yield LookAfter(applied.copy)
        self._see_what_is_done(job)

    def _is_unsound(self, identity: str) -> bool:
        return identity in self._unsound

    def _apply_job(self, job: Job) -> Steps[Applied]:
        match job.news:
            case Stray():
                return Applied(None, (yield from self.placement.put_away_stray(job.news.name)))
            case Deleted():
                return (yield from self._apply.deleted(job.id))
            case Changed():
                applied = yield from self._apply.change(job.news)
                if applied is not None:
                    return applied
        return (yield from self._apply.compare(job.id))

    def _failed(self, job: Job, error: str) -> None:
        level = "debug" if error == job.error else "warning"
        tries, name = job.failed + 1, str(job.name)
        self._out.append(Log.of(level, "repository_not_mirrored", repository=name, error=error, tries=tries))
        self._acks.silent(job.id)
        self.queue.failed(job, error, self.now)

    def _see_what_is_done(self, job: Job) -> None:
        if self._check_of is not None:
            self._check_of.done(job.id, job.ticket)
        self._see_whether_checked()
        self._see_whether_equal()

    # Which event is allowed in which state, and what it means there.
    _ANY: ClassVar[dict[type, "_Handler"]] = {
        events.StepDone: _step_done,
        events.StepFailed: _step_failed,
        events.FoundUnsound: _found_unsound,
        events.Tick: _tick,
        events.ConnectionEnded: _ended,
    }
    _JOINED: ClassVar[dict[type, "_Handler"]] = {**_ANY, events.Measured: _measured, events.Sent: _sent}
    _ALLOWED: ClassVar[Mapping[State, Mapping[type, "_Handler"]]] = {
        State.NEW: {events.Begun: _begun, events.FoundUnsound: _found_unsound},
        State.PREPARING: _ANY,
        State.OPENING: {**_ANY, events.Connected: _connected},
        State.JOINING: {**_JOINED, events.Heard: _welcome},
        State.FOLLOWING: {
            **_JOINED,
            events.Heard: _heard,
            events.BytesCame: _bytes_came,
            events.MadeProgress: _made_progress,
        },
        State.ENDED: {},
    }


_Handler: TypeAlias = Callable[[StandbySession, Any], None]
