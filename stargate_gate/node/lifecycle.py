"""What a node does while it leads, and while it follows another leader, each step in a fixed order.

The elector decides who leads; `Lifecycle` carries out what follows from that.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn, Protocol

import structlog

from stargate_gate.address.floating import CLAIM_WAIT_S, RELEASE_WAIT_S, FloatingAddress
from stargate_gate.aio.backoff import Backoff
from stargate_gate.aio.tasks import cancel_and_wait, finish, run_until, task_group
from stargate_gate.config.model import Config
from stargate_gate.datadir.locks import LeadingLock
from stargate_gate.election.elector import Elector
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.status import LeadershipView
from stargate_gate.election.term import Term
from stargate_gate.errors import (
    ElectionUnavailableError,
    LeadershipLostError,
    StargateError,
    UnavailableError,
)
from stargate_gate.node.leadership import NodeLeadership
from stargate_gate.node.term_changes import LedTerm, TermChanges
from stargate_gate.replication.leader.feed import Feed
from stargate_gate.replication.leader.sync_rules import Mode, carried
from stargate_gate.replication.standby.following import Leadership, leadership_of, to_follow
from stargate_gate.repos.durable import sync_everything

log = structlog.get_logger()

LEADING_LOCK_LIMIT_S = 5.0  # hooks hold it shared for about 2 ms each
DRAIN_LAST_SHARE = 0.25  # of drain_s: for the pushes that began while older ones were finished
LAST_WORDS_S = 0.5  # for sending the last answers at a planned stop: nobody else leads yet
LOST_WORDS_S = 0.2  # the same when the leadership is lost: another node may take the address at any time
# after a term that could not be opened; others may try meanwhile
AGAIN_BACKOFF = Backoff(1.0, 30.0, random.random)
FOLLOW_AGAIN_S = 1.0  # after a mirror that failed
WATCH_LIMIT_S = 3600.0  # the view is looked at again at least this often


class CannotLeadError(StargateError):
    """A term was won and cannot be opened. Nothing was acknowledged in it."""


class Follower(Protocol):
    """What the lifecycle asks of the mirror."""

    async def follow(self, record: ClusterRecord) -> None:
        """Mirror the leader that `record` names, until cancelled."""

    async def end(self) -> None:
        """End all of it. When this returns, its git is reaped and nothing of an older term changes refs."""

    async def finish_received(self) -> None:
        """After `end`: complete what was received and half applied, and put everything on disk.

        Raises:
            ElectionUnavailableError: it cannot be done now; then this node must not lead.
        """


class Clients(Protocol):
    """What the lifecycle asks of the SSH listener."""

    def delay_connections(self) -> None:
        """New connections to such an address wait until it has moved; see `gate/ssh/lost_address.py`."""

    def accept_connections(self) -> None:
        """They are taken here again."""

    async def leave(self, finishing: Collection["asyncio.Task[Any]"], limit_s: float) -> None:
        """End every connection to an address that this node is about to lose; see `SshServer.leave`."""


class NobodyToFollow:
    """The follower of a single node: there is no other. `repositories` is the folder of all of them."""

    def __init__(self, repositories: Path) -> None:
        self._repositories = repositories

    async def follow(self, record: ClusterRecord) -> None:
        """Until cancelled."""
        log.warning("nobody_to_follow", leader=record.leader.name)
        await asyncio.Event().wait()

    async def end(self) -> None:
        """There is nothing to end."""

    async def finish_received(self) -> None:
        """Put everything on disk: clients see what was pushed before a crash, and take it as stored."""
        try:
            await asyncio.to_thread(sync_everything, self._repositories)
        except OSError as error:
            raise ElectionUnavailableError(f"the repositories cannot be put on disk: {error}") from error


class Lifecycle:
    """Leads when the elector wins a term, and follows the leader of the record in between. One per node.

    address           follows the leadership, within its own limits
    clients           the SSH listener: its connections end before the address moves away
    led               where everybody else finds the term that is led
    make_changes      what is needed for the writes of a term
    mode              as in force: who of the former sync set is waited for
    data_dir_failing  for how many seconds the data_dir has not taken writes; 0 while it does
    """

    def __init__(
        self,
        config: Config,
        elector: Elector,
        leadership: NodeLeadership,
        mirror: Follower,
        leading_lock: LeadingLock,
        *,
        address: FloatingAddress,
        clients: Clients,
        led: LedTerm,
        make_changes: Callable[[Term], TermChanges],
        mode: Mode,
        data_dir_failing: Callable[[], float],
        on_leading: Callable[[int], None],
    ) -> None:
        self._config = config
        self._elector = elector
        self._leadership = leadership
        self._mirror = mirror
        self._leading_lock = leading_lock
        self._address = address
        self._clients = clients
        self._led = led
        self._make_changes = make_changes
        self._mode = mode
        self._data_dir_failing = data_dir_failing
        self._on_leading = on_leading
        self._not_opened = 0  # terms in a row
        self._successor: str | None = None  # named when this node stepped down last
        self._former: Member | None = None  # who led the term before the one that is led now
        self._stop = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Step down, and lead no more."""
        self._stop.set()

    async def run(self) -> None:
        """Until `stop`: win terms, lead them, follow in between. Returns once this node has stepped down.

        Cancelled, it ends its term at once, without handing over.
        """
        try:
            async with task_group() as group:
                follow = group.create_task(self._follow(), name="follow")
                lead = group.create_task(self._lead_terms(), name="lead")
                await self._stop.wait()
                if self._led.leads():
                    await asyncio.wait({lead})  # each step of stepping down has its own limit
                    await self._tell_waiting()
                follow.cancel()
                lead.cancel()
        finally:
            await finish(self._mirror.end())

    async def _lead_terms(self) -> None:
        while not self._stop.is_set():
            try:
                async with self._elector.term(self._prepare) as term:
                    await self._lead(term)
            except LeadershipLostError as error:
                log.warning("term_lost", reason=error.message)
            except CannotLeadError as error:
                self._not_opened += 1
                delay_s = AGAIN_BACKOFF.delay_s(self._not_opened)
                log.error(  # noqa: TRY400 - the cluster's trouble, no bug of ours
                    "term_not_opened",
                    reason=error.message,
                    tries=self._not_opened,
                    retry_s=round(delay_s, 3),
                    remedy="see to the shared volume and the data_dir; another node may lead meanwhile",
                )
                self._elector.stand_aside(f"it could not open its term: {error.message}", delay_s)

    async def _prepare(self, record: ClusterRecord) -> None:
        """Under the leader lock, before the claim: nothing of an older term may change a ref after this.

        `_follow` starts nothing meanwhile: the view says that this node is taking over.
        """
        self._former = record.leader
        following = self._following
        if following is not None:
            await cancel_and_wait(following)
        await self._mirror.end()
        await self._mirror.finish_received()
        if following is not None:
            log.info("mirror_ended", after_term=record.term)

    async def _lead(self, term: Term) -> None:
        """Open the term, and lead until there is a reason to step down.

        Raises:
            CannotLeadError: it could not be opened.
            LeadershipLostError: it is over.
        """
        try:
            changes = await self._open(term)
            await self._step_down(term, changes.feed, await self._reason_to_step_down(changes.feed))
        finally:
            term.close()
            await finish(self._end_term())

    async def _open(self, term: Term) -> TermChanges:
        """Take writes from now on: when this raises, none was taken. Raises as `_lead`."""
        try:
            token = await self._leading_lock.acquire(LEADING_LOCK_LIMIT_S)
            self._address.claim(term.number, term.record.cluster_id, term.valid)
            await self._carry_over(term)
        except UnavailableError as error:
            raise CannotLeadError(error.message) from error
        except OSError as error:
            raise CannotLeadError(f"the leading lock cannot be taken: {error}") from error
        changes = self._make_changes(term)
        self._led.begin(changes)
        await self._address.settled(CLAIM_WAIT_S)  # whatever becomes of it, this node opens
        self._leadership.open(token, changes)
        term.open()
        self._not_opened = 0
        self._on_leading(term.number)
        return changes

    async def _carry_over(self, term: Term) -> None:
        """Remove members from the record that no push should wait for, before the first write of the term.

        In mode sync that is the former leader: its lock was free, so it is gone, and comes back by being
        checked; the others of its sync set are waited for. Mode strict waits for anybody who held
        everything, since it acknowledges nothing alone. Mode async waits for nobody, so nobody may count
        as holding this term before having been checked in it.

        Raises:
            ElectionUnavailableError: the outcome is unknown.
            LeadershipLostError: the term is over.
        """
        members = carried(self._mode, term.in_force, self._former)
        if members != term.in_force:
            await term.update(sync_set=members)

    async def _reason_to_step_down(self, feed: Feed) -> str:
        """Wait until there is one, and return it."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.election.heartbeat_s):
                    await self._stop.wait()
                return "it is stopping"
            failing_s = self._data_dir_failing()
            if failing_s >= self._config.election.lease_s and any(s.in_sync for s in feed.standbys()):
                return f"its data_dir has not taken writes for {failing_s:.0f} s"

    async def _step_down(self, term: Term, feed: Feed, reason: str) -> None:
        """Running pushes finish → no new ones → the standby caught up → record clean → address released.

        Theory of the drain. A planned stop should fail no push, and must end in bounded time. If the gate
        closed at once, everybody would wait for one long push. A client that waits here cannot be passed
        on, since git's protocol over SSH has no redirect: in the end it is refused and has to push again.
        So the gate stays open while the pushes finish that ran when the stop began. New ones are served
        as before; they do not delay the stop, since it does not wait for them yet. Then the gate closes,
        and the pushes that began meanwhile finish, which takes as long as an ordinary push. When
        DRAIN_LAST_SHARE of drain_s is left, the gate closes in any case, and at the end of drain_s the
        pushes that still run are ended. So new pushes cannot make the drain longer than drain_s. A push
        that comes after the gate has closed waits (see `NodeLeadership.drain`): it gets the new leader's
        URL when that is known, or goes on here if this node leads again.

        `/readyz` says 503 from the closing of the gate on, and not before: where a load balancer looks at
        it, there is no other node to send a push to until then.
        """
        election = self._config.election
        log.info("stepping_down", term=term.number, reason=reason, pushes=len(self._leadership))
        loop = asyncio.get_running_loop()
        until = loop.time() + election.drain_s
        await self._leadership.finish_running(election.drain_s * (1 - DRAIN_LAST_SHARE))
        term.close(f"stepping down: {reason}")
        self._clients.delay_connections()
        if not await self._leadership.drain(max(0.0, until - loop.time())):
            log.warning("drain_limit_reached", drain_s=election.drain_s, pushes=len(self._leadership))
            await self._leadership.close("is stepping down")
        successor = await feed.caught_up(election.drain_s)
        with contextlib.suppress(ElectionUnavailableError):
            await term.update(position=feed.position, clean=True, successor=successor)
        self._successor = successor.name if successor is not None else None
        if self._address.breaks_connections:
            self._leadership.let_go(self._successor)
        await self._clients.leave(self._leadership.sessions, LAST_WORDS_S)
        self._address.release("step-down")
        await self._address.settled(RELEASE_WAIT_S)
        self._elector.stand_aside(f"it stepped down because {reason}", election.handover_wait_s)
        log.info("stepped_down", term=term.number, successor=self._successor)

    async def _end_term(self) -> None:
        """However the term ended. The leading lock goes first: from then on the hook refuses by itself.

        Then the pushes: their git processes are killed at once, whatever else is waited for. Clients get
        LOST_WORDS_S to hear of it before the address goes; it goes then, also if git is not reaped yet.
        """
        self._leading_lock.release()
        async with task_group() as group:
            ending = self._leadership.close("has lost its leadership")
            group.create_task(finish(ending), name="end-pushes")
            try:
                if self._address.wanted_here:  # else it has stepped down in order
                    if self._address.breaks_connections:
                        self._leadership.let_go(None)
                    await self._clients.leave(self._leadership.sessions, LOST_WORDS_S)
            finally:
                self._address.release("lost")
        await self._led.end()
        await self._address.settled(RELEASE_WAIT_S)
        if not self._stop.is_set():
            self._clients.accept_connections()
        self._leadership.ended()

    async def _tell_waiting(self) -> None:
        """This node will not lead again: tell the pushes that wait here who leads, once a node does."""
        record = None
        if self._leadership.waiting and self._successor is not None:
            record = await self._elector.next_leader(self._config.election.handover_wait_s)
        if record is not None and record.ssh:
            self._leadership.let_go(record.leader.name, f"ssh://{record.ssh}")
        else:
            self._leadership.let_go(self._successor)
        if sessions := self._leadership.sessions:
            await asyncio.wait(sessions, timeout=LAST_WORDS_S)

    async def _follow(self) -> NoReturn:
        """Mirror the current leader, which the record names."""
        while True:
            target = _target(self._elector.view(), self._elector.me)
            if target is None:
                await self._until_target_is_not(None)
                continue
            try:
                await run_until(self._until_target_is_not(leadership_of(target)), self._follow_one(target))
            except Exception as error:  # a bug, or a git process that does not end: others are still served
                log.exception("mirror_failed", leader=target.leader.name, error=repr(error))
                await asyncio.sleep(FOLLOW_AGAIN_S)

    async def _follow_one(self, target: ClusterRecord) -> None:
        """Until cancelled: because there is another target, or by `_prepare`."""
        try:
            async with task_group() as group:
                self._following = group.create_task(self._mirror.follow(target), name="mirror")
        finally:
            self._following = None

    async def _until_target_is_not(self, known: Leadership | None) -> None:
        def other(view: LeadershipView) -> bool:
            return leadership_of(_target(view, self._elector.me)) != known

        while not other(await self._elector.wait_for(other, WATCH_LIMIT_S)):
            pass


def _target(view: LeadershipView, me: Member) -> ClusterRecord | None:
    return to_follow(view.record, me, leads=view.role == "leader" or view.taking_over)
