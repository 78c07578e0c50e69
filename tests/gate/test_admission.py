"""Shares of a node's sessions: nobody takes what belongs to others, and who waits is served in fair order."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.gate.admission import Admission, Claim, Refusal, Shares

NUMBERS = itertools.count()


def claim(key: str, pool: str = "read", address: str = "") -> Claim:
    """A new one."""
    return Claim(next(NUMBERS), pool, key, address)  # type: ignore[arg-type]


def test_reads_do_not_keep_pushes_out() -> None:
    """Each has a pool of its own."""
    admission = Admission(Shares(reads=2, pushes=1, per_key=9, per_address=9))
    assert [admission.enter(claim(key)) for key in "abc"] == ["run", "run", "wait"]
    assert admission.enter(claim("d", "push")) == "run"
    assert admission.enter(claim("e", "push")) == "wait"


def test_one_key_has_its_share_and_no_more() -> None:
    """Its sessions of both pools count. Other keys are not affected."""
    admission = Admission(Shares(reads=9, pushes=9, per_key=2, per_address=9))
    assert [
        admission.enter(claim("a")),
        admission.enter(claim("a", "push")),
        admission.enter(claim("a")),
    ] == [
        "run",
        "run",
        "wait",
    ]
    assert admission.enter(claim("b")) == "run"
    assert "2 sessions of your key" in str(admission.exceeded(claim("a")))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", False),
        ("sshd", "sshd", False),
    ],
)
def test_one_address_has_its_share(one: str, other: str, same: bool) -> None:  # noqa: FBT001
    """An IPv6 network of 64 bits counts as one address. An unknown address is not counted."""
    admission = Admission(Shares(reads=9, pushes=9, per_key=9, per_address=1))
    assert admission.enter(claim("a", address=one)) == "run"
    assert (admission.enter(claim("b", address=other)) == "wait") is same


def test_the_next_turn_is_for_the_key_that_has_least() -> None:
    """Not the key with most waiting requests is next. Among equal keys the request that came first is."""
    admission = Admission(Shares(reads=2, pushes=9, per_key=9, per_address=9))
    running = [claim("a"), claim("b")]
    waiting = [claim("a"), claim("a"), claim("c"), claim("b")]
    assert [admission.enter(one) for one in (*running, *waiting)] == ["run"] * 2 + ["wait"] * 4
    assert admission.leave(running[1]) == (waiting[2],)  # c has none running
    assert admission.leave(waiting[2]) == (waiting[3],)  # b has none running now, a has one
    assert admission.leave(running[0]) == (waiting[0],)


def test_who_waits_is_bounded() -> None:
    """In all, and for one key, so that it cannot fill the queue."""
    admission = Admission(Shares(reads=2, pushes=2, per_key=1, per_address=9))
    assert [admission.enter(claim("a")) for _ in range(2)] == ["run", "wait"]
    assert isinstance(admission.enter(claim("a")), Refusal)
    assert [admission.enter(claim(key)) for key in "bcdef"] == ["run", "wait", "wait", "wait", Refusal(_FULL)]


_FULL = "this node serves as many sessions as it may, try again later"


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abc"), st.sampled_from(["push", "read"])), max_size=60)
)
def test_whatever_comes_and_goes_the_bounds_hold(steps: list[tuple[bool, str, str]]) -> None:
    """And no request waits that could run."""
    shares = Shares(reads=3, pushes=2, per_key=3, per_address=4)
    admission = Admission(shares)
    running: dict[int, Claim] = {}
    waiting: dict[int, Claim] = {}
    for comes, key, pool in steps:
        if comes:
            new = claim(key, pool, "192.0.2.1")
            verdict = admission.enter(new)
            if not isinstance(verdict, Refusal):
                (running if verdict == "run" else waiting)[new.number] = new
        elif running or waiting:
            going = next(iter((running | waiting).values()))
            running.pop(going.number, None)
            waiting.pop(going.number, None)
            for called in admission.leave(going):
                running[called.number] = waiting.pop(called.number)
        assert len(admission._running) == len(running)
        assert sum(one.pool == "read" for one in running.values()) <= shares.reads
        assert sum(one.pool == "push" for one in running.values()) <= shares.pushes
        assert all(sum(one.key == key for one in running.values()) <= shares.per_key for key in "abc")
        assert len(running) <= shares.per_address
        assert len(waiting) <= shares.may_wait
        assert all(admission.exceeded(one) for one in waiting.values())
