"""What a standby still has to do, repository by repository. Pure.

One repository is worked on by one worker at a time; what arrives for it meanwhile waits and is joined.
What fails is tried again later, as a full comparison, and holds up no other repository.
"""

import heapq
from collections import OrderedDict
from dataclasses import dataclass, replace

from stargate_gate.replication.delta import joined
from stargate_gate.replication.messages import Compare, News
from stargate_gate.replication.retry import Backoff
from stargate_gate.repos.names import RepositoryName


@dataclass(frozen=True)
class Job:
    """Make one repository what the leader's is.

    news    what was heard of it
    ticket  grows with everything that is added: who has done ticket n has done all before it
    since   when the oldest part of this was heard of
    failed  how often in a row it has failed, and `error` how it did last
    """

    news: News
    ticket: int
    since: float
    failed: int = 0
    error: str | None = None

    @property
    def name(self) -> RepositoryName:
        """The repository."""
        return self.news.name


class Work:
    """At most one job per repository runs, and one more waits. Times are of one clock, in seconds.

        add → ready → next → running → done → (gone)
                ↑              ↓ failed
                └── due ←── resting

    What is added for a running repository stays behind it until it is done.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._ready: OrderedDict[RepositoryName, Job] = OrderedDict()
        self._running: dict[RepositoryName, Job] = {}
        self._behind: dict[RepositoryName, Job] = {}
        self._resting: dict[RepositoryName, Job] = {}
        self._alarm: list[tuple[float, RepositoryName]] = []  # a heap: one entry for each that rests
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._ready) + len(self._running) + len(self._resting)

    def add(self, news: News, now: float) -> None:
        """Something is to be done."""
        self._tickets += 1
        name = news.name
        if name in self._running:
            place = self._behind
        elif name in self._resting:
            place = self._resting
        else:
            place = self._ready
        before = place.get(name)
        place[name] = (
            Job(news, self._tickets, now)
            if before is None
            else replace(before, news=joined(before.news, news), ticket=self._tickets)
        )

    def next(self, now: float) -> Job | None:
        """The job to do now, which counts as running until `done` or `failed`; None if none may start."""
        while self._alarm and self._alarm[0][0] <= now:
            _, name = heapq.heappop(self._alarm)
            self._ready[name] = self._resting.pop(name)
        if not self._ready:
            return None
        name, job = self._ready.popitem(last=False)
        self._running[name] = job
        return job

    def done(self, job: Job) -> None:
        """`job` has done what it should."""
        del self._running[job.name]
        if (behind := self._behind.pop(job.name, None)) is not None:
            self._ready[job.name] = behind

    def failed(self, job: Job, error: str, now: float) -> None:
        """`job` could not; it rests before another try, with what came for it meanwhile."""
        del self._running[job.name]
        newer = self._behind.pop(job.name, job)
        due = now + self._backoff.delay_s(job.failed + 1)
        self._resting[job.name] = replace(
            newer,
            news=Compare(job.news.term, max(newer.news.seq, job.news.seq), job.name),
            since=job.since,
            failed=job.failed + 1,
            error=error,
        )
        heapq.heappush(self._alarm, (due, job.name))

    def next_due(self) -> float | None:
        """When the next job that rests may start again."""
        return self._alarm[0][0] if self._alarm else None

    def tickets(self) -> dict[RepositoryName, int]:
        """The newest ticket of every repository that has something to do."""
        return {job.name: job.ticket for job in (*self._all(), *self._behind.values())}

    def oldest(self) -> float | None:
        """Since when the oldest job is known of."""
        return min((job.since for job in self._all()), default=None)

    def failing(self) -> list[Job]:
        """Jobs whose last try failed, by name."""
        return sorted((job for job in self._all() if job.error is not None), key=lambda job: job.name)

    def _all(self) -> tuple[Job, ...]:
        return (*self._ready.values(), *self._running.values(), *self._resting.values())
