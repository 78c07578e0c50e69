"""What a standby still has to do: nothing is forgotten, nothing runs twice at once, failures rest."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stargate_gate.aio.backoff import Backoff
from stargate_gate.replication.standby.job_queue import Job, JobQueue, Stray
from stargate_gate.replication.wire.messages import Changed, Compare
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange

NAMES = [RepositoryName(text) for text in ("a", "b", "c")]
IDS = {name: str(number) * 32 for number, name in enumerate(NAMES)}
A, B = "a" * 40, "b" * 40


def news(name: RepositoryName, seq: int) -> Changed:
    return Changed(1, seq, name, IDS[name], "ref: refs/heads/main", (RefChange(f"refs/{seq}", None, A),))


def work() -> JobQueue:
    return JobQueue(Backoff(1.0, 8.0, chance=lambda: 0.0))


def next_job(of: JobQueue, now: float) -> Job:
    job = of.next(now)
    assert job is not None
    return job


class AnyOrder(RuleBasedStateMachine):
    """Every order of what can happen, against a plain account of what is owed to each repository."""

    def __init__(self) -> None:
        super().__init__()
        self.work = work()
        self.now = 0.0
        self.seq = 0
        self.owed: dict[RepositoryName, int] = {}  # the newest change not yet done
        self.running: dict[RepositoryName, Job] = {}
        self.failures: dict[RepositoryName, int] = {}

    @rule(name=st.sampled_from(NAMES), compare=st.booleans())
    def hear(self, name: RepositoryName, *, compare: bool) -> None:
        self.seq += 1
        self.work.add(Compare(1, self.seq, name, IDS[name]) if compare else news(name, self.seq), self.now)
        self.owed[name] = self.seq

    @rule()
    def start(self) -> None:
        job = self.work.next(self.now)
        if job is not None:
            assert job.name not in self.running, "two at once in one repository"
            assert job.failed == self.failures.get(job.name, 0)
            self.running[job.name] = job

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        job = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
        self.work.done(job)
        self.failures.pop(job.name, None)
        if self.owed[job.name] == job.news.seq:
            del self.owed[job.name]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        job = self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
        self.work.failed(job, "disk full", self.now)
        self.failures[job.name] = job.failed + 1

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def what_is_owed_is_known(self) -> None:
        assert set(self.work.tickets()) == {IDS[name] for name in self.owed}
        assert len(self.work) == len(self.owed)
        assert {job.name for job in self.work.failing()} == set(self.failures)

    def teardown(self) -> None:
        """Once nothing fails any more, everything is done, and up to the newest change of each."""
        for job in self.running.values():
            self.work.done(job)
            if self.owed[job.name] == job.news.seq:
                del self.owed[job.name]
        self.now += 8.0
        while (job_left := self.work.next(self.now)) is not None:
            assert job_left.news.seq == self.owed.pop(job_left.name)
            self.work.done(job_left)
        assert not self.owed
        assert not len(self.work)
        assert self.work.next_due() is None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_changes_of_a_waiting_repository_are_one_job() -> None:
    """Several changes of one repository are one fetch, known since the first of them."""
    queue = work()
    for seq in (1, 2, 3):
        queue.add(news(NAMES[0], seq), now=float(seq))
    job = next_job(queue, 3.0)
    assert isinstance(job.news, Changed)
    assert [change.ref for change in job.news.delta] == ["refs/1", "refs/2", "refs/3"]
    assert (job.news.seq, job.since) == (3, 1.0)
    assert queue.next(3.0) is None


def test_what_came_first_is_done_first_and_a_failure_holds_up_nobody() -> None:
    """One repository that cannot be mirrored leaves the way free for the others."""
    queue = work()
    for seq, name in enumerate(NAMES, 1):
        queue.add(news(name, seq), 0.0)
    first = next_job(queue, 0.0)
    assert first.name == NAMES[0]
    queue.failed(first, "disk full", 0.0)
    assert [next_job(queue, 0.0).name for _ in NAMES[1:]] == NAMES[1:]
    assert queue.next(0.9) is None
    assert queue.next_due() == 1.0
    again = next_job(queue, 1.0)
    assert again.name == NAMES[0]
    assert again.news == Compare(1, 1, NAMES[0], IDS[NAMES[0]]), "after a failure all of it is compared"


def test_a_repository_that_keeps_failing_is_asked_less_and_less_often() -> None:
    """The rest doubles with each failure in a row, up to its bound; news do not cut it short."""
    queue, now, rests = work(), 0.0, []
    queue.add(news(NAMES[0], 1), now)
    for seq in range(2, 8):
        queue.failed(next_job(queue, now), "disk full", now)
        queue.add(news(NAMES[0], seq), now)
        assert queue.next(now) is None
        due = queue.next_due()
        assert due is not None
        rests.append(due - now)
        now = due
    assert rests == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    job = next_job(queue, now)
    assert (job.failed, job.error, job.since, job.news.seq) == (6, "disk full", 0.0, 7)


def test_a_repository_that_got_another_name_meanwhile_is_one_job() -> None:
    """It is the same one, whatever it is called; what is done is done under the newest name."""
    queue = work()
    identity = IDS[NAMES[0]]
    queue.add(news(NAMES[0], 1), 0.0)
    queue.add(Compare(1, 2, NAMES[1], identity), 0.0)
    job = next_job(queue, 0.0)
    assert (job.id, job.name, job.news.seq) == (identity, NAMES[1], 2)
    assert queue.next(0.0) is None


def test_what_has_no_id_is_a_job_of_its_own_and_stays_one() -> None:
    """Whoever has its name is another one."""
    queue = work()
    queue.add(Stray(1, NAMES[0]), 0.0)
    queue.add(news(NAMES[0], 1), 0.0)
    first, second = next_job(queue, 0.0), next_job(queue, 0.0)
    assert isinstance(first.news, Stray)
    assert second.id == IDS[NAMES[0]]
    queue.failed(first, "disk full", 0.0)
    assert isinstance(next_job(queue, 1.0).news, Stray)
