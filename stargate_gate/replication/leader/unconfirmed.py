"""Which repositories have changes that not every member of the sync set has confirmed. For status. Pure.

The leader's backlogs know that of connected standbys only. This remembers it also while nobody is there, and
knows since when. Nothing is decided by it: acknowledgements rest on `SyncSet`.

`Unconfirmed` is told of every change that gets a number, as the journal is (see `node/term_changes.py`), and
asks the backlogs of the connected standbys what they hold whenever a status is made.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.backlog import Backlog
from stargate_gate.replication.leader.link import Link
from stargate_gate.replication.wire.numbers import FIRST_POSITION
from stargate_gate.status import OpenChanges, UnreplicatedStatus

MAX_REPOSITORIES = 100_000  # some 500 bytes each; beyond that the one with the newest first change goes
MAX_STEPS = 30  # of a repository; later changes count as of the last step
STEP_S = 1.0  # changes of a repository within that time count as of the first of them
MANY = 1000  # with more repositories (some 10 µs each) a status may be as old as KEPT_S
KEPT_S = 10.0


@dataclass
class _Step:
    """Changes that came at nearly the same time. `seq`: of the newest of them."""

    seq: int
    changes: int
    since: float


@dataclass
class _Repository:
    name: str
    steps: list[_Step] = field(default_factory=list)


class Unconfirmed:
    """Of one term. All times are seconds since 1970, by this node's clock.

    before   (id, name) of repositories with changes from before the term that others may lack
    unknown  what was replicated before the term is not known
    """

    def __init__(self, before: Iterable[tuple[str, str]] = (), *, unknown: bool = False) -> None:
        self._open: OrderedDict[str, _Repository] = OrderedDict(
            (identity, _Repository(name, [_Step(FIRST_POSITION, 0, 0.0)])) for identity, name in before
        )
        self._unknown = unknown
        self._replicated = 0
        self._version = 0  # grows with every change of what is open
        self._made: UnreplicatedStatus | None = None
        self._made_of = (0, False)  # version, and whether a standby was connected
        self._made_at = 0.0

    def told(self, identity: str, name: str, seq: int, now: float) -> None:
        """It has a change with that number."""
        self._version += 1
        one = self._open.get(identity)
        if one is None:
            one = self._open[identity] = _Repository(name)
            if len(self._open) > MAX_REPOSITORIES:
                self._open.popitem()
        one.name = name
        last = one.steps[-1] if one.steps else None
        if last is not None and last.changes and (now - last.since < STEP_S or len(one.steps) >= MAX_STEPS):
            last.seq, last.changes = seq, last.changes + 1
        else:
            one.steps.append(_Step(seq, 1, now))

    def replicated(self, seq: int) -> None:
        """The whole sync set has everything up to that number; it may be told again."""
        if seq <= self._replicated:
            return
        self._replicated = seq
        self._unknown = False
        for identity in list(self._open):
            self._drop(identity, lambda at: at <= seq)

    def deleted(self, identity: str) -> None:
        """A user has deleted it: nobody needs it any more."""
        self._version += 1
        self._open.pop(identity, None)

    def status(
        self, links: Mapping[Member, Link], members: Collection[Member], now: float
    ) -> UnreplicatedStatus:
        """As of `now`. `links`: the connected standbys. `members`: the sync set of the record."""
        unchanged = self._made_of == (self._version, False) and not links
        recent = len(self._open) > MANY and 0 <= now - self._made_at < KEPT_S
        if self._made is None or not (unchanged or recent):
            self._drop_what_is_held([links.get(member) for member in members])
            self._made = self._make(links)
            self._made_of, self._made_at = (self._version, bool(links)), now
        return self._made

    def _make(self, links: Mapping[Member, Link]) -> UnreplicatedStatus:
        named = [(member.name, link.backlog) for member, link in sorted(links.items())]
        repositories = [
            OpenChanges(
                one.name,
                sum(step.changes for step in one.steps),
                one.steps[0].since,
                tuple(name for name, backlog in named if backlog.holds(identity, one.steps[-1].seq)),
            )
            for identity, one in self._open.items()
        ]
        repositories.sort(key=lambda one: one.since)
        return UnreplicatedStatus(tuple(repositories), unknown=self._unknown)

    def _drop_what_is_held(self, members: Sequence[Link | None]) -> None:
        """Forget what all members have confirmed; nothing if there are none, or one is not connected."""
        backlogs = [link.backlog for link in members if link is not None]
        if not backlogs or len(backlogs) < len(members):
            return
        self._unknown = self._unknown and not all(one.covered for one in backlogs)
        for identity in list(self._open):
            self._drop(identity, partial(_all_hold, backlogs, identity))

    def _drop(self, identity: str, is_held: Callable[[int], bool]) -> None:
        one = self._open[identity]
        left = [step for step in one.steps if not is_held(step.seq)]
        if len(left) < len(one.steps):
            self._version += 1
            one.steps = left
        if not left:
            del self._open[identity]


def _all_hold(backlogs: Iterable[Backlog], identity: str, seq: int) -> bool:
    return all(one.holds(identity, seq) for one in backlogs)
