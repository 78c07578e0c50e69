"""The thread for calls that may hang: in order, one at a time, and nobody waits for it at the end."""

import asyncio
import subprocess
import sys
import threading

import pytest

from stargate_gate.aio.worker import Worker

LIMIT_S = 20.0


@pytest.fixture
def worker():
    made = Worker("test")
    yield made
    made.close()


class Gate:
    """A call that hangs until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.go.wait(LIMIT_S)
        return "went"


async def entered(gate: Gate) -> None:
    await asyncio.to_thread(gate.entered.wait, LIMIT_S)


async def test_answers_and_errors_come_back(worker: Worker):
    """Whatever the function returns or raises is the caller's."""
    assert await worker.call(lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        await worker.call(lambda: 1 // 0)
    assert await worker.call(lambda: "still there") == "still there"


async def test_calls_run_one_after_the_other_in_the_order_given(worker: Worker):
    """Two steps of one file never overlap."""
    seen: list[int] = []
    await asyncio.gather(*(worker.call(seen.append, number) for number in range(50)))
    assert seen == list(range(50))


async def test_the_loop_runs_on_while_a_call_hangs(worker: Worker):
    """And what is given up before its turn never runs, and leaves the queue."""
    gate, ran = Gate(), []
    hanging = asyncio.create_task(worker.call(gate))
    await entered(gate)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await worker.call(ran.append, 1)
    assert not worker._jobs
    gate.go.set()
    assert await hanging == "went"
    await worker.call(int)
    assert ran == []


async def test_a_call_given_up_while_it_runs_ends_and_its_answer_is_dropped(worker: Worker):
    """The next call waits for its end: there is one thread."""
    gate = Gate()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await worker.call(gate)
    await entered(gate)
    after = asyncio.create_task(worker.call(lambda: "next"))
    await asyncio.sleep(0)
    assert not after.done()
    gate.go.set()
    assert await after == "next"


async def test_what_is_submitted_runs_although_nobody_waits(worker: Worker):
    """A close that must happen is not given up with its caller."""
    gate, ran = Gate(), threading.Event()
    hanging = asyncio.create_task(worker.call(gate))
    await entered(gate)
    worker.submit(ran.set).cancel()
    gate.go.set()
    await hanging
    assert await asyncio.to_thread(ran.wait, LIMIT_S)


async def test_a_closed_worker_ends_its_thread_after_what_is_queued(worker: Worker):
    """Nothing is lost, and a later call starts anew."""
    ran: list[int] = []
    last = worker.submit(ran.append, 1)
    thread = worker._thread
    worker.close()
    await last
    assert thread is not None
    await asyncio.to_thread(thread.join, LIMIT_S)
    assert not thread.is_alive()
    assert ran == [1]
    assert await worker.call(lambda: "again") == "again"


def test_a_call_that_hangs_for_ever_does_not_hold_up_the_exit():
    """A dead share and SIGTERM: the process ends."""
    program = (
        "import asyncio, threading\n"
        "from stargate_gate.aio.worker import Worker\n"
        "async def main():\n"
        "    worker = Worker('hangs')\n"
        "    entered = threading.Event()\n"
        "    worker.submit(lambda: (entered.set(), threading.Event().wait()))\n"
        "    await asyncio.to_thread(entered.wait)\n"
        "    worker.close()\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30, check=False).returncode == 0
