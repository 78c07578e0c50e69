"""Nodes that take part in an election, for tests: real files, real engines, short timings."""

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from stargate_gate.election.elector import Elector
from stargate_gate.election.flock.engine import FlockEngine, FlockHandle
from stargate_gate.election.lease import boottime
from stargate_gate.election.port import ClusterRecord, Engine, Member
from stargate_gate.election.state import FILE_NAME, ElectionState
from stargate_gate.election.status import Advertised, LeadershipView, Timings
from stargate_gate.election.term import Term
from stargate_gate.errors import LeadershipLostError

LIMIT_S = 20.0  # for what should happen at once: only a hanging test gets there
CALM = Timings(retry_s=0.01, heartbeat_s=0.05, lease_s=10.0, handover_wait_s=0.3)
QUICK = replace(CALM, lease_s=0.4)  # for what happens when a lease runs out


def member(name: str) -> Member:
    return Member(f"node-{name}", name * 32)


def state_of(folder: Path, name: str) -> ElectionState:
    """The election state of node `name`, whose data_dir is below `folder`."""
    (folder / name).mkdir(exist_ok=True)
    return ElectionState(folder / name / FILE_NAME)


@dataclass
class Clock:
    """CLOCK_BOOTTIME, and jumps."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return boottime() + self.ahead_s


@dataclass
class Node:
    """One node of a test: an elector, and a body that leads until told to stop."""

    me: Member
    engine: Engine
    elector: Elector
    state: ElectionState
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    terms: list[Term] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    on_leading: Callable[[Term], None] = lambda term: None
    _task: "asyncio.Task[None] | None" = None

    @property
    def view(self) -> LeadershipView:
        return self.elector.view()

    @property
    def term(self) -> Term:
        """The term that is led, or was led last."""
        return self.terms[-1]

    def start(self, *, once: bool = False) -> None:
        """Take part; lead until `stop` is set, then step down; lead again unless `once`."""
        self._task = asyncio.create_task(self._run(once=once))

    async def end(self) -> None:
        """End at once, in whatever state."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            with contextlib.suppress(asyncio.CancelledError):
                self._task.result()

    async def ended(self) -> None:
        assert self._task is not None
        async with asyncio.timeout(LIMIT_S):
            await self._task

    async def until(
        self, predicate: Callable[[LeadershipView], bool], limit_s: float = LIMIT_S
    ) -> LeadershipView:
        """The first view that satisfies the predicate."""
        view = await self.elector.wait_for(predicate, limit_s)
        assert predicate(view), f"{self.me.name} shows {view} after {limit_s} s"
        return view

    async def leads(self) -> LeadershipView:
        return await self.until(lambda view: view.accepting)

    async def follows(self, term: int) -> LeadershipView:
        return await self.until(
            lambda view: view.role == "standby" and view.term == term and not view.trouble
        )

    async def in_trouble(self, *words: str) -> str:
        """The trouble that mentions all the words."""
        view = await self.until(lambda view: all(word in (view.trouble or "") for word in words))
        return view.trouble or ""

    async def _run(self, *, once: bool) -> None:
        while True:
            try:
                async with self.elector.term(_no_mirror) as term:
                    self.terms.append(term)
                    term.open()
                    self.on_leading(term)
                    await self.stop.wait()
            except LeadershipLostError as error:
                self.lost.append(error.message)
            if once:
                return
            self.stop.clear()


async def _no_mirror(record: ClusterRecord) -> None:
    """There is no mirror to end."""


@contextlib.asynccontextmanager
async def node(
    folder: Path,
    name: str,
    lock: Path,
    *,
    timings: Timings = CALM,
    clock: Callable[[], float] = boottime,
    mode: str = "async",
) -> AsyncIterator[Node]:
    """A node on the real lock file `lock`, not started yet; ended and closed on leaving."""
    state = state_of(folder, name)
    engine = FlockEngine(lock, state, lease_s=timings.lease_s, clock=clock)
    async with node_on(engine, name, state, timings=timings, clock=clock, mode=mode) as made:
        yield made


@contextlib.asynccontextmanager
async def node_on(
    engine: Engine,
    name: str,
    state: ElectionState,
    *,
    timings: Timings = CALM,
    clock: Callable[[], float] = boottime,
    mode: str = "async",
) -> AsyncIterator[Node]:
    """The same on any engine."""
    elector = Elector(
        engine,
        member(name),
        timings=timings,
        advertised=lambda: Advertised(ssh=f"{name}.example:2222", mode=mode),
        state=state,
        clock=clock,
    )
    made = Node(member(name), engine, elector, state)
    try:
        yield made
    finally:
        await made.end()
        elector.close()
        await engine.close()


def lose_lock(handle: FlockHandle) -> None:
    """What a share does that loses a lock without a word."""
    fcntl.flock(handle._fds[0], fcntl.LOCK_UN)
