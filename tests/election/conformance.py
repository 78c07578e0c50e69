"""What every engine must do: one suite, from the port's docstrings. test_conformance.py plugs them in."""

import abc
import asyncio
from dataclasses import replace

import pytest

from stargate_gate.election.port import ClusterRecord, Engine, LeaseHandle, Member
from stargate_gate.errors import LeadershipLostError
from tests.support.elections import LIMIT_S, member

A, B, C = (member(name) for name in "abc")


class Cluster(abc.ABC):
    """One cluster of an engine, bootstrapped with A as the first who may lead."""

    @abc.abstractmethod
    def engine(self, name: str) -> Engine:
        """The engine of node `name`; the same one each time."""

    @abc.abstractmethod
    def lose(self, handle: LeaseHandle) -> None:
        """Take the lock or lease away from the holder, without a word to it."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close every engine."""


def opening(former: ClusterRecord, leader: Member, *sync_set: Member) -> ClusterRecord:
    """The first record that `leader` would write after `former`."""
    return replace(former, term=former.term + 1, version=1, leader=leader, sync_set=sync_set)


async def acquired(engine: Engine) -> LeaseHandle:
    handle = await engine.try_acquire()
    assert handle is not None
    return handle


async def leading(engine: Engine, leader: Member, *sync_set: Member) -> tuple[LeaseHandle, ClusterRecord]:
    """A handle, and the record that was claimed with it."""
    handle = await acquired(engine)
    former = await handle.read()
    return handle, await handle.claim(opening(former, leader, *sync_set), former=former)


class EngineConformance:
    """The suite. A subclass overrides the fixture `cluster`."""

    @pytest.fixture
    def cluster(self) -> Cluster:
        raise NotImplementedError

    async def test_everybody_reads_the_bootstrapped_record(self, cluster: Cluster):
        """Term 0 names the node that bootstrapped, and no sync set."""
        record = await cluster.engine("b").read()
        assert record == await cluster.engine("a").read()
        assert (record.term, record.version, record.leader, record.sync_set) == (0, 1, A, ())

    async def test_one_holds_and_the_other_does_not_wait(self, cluster: Cluster):
        """A second try gets None at once, from another node and from the same one."""
        handle = await acquired(cluster.engine("a"))
        assert await cluster.engine("b").try_acquire() is None
        assert await cluster.engine("a").try_acquire() is None
        await handle.release()
        await (await acquired(cluster.engine("b"))).release()

    async def test_a_claim_is_in_force_for_everybody(self, cluster: Cluster):
        """The record that claim returns is what others read; its term is larger than the former."""
        handle, record = await leading(cluster.engine("a"), A, B)
        assert record.term > 0
        assert record.version == 1
        assert await cluster.engine("b").read() == record
        assert await handle.read() == record
        await handle.release()

    async def test_terms_grow_and_the_smallest_asked_for_is_kept(self, cluster: Cluster):
        """`record.term` is the smallest term that will do, whatever the record says."""
        handle, first = await leading(cluster.engine("a"), A, B)
        await handle.release()
        handle = await acquired(cluster.engine("b"))
        second = await handle.claim(replace(opening(first, B), term=40), former=first)
        assert second.term >= 40
        await handle.release()

    async def test_a_claim_on_an_outdated_record_fails(self, cluster: Cluster):
        """What was read before somebody else led is no ground for a claim; nothing changes."""
        former = await cluster.engine("b").read()
        handle, record = await leading(cluster.engine("a"), A)
        await handle.release()
        handle = await acquired(cluster.engine("b"))
        with pytest.raises(LeadershipLostError):
            await handle.claim(opening(former, B), former=former)
        assert await cluster.engine("a").read() == record
        await handle.release()

    async def test_a_write_is_in_force_for_everybody(self, cluster: Cluster):
        """Each version replaces the one before it, also after many."""
        handle, record = await leading(cluster.engine("a"), A, B, C)
        for version, sync_set in enumerate([(B,), (), (C,), (B, C)], 2):
            record = replace(record, version=version, sync_set=sync_set, position=version * 10)
            await handle.write(record)
            assert await cluster.engine("b").read() == record
        await handle.release()

    async def test_a_lost_hold_writes_nothing_over_a_larger_term(self, cluster: Cluster):
        """The old leader learns it from its next write, and the new record stays in force."""
        old, record = await leading(cluster.engine("a"), A, B)
        cluster.lose(old)
        new, successor = await leading(cluster.engine("b"), B, A)
        with pytest.raises(LeadershipLostError):
            await old.write(replace(record, version=2, sync_set=()))
        assert await cluster.engine("a").read() == successor
        await new.write(replace(successor, version=2, sync_set=()))
        await old.release()
        await new.release()

    async def test_a_lost_hold_is_not_proved_once_another_leads(self, cluster: Cluster):
        """A heartbeat succeeds while the handle is held, and fails for certain beside a larger term."""
        old, _ = await leading(cluster.engine("a"), A, B)
        await old.prove()
        cluster.lose(old)
        new, _ = await leading(cluster.engine("b"), B, A)
        with pytest.raises(LeadershipLostError):
            await old.prove()
        await new.prove()
        await old.release()
        await new.release()

    async def test_a_hold_is_proved_before_its_claim_too(self, cluster: Cluster):
        """While a node ends its mirror it holds the lock without a term of its own."""
        handle = await acquired(cluster.engine("b"))
        await handle.prove()
        await handle.release()

    async def test_nothing_is_written_after_release(self, cluster: Cluster):
        """Release is final, can be repeated, and never raises."""
        handle, record = await leading(cluster.engine("a"), A)
        await handle.release()
        await handle.release()
        with pytest.raises(LeadershipLostError):
            await handle.write(replace(record, version=2))
        with pytest.raises(LeadershipLostError):
            await handle.prove()
        assert await cluster.engine("b").read() == record

    async def test_a_cancelled_try_keeps_no_lock(self, cluster: Cluster):
        """However late the cancellation comes, the lock is free for the next."""
        for yields in range(12):
            attempt = asyncio.create_task(cluster.engine("a").try_acquire())
            for _ in range(yields):
                await asyncio.sleep(0)
            attempt.cancel()
            (result,) = await asyncio.gather(attempt, return_exceptions=True)
            if not isinstance(result, BaseException) and result is not None:
                await result.release()
            async with asyncio.timeout(LIMIT_S):
                while (handle := await cluster.engine("b").try_acquire()) is None:
                    await asyncio.sleep(0)
            await handle.release()

    async def test_concurrent_tries_have_one_winner(self, cluster: Cluster):
        """Of many at once, one gets it."""
        handles = await asyncio.gather(*(cluster.engine(name).try_acquire() for name in "abc" * 5))
        winners = [handle for handle in handles if handle is not None]
        assert len(winners) == 1
        await winners[0].release()
