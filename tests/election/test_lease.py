"""The lease of one handle, in virtual time: what ends it, when, and what its body then sees."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from stargate_gate.election.lease import Lease
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.status import Timings
from stargate_gate.election.term import Term
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError

pytestmark = pytest.mark.looptime

TIMINGS = Timings(retry_s=0.1, heartbeat_s=1.0, lease_s=5.0)
A, B, C = (Member(f"node-{name}", name * 32) for name in "abc")
FIRST = ClusterRecord("cluster", 5, 1, A, sync_set=(B,))


Proving = Callable[[], Awaitable[None]]
Writing = Callable[[ClusterRecord], Awaitable[None]]


def now() -> float:
    return asyncio.get_running_loop().time()


async def succeed(*_args: object) -> None:
    """Nothing goes wrong."""


async def hang(*_args: object) -> None:
    await asyncio.Event().wait()


async def out_of_reach(*_args: object) -> None:
    raise ElectionUnavailableError("out of reach")


async def gone(*_args: object) -> None:
    raise LeadershipLostError("the lock file was replaced")


class Storage:
    """`port.LeaseHandle`: a storage whose faults a test chooses while it runs."""

    def __init__(self) -> None:
        self.proving: Proving = succeed
        self.writing: Writing = succeed
        self.proofs: list[float] = []
        self.written: list[ClusterRecord] = []

    async def read(self) -> ClusterRecord:
        return FIRST

    async def claim(self, record: ClusterRecord, *, former: ClusterRecord) -> ClusterRecord:
        return record

    async def write(self, record: ClusterRecord) -> None:
        self.written.append(record)
        await self.writing(record)

    async def prove(self) -> None:
        self.proofs.append(now())
        await self.proving()

    async def release(self) -> None:
        """Nothing to let go of."""


class Leadership:
    """A storage, a lease on it, and what it told. Made inside a test: fixtures run in real time."""

    def __init__(self) -> None:
        self.storage = Storage()
        self.lost: list[tuple[float, str]] = []
        self.lease = Lease(
            self.storage,
            TIMINGS,
            clock=now,
            proved_at=now(),
            on_lost=lambda reason: self.lost.append((now(), reason)),
        )
        self.changes = 0
        self.term = Term(self.lease, FIRST, self._change)

    def _change(self) -> None:
        self.changes += 1


async def test_a_hold_is_proved_at_every_heartbeat_and_stays_valid():
    """From the first moment on, and no oftener."""
    led = Leadership()
    started = now()
    async with led.lease:
        await asyncio.sleep(20.5)
        assert led.lease.valid()
    assert [round(at - started) for at in led.storage.proofs] == list(range(21))
    assert led.lost == []
    assert not led.lease.valid(), "a lease that was left proves nothing"


async def test_a_proof_that_hangs_loses_the_lease_on_time():
    """The last proof counts from before it was asked for; the body is cancelled when it is too old."""
    led = Leadership()
    cancelled_at = 0.0
    started = now()
    with pytest.raises(LeadershipLostError, match="no proof of leading for 5 s: no answer"):  # noqa: PT012 - leaving the scope raises
        async with led.lease:
            await asyncio.sleep(2.5)
            led.storage.proving = hang
            try:
                await asyncio.sleep(100)
            finally:
                cancelled_at = now()
                assert not led.lease.valid()
    assert cancelled_at - started == pytest.approx(2 + TIMINGS.lease_s, abs=0.01)
    assert len(led.lost) == 1


async def test_a_slow_proof_counts_from_before_it_was_asked_for():
    """An answer after 3 s leaves 2 s of the lease, not 5."""
    led = Leadership()

    async def slow() -> None:
        await asyncio.sleep(3)

    led.storage.proving = slow
    async with led.lease:
        await asyncio.sleep(3.001)
        assert led.lease.left_s() == pytest.approx(2.0, abs=0.01)


async def test_an_unreachable_storage_is_tried_again_until_the_lease_is_over():
    """Every `retry_s`; one success within the lease is enough."""
    led = Leadership()
    async with led.lease:
        await asyncio.sleep(0.5)
        led.storage.proving = out_of_reach
        await asyncio.sleep(4.0)
        assert led.lease.valid()
        led.storage.proving = succeed
        await asyncio.sleep(10)
        assert led.lease.valid()
    started = now()
    led = Leadership()
    led.storage.proving = out_of_reach
    with pytest.raises(LeadershipLostError, match="out of reach"):
        async with led.lease:
            await asyncio.sleep(100)
    assert now() - started == pytest.approx(TIMINGS.lease_s, abs=0.01)
    assert len(led.storage.proofs) >= 40


async def test_a_hold_that_is_gone_for_certain_ends_the_body_at_once():
    """The next heartbeat tells; nobody waits for the lease to run out."""
    led = Leadership()
    started = now()
    with pytest.raises(LeadershipLostError, match="the lock file was replaced"):  # noqa: PT012 - leaving the scope raises
        async with led.lease:
            led.storage.proving = gone
            await asyncio.sleep(100)
    assert now() - started <= TIMINGS.heartbeat_s
    assert [reason for _, reason in led.lost] == ["the lock file was replaced"]


async def test_a_mistake_in_the_engine_is_a_heartbeat_that_failed():
    """It ends the lease in time, not the process, and not silently."""
    led = Leadership()

    async def mistaken() -> None:
        raise ZeroDivisionError

    led.storage.proving = mistaken
    with pytest.raises(LeadershipLostError, match="the heartbeat failed"):
        async with led.lease:
            await asyncio.sleep(100)


async def test_a_cancellation_from_outside_passes_through():
    """A node that is told to end is not told that it lost; and no heartbeat is left behind."""
    led = Leadership()
    entered = asyncio.Event()

    async def body() -> None:
        async with led.lease:
            entered.set()
            await asyncio.sleep(100)

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert led.lost == []
    assert not any(other.get_name() == "leadership-heartbeat" for other in asyncio.all_tasks())


@pytest.mark.parametrize("lost_first", [True, False])
async def test_a_cancellation_from_outside_wins_over_a_loss_at_the_same_time(*, lost_first: bool):
    """Whichever comes first: the outer scope asked for the end and must see it."""
    led = Leadership()
    entered = asyncio.Event()

    async def body() -> None:
        async with led.lease:
            entered.set()
            await asyncio.sleep(100)

    task = asyncio.create_task(body())
    await entered.wait()
    both = [lambda: led.lease.lose("gone"), task.cancel]
    for act in both if lost_first else both[::-1]:
        act()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_loss_that_the_body_does_not_live_to_see_is_still_a_loss():
    """The body ends by itself in the same moment: the caller learns it, no late cancellation follows."""
    led = Leadership()
    with pytest.raises(LeadershipLostError, match="gone"):
        async with led.lease:
            led.lease.lose("gone")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1)


async def test_what_the_body_raises_while_it_ends_is_not_covered_up():
    """An error of cleaning up is the more important one."""
    led = Leadership()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - leaving the scope raises
        async with led.lease:
            led.lease.lose("gone")
            try:
                await asyncio.sleep(100)
            finally:
                _ = 1 // 0


async def test_only_the_first_reason_of_a_loss_counts():
    """And none after the lease was left."""
    led = Leadership()
    with pytest.raises(LeadershipLostError, match="first"):  # noqa: PT012 - leaving the scope raises
        async with led.lease:
            led.lease.lose("first")
            led.lease.lose("second")
            await asyncio.sleep(100)
    led.lease.lose("third")
    assert [reason for _, reason in led.lost] == ["first"]


async def test_an_outer_timeout_is_told_from_a_loss():
    """`asyncio.timeout` around the lease still raises TimeoutError."""
    led = Leadership()
    with pytest.raises(TimeoutError):  # noqa: PT012 - leaving the scope raises
        async with asyncio.timeout(3):
            async with led.lease:
                await asyncio.sleep(100)
    assert led.lost == []


async def test_an_update_changes_what_it_names_and_counts_versions():
    """The leader is never in its own sync set; a successor lasts for one update."""
    led = Leadership()
    async with led.lease:
        await led.term.update(sync_set=[C, B, A], position=3)
        await led.term.update(clean=True, successor=B)
        await led.term.update(position=4)
    first, second, third = led.storage.written
    assert (first.version, first.sync_set, first.position, first.clean) == (2, (B, C), 3, False)
    assert (second.version, second.sync_set, second.clean, second.successor) == (3, (B, C), True, B)
    assert (third.version, third.position, third.clean, third.successor) == (4, 4, True, None)
    assert led.term.record == third
    assert led.changes == 3


async def test_a_failed_update_leaves_both_sync_sets_needed_until_one_succeeds():
    """Old or new may be in force, after any number of failures; versions are never used twice."""
    led = Leadership()
    async with led.lease:
        led.storage.writing = out_of_reach
        with pytest.raises(ElectionUnavailableError):
            await led.term.update(sync_set=[C])
        assert led.term.needed == {B, C}
        assert led.term.record == FIRST
        with pytest.raises(ElectionUnavailableError):
            await led.term.update(sync_set=[])
        assert led.term.needed == {B, C}
        led.storage.writing = succeed
        await led.term.update(sync_set=[])
        assert led.term.needed == set()
    assert [record.version for record in led.storage.written] == [2, 3, 4]


async def test_an_update_that_hangs_ends_with_the_lease_and_its_outcome_is_unknown():
    """While heartbeats go through the write may not take longer than the proof it began with."""
    led = Leadership()
    led.storage.writing = hang
    started = now()
    async with led.lease:
        await asyncio.sleep(0.5)
        with pytest.raises(ElectionUnavailableError, match="outcome unknown"):
            await led.term.update(sync_set=[C])
        assert now() - started <= TIMINGS.lease_s + 0.01
        assert led.term.needed == {B, C}


async def test_a_cancelled_update_leaves_its_outcome_unknown():
    """The storage may still carry it out."""
    led = Leadership()
    led.storage.writing = hang
    async with led.lease:
        update = asyncio.create_task(led.term.update(sync_set=[]))
        await asyncio.sleep(0.1)
        update.cancel()
        await asyncio.wait({update})
        assert led.term.needed == {B}
        led.storage.writing = succeed
        await led.term.update(sync_set=[C])
        assert led.term.needed == {C}
        assert led.storage.written[-1].version == 3


async def test_updates_at_once_are_written_one_after_the_other():
    """Each builds on the one before it."""
    led = Leadership()

    async def slow(record: ClusterRecord) -> None:
        await asyncio.sleep(0.2)

    led.storage.writing = slow
    async with led.lease:
        await asyncio.gather(led.term.update(sync_set=[C]), led.term.update(position=9))
    assert led.term.record.sync_set == (C,)
    assert led.term.record.position == 9
    assert [record.version for record in led.storage.written] == [2, 3]


async def test_members_are_chosen_when_their_write_begins_and_needed_from_then_on():
    """A standby that is dismissed while the write waits for its turn is not written by it.

    Else a push would be acknowledged without it in between, and the record would name it afterwards.
    """
    led = Leadership()
    turn = asyncio.Event()
    wanted = {C: "joins"}

    async def slow(record: ClusterRecord) -> None:
        await turn.wait()

    led.storage.writing = slow
    async with led.lease:
        first = asyncio.create_task(led.term.update(position=9))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(led.term.update_members(lambda: dict(wanted), position=10))
        await asyncio.sleep(0.1)
        assert C not in led.term.needed, "it is not chosen yet"
        wanted.clear()  # and so it is acknowledged without C here
        turn.set()
        await first
        assert await second == set()
        assert led.term.record.sync_set == ()
        turn.clear()
        wanted[C] = "joins"
        third = asyncio.create_task(led.term.update_members(lambda: dict(wanted), position=11))
        await asyncio.sleep(0.1)
        assert C in led.term.needed, "it is needed as soon as it is chosen"
        wanted.clear()
        assert C in led.term.needed, "whatever becomes of the wish"
        turn.set()
        assert await third == {C}
        assert led.term.record.incarnation_of(C) == "joins"


async def test_an_update_beside_a_larger_term_ends_the_term():
    """What the storage says for certain counts for the whole leadership."""
    led = Leadership()
    led.storage.writing = gone
    with pytest.raises(LeadershipLostError, match="was replaced"):  # noqa: PT012 - leaving the scope raises
        async with led.lease:
            with pytest.raises(LeadershipLostError):
                await led.term.update(sync_set=[])
            assert not led.term.valid()
            assert led.term.needed == {B}
            await asyncio.sleep(100)


async def test_nothing_is_written_without_a_valid_lease():
    """After the end, and not even tried."""
    led = Leadership()
    async with led.lease:
        pass
    with pytest.raises(LeadershipLostError):
        await led.term.update(sync_set=[])
    assert led.storage.written == []
    assert led.term.needed == {B}
