"""Faults of this program in one standby's connection: they end that connection, and nothing else."""

from collections.abc import Iterable

import pytest

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.context import FeedSettings, Outside
from stargate_gate.replication.leader.events import (
    ConnectionEnded,
    Heard,
    Joined,
    OnDisk,
    Purpose,
    ReadWanted,
    RefsRead,
    Sent,
    Tick,
    WaitBegan,
    WorkedFor,
)
from stargate_gate.replication.leader.instructions import (
    Answer,
    EndLink,
    Instruction,
    Log,
    ReadDone,
    Send,
    Wake,
)
from stargate_gate.replication.leader.link import Link
from stargate_gate.replication.leader.sent_states import State
from stargate_gate.replication.leader.sync_rules import Limits, Stage
from stargate_gate.replication.leader.term import LeaderTerm
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.messages import PROTOCOL, Alive, Compare, Join
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.snapshot import RefSnapshot
from tests.support.term_scenarios import ME, TERM, Record

B, C = Member("b", "dir-b"), Member("c", "dir-c")
APP = State("id-app", parse_repository_name("app"), RefSnapshot("sha1", "", {"refs/heads/main": "1" * 40}))


class FaultError(Exception):
    """What a bug raises."""


def term_of(*members: Member) -> LeaderTerm:
    """A term with these standbys, whose links are 1, 2, …"""
    outside = Outside(
        profile=Profile,
        new_incarnation=lambda: "0" * 32,
        wall_s=lambda: 1000.0,
        late_delay_s=float,
        record_delay_s=float,
        reach_delay_s=float,
    )
    settings = FeedSettings("sync", Limits(5.0, 60.0), 10.0, 100.0)
    term = LeaderTerm(Record([]), ME, settings, outside, 0.0)
    for number, member in enumerate(members, 1):
        term.handle(Joined(0.0, number, Join(PROTOCOL, member, "1"), "host"))
        term.handle(Sent(0.0, number))  # the welcome; a list is begun then
    return term


def of_kind(instructions: Iterable[Instruction], *kinds: type) -> list[Instruction]:
    return [one for one in instructions if isinstance(one, kinds)]


def broken(*_: object) -> None:
    raise FaultError("a bug")


@pytest.mark.parametrize("method", ["pump", "add", "silent", "hear", "worked_for"])
def test_a_fault_in_one_link_ends_that_link_only(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are told of the push, and it is answered."""
    term = term_of(B, C)
    link = term.links[B]
    monkeypatch.setattr(link, method, broken)
    got = term.handle(ReadWanted(0.0, 9, "id-app", Purpose.SEND))
    got += term.handle(RefsRead(0.0, 9, APP))
    got += term.handle(OnDisk(0.0, 9))
    got += term.handle(WaitBegan(0.0, 9, "id-app", 2))
    if method == "hear":
        got += term.handle(Heard(0.0, 1, Alive(TERM, 1)))
    elif method == "worked_for":
        got += term.handle(WorkedFor(0.0, "host", "id-app"))
    assert of_kind(got, EndLink) == [EndLink(1, "this node has failed: FaultError('a bug')")]
    assert [one.event for one in of_kind(got, Log)] == ["standby_failed"]  # type: ignore[attr-defined]
    assert len(of_kind(got, ReadDone)) == 1
    assert len(of_kind(got, Answer)) == 1
    assert list(term.links) == [C]
    term.handle(ConnectionEnded(0.0, 1, "a bug"))
    assert term.links[C].backlog.next(0.0) == Compare(TERM, 2, APP.name, APP.id)


def test_a_link_whose_state_cannot_be_is_ended() -> None:
    """Its standby connects again, and is checked from the beginning."""
    term = term_of(B, C)
    term.links[B].stage = Stage.LEVEL
    got = term.handle(Tick(0.0))
    ended = of_kind(got, EndLink)
    assert [(one.link, one.reason[:45]) for one in ended] == [  # type: ignore[attr-defined]
        (1, "this node has failed: a state that cannot be:")
    ]
    assert list(term.links) == [C]
    assert not of_kind(term.handle(Tick(0.0)), EndLink)


def test_what_was_decided_before_a_fault_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading that is over, and the sending to a standby, do not wait for ever. The clock goes on."""
    term = term_of(B)
    term.handle(ReadWanted(0.0, 9, "id-app", Purpose.SEND))
    term.handle(RefsRead(0.0, 9, APP))
    with monkeypatch.context() as patch:
        patch.setattr(term.sync_set, "settle", broken)
        with pytest.raises(FaultError):
            term.handle(OnDisk(0.0, 9))
    assert len(of_kind(term.take(), ReadDone)) == 1
    assert term.take() == []
    term.handle(Sent(0.0, 1))
    with monkeypatch.context() as patch:
        patch.setattr(Link, "wake_at", broken)
        with pytest.raises(FaultError):
            term.handle(Tick(10.0))
    assert of_kind(term.take(), Send), "a heartbeat"
    assert of_kind(term.handle(Tick(10.0)), Wake)
