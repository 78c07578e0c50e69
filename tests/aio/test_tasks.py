"""Tasks with owners: none outlives its owner, and no error is lost."""

import asyncio

import pytest
from structlog.testing import capture_logs

from stargate_gate.aio.tasks import (
    HeldTasks,
    Signal,
    TaskGroup,
    all_of,
    beside,
    cancel_and_wait,
    finish,
    run_until,
    task_group,
)

LIMIT_S = 10.0


class BrokenError(Exception):
    """What a task raises."""


async def breaks(name: str = "broken") -> None:
    raise BrokenError(name)


async def for_ever(ended: asyncio.Event | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        if ended is not None:
            ended.set()


async def test_one_error_leaves_a_group_as_itself_and_with_its_cause():
    """Callers catch the errors that they know, and not groups of them."""

    async def caused() -> None:
        raise BrokenError("late") from ValueError("the cause")

    ended = asyncio.Event()

    async def owner() -> None:
        async with task_group() as group:
            group.create_task(for_ever(ended))
            group.create_task(caused())

    with pytest.raises(BrokenError) as raised:
        await owner()
    assert isinstance(raised.value.__cause__, ValueError)
    assert ended.is_set()


async def test_of_several_errors_the_first_is_raised_and_the_others_are_logged():
    """None is lost."""

    async def breaks_when_cancelled() -> None:
        try:
            await for_ever()
        finally:
            raise BrokenError("second")

    async def owner() -> None:
        async with task_group() as group:
            group.create_task(breaks_when_cancelled())
            await asyncio.sleep(0)
            group.create_task(breaks("first"))

    with capture_logs() as logs, pytest.raises(BrokenError, match="first"):
        await owner()
    assert [(line["event"], line["error"]) for line in logs] == [("failed_as_well", "BrokenError('second')")]


async def test_a_cancellation_from_outside_passes_through_a_group():
    """It is no error of the group's."""

    async def owner() -> None:
        async with task_group() as group:
            group.create_task(for_ever())

    task = asyncio.create_task(owner())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("expected", "logged"), [((), 1), ((BrokenError,), 0)])
async def test_a_cancellation_is_not_lost_when_a_task_fails_at_the_same_time(
    expected: tuple[type[Exception], ...], logged: int
) -> None:
    """The caller of a group was asked to end, so it ends as cancelled; the error is in the log."""
    fail = asyncio.Event()

    async def fails() -> None:
        await fail.wait()
        raise BrokenError("late")

    async def owner() -> None:
        async with task_group(expected=expected) as group:
            group.create_task(fails())
            await for_ever()

    task = asyncio.create_task(owner())
    await asyncio.sleep(0.0)
    await asyncio.sleep(0.0)
    fail.set()
    task.cancel()
    with capture_logs() as logs:
        await asyncio.wait({task}, timeout=LIMIT_S)
    assert task.cancelled()
    assert [line["event"] for line in logs] == ["failed_while_cancelled"] * logged


async def test_what_runs_beside_a_body_ends_with_it():
    """Whether the body returns or raises."""
    ended = asyncio.Event()
    async with beside(for_ever(ended), "beside"):
        await asyncio.sleep(0)
    assert ended.is_set()
    ended.clear()

    async def breaks_later() -> None:
        async with beside(for_ever(ended), "beside"):
            await asyncio.sleep(0)
            await breaks()

    with pytest.raises(BrokenError):
        await breaks_later()
    assert ended.is_set()


async def test_an_error_beside_a_body_ends_the_body():
    """It is not kept for nobody in the task."""
    with pytest.raises(BrokenError):
        async with asyncio.timeout(LIMIT_S), beside(breaks(), "beside"):
            await for_ever()


async def test_all_of_gives_results_in_order_and_leaves_nothing_running_after_an_error():
    """`asyncio.gather` lets the others run on."""

    async def later(rounds: int) -> int:
        for _ in range(rounds):
            await asyncio.sleep(0)
        return rounds

    assert await all_of(later(rounds) for rounds in (3, 1, 2)) == [3, 1, 2]
    assert await all_of([]) == []
    ended = asyncio.Event()
    with pytest.raises(BrokenError):
        await all_of([for_ever(ended), later(2), breaks()])
    assert ended.is_set()


async def test_work_that_ends_first_gives_its_result():
    """What would have stopped it has ended as well."""
    ended = asyncio.Event()

    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await run_until(for_ever(ended), work()) == "done"
    assert ended.is_set()


async def test_work_is_cancelled_when_it_is_to_stop():
    """And has ended when that is known."""
    ended, stop = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    assert await run_until(stop.wait(), for_ever(ended)) is None
    assert ended.is_set()


@pytest.mark.parametrize("which", ["work", "stop"])
async def test_an_error_of_either_is_raised(which: str):
    """Both have ended by then."""
    ended = asyncio.Event()
    both = {"work": breaks(), "stop": for_ever(ended)} if which == "work" else {}
    both = both or {"work": for_ever(ended), "stop": breaks()}
    with pytest.raises(BrokenError):
        await run_until(both["stop"], both["work"])
    assert ended.is_set()


async def test_cancel_and_wait_waits_also_while_the_caller_is_cancelled():
    """A task that takes a while to end is not left behind."""
    cleaning, may_end = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await may_end.wait()

    slow = asyncio.create_task(slow_to_end())
    await asyncio.sleep(0)
    caller = asyncio.create_task(cancel_and_wait(slow))
    await cleaning.wait()
    caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert slow.cancelled()


async def test_held_tasks_end_with_their_owner_and_errors_are_logged():
    """With the name of the task."""
    held, ended = HeldTasks(), asyncio.Event()
    with capture_logs() as logs:
        held.start(for_ever(ended), "endless")
        failing = held.start(breaks(), "failing")
        await asyncio.wait({failing})
        await asyncio.sleep(0)
        assert len(held) == 1
        await held.close()
        await held.close()
    assert ended.is_set()
    assert [(line["event"], line["task"]) for line in logs] == [("task_failed", "failing")]


async def test_the_error_of_an_awaited_held_task_is_raised_and_not_logged():
    """Whoever awaits it logs it or tells a client; `ended` waits for all and raises nothing."""
    held = HeldTasks()
    with capture_logs() as logs:
        failing = held.start(breaks(), "failing", awaited=True)
        await held.ended()
        with pytest.raises(BrokenError):
            await failing
    assert len(held) == 0
    assert logs == []


async def test_a_signal_wakes_those_who_wait_and_nobody_later():
    """`current`, taken before the look, loses no wake in between."""
    signal = Signal()
    waiters = [asyncio.create_task(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    before = signal.current
    signal.wake()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*waiters)
        await before.wait()
    assert not signal.current.is_set()


async def test_finish_finishes_and_then_tells_of_the_cancellation() -> None:
    """However often it is cancelled."""
    work_goes_on = asyncio.Event()
    done = []

    async def work() -> None:
        await work_goes_on.wait()
        done.append(1)

    task = asyncio.create_task(finish(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    work_goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def _fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("body", ["waits", "is over"])
async def test_after_a_task_of_a_group_has_failed_its_owner_does_not_count_as_cancelled(body: str) -> None:
    """In Python 3.11 it did if the body was over: a later cancellation was taken for another one."""
    errors: tuple[Exception, ...] = ()
    try:
        async with TaskGroup() as group:
            group.create_task(_fail(ValueError("first")))
            group.create_task(asyncio.Event().wait())
            if body == "waits":
                await asyncio.Event().wait()
    except* ValueError as failed:
        errors = failed.exceptions
    assert [str(error) for error in errors] == ["first"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_group_whose_owner_is_cancelled_ends_its_tasks() -> None:
    """The cancellation goes on to whoever cancelled, and nothing runs any more."""
    started: asyncio.Future[asyncio.Task[object]] = asyncio.get_running_loop().create_future()

    async def own() -> None:
        async with TaskGroup() as group:
            started.set_result(group.create_task(asyncio.Event().wait()))

    owner = asyncio.create_task(own())
    member = await started
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert member.cancelled()
