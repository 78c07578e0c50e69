"""The running jobs of a `StandbySession`: generators of steps. Pure.

A job yields a step and goes on with its answer, or with its error. What it yields that needs no answer is
passed on at once. `TakeTurn` is answered here: one job at a time moves folders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stargate_gate.replication.standby.instructions import Cancel, Do, Instruction
from stargate_gate.replication.standby.job_queue import Job
from stargate_gate.replication.standby.placement import Turn
from stargate_gate.replication.standby.steps import Remark, Steps, TakeTurn


@dataclass
class _Running:
    """`job` is None unless it works on a repository."""

    steps: Steps[None]
    job: Job | None


class RunningJobs:
    """By number. Each call appends what is to be done to `out`. An error that ends a job is the caller's."""

    def __init__(self, turn: Turn) -> None:
        self.working = 0  # jobs that work on repositories
        self._turn = turn
        self._running: dict[int, _Running] = {}
        self._numbers = 0
        self._waiting: list[int] = []  # for the turn

    def __len__(self) -> int:
        return len(self._running)

    def start(self, steps: Steps[None], out: list[Instruction], job: Job | None = None) -> int:
        """Let it begin; its number."""
        self._numbers += 1
        number = self._numbers
        self._running[number] = _Running(steps, job)
        self.working += job is not None
        self._advance(number, lambda: next(steps), out)
        return number

    def cancel(self, number: int | None, out: list[Instruction]) -> None:
        """It goes no further; does nothing if it is over, or None."""
        if number is not None and (running := self._running.pop(number, None)) is not None:
            running.steps.close()
            out.append(Cancel(number))

    def done(self, number: int, answer: object, out: list[Instruction]) -> None:
        """Its step is done. Raises KeyError if there is no such job."""
        steps = self._running[number].steps
        self._advance(number, lambda: steps.send(answer), out)

    def failed(self, number: int, error: Exception, out: list[Instruction]) -> None:
        """Its step has failed. Raises KeyError if there is no such job."""
        steps = self._running[number].steps
        self._advance(number, lambda: steps.throw(error), out)

    def job(self, number: int) -> Job | None:
        """The job of the queue that has that number. Raises KeyError if nothing has it."""
        return self._running[number].job

    def drop_all(self) -> None:
        """All of them stay where they are from now on."""
        running, self._running, self.working = self._running, {}, 0
        for one in running.values():
            one.steps.close()

    def _advance(self, number: int, resume: Callable[[], Any], out: list[Instruction]) -> None:
        """Let a job go on to its next step; and then who has waited for the turn that it leaves."""
        self._resume(number, resume, out)
        while self._waiting and not self._turn.taken:
            number = self._waiting.pop(0)
            if (running := self._running.get(number)) is not None:
                self._turn.taken = True
                self._resume(number, running.steps.__next__, out)

    def _resume(self, number: int, resume: Callable[[], Any], out: list[Instruction]) -> None:
        steps = self._running[number].steps
        try:
            step = resume()
            while isinstance(step, Remark | TakeTurn):
                if isinstance(step, TakeTurn):
                    if self._turn.taken:
                        self._waiting.append(number)
                        return
                    self._turn.taken = True
                else:
                    out.append(step)
                step = next(steps)
            out.append(Do(number, step))
        except StopIteration:
            self.working -= self._running.pop(number).job is not None
