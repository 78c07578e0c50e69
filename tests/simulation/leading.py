"""A term of a leader: its record (as election/term.py), its beginning and end (as node/lifecycle.py).

What replication decides is decided by the product's LeaderTerm, which term_shell.py surrounds.
"""

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stargate_gate.election.incarnation import kept, named
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError
from stargate_gate.node.lifecycle import DRAIN_LAST_SHARE
from stargate_gate.replication.wire.numbers import FIRST_POSITION
from tests.simulation.disk import FullError
from tests.simulation.engine import Event, Steps, Task
from tests.simulation.term_shell import TermShell, names_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.process import Process, Tenure
    from tests.simulation.pushing import Push


class Leading(TermShell):
    """One term of one process."""

    def __init__(self, process: "Process", tenure: "Tenure", record: ClusterRecord) -> None:
        super().__init__(process)
        self.tenure = tenure
        self.record = record
        self.number = record.term
        self.attempted: ClusterRecord | None = None
        self.is_open = False
        self.pushes: list[tuple[Task, Push]] = []
        self.turn = Event()
        self._writing = False

    _over = False

    # -- election/term.py -----------------------------------------------------------------------------

    @property
    def in_force(self) -> frozenset[Member]:
        return frozenset(self.record.sync_set)

    @property
    def needed(self) -> frozenset[Member]:
        return self.rules.needed(self.record, self.attempted)

    def valid(self) -> bool:
        return not self._over and self.tenure.valid()

    def accepting(self) -> bool:
        return self.is_open and self.valid()

    @property
    def members(self) -> "dict[Member, str | None]":
        return kept(self.record, self.record.sync_set)

    def update(
        self, *, choose: "Callable[[], dict[Member, str | None]] | None" = None, **changes: Any
    ) -> Steps:
        """The next version of the record; returns its sync set. Raises as Term.update_members."""
        while self._writing:
            yield self.turn, None
        self._writing = True
        try:
            before = self.attempted or self.record
            members = self.members if choose is None else choose()
            members.pop(self.record.leader, None)
            leads = {self.record.leader: self.record.incarnation_of(self.record.leader)}
            changed = replace(
                self.record,
                version=before.version + 1,
                sync_set=tuple(sorted(members)),
                incarnations=named({**members, **leads}),
                **{"successor": None, **changes},
            )
            if not self.valid():
                self.tenure.lose("no proof in time")
                raise LeadershipLostError("the lease has run out")
            self.attempted = changed if self.attempted is None else self.rules.either(self.attempted, changed)
            yield from self._write(changed)
            self.record, self.attempted = changed, None
            return frozenset(members)
        finally:
            self._writing = False
            self.world.engine.wake(self.turn)

    def _write(self, changed: ClusterRecord) -> Steps:
        from tests.simulation.process import TooLateError  # noqa: PLC0415 (they are made of each other)

        process = self.process
        try:
            yield from process.ask(process.write(self.tenure.hold, changed), max(0.0, self.tenure.left_s()))
        except LeadershipLostError:
            self.tenure.lose("by another's record")
            raise
        except TooLateError as error:
            raise ElectionUnavailableError("not written in time: outcome unknown") from error

    # -- node/lifecycle.py ----------------------------------------------------------------------------------

    def carry_over(self, former: Member | None) -> Steps:
        members = self.rules.carried(self.world.mode, self.in_force, former)
        if members != self.in_force:
            yield from self.update(choose=lambda: kept(self.record, members))
        if self.needed:
            self.world.cover("a sync set is carried over")
        self.begin(self)

    def open(self) -> None:
        """Take writes. What is here is the truth from now on; that others have it is still to be seen."""
        self.is_open = True
        journal = self.process.disk.journal
        journal.settle(self.number, FIRST_POSITION)
        journal.forced(self.record.forced)
        self.world.cover("a term opens")
        self.world.say(self.process.node, f"opens term {self.number}, sync set {names_of(self.in_force)}")
        self.world.ledger.opens(self.process, self.record)

    def step_down(self, drain_s: float) -> Steps:
        """The running pushes finish, then no new ones, a standby is caught up, the record is clean."""
        engine = self.world.engine
        began, deadline = engine.now, engine.now + drain_s
        first = [task for task, _ in self.pushes]
        while any(task.alive for task in first) and engine.now < began + drain_s * (1 - DRAIN_LAST_SHARE):
            yield None, 0.5
        self.is_open = False
        while any(task.alive for task, _ in self.pushes) and engine.now < deadline:
            yield None, 0.5
        yield from self._end_pushes()
        successor = yield from self.caught_up(drain_s)
        try:
            yield from self.update(position=self.position, clean=True, successor=successor)
        except ElectionUnavailableError:
            self.world.cover("a clean record is not written")
        self.world.cover("a successor is named" if successor else "nobody is named")

    def close(self) -> Steps:
        """The term is over: pushes are ended and reaped, then connections."""
        yield from self._end_pushes()
        self._over = True
        yield from self.end()

    def _end_pushes(self) -> Steps:
        """Each git is reaped; what it has written by then is told to whoever still listens."""
        for task, push in self.pushes:
            if task.alive and self.rules.reap_pushes:
                yield
                self.world.engine.end(task)
                with contextlib.suppress(FullError):
                    yield from push.tell(self)
