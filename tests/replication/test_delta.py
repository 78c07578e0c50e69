"""How refs change: differences lead from one snapshot to the next, one by one or joined."""

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.replication.wire.delta import before_and_after, difference, joined
from stargate_gate.replication.wire.messages import (
    MAX_DELTA_CHANGES,
    MAX_DELTA_CHARACTERS,
    Changed,
    Compare,
    Deleted,
    Delta,
    News,
)
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange, plan_transactions
from stargate_gate.repos.snapshot import RefSnapshot

NAME = RepositoryName("org/app")
ID = "b" * 32
HEAD = "ref: refs/heads/main"

ref_sets = st.dictionaries(
    st.sampled_from(["refs/heads/a", "refs/heads/a/b", "refs/tags/a", "refs/x", "refs/heads/\udcff"]),
    st.sampled_from(["0" * 39 + "1", "0" * 39 + "2"]),
)


def snapshot(refs: Mapping[str, str], broken: frozenset[str] = frozenset()) -> RefSnapshot:
    return RefSnapshot("sha1", HEAD, refs, broken)


def changed(seq: int, delta: Delta | None, *, head: str = HEAD) -> Changed:
    assert delta is not None
    return Changed(1, seq, NAME, ID, head, delta)


def after(refs: Mapping[str, str], delta: Delta) -> dict[str, str]:
    """What `refs` become, each old value checked as git does."""
    result = dict(refs)
    for change in delta:
        assert result.get(change.ref) == change.old
        result.pop(change.ref, None)
        if change.new is not None:
            result[change.ref] = change.new
    return result


@given(ref_sets, ref_sets)
def test_a_difference_leads_from_one_snapshot_to_the_other(
    before: dict[str, str], later: dict[str, str]
) -> None:
    """Every change and nothing else, with the old values."""
    delta = difference(snapshot(before), snapshot(later))
    assert delta is not None
    assert after(before, delta) == later
    assert all(change.old != change.new for change in delta)


@given(ref_sets, ref_sets)
def test_a_ref_that_has_lost_its_value_is_not_deleted(before: dict[str, str], later: dict[str, str]) -> None:
    """A broken ref on the leader removes nothing on a standby."""
    broken = frozenset(before) - frozenset(later)
    delta = difference(snapshot(before), snapshot(later, broken))
    assert delta is not None
    assert after(before, delta) == {**{ref: before[ref] for ref in broken}, **later}


@given(st.lists(ref_sets, min_size=2, max_size=6), st.data())
def test_pieces_of_news_in_a_row_are_joined_to_what_they_add_up_to(
    states: list[dict[str, str]], data: st.DataObject
) -> None:
    """However neighbours are joined, one piece leads from the first state to the last."""
    news: list[News] = [
        changed(number, difference(snapshot(first), snapshot(second)))
        for number, (first, second) in enumerate(itertools.pairwise(states), 1)
    ]
    while len(news) > 1:
        place = data.draw(st.integers(0, len(news) - 2))
        news[place : place + 2] = [joined(news[place], news[place + 1])]
    (whole,) = news
    assert whole.seq == len(states) - 1
    if isinstance(whole, Changed):
        assert after(states[0], whole.delta) == states[-1]
        assert all(change.old != change.new for change in whole.delta)
    else:
        assert any(_returns([state.get(ref) for state in states]) for state in states for ref in state)


def _returns(values: list[str | None]) -> bool:
    """Whether a value is there again after another one."""
    in_a_row = [value for value, _ in itertools.groupby(values)]
    return len(in_a_row) > len(set(in_a_row))


@given(ref_sets, ref_sets)
def test_a_planned_delta_holds_exactly_its_changes(before: dict[str, str], later: dict[str, str]) -> None:
    """A standby plans from the changed refs alone; the transactions are the delta, each change once."""
    delta = difference(snapshot(before), snapshot(later))
    assert delta is not None
    transactions = plan_transactions(*before_and_after(delta))
    planned = [change for transaction in transactions for change in transaction]
    assert sorted(planned, key=lambda change: change.ref) == list(delta)


A, B, C = (digit * 40 for digit in "abc")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (changed(1, (RefChange("refs/x", None, A),)), changed(2, (RefChange("refs/x", B, C),))),
        (Deleted(1, 1, NAME, ID), changed(2, ())),
        (Compare(1, 1, NAME, ID), changed(2, ())),
        (changed(1, ()), Compare(1, 2, NAME, ID)),
        (Compare(1, 2, NAME, ID), Compare(1, 1, NAME, ID)),
        (changed(1, ()), Compare(1, 0, NAME, ID)),
        (changed(1, (RefChange("refs/x", A, None),)), changed(2, (RefChange("refs/x", None, A),))),
    ],
)
def test_what_does_not_follow_becomes_a_comparison(first: News, second: News) -> None:
    """A gap, another repository of the name, a comparison: only looking at all of it is right then.

    So it is when a ref comes back: a standby that was shown what was in between has to come back too.
    """
    assert joined(first, second) == Compare(1, 2 if 2 in (first.seq, second.seq) else 1, NAME, ID)


def test_joined_news_has_the_newer_head() -> None:
    """HEAD is what it was last."""
    whole = joined(changed(1, ()), changed(2, (), head="ref: refs/heads/other"))
    assert whole == changed(2, (), head="ref: refs/heads/other")


def test_too_much_for_one_message_is_no_delta() -> None:
    """Both bounds are met exactly and not passed, by a difference and by joining."""

    def refs(count: int, length: int = 12) -> dict[str, str]:
        return {f"refs/{number:07}".ljust(length, "x"): A for number in range(count)}

    def delta(wanted: Mapping[str, str]) -> Delta | None:
        return difference(snapshot({}), snapshot(wanted))

    most = delta(refs(MAX_DELTA_CHANGES))
    assert most is not None
    assert delta(refs(MAX_DELTA_CHANGES + 1)) is None
    assert delta(refs(64, MAX_DELTA_CHARACTERS // 64)) is not None
    assert delta(refs(64, MAX_DELTA_CHARACTERS // 64 + 1)) is None
    assert joined(changed(1, most), changed(2, (RefChange("refs/more", None, A),))) == Compare(1, 2, NAME, ID)


@pytest.mark.parametrize("first", [changed(1, ()), Compare(1, 1, NAME, ID), Deleted(1, 1, NAME, ID)])
def test_what_came_before_a_deletion_is_of_no_interest(first: News) -> None:
    """The copy goes, whatever it was to become."""
    deleted = Deleted(1, 2, NAME, ID)
    assert joined(first, deleted) == deleted
