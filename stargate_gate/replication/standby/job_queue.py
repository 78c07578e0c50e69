"""What a standby still has to do, repository by repository. Pure.

One worker at a time works on a repository. Changes that arrive for it meanwhile wait and are merged into one.
A change that fails is tried again later, as a full comparison, and delays no other repository.
"""

import heapq
from collections import OrderedDict
from dataclasses import dataclass, replace

from stargate_gate.aio.backoff import Backoff
from stargate_gate.replication.wire.delta import joined
from stargate_gate.replication.wire.messages import Compare, News
from stargate_gate.repos.names import RepositoryName


@dataclass(frozen=True)
class Stray:
    """A repository is here that no message has named and that has no id of its own."""

    term: int
    name: RepositoryName
    seq: int = 0

    @property
    def id(self) -> str:
        """What it is called where others have ids; no id looks like that."""
        return f"stray {self.name}"


@dataclass(frozen=True)
class Job:
    """Make one repository what the leader's is.

    news    what was heard of it
    ticket  grows with everything that is added: who has done ticket n has done all before it
    since   when the oldest part of this was heard of
    failed  how often in a row it has failed, and `error` how it did last
    """

    news: News | Stray
    ticket: int
    since: float
    failed: int = 0
    error: str | None = None

    @property
    def id(self) -> str:
        """Which repository."""
        return self.news.id

    @property
    def name(self) -> RepositoryName:
        """What it is called, as far as was heard."""
        return self.news.name


class JobQueue:
    """At most one job per repository runs, and one more waits. Times are of one clock, in seconds.

        add → ready → next → running → done → (gone)
                ↑              ↓ failed
                └── due ←── resting

    What is added for a running repository stays behind it until it is done.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._ready: OrderedDict[str, Job] = OrderedDict()
        self._running: dict[str, Job] = {}
        self._behind: dict[str, Job] = {}
        self._resting: dict[str, Job] = {}
        self._alarm: list[tuple[float, str]] = []  # a heap: one entry for each that rests
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._ready) + len(self._running) + len(self._resting)

    def add(self, news: News | Stray, now: float) -> None:
        """Something is to be done."""
        self._tickets += 1
        identity = news.id
        if identity in self._running:
            place = self._behind
        elif identity in self._resting:
            place = self._resting
        else:
            place = self._ready
        before = place.get(identity)
        place[identity] = (
            Job(news, self._tickets, now)
            if before is None
            else replace(before, news=_joined(before.news, news), ticket=self._tickets)
        )

    def next(self, now: float) -> Job | None:
        """The job to do now, which counts as running until `done` or `failed`; None if none may start."""
        while self._alarm and self._alarm[0][0] <= now:
            _, identity = heapq.heappop(self._alarm)
            self._ready[identity] = self._resting.pop(identity)
        if not self._ready:
            return None
        identity, job = self._ready.popitem(last=False)
        self._running[identity] = job
        return job

    def done(self, job: Job) -> None:
        """`job` has done what it should."""
        del self._running[job.id]
        if (behind := self._behind.pop(job.id, None)) is not None:
            self._ready[job.id] = behind

    def failed(self, job: Job, error: str, now: float) -> None:
        """`job` could not; it rests before another try, with what came for it meanwhile."""
        del self._running[job.id]
        newer = self._behind.pop(job.id, job)
        due = now + self._backoff.delay_s(job.failed + 1)
        news = Compare(job.news.term, max(newer.news.seq, job.news.seq), newer.name, job.id)
        self._resting[job.id] = replace(
            newer,
            news=job.news if isinstance(job.news, Stray) else news,
            since=job.since,
            failed=job.failed + 1,
            error=error,
        )
        heapq.heappush(self._alarm, (due, job.id))

    def has(self, identity: str) -> bool:
        """Whether something is to be done for that repository."""
        return identity in self._ready or identity in self._running or identity in self._resting

    def next_due(self) -> float | None:
        """When the next job that rests may start again."""
        return self._alarm[0][0] if self._alarm else None

    def tickets(self) -> dict[str, int]:
        """The newest ticket of every repository that has something to do, by id."""
        return {job.id: job.ticket for job in (*self._all(), *self._behind.values())}

    def failing(self) -> list[Job]:
        """Jobs whose last try failed, by name."""
        return sorted((job for job in self._all() if job.error is not None), key=lambda job: job.name)

    def busy(self) -> dict[str, RepositoryName]:
        """Repositories that have something to do: by id, what they are called."""
        jobs = (*self._all(), *self._behind.values())
        return {job.id: job.name for job in jobs if not isinstance(job.news, Stray)}

    def _all(self) -> tuple[Job, ...]:
        return (*self._ready.values(), *self._running.values(), *self._resting.values())


def _joined(first: News | Stray, second: News | Stray) -> News | Stray:
    return second if isinstance(first, Stray) or isinstance(second, Stray) else joined(first, second)
