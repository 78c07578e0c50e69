"""The leader's book of one standby: what it has confirmed, and what not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.replication.leader import backlog as module
from stargate_gate.replication.leader.backlog import Backlog
from stargate_gate.replication.wire.messages import Compare
from stargate_gate.repos.names import parse_repository_name

APP, LIB = "a" * 32, "b" * 32
NAME = parse_repository_name("app")


def told(backlog: Backlog, *seqs: int, identity: str = APP) -> None:
    for seq in seqs:
        assert backlog.add(Compare(1, seq, NAME, identity), float(seq))


def covered() -> Backlog:
    backlog = Backlog()
    backlog.checked(0)
    return backlog


def test_nothing_counts_as_held_before_a_list_was_confirmed() -> None:
    """Carried over or new: every repository is pending until it matched in this term."""
    backlog = Backlog()
    assert not backlog.holds(APP, 0)
    backlog.checked(0)
    assert backlog.holds(APP, 0)


def test_a_repository_that_matched_counts_before_the_list_is_done() -> None:
    """One huge repository does not make pushes to the others wait."""
    backlog = Backlog()
    told(backlog, 1)
    backlog.next(1.0)
    backlog.applied(APP, 1, 2.0)
    assert backlog.holds(APP, 1)
    assert not backlog.holds(LIB, 1)


def test_a_busy_repository_starves_no_push() -> None:
    """Confirming the first change is enough for the first, although more was sent meanwhile."""
    backlog = covered()
    told(backlog, 1)
    backlog.next(1.0)
    told(backlog, 2)
    backlog.next(2.0)
    told(backlog, 3)
    backlog.applied(APP, 1, 3.0)
    assert backlog.holds(APP, 1)
    assert not backlog.holds(APP, 2)
    assert not backlog.holds(APP, 3)
    assert backlog.held_through(3) == 1


def test_a_change_that_was_not_sent_is_not_held() -> None:
    """Whatever was confirmed before."""
    backlog = covered()
    told(backlog, 1)
    assert not backlog.holds(APP, 1)
    assert backlog.holds(LIB, 1)


def test_a_list_covers_what_was_told_before_it_and_not_what_came_after() -> None:
    """Its sequence number says where it began."""
    backlog = covered()
    told(backlog, 1)
    backlog.next(1.0)
    told(backlog, 2, identity=LIB)
    backlog.next(2.0)
    backlog.checked(1)
    assert backlog.holds(APP, 1)
    assert not backlog.holds(LIB, 2)
    assert backlog.held_through(2) == 1


def test_progress_counts_for_the_repository_it_names() -> None:
    """ack_timeout_s is counted from there."""
    backlog = covered()
    told(backlog, 1)
    told(backlog, 2, identity=LIB)
    backlog.next(2.0)
    backlog.next(2.0)
    backlog.progress(APP, 9.0)
    assert (backlog.moved_at(APP), backlog.moved_at(LIB)) == (9.0, 2.0)


def test_an_older_change_that_is_confirmed_after_clearing_proves_nothing_of_a_newer_one() -> None:
    """What was dropped with the rest was newer: only the full list that follows confirms it."""
    backlog = covered()
    told(backlog, 1)
    backlog.next(1.0)
    told(backlog, 2)
    backlog.clear()
    backlog.applied(APP, 1, 3.0)
    assert not backlog.holds(APP, 2)


def test_beyond_its_bound_nothing_counts_as_held_until_the_next_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was dropped cannot be confirmed one by one."""
    backlog = covered()
    monkeypatch.setattr(module, "MAX_REPOSITORIES", 1)
    assert backlog.add(Compare(1, 1, NAME, APP), 1.0)
    assert not backlog.add(Compare(1, 2, NAME, LIB), 1.0)
    backlog.clear()
    assert not backlog.holds(APP, 1)
    assert backlog.held_through(2) == 0


def test_what_a_standby_confirms_unasked_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that confirms repositories without end before its first list: the oldest are forgotten."""
    monkeypatch.setattr(module, "MAX_REPOSITORIES", 2)
    backlog = Backlog()
    ids = [f"{number:032x}" for number in range(100)]
    for identity in ids:
        backlog.applied(identity, 1, 1.0)
    backlog.applied(ids[-2], 2, 1.0)
    backlog.applied(APP, 1, 1.0)
    assert [one for one in [*ids, APP] if backlog.holds(one, 1)] == [ids[-2], APP]
    assert len(backlog._matched) == 2


def test_a_repository_that_matched_is_held_up_to_there_and_no_further() -> None:
    """What was dropped when the backlog overflowed may be newer than what was confirmed of it since."""
    backlog = Backlog()
    told(backlog, 1)
    backlog.next(1.0)
    told(backlog, 2)
    backlog.clear()
    backlog.applied(APP, 1, 3.0)
    assert backlog.holds(APP, 1)
    assert not backlog.holds(APP, 2)


@given(
    st.lists(
        st.tuples(st.sampled_from(["tell", "send", "apply", "check"]), st.sampled_from([APP, LIB])),
        max_size=40,
    )
)
def test_held_means_confirmed_at_or_after_that_change(steps: list[tuple[str, str]]) -> None:
    """Against a model that remembers every single change: never held too early; in the end all is held."""
    backlog, seq = covered(), 0
    last_told: dict[str, list[int]] = {APP: [], LIB: []}
    sent: list[tuple[str, int]] = []
    confirmed: dict[str, int] = {APP: 0, LIB: 0}
    for step, name in steps:
        if step == "tell":
            seq += 1
            told(backlog, seq, identity=name)
            last_told[name].append(seq)
        elif step == "send" and (news := backlog.next(0.0)) is not None:
            sent.append((news.id, news.seq))
        elif step == "apply" and sent:
            done, at = sent.pop(0)
            backlog.applied(done, at, 0.0)
            confirmed[done] = max(confirmed[done], at)
        elif step == "check":
            backlog.checked(seq)
            confirmed = dict.fromkeys(confirmed, seq)
        for which, seqs in last_told.items():
            for at in seqs:
                assert backlog.holds(which, at) == (confirmed[which] >= at)
