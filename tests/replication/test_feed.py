"""The feed with its sync set, over a channel in memory: a standby that says what the test wants it to say."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stargate_gate.election.port import Member
from stargate_gate.errors import LeadershipLostError, TryAgainError
from stargate_gate.replication.leader.sync_rules import Limits
from stargate_gate.replication.wire.about import About, Reached
from stargate_gate.replication.wire.messages import (
    Applied,
    Changed,
    Checked,
    Compare,
    Enroll,
    Enrolled,
    Heartbeat,
    ListEnd,
    Progress,
    Refused,
)
from tests.support.feeds import APP_ID, LIMIT_S, TERM, B, House, opened


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path, "sync") as one:
        yield one


async def waits(work: "asyncio.Task[None]") -> bool:
    """Whether it still waits, after everything that is ready has run."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not work.done()


async def test_a_push_waits_until_the_member_has_it_on_disk(house: House) -> None:
    """Told "ok" only when the commit is on every member of the sync set."""
    standby = await house.level()
    seq = await house.push()
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, seq))
    await standby.pipe.hear(Changed, Compare)
    assert await waits(waiting)
    standby.applied(seq)
    async with asyncio.timeout(LIMIT_S):
        await waiting


async def test_confirming_an_older_change_is_not_enough(house: House) -> None:
    """Acknowledgements are per sequence number."""
    standby = await house.level()
    first, second = await house.push(), await house.push()
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, second))
    standby.applied(first)
    await asyncio.wait_for(house.feed.replicated(APP_ID, first), LIMIT_S)
    assert await waits(waiting)
    standby.applied(second)
    await asyncio.wait_for(waiting, LIMIT_S)


async def test_a_repeated_push_has_the_number_of_the_change_that_it_repeats(house: House) -> None:
    """ "Everything up-to-date" is an acknowledgement too: it waits for what the first one waits for."""
    standby = await house.level()
    seq = await house.push()
    again = await house.pushed(await house.repository())
    assert again == seq
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, again))
    assert await waits(waiting)
    standby.applied(seq)
    await asyncio.wait_for(waiting, LIMIT_S)


async def test_a_late_standby_leaves_by_the_record_before_the_push_is_acknowledged(tmp_path: Path) -> None:
    """While the record cannot be written nothing is acknowledged without it."""
    async with opened(tmp_path, "sync", limits=Limits(0.2, 60.0)) as house:
        await house.level()
        house.record.may_write.clear()
        seq = await house.push()
        waiting = asyncio.create_task(house.feed.replicated(APP_ID, seq))
        await house.until(lambda: house.record.writing)  # it is late, and the record still names it
        assert await waits(waiting)
        assert house.record.in_force == {B}
        house.record.may_write.set()
        await asyncio.wait_for(waiting, LIMIT_S)
        assert house.record.in_force == frozenset()


async def test_a_standby_joins_with_an_incarnation_that_it_has_on_disk(house: House) -> None:
    """It is asked to note one, and is in the record, with that one, only after it has said so."""
    standby = house.join()
    standby.pipe.enrolls = False
    await standby.confirm_list()
    offer = await standby.pipe.hear(Enroll)
    assert isinstance(offer, Enroll)
    seq = await house.push()
    standby.applied(seq)
    standby.pipe.say(Enrolled(TERM, "f" * 32))  # of some other time
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, seq))
    await asyncio.wait_for(waiting, LIMIT_S)
    assert house.record.in_force == set()
    standby.pipe.say(Enrolled(TERM, offer.incarnation))
    await house.until(lambda: house.record.members == {B: offer.incarnation})


async def test_a_standby_that_joins_again_gets_another_incarnation(tmp_path: Path) -> None:
    """Late, out of the record, caught up: a data_dir from before that must not count."""
    async with opened(tmp_path, "sync", limits=Limits(0.2, 60.0)) as house:
        standby = await house.level()
        before = house.record.members[B]
        seq = await house.push()
        await asyncio.wait_for(house.feed.replicated(APP_ID, seq), LIMIT_S)
        assert B not in house.record.members
        standby.applied(seq)
        await standby.confirm_list()
        await house.until(lambda: B in house.record.members)
        assert house.record.members[B] not in {None, before}


async def test_a_failed_record_write_keeps_both_sync_sets_needed(house: House) -> None:
    """Its outcome is unknown: nothing is acknowledged without the union, until a write succeeds."""
    standby = await house.level()
    house.record.failures = sys.maxsize
    standby.pipe.cut()
    await asyncio.wait_for(standby.served, LIMIT_S)
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, await house.push()))
    assert await waits(waiting)
    assert house.record.in_force == {B}
    house.record.failures = 0
    await asyncio.wait_for(waiting, LIMIT_S)
    assert house.record.in_force == frozenset()


async def test_progress_keeps_a_slow_transfer_alive(tmp_path: Path) -> None:
    """ack_timeout_s counts from the standby's last sign of progress."""
    async with opened(tmp_path, "sync", limits=Limits(0.5, 60.0)) as house:
        standby = await house.level()
        seq = await house.push()
        waiting = asyncio.create_task(house.feed.replicated(APP_ID, seq))
        await standby.pipe.hear(Changed, Compare)
        for _ in range(8):  # over twice ack_timeout_s
            standby.pipe.say(Progress(TERM, seq, APP_ID, 0))
            await asyncio.sleep(0.15)
        assert not waiting.done()
        assert house.record.in_force == {B}
        standby.applied(seq)
        await asyncio.wait_for(waiting, LIMIT_S)


async def test_strict_refuses_without_a_member(tmp_path: Path) -> None:
    """At least one member at every acknowledgement, else 75."""
    async with opened(tmp_path, "strict", limits=Limits(0.2, 60.0)) as house:
        seq = await house.push()
        with pytest.raises(TryAgainError, match="not replicated in time"):
            await asyncio.wait_for(house.feed.replicated(APP_ID, seq), LIMIT_S)


async def test_strict_keeps_a_member_that_is_gone_and_refuses(tmp_path: Path) -> None:
    """It holds everything that was acknowledged, and may take over."""
    async with opened(tmp_path, "strict", limits=Limits(0.2, 60.0)) as house:
        standby = await house.level()
        standby.pipe.cut()
        await asyncio.wait_for(standby.served, LIMIT_S)
        seq = await house.push()
        with pytest.raises(TryAgainError):
            await asyncio.wait_for(house.feed.replicated(APP_ID, seq), LIMIT_S)
        assert house.record.in_force == {B}


async def test_async_waits_for_nobody(tmp_path: Path) -> None:
    """Not even for a member that lacks it."""
    async with opened(tmp_path, "async") as house:
        await house.level()
        await asyncio.wait_for(house.feed.replicated(APP_ID, await house.push()), LIMIT_S)


async def test_a_member_that_was_carried_over_is_needed_until_it_matched(tmp_path: Path) -> None:
    """Each repository counts as pending for it until it was compared in this term."""
    async with opened(tmp_path, "sync", members=[B]) as house:
        seq = await house.push()
        waiting = asyncio.create_task(house.feed.replicated(APP_ID, seq))
        assert await waits(waiting)
        standby = house.join()
        await standby.confirm_list()
        await asyncio.wait_for(waiting, LIMIT_S)
        assert house.record.in_force == {B}


async def test_one_that_was_carried_over_and_does_not_come_leaves(tmp_path: Path) -> None:
    """The cluster goes on without it, by the record."""
    async with opened(tmp_path, "sync", members=[B], limits=Limits(0.2, 60.0)) as house:
        await asyncio.wait_for(house.feed.replicated(APP_ID, await house.push()), LIMIT_S)
        assert house.record.in_force == frozenset()


async def test_a_standby_is_told_to_compare_until_its_first_list_is_confirmed(house: House) -> None:
    """A difference proves nothing of the rest of a repository that was not compared yet."""
    await house.push()
    standby = house.join()
    await standby.pipe.hear(ListEnd)
    await house.push()
    assert isinstance(await standby.pipe.hear(Changed, Compare), Compare)


async def test_nobody_waits_beyond_the_term(house: House) -> None:
    """A push whose term is over is never acknowledged."""
    await house.level()
    seq = await house.push()
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, seq))
    assert await waits(waiting)
    house.record.leads = False
    await house.feed.close()
    with pytest.raises(LeadershipLostError):
        await asyncio.wait_for(waiting, LIMIT_S)


async def test_an_acknowledgement_of_another_term_ends_the_connection(house: House) -> None:
    """What is of another term counts for nothing."""
    standby = await house.level()
    seq = await house.push()
    standby.pipe.say(Applied(TERM - 1, seq, APP_ID))
    await asyncio.wait_for(standby.served, LIMIT_S)
    assert house.feed.standbys() == ()


async def test_heartbeats_say_what_the_whole_sync_set_has(tmp_path: Path) -> None:
    """Standbys forget by it what they would have to rescue."""
    async with opened(tmp_path, "sync", heartbeat_s=1.0) as house:
        standby = await house.level()
        seq = await house.push()
        standby.applied(seq)
        async with asyncio.timeout(LIMIT_S):
            while True:
                beat = await standby.pipe.hear(Heartbeat)
                assert isinstance(beat, Heartbeat)
                if beat.replicated == seq:
                    break


async def test_stepping_down_waits_for_nobody_who_is_not_there(house: House) -> None:
    """A node that is alone, or whose last standby has gone, stops at once."""
    assert await asyncio.wait_for(house.feed.caught_up(60.0), LIMIT_S) is None
    standby = await house.level()
    await house.push()
    stepping_down = asyncio.create_task(house.feed.caught_up(60.0))
    assert not stepping_down.done()
    standby.pipe.cut()
    assert await asyncio.wait_for(stepping_down, LIMIT_S) is None


async def test_two_nodes_of_one_name_are_told_apart(house: House) -> None:
    """The second one is refused, with the reason."""
    await house.level()
    twin = house.join(Member(B.name, "another-id"))
    refused = await twin.pipe.hear(Refused)
    assert isinstance(refused, Refused)
    assert "another node is called 'node-b' too" in refused.reason


async def test_a_standby_that_is_not_reached_holds_up_no_push_and_does_not_join(house: House) -> None:
    """It has confirmed everything; but nobody could follow it."""
    house.doors.problems[B] = "node-a cannot reach node-b"
    standby = house.join()
    heard = [await standby.pipe.hear(Reached, ListEnd) for _ in range(2)]
    assert Reached(TERM, "node-a cannot reach node-b") in heard
    (end,) = (one for one in heard if isinstance(one, ListEnd))
    standby.pipe.say(Checked(TERM, end.check))
    await house.until(lambda: house.feed.standbys()[0].lag_changes == 0)
    await asyncio.wait_for(house.feed.replicated(APP_ID, await house.push()), LIMIT_S)
    assert house.record.in_force == frozenset()
    assert house.doors.asked[0] == (B, "node-b.example:2222")


async def test_a_standby_that_moves_house_is_looked_for_there_at_once(house: House) -> None:
    """It joins without a new list: it has confirmed one, and holds everything since."""
    house.doors.problems[B] = "nobody there"
    standby = house.join()
    await standby.confirm_list()
    await house.until(lambda: house.feed.standbys()[0].problem is not None)
    seq = await house.push()
    del house.doors.problems[B]
    standby.pipe.say(About(TERM, "elsewhere.example:2222", ()))
    await house.until(lambda: house.doors.asked[-1] == (B, "elsewhere.example:2222"))
    await standby.pipe.hear(Changed, Compare)
    assert house.record.in_force == frozenset(), "it lacks a change still"
    standby.applied(seq)
    await house.until(lambda: house.record.in_force == {B})


async def test_a_member_that_cannot_be_reached_any_more_stays_and_is_named(house: House) -> None:
    """It holds every acknowledged push: putting it out would leave fewer copies."""
    standby = await house.level()
    house.doors.problems[B] = "node-a cannot reach node-b"
    standby.pipe.say(About(TERM, "elsewhere.example:2222", ()))
    await house.until(lambda: house.feed.standbys()[0].problem is not None)
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, await house.push()))
    assert await waits(waiting)
    assert house.record.in_force == {B}
    waiting.cancel()


async def test_a_member_that_was_carried_over_is_a_member_before_it_is_reached(tmp_path: Path) -> None:
    """The leader before has reached it; and it is asked for as a successor like any other."""
    async with opened(tmp_path, "sync", members=[B]) as house:
        house.doors.problems[B] = "node-a cannot reach node-b"
        standby = house.join()
        await standby.confirm_list()
        await house.until(lambda: house.feed.standbys()[0].lag_changes == 0)
        assert house.record.in_force == {B}
        assert house.feed.standbys()[0].problem is not None


async def test_a_push_that_is_given_up_in_the_moment_of_its_answer_is_only_given_up(tmp_path: Path) -> None:
    """Its task is cancelled, and before that has run the term answers it."""
    async with opened(tmp_path, "strict") as house:
        waiting = asyncio.create_task(house.feed.replicated(APP_ID, await house.push()))
        assert await waits(waiting)
        waiting.cancel()
        with pytest.raises(StopIteration):
            house.feed.close().send(None)  # without a standby it does all at once
        with pytest.raises(asyncio.CancelledError):
            await waiting
