"""What was told last: a bound on memory costs differences, and never a number."""

from stargate_gate.replication.leader.sent_states import SentStates, State
from stargate_gate.replication.wire.messages import Changed, Compare
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.snapshot import RefSnapshot

TERM = 7
APP, LIB = RepositoryName("app"), RepositoryName("lib")
MAIN = "refs/heads/main"
ONE, TWO = "1" * 32, "2" * 32
HEAD = "ref: refs/heads/main"


def state(oid: str, identity: str = ONE, name: RepositoryName = APP) -> State:
    return State(identity, name, RefSnapshot("sha1", HEAD, {MAIN: oid * 40}))


def test_what_follows_on_what_was_told_is_told_as_a_difference() -> None:
    """The first time everything is compared."""
    published = SentStates()
    assert published.send(state("a"), TERM, 2) == Compare(TERM, 2, APP, ONE)
    change = RefChange(MAIN, "a" * 40, "b" * 40)
    assert published.send(state("b"), TERM, 3) == Changed(TERM, 3, APP, ONE, HEAD, (change,))
    assert published.send(state("c", TWO), TERM, 4) == Compare(TERM, 4, APP, TWO)


def test_only_exactly_what_was_told_last_has_its_number() -> None:
    """Another state, another repository of the name, one that was told before: no number."""
    published = SentStates()
    published.send(state("a"), TERM, 2)
    assert published.seq_of(state("a")) == 2
    assert published.seq_of(state("b")) is None
    assert published.seq_of(state("a", TWO)) is None
    assert published.seq_of(state("a", TWO, LIB)) is None
    published.send(state("b"), TERM, 3)
    assert published.seq_of(state("a")) is None


def test_only_the_very_snapshot_that_is_on_disk_was_read_again() -> None:
    """An equal one may be of files that were written since; once it is on disk, it is the one."""
    published = SentStates()
    told, equal, other = state("a"), state("a"), state("b")
    assert not published.was_read_again(told)
    published.send(told, TERM, 2)
    assert published.was_read_again(told)
    assert not published.was_read_again(equal)
    published.is_on_disk(other)
    assert published.was_read_again(told)
    published.is_on_disk(equal)
    assert published.was_read_again(equal)
    assert published.seq_of(equal) == 2


def test_showing_something_else_takes_the_number_away() -> None:
    """And with it the difference: whoever has seen it could not apply that."""
    published = SentStates()
    told = state("a")
    published.send(told, TERM, 2)
    published.shown(APP, told.id, told.snapshot.digest)
    assert published.seq_of(told) == 2
    published.shown(APP, told.id, state("b").snapshot.digest)
    assert published.seq_of(told) is None
    assert published.send(told, TERM, 3) == Compare(TERM, 3, APP, ONE)


def test_refs_that_do_not_fit_are_compared_and_keep_their_number() -> None:
    """Were the number forgotten, each standby that asks would be told to ask again, for ever."""
    published = SentStates(max_bytes=2 * state("a").snapshot.size - 1)
    published.send(state("a"), TERM, 2)
    published.send(state("a", TWO, LIB), TERM, 3)
    assert published.seq_of(state("a")) == 2
    assert isinstance(published.send(state("b"), TERM, 4), Compare)
    assert isinstance(published.send(state("c"), TERM, 5), Changed)
    none = SentStates(max_bytes=0)
    none.send(state("a"), TERM, 2)
    assert none.seq_of(state("a")) == 2


def test_the_one_that_was_told_first_is_forgotten_first() -> None:
    """Beyond the bound it is told anew."""
    published = SentStates(max_repositories=1)
    published.send(state("a"), TERM, 2)
    published.send(state("a", TWO, LIB), TERM, 3)
    assert published.seq_of(state("a")) is None
    assert published.seq_of(state("a", TWO, LIB)) == 3


def test_another_name_is_told_and_no_difference_tells_of_it() -> None:
    """The refs are the same; what was told under the old name has no number any more."""
    published = SentStates()
    published.send(state("a"), TERM, 2)
    moved = state("a", ONE, LIB)
    assert published.seq_of(moved) is None
    assert published.send(moved, TERM, 3) == Compare(TERM, 3, LIB, ONE)
    assert published.seq_of(moved) == 3
    published.shown(APP, ONE, moved.snapshot.digest)
    assert published.seq_of(moved) is None
