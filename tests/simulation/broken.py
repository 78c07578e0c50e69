"""The product's rules, each with something wrong: what mutations.py puts in their place."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from stargate_gate.election import eligibility
from stargate_gate.election.eligibility import Decision, Known, Standing, Try
from stargate_gate.election.flock import slots, steps
from stargate_gate.election.flock.slots import CLAIM, Slots
from stargate_gate.election.flock.steps import Read, Reserve
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.replication.leader import sync_rules
from stargate_gate.replication.leader.backlog import Backlog
from stargate_gate.replication.leader.sync_rules import Presence, Stage, Verdict
from stargate_gate.replication.rescue.unreplicated import Fact, Forced, Unknown

Answer = Callable[[Slots, Slots | None], Slots]


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


def claim_without_reading_again(wanted: ClusterRecord, former: ClusterRecord) -> Any:
    return _reading(
        steps.claim(wanted, former),
        lambda now, first: now if first is None else _half(first, former.term, now),
    )


def write_without_looking_around(new: ClusterRecord) -> Any:
    def only_mine(now: Slots, _: Slots | None) -> Slots:
        return Slots(
            tuple(
                slot if isinstance(slot, ClusterRecord) and slot.term <= new.term else None
                for slot in now.contents
            )
        )

    return _reading(steps.write(new), only_mine)


def claim_in_the_formers_half(wanted: ClusterRecord, former: ClusterRecord) -> Any:
    before = yield from steps._read()
    term = slots.next_term(before, former, wanted.term) + 1
    yield Reserve(term)
    claimed = replace(wanted, term=term, version=CLAIM)
    first = replace(wanted, term=term, version=CLAIM + 1)
    yield from steps._write_copies(claimed, before, lambda now: steps.fence(now, claimed))
    yield from steps._write_copies(first, before, lambda now: steps.fence(now, first))
    return first


def claim_whatever_is_there(wanted: ClusterRecord, _: ClusterRecord) -> Any:
    found = slots.in_force((yield from steps._read()))
    return (yield from steps.claim(wanted, found or wanted))


def claim_the_number_after_the_record(wanted: ClusterRecord, former: ClusterRecord) -> Any:
    """No claim, no reservation, no look at other claims: the record's term and one."""
    first = replace(wanted, term=former.term + 1, version=CLAIM + 1)
    before = yield from steps._read()
    for slot in slots.slots_of(first):
        yield steps.Write(slot, first)
        yield steps.Sync()
    _ = before
    return first


# -- who may lead ------------------------------------------------------------------------------------


def anybody_leads(rec: ClusterRecord, standing: Standing, **others: Any) -> Decision:
    decision = eligibility.decide(rec, standing, **others)
    return Try("why not") if standing.aside is None and rec.term > 0 else decision


def names_are_enough(rec: ClusterRecord, standing: Standing, **others: Any) -> Decision:
    """Nor do incarnations count, which an empty data_dir lacks, too."""
    me = next((one for one in rec.eligible if one.name == standing.me.name), standing.me)
    return eligibility.decide(replace(rec, incarnations=()), replace(standing, me=me), **others)


def incarnations_do_not_count(rec: ClusterRecord, standing: Standing, **others: Any) -> Decision:
    return eligibility.decide(replace(rec, incarnations=()), standing, **others)


def terms_are_forgotten(rec: ClusterRecord, standing: Standing, **others: Any) -> Decision:
    known: Known = replace(standing.known, highest_term=0)
    return eligibility.decide(rec, replace(standing, known=known), **others)


# -- who has to confirm ------------------------------------------------------------------------------


def only_who_is_level(present: Iterable[Presence], _: frozenset[Member]) -> frozenset[Member]:
    return frozenset(one.member for one in present if one.stage is Stage.LEVEL)


def only_the_record(_: Iterable[Presence], recorded: frozenset[Member]) -> frozenset[Member]:
    return recorded


def alone_in_strict(push: Any, _: Any, limits: Any) -> Verdict:
    return sync_rules.judge(push, "sync", limits)


class UncoveredHolds(Backlog):
    """Whatever it was not told of counts as held, before any list was confirmed."""

    def holds(self, name: Any, seq: int) -> bool:
        covered, self.covered = self.covered, True
        try:
            return super().holds(name, seq)
        finally:
            self.covered = covered


class MatchedForGood(Backlog):
    """A repository that was once confirmed counts as held whatever came later."""

    def holds(self, name: Any, seq: int) -> bool:
        return super().holds(name, min(seq, self._matched.get(name, seq)))


class SentIsHeld(Backlog):
    """What was sent counts as held."""

    def next(self, now: float) -> Any:
        news = super().next(now)
        if news is not None:
            self.applied(news.id, news.seq, now)
        return news


# -- what is not known replicated -------------------------------------------------------------------


def forced_first(forced_term: int) -> tuple[Fact, ...]:
    return Forced(forced_term), Unknown()
