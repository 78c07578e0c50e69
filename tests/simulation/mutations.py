"""One rule broken at a time: for each, the simulator has to find an invariant that does not hold."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from stargate_gate.election import eligibility
from stargate_gate.election.eligibility import Decision, Known, Standing, Try
from stargate_gate.election.flock import slots, steps
from stargate_gate.election.flock.slots import CLAIM, Slots
from stargate_gate.election.flock.steps import Read, Reserve
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.replication.leader import sync_rules
from stargate_gate.replication.leader.backlog import Backlog
from stargate_gate.replication.leader.sync_rules import Mode, Presence, Stage, Verdict
from stargate_gate.replication.rescue.unreplicated import Fact, Forced, Unknown
from stargate_gate.repos.plan import RefChange
from tests.simulation.episode import Plan, make_plan, run_episode
from tests.simulation.faults import Taste
from tests.simulation.invariants import ViolationError
from tests.simulation.rules import Rules

BUDGET = 1_000_000
STEPS = 3000  # of an episode
EVERY = 30  # steps there is a wish of a client
Answer = Callable[[Slots, Slots | None], Slots]


@dataclass(frozen=True)
class Mutation:
    """A broken rule, and where to look for what comes of it.

    expected  the invariants of which one has to fail
    kinds     the faults that bring it to light, None: any; so many steps apart on average
    wishes    what clients do then, None: anything; once in `every` steps, None: the seed decides
    few       so many repositories a backlog may hold; None: as usual
    recover   whether it shows only once the faults have stopped
    seed      where to begin; one that is known to find it saves time
    budget    steps after which it counts as not found
    """

    name: str
    rules: Rules
    expected: str
    kinds: tuple[str, ...] | None = None
    mode: Mode = "sync"
    nodes: int = 3
    gap: int | None = None
    wishes: tuple[str, ...] | None = None
    every: int | None = EVERY
    few: int | None = None
    recover: bool = False
    seed: int = 0
    budget: int = BUDGET

    def find(self) -> tuple[int, ViolationError | None]:
        """The seed of the first episode in which an expected invariant fails, within the budget."""
        seed, taken = self.seed, 0
        while taken < self.budget:
            outcome = run_episode(self.plan(seed), self.rules, Counter(), recover=self.recover)
            taken += outcome.steps
            if outcome.violation is not None and outcome.violation.invariant in self.expected:
                return seed, outcome.violation
            seed += 1
        return seed, None

    def plan(self, seed: int) -> Plan:
        """An episode that may bring it to light."""
        taste = Taste(self.kinds, self.gap, self.wishes, self.every)
        return make_plan(
            seed, steps=STEPS, nodes=self.nodes, mode=self.mode, taste=taste, few=self.few or 100
        )


# -- the record --------------------------------------------------------------------------------------


def _reading(inner: Any, see: Answer) -> Any:
    """The steps of `inner`, which is shown what `see` makes of a reading and of the first one."""
    answer: Slots | None = None
    first: Slots | None = None
    while True:
        try:
            step = inner.send(answer)
        except StopIteration as done:
            return done.value
        answer = yield step
        if isinstance(step, Read) and answer is not None:
            seen = see(answer, first)
            first = first or answer
            answer = seen


def _half(of: Slots, term: int, now: Slots) -> Slots:
    """`now`, with the half of `term` as it is in `of`."""
    mine = slots.slots_of(ClusterRecord("", term, 1, Member("", "")))
    return Slots(tuple(of.contents[i] if i in mine else slot for i, slot in enumerate(now.contents)))


def _claim_without_reading_again(wanted: ClusterRecord, former: ClusterRecord) -> Any:
    return _reading(
        steps.claim(wanted, former),
        lambda now, first: now if first is None else _half(first, former.term, now),
    )


def _write_without_looking_around(new: ClusterRecord) -> Any:
    def only_mine(now: Slots, _: Slots | None) -> Slots:
        return Slots(
            tuple(
                slot if isinstance(slot, ClusterRecord) and slot.term <= new.term else None
                for slot in now.contents
            )
        )

    return _reading(steps.write(new), only_mine)


def _claim_in_the_formers_half(wanted: ClusterRecord, former: ClusterRecord) -> Any:
    before = yield from steps._read()
    term = slots.next_term(before, former, wanted.term) + 1
    yield Reserve(term)
    claimed = replace(wanted, term=term, version=CLAIM)
    first = replace(wanted, term=term, version=CLAIM + 1)
    yield from steps._write_copies(claimed, before, lambda now: steps.fence(now, claimed))
    yield from steps._write_copies(first, before, lambda now: steps.fence(now, first))
    return first


def _claim_whatever_is_there(wanted: ClusterRecord, _: ClusterRecord) -> Any:
    found = slots.in_force((yield from steps._read()))
    return (yield from steps.claim(wanted, found or wanted))


def _claim_the_number_after_the_record(wanted: ClusterRecord, former: ClusterRecord) -> Any:
    """No claim, no reservation, no look at other claims: the record's term and one."""
    first = replace(wanted, term=former.term + 1, version=CLAIM + 1)
    before = yield from steps._read()
    for slot in slots.slots_of(first):
        yield steps.Write(slot, first)
        yield steps.Sync()
    _ = before
    return first


# -- who may lead ------------------------------------------------------------------------------------


def _anybody_leads(rec: ClusterRecord, standing: Standing, **others: Any) -> Decision:
    decision = eligibility.decide(rec, standing, **others)
    return Try("why not") if standing.aside is None and rec.term > 0 else decision


def _names_are_enough(rec: ClusterRecord, standing: Standing, **others: Any) -> Decision:
    """Nor do incarnations count, which an empty data_dir lacks, too."""
    me = next((one for one in rec.eligible if one.name == standing.me.name), standing.me)
    return eligibility.decide(replace(rec, incarnations=()), replace(standing, me=me), **others)


def _incarnations_do_not_count(rec: ClusterRecord, standing: Standing, **others: Any) -> Decision:
    return eligibility.decide(replace(rec, incarnations=()), standing, **others)


def _terms_are_forgotten(rec: ClusterRecord, standing: Standing, **others: Any) -> Decision:
    known: Known = replace(standing.known, highest_term=0)
    return eligibility.decide(rec, replace(standing, known=known), **others)


# -- who has to confirm ------------------------------------------------------------------------------


def _only_who_is_level(present: Iterable[Presence], _: frozenset[Member]) -> frozenset[Member]:
    return frozenset(one.member for one in present if one.stage is Stage.LEVEL)


def _only_the_record(_: Iterable[Presence], recorded: frozenset[Member]) -> frozenset[Member]:
    return recorded


def _alone_in_strict(push: Any, _: Any, limits: Any) -> Verdict:
    return sync_rules.judge(push, "sync", limits)


class _UncoveredHolds(Backlog):
    """Whatever it was not told of counts as held, before any list was confirmed."""

    def holds(self, name: Any, seq: int) -> bool:
        covered, self.covered = self.covered, True
        try:
            return super().holds(name, seq)
        finally:
            self.covered = covered


class _MatchedForGood(Backlog):
    """A repository that was once confirmed counts as held whatever came later."""

    def holds(self, name: Any, seq: int) -> bool:
        return super().holds(name, min(seq, self._matched.get(name, seq)))


class _SentIsHeld(Backlog):
    """What was sent counts as held."""

    def next(self, now: float) -> Any:
        news = super().next(now)
        if news is not None:
            self.applied(news.id, news.seq, now)
        return news


# -- refs --------------------------------------------------------------------------------------------


def _one_transaction(local: dict[str, str], wanted: dict[str, str]) -> list[list[RefChange]]:
    changes = [
        RefChange(ref, local.get(ref), wanted.get(ref))
        for ref in sorted({*local, *wanted})
        if local.get(ref) != wanted.get(ref)
    ]
    return [changes] if changes else []


def _forced_first(forced_term: int) -> tuple[Fact, ...]:
    return Forced(forced_term), Unknown()


_TROUBLE = ("kill", "power loss", "broken connection", "lost lock", "pause")
_TERMS = ("lost lock", "lost lock", "broken connection", "half-broken connection")
_RECORD = ("lost lock", "pause", "write hangs", "late write lands", "write fails", "isolation", "kill")
_WRITES = ("write fails", "write fails", "write fails", "isolation", "broken connection")
_MIRROR = ("broken connection", "half-broken connection", "isolation", "kill", "slow network")
_ROLLED_BACK = ("backup", "rollback", "kill", "isolation")
_HELD = ("slow network", "isolation")
_FORCED = ("override", "isolation", "kill", "power loss")
_AGAIN = ("forward", "several", "again", "again")

MUTATIONS = (
    Mutation(
        "the claim does not read again", Rules(claim=_claim_without_reading_again), "I2", _RECORD, seed=69
    ),
    Mutation("the claim goes into the former's half", Rules(claim=_claim_in_the_formers_half), "I2", _RECORD),
    Mutation(
        "a term is not claimed first", Rules(claim=_claim_the_number_after_the_record), "I1 I2", _RECORD
    ),
    Mutation("a write does not look around", Rules(write=_write_without_looking_around), "I2", _RECORD),
    Mutation(
        "what was decided before the lock counts under it",
        Rules(claim=_claim_whatever_is_there, look_again_under_lock=False),
        "I2",
        _RECORD,
        seed=498,
    ),
    Mutation("anybody may lead", Rules(decide=_anybody_leads), "I2"),
    Mutation("a name is enough to lead", Rules(decide=_names_are_enough), "I2", ("reinstallation", "kill")),
    Mutation(
        "whoever was rolled back may lead",
        Rules(decide=_incarnations_do_not_count),
        "I2",
        _ROLLED_BACK,
        gap=60,
    ),
    Mutation(
        "who joins again keeps its incarnation",
        Rules(joins_anew=False),
        "I2",
        ("backup", "full disk", "rollback"),
        gap=60,
    ),
    Mutation(
        "the highest term seen is forgotten",
        Rules(decide=_terms_are_forgotten, distrust=lambda *_: None),
        "I1 I2",
        ("old copy of the record", "kill", "lost lock"),
        gap=80,
    ),
    Mutation(
        "an uncertain write is not counted",
        Rules(needed=lambda now, _: frozenset(now.sync_set)),
        "I2",
        _WRITES,
        gap=25,
        seed=43,
    ),
    Mutation(
        "of two uncertain writes the last counts",
        Rules(either=lambda _, last: last),
        "I2",
        _WRITES,
        gap=25,
        seed=87,
    ),
    Mutation("who is late is not waited for", Rules(required=_only_who_is_level), "I2", _MIRROR),
    Mutation(
        "who is required again is not waited for", Rules(required=_only_the_record), "I2", _MIRROR, seed=51
    ),
    Mutation("a confirmed list makes level", Rules(require_before_recording=False), "I2", _MIRROR),
    Mutation(
        "level is who holds what was told before its list",
        Rules(level_from_where_required=False),
        "I2",
        (*_MIRROR, "not reached"),
    ),
    Mutation("who was not checked holds", Rules(backlog=_UncoveredHolds), "I2", _TROUBLE, gap=150, seed=127),
    Mutation(
        "who matched once holds",
        Rules(backlog=_MatchedForGood),
        "I2",
        ("slow network", "pause"),
        nodes=4,
        gap=300,
        every=15,
        few=1,
        seed=130,
    ),
    Mutation("what was sent is held", Rules(backlog=_SentIsHeld), "I2"),
    Mutation(
        "strict acknowledges alone", Rules(judge=_alone_in_strict), "I2", _MIRROR, mode="strict", seed=54
    ),
    Mutation("the leader does not sync before", Rules(sync_before_telling=False), "I2"),
    Mutation("a standby does not sync before", Rules(sync_before_applied=False), "I2"),
    Mutation("a standby confirms before it applies", Rules(apply_before_applied=False), "I2"),
    Mutation("a list is confirmed before its work is done", Rules(work_before_checked=False), "I2"),
    Mutation(
        "what is worked on may equal a list",
        Rules(busy_is_different=False),
        "I2",
        ("slow network",),
        nodes=4,
        gap=300,
        wishes=("several", "delete"),
        few=1,
        seed=914,
    ),
    Mutation("what an earlier session left is not synced", Rules(sync_first=False), "I2", _MIRROR, seed=69),
    Mutation("objects are not synced", Rules(sync_objects=False), "I2"),
    Mutation(
        "a leader hears of another term", Rules(check_term_of_standby=False), "I2", _TERMS, gap=60, seed=298
    ),
    Mutation(
        "a standby hears of another term",
        Rules(check_term_of_leader=False),
        "I2 I4",
        ("lost lock", "kill", "broken connection"),
        gap=40,
        every=20,
        seed=99,
    ),
    Mutation(
        "the mirror is not ended before the claim",
        Rules(end_mirror_before_claim=False),
        "I2 I3 I4",
        ("lost lock", "slow network"),
        gap=80,
        seed=8,
    ),
    Mutation("up to date does not wait", Rules(wait_for_advertisement="never"), "I2", _HELD, wishes=_AGAIN),
    Mutation(
        "the wait is before the advertisement",
        Rules(wait_for_advertisement="before the capture"),
        "I2",
        _HELD,
        wishes=_AGAIN,
        seed=8,
    ),
    Mutation("the lease does not run out", Rules(lease=False), "I1"),
    Mutation("the gate is not asked again", Rules(gate_again=False), "I1", ("pause",), gap=60, seed=10),
    Mutation(
        "running pushes are not reaped",
        Rules(reap_pushes=False),
        "I2 I3 I4",
        ("lost lock", "volume out of reach"),
        seed=17,
    ),
    Mutation(
        "no intent is written",
        Rules(intent=False),
        "I6",
        ("lost lock",),
        gap=30,
        every=20,
        wishes=("several", "several", "swap"),
        seed=151,
    ),
    Mutation("nothing is rescued", Rules(rescue="never"), "I4", mode="async"),
    Mutation("the rescue comes after the overwriting", Rules(rescue="after"), "I4", mode="async"),
    Mutation(
        "a full check settles the journal",
        Rules(restamp_journal=False),
        "I4",
        ("lost lock", "isolation", "volume out of reach"),
        gap=60,
        every=100,
        seed=231,
    ),
    Mutation(
        "a snapshot is newer than its number",
        Rules(snapshots_are_numbered=False),
        "I4",
        ("full check", "full check", "full check", "slow network", "lost lock"),
        gap=20,
        every=15,
        seed=170,
    ),
    Mutation(
        "async forgets what only some have",
        Rules(forget_in_async=True),
        "I4",
        ("isolation", "pause", "kill"),
        mode="async",
        gap=120,
        every=200,
        seed=69,
    ),
    Mutation(
        "a leader notes a push after it",
        Rules(mark_before_push=False),
        "I4",
        ("kill", "lost lock"),
        gap=60,
        seed=72,
    ),
    Mutation(
        "a standby notes a change after it",
        Rules(mark_before_refs=False),
        "I4",
        ("kill", "lost lock"),
        mode="async",
        seed=181,
    ),
    Mutation("what is told is not noted", Rules(note_what_is_told=False), "I4", ("kill", "lost lock")),
    Mutation(
        "a forced leadership is not distrusted", Rules(distrust_forced=False), "I4", _FORCED, gap=80, seed=65
    ),
    Mutation(
        "a later leader tells of no forced one", Rules(carry_forced=False), "I4", _FORCED, gap=80, seed=239
    ),
    Mutation(
        "a forced leadership is noted before what it means",
        Rules(distrusted=_forced_first),
        "I4",
        ("override and crash", "isolation"),
        gap=150,
        seed=8,
    ),
    Mutation("deletions come with creations", Rules(plan=_one_transaction), "I5", recover=True),
    Mutation(
        "a push is one into whatever has the name",
        Rules(ids=False),
        "I2",
        ("slow network",),
        wishes=("forward", "several", "remove repository"),
        few=1,
    ),
    Mutation("a job that failed is done", Rules(retry_failed_jobs=False), "I2", ("full disk", "isolation")),
)
