"""Runs many small programs one step at a time, in an order that a seed decides; time is a number.

A program is a generator. It yields None to let others go first, or (event, seconds) to wait for an
event, for a time, or for whichever comes first (None: no event, no limit). Between any two steps of a
program anything may happen, the end of it included.
"""

import heapq
from collections.abc import Generator
from random import Random
from typing import Any, Protocol

TICK_S = 0.002  # what a step takes
HASTE = 0.01  # how often the clock jumps to the next alarm although there is something to do

Steps = Generator[Any, None, Any]


class Owner(Protocol):
    """Whose programs may be frozen together."""

    frozen: bool
    parked: "list[Task]"


class Event:
    """Wakes whoever waits when it is set; remembers nothing."""

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: list[tuple[Task, int]] = []


class Task:
    """A program that runs. `turn` grows with each wait, so that an alarm of an older wait is known."""

    __slots__ = ("advance", "alive", "ended", "name", "owner", "steps", "turn")

    def __init__(self, name: str, owner: Owner | None, steps: Steps) -> None:
        self.name = name
        self.owner = owner
        self.steps = steps
        self.advance = steps.__next__
        self.turn = 0
        self.alive = True
        self.ended = Event()


class Engine:
    """All programs, and the clock, in seconds."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self._draw = chance.random
        self.now = 0.0
        self.taken = 0
        self._ready: list[Task] = []
        self._alarms: list[tuple[float, int, Task, int]] = []
        self._number = 0

    def start(self, name: str, steps: Steps, owner: Owner | None = None) -> Task:
        """Let it run from now on."""
        task = Task(name, owner, steps)
        self._ready.append(task)
        return task

    def end(self, task: Task) -> None:
        """It takes no more steps."""
        if task.alive:
            task.alive = False
            task.turn += 1
            task.steps.close()
            self.wake(task.ended)

    def wake(self, event: Event) -> None:
        """Set the event."""
        if event.waiters:
            for task, turn in event.waiters:
                if task.turn == turn:
                    task.turn += 1
                    self._ready.append(task)
            event.waiters.clear()

    def thaw(self, owner: Owner) -> None:
        """What was parked goes on."""
        owner.frozen = False
        self._ready += owner.parked
        owner.parked.clear()

    def step(self) -> bool:
        """One step of one program; False if nothing will ever happen any more."""
        self.taken += 1
        self.now = now = self.now + TICK_S
        ready, alarms, draw = self._ready, self._alarms, self._draw()
        if alarms and (alarms[0][0] <= now or not ready or draw < HASTE):
            self.now = now = max(now, alarms[0][0])
            while alarms and alarms[0][0] <= now:
                _, _, task, turn = heapq.heappop(alarms)
                if task.turn == turn:
                    task.turn += 1
                    ready.append(task)
        if not ready:
            return bool(alarms)
        index = int(draw * len(ready))
        task, ready[index] = ready[index], ready[-1]
        ready.pop()
        owner = task.owner
        if owner is not None and owner.frozen:
            owner.parked.append(task)
        elif task.alive:
            try:
                wanted = task.advance()
            except StopIteration:
                task.alive = False
                task.turn += 1
                self.wake(task.ended)
                return True
            if wanted is None:
                ready.append(task)
            else:
                self._wait(task, *wanted)
        return True

    def _wait(self, task: Task, event: Event | None, seconds: float | None) -> None:
        task.turn += 1
        if event is not None:
            event.waiters.append((task, task.turn))
        if seconds is not None:
            self._number += 1
            heapq.heappush(self._alarms, (self.now + max(0.0, seconds), self._number, task, task.turn))
