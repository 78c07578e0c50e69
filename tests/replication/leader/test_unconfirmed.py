"""Which repositories have changes that others lack, and since when. For status."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.backlog import Backlog
from stargate_gate.replication.leader.link import Link
from stargate_gate.replication.leader.unconfirmed import MAX_STEPS, Unconfirmed
from stargate_gate.replication.wire.messages import Compare
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.status import OpenChanges

B, C = Member("node-b", "b" * 32), Member("node-c", "c" * 32)
X, Y = "1" * 32, "2" * 32
TERM, T0 = 7, 1_000_000.0


@dataclass
class Standby:
    """What of a link counts here: its backlog, which is a real one."""

    backlog: Backlog = field(default_factory=Backlog)

    def compared(self) -> "Standby":
        """It has confirmed a full list."""
        self.backlog.checked(10_000)
        return self

    def sent(self, identity: str, seq: int) -> None:
        """It was sent that change."""
        self.backlog.add(Compare(TERM, seq, parse_repository_name("a/b"), identity), 0.0)
        self.backlog.next(0.0)


def of(**standbys: Standby) -> Mapping[Member, Link]:
    """The connected standbys, as the leader keeps them."""
    return cast("Any", {{"b": B, "c": C}[name]: one for name, one in standbys.items()})


def names(unconfirmed: Unconfirmed, links: Mapping[Member, Link], members: tuple[Member, ...]) -> list[str]:
    """The repositories that are open."""
    return [one.repository for one in unconfirmed.status(links, members, T0 + 60).repositories]


def test_alone_every_push_stays_open_with_the_time_of_the_first() -> None:
    """Nobody else has it."""
    unconfirmed = Unconfirmed()
    unconfirmed.told(X, "team/x", 2, T0)
    unconfirmed.told(Y, "team/y", 3, T0 + 5)
    unconfirmed.told(X, "team/x", 4, T0 + 9)
    assert unconfirmed.status({}, (), T0 + 60).repositories == (
        OpenChanges("team/x", 2, T0),
        OpenChanges("team/y", 1, T0 + 5),
    )


def test_what_all_members_have_confirmed_is_not_open() -> None:
    """And what one of two has confirmed says who has it."""
    b, c, unconfirmed = Standby().compared(), Standby().compared(), Unconfirmed()
    for one in (b, c):
        one.sent(X, 10_001)
    unconfirmed.told(X, "team/x", 10_001, T0)
    assert names(unconfirmed, of(b=b, c=c), (B, C)) == ["team/x"]
    b.backlog.applied(X, 10_001, 0.0)
    (one,) = unconfirmed.status(of(b=b, c=c), (B, C), T0).repositories
    assert one.elsewhere == ("node-b",)
    c.backlog.applied(X, 10_001, 0.0)
    assert names(unconfirmed, of(b=b, c=c), (B, C)) == []


def test_a_member_that_is_away_has_not_confirmed() -> None:
    """Nor has a standby that is not a member: it may be compared, and says what it has."""
    b, unconfirmed = Standby().compared(), Unconfirmed()
    unconfirmed.told(X, "team/x", 5, T0)
    assert names(unconfirmed, of(b=b), (B, C)) == ["team/x"]
    assert names(unconfirmed, of(b=b), ()) == ["team/x"]
    (one,) = unconfirmed.status(of(b=b), (), T0).repositories
    assert one.elsewhere == ("node-b",)
    assert names(unconfirmed, of(b=b), (B,)) == []


def test_a_busy_repository_is_open_since_its_oldest_unconfirmed_push() -> None:
    """One push after the other is confirmed; there is always a newer one."""
    unconfirmed, last = Unconfirmed(), 0
    for second in range(50):
        for tenth in range(10):
            last += 1
            unconfirmed.told(X, "team/x", 10 + last, T0 + second + tenth / 10)
        unconfirmed.replicated(10 + last - 5)
        (one,) = unconfirmed.status({}, (), T0 + second + 1).repositories
        assert T0 + second - 1.5 <= one.since <= T0 + second + 1


def test_a_repository_that_stays_open_takes_bounded_memory() -> None:
    """The oldest change stays the oldest, and all are counted."""
    unconfirmed = Unconfirmed()
    for number in range(10 * MAX_STEPS):
        unconfirmed.told(X, "team/x", number + 2, T0 + 2 * number)
    (one,) = unconfirmed.status({}, (), T0).repositories
    assert (one.changes, one.since) == (10 * MAX_STEPS, T0)
    assert len(unconfirmed._open[X].steps) == MAX_STEPS


def test_what_terms_before_have_left_is_open_until_it_was_compared() -> None:
    """As the journal has it; without a journal nobody knows."""
    unconfirmed = Unconfirmed([(X, "team/x")], unknown=True)
    status = unconfirmed.status({}, (), T0)
    assert status.repositories == (OpenChanges("team/x", 0, 0.0),)
    assert status.unknown
    assert unconfirmed.status(of(b=Standby()), (B,), T0).unknown
    compared = unconfirmed.status(of(b=Standby().compared()), (B,), T0)
    assert (compared.repositories, compared.unknown) == ((), False)


def test_what_a_user_has_deleted_is_nobodys_only_copy() -> None:
    """It was wanted gone."""
    unconfirmed = Unconfirmed()
    unconfirmed.told(X, "team/x", 2, T0)
    unconfirmed.deleted(X)
    assert names(unconfirmed, {}, ()) == []


def test_a_new_name_is_shown() -> None:
    """With the next push."""
    unconfirmed = Unconfirmed()
    unconfirmed.told(X, "team/x", 2, T0)
    assert names(unconfirmed, {}, ()) == ["team/x"]
    unconfirmed.told(X, "team/new", 3, T0)
    assert names(unconfirmed, {}, ()) == ["team/new"]


def test_ten_thousand_repositories_cost_a_status_little() -> None:
    """While nobody else is there, what was made is used again until it is ten seconds old."""
    unconfirmed = Unconfirmed()
    for number in range(10_000):
        unconfirmed.told(f"{number:032}", f"team/{number}", number + 2, T0)
    first = unconfirmed.status({}, (), T0)
    assert len(first.repositories) == 10_000
    unconfirmed.told(X, "team/x", 20_000, T0)
    assert unconfirmed.status({}, (), T0 + 1) is first
    assert len(unconfirmed.status({}, (), T0 + 11).repositories) == 10_001
