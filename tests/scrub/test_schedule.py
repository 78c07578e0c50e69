"""Which copy is checked next, and what counts as verified."""

import math

from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.scrub.findings import Finding, Report, Result, Verdict
from stargate_gate.scrub.schedule import DAMAGED_AGAIN_S, Copy, Entry, Schedule

WEEK_S = 7 * 86_400.0
NOW = 1_000_000_000.0
A, B, C = (Copy(key * 32, f"org/{key}", number) for number, key in enumerate("abc", 1))
BAD = (Finding("ref", "refs/heads/main", "is empty"),)


def report(copy: Copy, at: float, result: Result = "sound") -> Report:
    """The result of a check."""
    verdict = Verdict(result, BAD if result == "damaged" else (), "" if result == "sound" else "why")
    return Report(copy.key, copy.name, copy.folder, at, verdict)


def schedule(*copies: Copy, interval_s: float = WEEK_S) -> Schedule:
    """All of these are here, and none was checked."""
    made = Schedule(interval_s)
    made.refresh(copies, NOW)
    return made


def test_suspects_come_first_then_the_unchecked_then_the_oldest() -> None:
    """Suspects in the order in which they were noted."""
    made = schedule(A, B, C)
    made.checked(report(A, NOW - 2 * WEEK_S))
    made.checked(report(B, NOW - 3 * WEEK_S))
    made.suspect([(A.key, A.name)], NOW)
    order = []
    while (copy := made.next(NOW)[0]) is not None:
        order.append(copy)
        made.checked(report(copy, NOW))
    assert order == [A, C, B]
    assert made.next(NOW) == (None, WEEK_S)


def test_a_copy_that_was_replaced_is_checked_at_once() -> None:
    """Another folder has its name and id: it was fetched anew."""
    made = schedule(A)
    made.checked(report(A, NOW))
    assert made.next(NOW)[0] is None
    fresh = Copy(A.key, A.name, A.folder + 100)
    made.refresh([fresh], NOW)
    assert made.next(NOW)[0] == fresh
    assert made.summary(NOW).verified == 0


def test_a_damaged_one_is_looked_at_again_and_others_go_on() -> None:
    """It does not take the turn of the others."""
    made = schedule(A, B)
    made.checked(report(A, NOW, "damaged"))
    assert made.next(NOW)[0] == B
    made.checked(report(B, NOW))
    assert made.next(NOW) == (None, DAMAGED_AGAIN_S)
    counts = made.summary(NOW)
    assert [one.name for one in counts.damaged] == [A.name]
    assert (counts.total, counts.verified) == (2, 1)


def test_a_check_that_is_not_finished_says_nothing_of_damage() -> None:
    """A damaged copy stays damaged until a check finds it whole, or it is replaced."""
    made = schedule(A)
    made.checked(report(A, NOW, "damaged"))
    made.checked(report(A, NOW + 10, "unverified"))
    assert [one.name for one in made.summary(NOW).damaged] == [A.name]
    made.refresh([Copy(A.key, A.name, A.folder + 100)], NOW)
    assert made.summary(NOW).damaged == ()
    made.checked(report(A, NOW + 20))
    assert made.entries[A.key].findings == ()


def test_what_is_gone_is_forgotten_and_a_new_name_is_taken_over() -> None:
    """A rename keeps what is known."""
    made = schedule(A, B)
    made.checked(report(A, NOW))
    changed, gone = made.refresh([Copy(A.key, "org/new", A.folder)], NOW)
    assert gone == [B.key]
    assert [one.name for one in changed] == ["org/new"]
    assert made.summary(NOW).verified == 1


def test_ages() -> None:
    """Too old is unverified, twice as old is late; one that was never checked counts from its first day."""
    made = schedule(A)
    assert made.summary(NOW).oldest == NOW
    made.checked(report(A, NOW))
    assert made.summary(NOW + WEEK_S).verified == 1
    assert made.summary(NOW + WEEK_S + 1).verified == 0
    assert not made.is_late(NOW, NOW + 2 * WEEK_S)
    assert made.is_late(NOW, NOW + 2 * WEEK_S + 1)


def test_a_clock_that_was_set_back_checks_again() -> None:
    """A check in the future says nothing of now."""
    made = schedule(A)
    made.checked(report(A, NOW))
    assert made.next(NOW - 1000)[0] == A


def test_nothing_here_is_never_due() -> None:
    """And a scrub that is off has no age that is too old."""
    assert schedule().next(NOW) == (None, math.inf)
    off = schedule(A, interval_s=math.inf)
    off.checked(report(A, NOW))
    assert off.summary(NOW + 100 * WEEK_S).verified == 1


@given(
    st.builds(
        Entry,
        key=st.text(),
        name=st.text(),
        seen=st.integers(0, 2**33).map(float),
        tried=st.integers(0, 2**33).map(float),
        verified=st.integers(0, 2**33).map(float),
        folder=st.integers(0, 2**63),
        result=st.sampled_from(["sound", "damaged", "unverified"]),
        why=st.text(),
        findings=st.lists(
            st.builds(Finding, kind=st.sampled_from(["ref", "pack"]), where=st.text(), why=st.text())
        ).map(tuple),
        suspect=st.integers(0, 10),
    )
)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    """As JSON values."""
    assert Entry.from_json(entry.to_json()) == entry
