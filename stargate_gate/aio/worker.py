"""One daemonic thread for calls that may hang for ever, such as I/O on a shared volume."""

import asyncio
import collections
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_T = TypeVar("_T")


@dataclass(eq=False)
class _Job:
    function: Callable[[], Any]
    answer: "asyncio.Future[Any]"


class Worker:
    """Runs functions one after the other, in the order given, in a thread of its own.

    A plain daemonic thread: the interpreter does not wait for it at exit, as it does for the threads
    of an executor, so a share that hangs cannot hold up a shutdown. What is given up before its turn
    is removed from the queue, so the queue is never longer than the number of waiting callers.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: collections.deque[_Job] = collections.deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def call(self, function: Callable[..., _T], *args: Any) -> _T:
        """`function(*args)`, run in the thread. Callers bound it with `asyncio.timeout`.

        If the caller is cancelled before `function` has begun, it never runs. If it has begun, it runs to its
        end and its result is dropped.
        """
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        job = _Job(lambda: function(*args), answer)
        self._append(job)
        try:
            return await answer
        except asyncio.CancelledError:
            with self._wake, contextlib.suppress(ValueError):
                self._jobs.remove(job)
            raise

    def submit(self, function: Callable[..., _T], *args: Any) -> "asyncio.Future[_T]":
        """As `call`, but it also runs if nobody waits for the answer any more."""
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._append(_Job(lambda: function(*args), answer))
        return answer

    def close(self) -> None:
        """Let the thread end when nothing is queued. Does not wait: it may hang. A later call starts anew."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _append(self, job: _Job) -> None:
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._jobs:
                    if self._closed:
                        self._thread = None
                        return
                    self._wake.wait()
                job = self._jobs.popleft()
            _perform(job)
            del job  # what it holds is not kept alive until the next one comes


def _perform(job: _Job) -> None:
    result: Any = None
    error: BaseException | None = None
    try:
        result = job.function()
    except BaseException as raised:  # noqa: BLE001 - handed on to the caller, whatever it is
        error = raised
    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        job.answer.get_loop().call_soon_threadsafe(_deliver, job.answer, result, error)


def _deliver(answer: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
