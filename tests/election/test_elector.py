"""The elector on real lock files and on a lease store: taking over, standing aside, losing, coming back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stargate_gate.election import elector as elector_module
from stargate_gate.election.flock.bootstrap import bootstrap
from stargate_gate.election.flock.engine import FlockHandle
from stargate_gate.election.lease import boottime
from stargate_gate.election.port import ClusterRecord
from stargate_gate.election.term import Term
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
from tests.support.elections import (
    CALM,
    LIMIT_S,
    QUICK,
    Clock,
    Node,
    lose_lock,
    member,
    node,
    node_on,
    state_of,
)
from tests.support.lease_engine import LeaseEngine, LeaseStore

A, B, C = (member(name) for name in "abc")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "leader.lock"
    bootstrap(path, state_of(tmp_path, "a"), A)
    return path


@contextlib.asynccontextmanager
async def pair(folder: Path, lock: Path, **options: object) -> AsyncIterator[tuple[Node, Node]]:
    """node-a leads, node-b is in its sync set and watches."""
    async with node(folder, "a", lock, **options) as a, node(folder, "b", lock, **options) as b:  # type: ignore[arg-type]
        a.start()
        await a.leads()
        await a.term.update(sync_set=[B])
        b.start()
        await b.follows(1)
        yield a, b


@contextlib.asynccontextmanager
async def on_store(folder: Path, store: LeaseStore, name: str) -> AsyncIterator[Node]:
    """A node with a short lease on a store in memory."""
    state = state_of(folder, name)
    async with node_on(LeaseEngine(store), name, state, timings=QUICK) as made:
        yield made


async def nothing(record: ClusterRecord) -> None:
    """No mirror to end."""


async def test_the_first_node_leads_and_the_others_say_who_does(tmp_path: Path, lock: Path):
    """Views on both sides: role, term, record, and a reason in words."""
    async with pair(tmp_path, lock) as (a, b):
        view = a.view
        assert (view.role, view.term, view.accepting, view.reason) == ("leader", 1, True, "")
        seen = await b.until(lambda view: view.record == a.term.record)
        assert (seen.role, seen.accepting, seen.trouble) == ("standby", False, None)
        assert "node-a leads" in seen.reason


async def test_a_member_of_the_sync_set_takes_over_and_everybody_is_carried_over(tmp_path: Path, lock: Path):
    """The next term is larger, its sync set has the former leader, `clean` is cleared."""
    async with pair(tmp_path, lock) as (a, b):
        await a.term.update(clean=True)
        await a.end()
        await b.leads()
        record = b.term.record
        assert record.term > 1
        assert record.sync_set == (A,)
        assert (record.clean, record.successor) == (False, None)
        assert record.ssh == "b.example:2222"


async def test_each_leadership_has_an_incarnation_that_the_disk_knew_before(tmp_path: Path, lock: Path):
    """The record names it, the leader's disk has it; a former leader keeps the one it had."""
    async with pair(tmp_path, lock) as (a, b):
        first = a.term.record.incarnation_of(A)
        assert first is not None
        assert first in state_of(tmp_path, "a").known.incarnations
        await a.end()
        await b.leads()
        second = b.term.record.incarnation_of(B)
        assert second is not None
        assert state_of(tmp_path, "b").known.incarnations == (second,)
        assert b.term.record.incarnation_of(A) == first


async def test_no_term_is_claimed_with_an_incarnation_that_is_not_on_disk(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
):
    """A full data_dir: the record stays as it was, and somebody else may lead."""

    def full(*_: object) -> None:
        raise ElectionUnavailableError("no room")

    async with node(tmp_path, "a", lock) as a:
        monkeypatch.setattr(a.elector._state, "note_incarnation", full)
        a.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await a.leads()
        assert (await a.engine.read()).term == 0


async def test_a_data_dir_that_was_put_back_does_not_lead_by_itself(tmp_path: Path, lock: Path):
    """The last leader with the state of an earlier leadership of its own: the lock stays free."""
    async with pair(tmp_path, lock) as (a, b):
        saved = state_of(tmp_path, "a").path.read_bytes()
        await a.end()
        await b.end()
        async with node(tmp_path, "a", lock) as again:
            again.start()
            await again.leads()
    state_of(tmp_path, "a").path.write_bytes(saved)
    async with node(tmp_path, "a", lock) as old:
        old.start()
        view = await old.until(lambda view: "was rolled back" in view.reason)
        assert not view.accepting
        old.elector.override(60.0)
        await old.leads()
        assert old.term.record.forced == old.term.number


async def test_an_outsider_watches_a_free_lock_and_says_why(tmp_path: Path, lock: Path):
    """Nobody leads although it could have the lock: it lacks what was acknowledged."""
    async with pair(tmp_path, lock) as (a, b), node(tmp_path, "c", lock) as c:
        await a.end()
        await b.end()
        c.start()
        view = await c.until(lambda view: "not in the sync set of term 1" in view.reason)
        assert not view.accepting
        handle = await c.engine.try_acquire()
        assert handle is not None, "the lock is free all the time"
        await handle.release()


async def test_a_checked_standby_leads_in_async_unless_it_is_behind(tmp_path: Path, lock: Path):
    """What the mirror reports counts at once, and only from the recorded position on."""
    async with pair(tmp_path, lock) as (a, b), node(tmp_path, "c", lock) as c:
        await b.end()
        await a.term.update(sync_set=[], position=10)
        c.start()
        await c.follows(1)
        c.elector.checked(1, 9)
        await a.end()
        await c.until(lambda view: "not in the sync set" in view.reason)
        with pytest.raises(AssertionError):
            await c.until(lambda view: view.role == "leader", 0.3)
        c.elector.checked(1, 10)
        await c.leads()


async def test_a_full_check_is_remembered_over_a_restart_with_the_position_it_had(tmp_path: Path, lock: Path):
    """A crash forgets progress since, never invents any."""
    async with pair(tmp_path, lock) as (_, b):
        b.elector.checked(1, 3)
        b.elector.checked(1, 8)
        await b.elector._disk.call(int)
        known = state_of(tmp_path, "b").known
        assert (known.checked_term, known.position) == (1, 3)


async def test_the_named_successor_goes_first_and_the_others_wait_for_it(tmp_path: Path, lock: Path):
    """Also the former leader itself, which is eligible; after `handover_wait_s` anybody eligible may."""
    async with pair(tmp_path, lock) as (a, b):
        await b.end()
        await a.term.update(clean=True, successor=B)
        a.stop.set()
        await a.until(lambda view: "node-b was asked to take over" in view.reason)
        await a.leads()
        assert a.term.number > 1


async def test_a_node_that_stands_aside_lets_the_other_lead(tmp_path: Path, lock: Path):
    """For the time that was asked for; its reason is what an operator reads."""
    async with pair(tmp_path, lock) as (a, b):
        a.elector.stand_aside("it stepped down for maintenance", LIMIT_S)
        a.stop.set()
        await b.leads()
        b.stop.set()
        b.elector.stand_aside("so does it", 0.2)
        await a.until(lambda view: "it stepped down for maintenance" in view.reason)
        await b.until(lambda view: view.accepting and view.term > 2)


async def test_an_override_lets_an_outsider_lead_once(tmp_path: Path, lock: Path):
    """It needs the lock like anybody: a living leader is not pushed aside. It is used up by the term."""
    async with pair(tmp_path, lock) as (a, b), node(tmp_path, "c", lock) as c:
        await b.end()
        c.start()
        await c.follows(1)
        c.elector.override(LIMIT_S)
        with pytest.raises(AssertionError):
            await c.until(lambda view: view.role == "leader", 0.3)
        assert a.view.accepting
        await a.end()
        await c.leads()
        assert set(c.term.record.sync_set) == {A, B}
        assert c.term.record.forced == c.term.number
        assert c.elector._override_until == 0.0
        b.start()
        await b.follows(c.term.number)
        await c.end()
        await b.leads()
        assert 0 < b.term.record.forced < b.term.number, "whoever comes later still has to know"


async def test_an_override_runs_out(tmp_path: Path, lock: Path):
    """What an operator accepted an hour ago is not accepted now."""
    clock = Clock()
    async with pair(tmp_path, lock) as (a, b), node(tmp_path, "c", lock, clock=clock) as c:
        await b.end()
        c.elector.override(60)
        clock.ahead_s = 61
        c.start()
        await c.follows(1)
        await a.end()
        with pytest.raises(AssertionError):
            await c.until(lambda view: view.role == "leader", 0.3)


async def test_the_mirror_is_ended_under_the_lock_and_before_the_claim(tmp_path: Path, lock: Path):
    """`prepare` sees the record in force; meanwhile nobody else gets the lock."""
    async with node(tmp_path, "a", lock) as a, node(tmp_path, "b", lock) as b:
        entered, go = asyncio.Event(), asyncio.Event()

        async def prepare(record: ClusterRecord) -> None:
            assert record.term == 0
            entered.set()
            await go.wait()

        async def lead() -> int:
            async with a.elector.term(prepare) as term:
                return term.number

        leading = asyncio.create_task(lead())
        async with asyncio.timeout(LIMIT_S):
            await entered.wait()
            assert a.view.taking_over
            assert not a.view.accepting
            assert await b.engine.try_acquire() is None
            assert (await b.engine.read()).term == 0
            go.set()
            assert await leading == 1
        assert not a.view.taking_over


async def test_a_mirror_that_does_not_end_gives_the_lock_back(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
):
    """Within a limit; no term was taken, and the next try may succeed."""
    monkeypatch.setattr(elector_module, "PREPARE_LIMIT_S", 0.1)
    tries = 0

    async def prepare(record: ClusterRecord) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()

    async with node(tmp_path, "a", lock) as a, asyncio.timeout(LIMIT_S), a.elector.term(prepare) as term:
        assert (tries, term.number) == (2, 1)


async def test_a_mistake_in_prepare_lets_go_of_the_lock_and_is_raised(tmp_path: Path, lock: Path):
    """It is not retried for ever, and not covered up."""

    async def prepare(record: ClusterRecord) -> None:
        raise ZeroDivisionError

    async with node(tmp_path, "a", lock) as a, node(tmp_path, "b", lock) as b, asyncio.timeout(LIMIT_S):
        with pytest.raises(ZeroDivisionError):
            async with a.elector.term(prepare):
                pass
        assert not a.view.taking_over
        handle = await b.engine.try_acquire()
        assert handle is not None
        await handle.release()


async def test_leaving_the_body_in_any_way_lets_go_of_the_lock(tmp_path: Path, lock: Path):
    """By its end, an error, a cancellation."""

    async def fail(term: Term) -> None:
        raise ZeroDivisionError

    async def end(term: Term) -> None:
        """At once."""

    async def stay(term: Term) -> None:
        await asyncio.Event().wait()

    async with node(tmp_path, "a", lock) as a, node(tmp_path, "b", lock) as b:
        for body, error in ((end, None), (fail, ZeroDivisionError), (stay, asyncio.CancelledError)):
            entered = asyncio.Event()

            async def lead(body=body, entered=entered) -> None:
                async with a.elector.term(nothing) as term:
                    entered.set()
                    await body(term)

            task = asyncio.create_task(lead())
            async with asyncio.timeout(LIMIT_S):
                await entered.wait()
                if body is stay:
                    task.cancel()
                (result,) = await asyncio.gather(task, return_exceptions=True)
                assert type(result) is (error or type(None))
                handle = await b.engine.try_acquire()
                assert handle is not None
                await handle.release()
            assert a.view.role == "standby"


async def test_a_frozen_leader_stops_accepting_by_the_clock_alone(tmp_path: Path, lock: Path):
    """Before any heartbeat had a chance to run: the view asks the clock."""
    clock = Clock()
    async with node(tmp_path, "a", lock, clock=clock) as a:
        a.start()
        await a.leads()
        clock.ahead_s += CALM.lease_s
        assert not a.view.accepting
        assert a.view.reason == "the lease has run out"
        assert not a.term.valid()


async def test_a_frozen_leader_that_wakes_beside_a_larger_term_never_writes_again(tmp_path: Path, lock: Path):
    """A share that lost the lock without a word: the successor's record stays, the old body is cancelled."""
    async with pair(tmp_path, lock) as (a, b):
        handle = a.term._lease.handle
        assert isinstance(handle, FlockHandle)
        old = a.term
        lose_lock(handle)
        await b.leads()
        await a.until(lambda view: view.term == b.term.number and view.role == "standby")
        assert not old.valid()
        with pytest.raises(LeadershipLostError):
            await old.update(sync_set=[])
        assert "node-b has taken term" in a.lost[0]
        assert (await b.engine.read()) == b.term.record


async def test_a_restored_older_copy_is_no_ground_to_lead(tmp_path: Path, lock: Path):
    """Both nodes have seen a larger term; each says what to do, and the newest copy mends it."""
    older = lock.read_bytes()
    async with pair(tmp_path, lock) as (a, b):
        await a.end()
        await b.leads()
        await b.end()
        newest = lock.read_bytes()
        lock.write_bytes(older)
        a.start()
        b.start()
        for one in (a, b):
            trouble = await one.in_trouble("is at term 0", "put the newest copy back")
            assert str(lock) in trouble
            assert not one.view.accepting
        lock.write_bytes(newest)
        await b.until(lambda view: view.trouble is None)
        await a.until(lambda view: view.trouble is None)


async def test_another_clusters_file_is_no_ground_to_lead(tmp_path: Path, lock: Path):
    """A recreated volume: its id is another one; an override does not help."""
    async with pair(tmp_path, lock) as (a, b):
        await a.end()
        await b.end()
        lock.unlink()
        bootstrap(lock, state_of(tmp_path, "c"), C)
        for one in (a, b):
            one.elector.override(LIMIT_S)
            one.start()
            await one.in_trouble("belongs to cluster", "mount the right volume")
            assert one.view.role == "standby"


async def test_a_missing_file_is_trouble_and_its_return_is_the_end_of_it(tmp_path: Path, lock: Path):
    """A standby goes on knowing the last record, and says what is missing."""
    async with pair(tmp_path, lock) as (_, b):
        aside = lock.with_name("aside")
        lock.rename(aside)
        await b.in_trouble("does not exist", "mount the shared volume")
        assert b.view.record is not None
        aside.rename(lock)
        await b.until(lambda view: view.trouble is None)


async def test_a_term_that_could_not_be_noted_here_is_not_led(tmp_path: Path, lock: Path):
    """Without having it on its own disk a node could take an older record for the newest later."""
    async with node(tmp_path, "a", lock) as a:
        noted = a.state.note
        failing = True

        def note(record: ClusterRecord) -> None:
            if failing and record.term > 0:
                raise ElectionUnavailableError("the data_dir is full")
            noted(record)

        a.state.note = note  # type: ignore[method-assign]
        a.start()
        await a.in_trouble("the data_dir is full")
        assert a.terms == []
        failing = False
        await a.leads()
        assert a.term.number > 1, "the number that was taken is not used again"


async def test_a_store_that_does_not_answer_is_said_within_a_lease(tmp_path: Path):
    """Any engine: a hanging read is bounded, shown as trouble, and over when it answers."""
    store = LeaseStore(ClusterRecord("cluster", 0, 1, A), boottime)
    async with on_store(tmp_path, store, "b") as b:
        b.start()
        await b.until(lambda view: view.record is not None)
        store.answering.clear()
        await b.in_trouble("did not answer for 0.4 s")
        store.answering.set()
        await b.until(lambda view: view.trouble is None)


async def test_a_leader_whose_store_hangs_stops_within_its_lease_and_leads_again_later(tmp_path: Path):
    """The body is cancelled although the proof never returns; a new term is a larger one."""
    store = LeaseStore(ClusterRecord("cluster", 0, 1, A), boottime)
    async with on_store(tmp_path, store, "a") as a:
        a.start()
        await a.leads()
        store.answering.clear()
        await a.until(lambda view: view.role == "standby")
        assert "no proof of leading for 0.4 s: no answer" in a.lost[0]
        store.answering.set()
        await a.leads()
        assert a.term.number > a.terms[0].number


async def test_a_write_that_hangs_does_not_outlive_the_lease(tmp_path: Path):
    """The update ends with the term; nothing was acknowledged on it."""
    store = LeaseStore(ClusterRecord("cluster", 0, 1, A), boottime)
    async with on_store(tmp_path, store, "a") as a:
        a.start(once=True)
        await a.leads()
        term = a.term
        store.answering.clear()
        update = asyncio.create_task(term.update(sync_set=[B]))
        async with asyncio.timeout(LIMIT_S):
            (result,) = await asyncio.gather(update, return_exceptions=True)
        assert isinstance(result, Exception)
        assert term.needed == {B}
        assert not term.valid()
        store.answering.set()
        await a.ended()
