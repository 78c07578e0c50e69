"""Tasks that have an owner, and a signal that wakes all tasks that wait for it.

The rules of this code base, and the tool for each:

- Tasks that belong to one call are in a `task_group`: when the call returns or raises, they have ended.
  `beside` and `all_of` are the two usual forms of it.
- A task that outlives the call that starts it is in its owner's `HeldTasks`: the owner closes them, and what
  one of them raises is in the log.
- Work that must not be cut by a cancellation is awaited with `finish`.
- Work that is given up when something else happens is run by `run_until`.

No other package calls `asyncio.create_task`, `ensure_future` or `gather`: tests/test_conventions.py.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextvars import Context
from types import TracebackType
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")


class TaskGroup(asyncio.TaskGroup):  # noqa: TID251 - this is the one that the rule asks for
    """As `asyncio.TaskGroup`, but its user does not count as cancelled after a task of it failed.

    A task that fails cancels the task that made the group. Python 3.11 takes that back only while the body
    runs, and not while the group waits for its tasks: then `Task.cancelling()` stays 1 too high for ever, and
    a later `uncancel`, which tells one cancellation from another, counts wrongly. (Python 3.13 mended it.) So
    the tasks are waited for here, as if that was the end of the body.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: set[asyncio.Task[Any]] = set()

    def create_task(  # type: ignore[override]  # typeshed names the type of a context by a private alias
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        """Run `coro` in a task of this group."""
        task = super().create_task(coro, name=name, context=context)
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        return task

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            try:
                while self._open:
                    await asyncio.wait(self._open)
            except asyncio.CancelledError as cancelled:
                kind, error, traceback = type(cancelled), cancelled, cancelled.__traceback__
        await super().__aexit__(kind, error, traceback)


async def finish(work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
    """Await `work` to its end even if the caller is cancelled meanwhile; the cancellation follows then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.warning("failed_while_cancelled", error=str(problem))
        raise cancelled
    return task.result()


@contextlib.asynccontextmanager
async def task_group(*, expected: tuple[type[Exception], ...] = ()) -> AsyncIterator[TaskGroup]:
    """As `TaskGroup`, but an error leaves it as itself and not inside an ExceptionGroup.

    If several tasks (or the body) fail, the first error is raised, and the others are logged.

    If the caller was cancelled meanwhile, CancelledError is raised, and all errors are logged: an
    `asyncio.TaskGroup` raises the errors then, and the cancellation is lost.

    expected  errors that are not logged if the caller was cancelled: the same event usually causes both
    """
    caller = asyncio.current_task()
    assert caller is not None  # noqa: S101 - a coroutine runs in a task
    cancellations = caller.cancelling()
    failed: list[BaseException] = []
    try:
        async with TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        failed.extend(_single(errors))
    if failed and caller.cancelling() > cancellations:
        for error in failed:
            if not isinstance(error, expected):
                log.warning("failed_while_cancelled", error=str(error))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # Python 3.13 cancels once more in this case, which is taken back here
        raise asyncio.CancelledError
    for other in failed[1:]:
        log.error("failed_as_well", error=repr(other), exc_info=other)
    if failed:
        raise failed[0]  # here, so that it keeps its own cause and context


async def run_until(stop: Coroutine[Any, Any, object], work: Coroutine[Any, Any, T]) -> T | None:
    """Run `work`, and cancel it when `stop` returns. Its result, or None if it was cancelled.

    Both have ended when this returns or raises. It raises what either of them raises, as `task_group`.
    """
    async with task_group() as group:
        working, stopping = group.create_task(work), group.create_task(stop)
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        stopping.cancel()
    return None if working.cancelled() else working.result()


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, T], name: str) -> AsyncIterator[asyncio.Task[T]]:
    """Run `work` while the body runs, and cancel it when the body ends. Both have ended then.

    If `work` fails, the body is cancelled, and the error is raised, as by `task_group`.
    """
    async with task_group() as group:
        task = group.create_task(work, name=name)
        yield task
        task.cancel()


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run them all at the same time; the results in order.

    If one fails, the others are cancelled and have ended when its error is raised.
    """
    async with task_group() as group:
        tasks = [group.create_task(work) for work in works]
    return [task.result() for task in tasks]


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel them, and return when all have ended. What they raise stays in them.

    If the caller is cancelled meanwhile, they are waited for all the same.
    """
    for task in tasks:
        task.cancel()
    if tasks:
        await finish(asyncio.ensure_future(asyncio.wait(tasks)))


class HeldTasks:
    """The tasks of one owner that outlive the calls that start them. The owner awaits `close` in the end.

    What one of them raises ends that task alone, and is logged as `task_failed` with its name. That is not
    logged if the task is `awaited`: the owner promises then that somebody awaits the task and gets its error.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T], name: str, *, awaited: bool = False) -> asyncio.Task[T]:
        """Run `work` in a task of its own."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard if awaited else self._ended)
        return task

    async def ended(self) -> None:
        """Wait until all that runs now has ended. Raises none of their errors."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancel what runs, and return when all of it has ended. Safe to call twice."""
        await cancel_and_wait(*self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), error=repr(error), exc_info=error)


class Signal:
    """Wakes all who wait at that moment. Nothing is kept: who waits later waits for the next `wake`.

    To lose no `wake` between a look at the state and the wait, take `current` before the look, and wait
    for that.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def current(self) -> asyncio.Event:
        """Set by the next `wake`."""
        return self._event

    async def wait(self) -> None:
        """Until the next `wake`."""
        await self._event.wait()

    def wake(self) -> None:
        """Wake all who wait now."""
        self._event.set()
        self._event = asyncio.Event()


def _single(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _single(error)
        else:
            yield error
