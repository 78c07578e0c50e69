"""One connection of a standby to the leader of one term, from the first word to the last.

    listen   hears the feed, and puts what is to be done into the work
    compare  looks for what differs between a complete list and what is here, and puts that into the work
    workers  do the work: one repository each, several at a time
    answer   tells the leader what is done

All of them end with the session, and whatever runs for them is reaped by then.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from stargate_gate.aio.backoff import Backoff
from stargate_gate.election.port import Member
from stargate_gate.errors import StargateError
from stargate_gate.replication.notes import Notes
from stargate_gate.replication.peer.connection import Peer, PeerChannel
from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.keep import Rescue
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.standby.acks import Answers
from stargate_gate.replication.standby.apply import Applier, only_here
from stargate_gate.replication.standby.enrolment import Enrolling
from stargate_gate.replication.standby.hearing import SessionEndedError, hear
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.introductions import Introductions
from stargate_gate.replication.standby.job_queue import Job, Stray, Work
from stargate_gate.replication.standby.leader_client import AskedLeader
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.ref_writer import NotReapedError, TermOverError
from stargate_gate.replication.wire.about import About, Profile, Reached, Refilling, Whoami
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import (
    PROTOCOL,
    Changed,
    Compare,
    Deleted,
    Enroll,
    Heartbeat,
    Join,
    ListBegin,
    Listed,
    ListEnd,
    ListPart,
    Message,
    Refused,
    Welcome,
    encode,
    out_of_place,
)
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

log = structlog.get_logger()

MISSED_BEATS = 3  # a leader that has said nothing for so many heartbeats is taken for dead
WELCOME_LIMIT_S = 15.0  # the leader may first want to see whether another node of this name is alive
LOOKS_AT_ONCE = 50  # repositories compared with a list at a time; each costs some stat calls
ORPHANS_EVERY = 10  # lists; one that the leader has lost is asked for again with every tenth
# of one repository that fails: a full disk is not asked all the time
JOB_BACKOFF = Backoff(0.2, 30.0, random.random)


@dataclass(frozen=True)
class Here:
    """This node, as a session needs it. `instance` is random for each start of it."""

    me: Member
    instance: str
    store: Store
    processes: GitProcesses
    refs: RefReader
    intents: Intents
    journal: Journal
    rescues: Rescues
    folders: FolderSyncs
    parallel_fetches: int
    profile: Callable[[], Profile]


@dataclass(frozen=True)
class Callbacks:
    """What a session tells the mirror.

    is_current  whether refs may be changed for this session still
    welcomed    the leader has taken this standby in
    level       everything of the leader's is here up to that position; also told again, at each heartbeat
    enroll      note that incarnation of this node's membership, on disk when it returns; raises StargateError
    applied     that repository was written to
    """

    is_current: Callable[[], bool]
    welcomed: Callable[[], None]
    level: Callable[[int], None]
    enroll: Callable[[str], Awaitable[None]]
    applied: Callable[[Repository], Awaitable[None]]


@dataclass
class _List:
    """A list of the leader's while it arrives."""

    check: int
    seq: int
    repositories: list[Listed] = field(default_factory=list)


@dataclass
class _Check:
    """A list that was compared: done when the work up to these tickets is."""

    number: int
    seq: int
    tickets: dict[str, int]
    total: int  # of tickets, at first


class Session:
    """Made for one connection; `run` lasts as long as it.

    leader   whom this follows
    work     what is to be done still
    checked  a whole list of the leader's has once been confirmed
    introductions  what the leader has told of itself, and of the way to this node
    """

    def __init__(self, peer: Peer, leader: Member, term: int, here: Here, callbacks: Callbacks) -> None:
        self.work = Work(JOB_BACKOFF)
        self.checked = False
        self.notes = Notes("repository_not_as_on_the_leader", time.monotonic)
        self._peer = peer
        self.leader = leader
        self._term = term
        self._here = here
        self._callbacks = callbacks
        self._rescue = Rescue(term, leader.name, here.journal, here.rescues, here.processes)
        self._applier = Applier(
            AskedLeader(peer, term),
            here.store,
            here.processes,
            here.refs,
            rescue=self._rescue,
            intents=here.intents,
            folders=here.folders,
            is_current=callbacks.is_current,
            notes=self.notes,
        )
        self._answers = Answers(term)
        self.introductions = Introductions(
            term, self._answers, here.profile, lambda: self._peer.received_bytes
        )
        self._list: _List | None = None
        self._comparing: asyncio.Task[None] | None = None
        self._enrolling = Enrolling(leader.name, self._answers, callbacks.enroll)
        self._check: _Check | None = None
        self._told = 0  # the leader has told of everything up to there
        self._told_at = 0  # and at that time of its clock there was nothing more to tell
        self._position = 0  # everything up to there is here
        self._level_at = 0
        self._beat_s = 0.0  # between two heartbeats of the leader's
        self._seen_at = 0.0  # when objects of a fetch came last
        self._more = asyncio.Event()

    @property
    def position(self) -> int:
        """Everything up to there is here; 0: nobody knows yet."""
        return self._position

    @property
    def level(self) -> bool:
        """Everything that the leader has told of is here."""
        return self.checked and not len(self.work)

    @property
    def level_at(self) -> int:
        """When `level` was true last, by the leader's clock, in seconds since 1970; 0: never."""
        return self._level_at

    def refilling(self) -> Refilling | None:
        """How far this node is with the first list; None once it was confirmed."""
        if self.checked:
            return None
        check = self._check
        total = check.total if check is not None else 0
        done = total - len(check.tickets) if check is not None else 0
        return self.introductions.refilling(done, total)

    @property
    def orphans(self) -> Mapping[str, RepositoryName]:
        """What is here and should be on the leader, which has lost it: by id."""
        return self._applier.placement.orphans

    async def run(self) -> None:
        """Follow until the connection or the session ends.

        Raises:
            SessionEndedError: always, unless cancelled.
            NotReapedError: a git process of the session does not end.
        """
        try:
            await self._complete()
            channel = await self._peer.open("stargate-feed")
            try:
                await self._follow(channel, LineReader(channel))
            finally:
                channel.close()
        except StargateError as error:
            raise SessionEndedError(error.message) from error
        except ConnectionError as error:
            raise SessionEndedError(str(error)) from error

    async def _complete(self) -> None:
        """What a crash, or the connection before, has left undone is done before anything is compared.

        So is what it has left to the system: a ref that was moved and is not on disk looks equal, too.
        """
        try:
            await self._here.folders.settle(self._here.store.root)
            await self._applier.complete()
        except OSError as error:
            raise SessionEndedError(f"what was received cannot be completed: {error}") from error

    async def _follow(self, channel: PeerChannel, lines: LineReader) -> None:
        await channel.write(encode(Join(PROTOCOL, self._here.me, self._here.instance)))
        self._beat_s = self._welcome(await hear(channel, lines, WELCOME_LIMIT_S))
        self._callbacks.welcomed()
        self.introductions.tell()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(group, channel, lines), name="mirror-listen")
                group.create_task(self._answers.send(channel), name="mirror-answer")
                for number in range(self._here.parallel_fetches):
                    group.create_task(self._work_off(), name=f"mirror-worker-{number}")
        except ExceptionGroup as group:
            raise _reason(group) from group

    # -- what the leader says --------------------------------------------------------------------------

    def _welcome(self, message: Message) -> float:
        """The seconds between two heartbeats, if the leader that was looked for takes this standby in."""
        if isinstance(message, Refused):
            raise SessionEndedError(f"{self.leader.name} refuses this node: {message.reason}")
        if not isinstance(message, Welcome):
            raise SessionEndedError(str(out_of_place(message)))
        if message.protocol != PROTOCOL:
            raise SessionEndedError(
                f"{message.leader.name} speaks version {message.protocol} of the feed, and this node "
                f"version {PROTOCOL}: update the older node"
            )
        if (message.term, message.leader) != (self._term, self.leader):
            found = f"{message.leader.name} with term {message.term}"
            raise SessionEndedError(f"{found} answers instead of {self.leader.name} with term {self._term}")
        return message.heartbeat_s

    async def _listen(self, group: asyncio.TaskGroup, channel: PeerChannel, lines: LineReader) -> None:
        silence_s = MISSED_BEATS * self._beat_s
        while True:
            message = await hear(channel, lines, silence_s, lambda: self._seen_at)
            if isinstance(message, Refused):
                raise SessionEndedError(f"{self.leader.name} refuses this node: {message.reason}")
            if isinstance(message, Join | Whoami) or message.term != self._term:
                raise SessionEndedError(f"the leader speaks of another term than {self._term}")
            match message:
                case ListBegin():
                    self._list = _List(message.check, message.seq)
                case ListPart() | ListEnd():
                    self._receive_list(group, message)
                case Changed() | Compare() | Deleted():
                    self.work.add(message, _now())
                    self._wake()
                case Enroll():
                    self._enrolling.begin(group, message.incarnation)
                case Heartbeat():
                    self._hear_heartbeat(message)
                case About() | Reached():
                    self.introductions.hear(message)
                case _:
                    raise SessionEndedError(str(out_of_place(message)))

    def _hear_heartbeat(self, message: Heartbeat) -> None:
        self._told = max(self._told, message.seq)
        self._told_at = message.at
        self._rescue.replicated(message.replicated)
        self._see_whether_level()
        self.introductions.beat(self.refilling())
        self._answers.alive(self._position)

    def _receive_list(self, group: asyncio.TaskGroup, message: ListPart | ListEnd) -> None:
        """Nothing follows from a list before all of it is there."""
        arriving = self._list
        if arriving is None or arriving.check != message.check:
            raise SessionEndedError("the leader's list has no beginning")
        if isinstance(message, ListPart):
            arriving.repositories += message.repositories
            return
        self._list = None
        if len(arriving.repositories) != message.count:
            raise SessionEndedError("the leader's list is not complete")
        if self._comparing is not None:
            self._comparing.cancel()
        compare = self._compare(arriving, busy=self.work.busy())
        self._comparing = group.create_task(compare, name="mirror-compare")

    # -- what differs ----------------------------------------------------------------------------------

    async def _compare(self, complete: _List, busy: Mapping[str, RepositoryName]) -> None:
        """Put to work whatever differs. What is not in the list is asked for by its id.

        `busy` are those that had something to do when the list was complete, by id. They equal no list,
        whatever they look like: a job that runs may be on its way back to what the leader had before.
        """
        try:
            census = await self._here.store.census()
        except (StargateError, OSError) as error:
            raise SessionEndedError(f"the repositories here cannot be listed: {error}") from error
        listed = {one.id for one in complete.repositories}
        different = {
            identity: repository.name
            for identity, repository in census.known.items()
            if identity not in listed and self._asks_again(identity, complete.check)
        }
        unknown = {one.name for one in complete.repositories if one.digest is None}
        self.notes.clear_all_but({*different.values(), *unknown})
        for start in range(0, len(complete.repositories), LOOKS_AT_ONCE):
            some = complete.repositories[start : start + LOOKS_AT_ONCE]
            same = await asyncio.gather(*(self._is_same(one, census.known.get(one.id)) for one in some))
            different |= {one.id: one.name for one, is_same in zip(some, same, strict=True) if not is_same}
        for stray in census.strays:
            self.work.add(Stray(self._term, stray.name), _now())
        for identity, name in {**busy, **different}.items():
            self.work.add(Compare(self._term, 0, name, identity), _now())
        tickets = self.work.tickets()
        self._check = _Check(complete.check, complete.seq, tickets, len(tickets))
        self._see_whether_checked()
        self._wake()

    def _asks_again(self, identity: str, check: int) -> bool:
        """Whether the leader is asked for one that it has not listed; if it has lost it, now and then."""
        return identity not in self.orphans or check % ORPHANS_EVERY == int(identity, 16) % ORPHANS_EVERY

    async def _is_same(self, listed: Listed, repository: Repository | None) -> bool:
        """Whether it is here as the list shows it, and nothing in it is left of older terms.

        That needs a number of this term which covers it. A list has one for all, from before it began:
        a value may have come back to the leader since, and be with nobody else.
        """
        if repository is None or repository.name != listed.name or listed.digest is None:
            return False
        try:
            if self._here.journal.kept(listed.id, self._term):
                return False
            repository = await self._here.store.adopt(repository)
            same = await self._here.refs.digest(repository) == listed.digest
        except (StargateError, OSError, ValueError):
            return False  # the comparison that follows will say what is wrong
        if same and listed.unreadable is not None:
            self.notes.say(listed.name, only_here(listed.name, listed.unreadable))
        return same

    def _see_whether_checked(self) -> None:
        check = self._check
        if check is None or check.tickets:
            return
        self._check = None
        self.checked = True
        self._rescue.settle_all(check.seq)
        self._told = max(self._told, check.seq)
        self._position = max(self._position, check.seq)
        log.debug("mirror_checked", term=self._term, check=check.number, position=self._position)
        self._callbacks.level(self._position)
        self._answers.checked(check.number)
        self._see_whether_level()

    def _see_whether_level(self) -> None:
        if self.level:
            self._position = self._told
            self._level_at = max(self._level_at, self._told_at)
            self._callbacks.level(self._position)

    # -- the work --------------------------------------------------------------------------------------

    async def _work_off(self) -> None:
        while True:
            job = self.work.next(_now())
            if job is not None:
                await self._do(job)
                continue
            more, due = self._more, self.work.next_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await more.wait()

    async def _do(self, job: Job) -> None:
        try:
            repository = await self._apply(job)
        except TermOverError as error:
            raise SessionEndedError(error.message) from error
        except (StargateError, OSError, ValueError) as error:
            if _cancelled():
                raise asyncio.CancelledError from error
            self._failed(job, " ".join(str(error).split()))
            return
        self.work.done(job)
        if job.failed:
            log.info("repository_mirrored_again", repository=str(job.name), tries=job.failed + 1)
        if job.news.seq:
            self._answers.applied(job.id, job.news.seq)
        if repository is not None:
            await self._callbacks.applied(repository)
        check = self._check
        if check is not None and job.ticket >= check.tickets.get(job.id, job.ticket + 1):
            del check.tickets[job.id]
            self._see_whether_checked()
        self._see_whether_level()
        self._wake()

    async def _apply(self, job: Job) -> Repository | None:
        news = job.news

        def alive() -> None:
            """Both sides live, though their heartbeats wait behind the objects on a slow line."""
            self._seen_at = _now()
            self._answers.alive_unasked(self._position, self._seen_at, self._beat_s)

        def gets_on(received: int) -> None:
            """What is tried again does not: on a full disk bytes move all the time."""
            if news.seq and not job.failed:
                self._answers.progress(news.id, news.seq, received, _now())

        progress = Progress(alive, gets_on)
        match news:
            case Stray():
                await self._applier.placement.put_away_stray(news.name)
                return None
            case Deleted():
                await self._applier.deleted(news.id)
                return None
            case Changed():
                repository = await self._applier.change(news, progress)
                if repository is not None:
                    return repository
        return await self._applier.compare(news.id, progress)

    def _failed(self, job: Job, error: str) -> None:
        report = log.debug if error == job.error else log.warning
        report("repository_not_mirrored", repository=str(job.name), error=error, tries=job.failed + 1)
        self._answers.silent(job.id)
        self.work.failed(job, error, _now())
        self._wake()

    def _wake(self) -> None:
        """There may be work, for any of the workers."""
        self._more.set()
        self._more = asyncio.Event()


def _reason(group: ExceptionGroup[Exception]) -> Exception:
    """What ended the session; the whole group if some of it is nothing that a session may end with."""
    _, others = group.split((NotReapedError, SessionEndedError, ConnectionError))
    if others is not None:
        return group
    for one in group.exceptions:
        if isinstance(one, NotReapedError):
            return one
    return SessionEndedError(str(group.exceptions[0]))


def _cancelled() -> bool:
    """Whether this task was asked to end, whatever became of the request."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _now() -> float:
    return asyncio.get_running_loop().time()
