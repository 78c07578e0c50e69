"""What was told last: a bound on memory costs differences, and never a number."""

from stargate_gate.replication.messages import Changed, Compare
from stargate_gate.replication.published import Published, State
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.refs import RefSnapshot

TERM = 7
APP, LIB = RepositoryName("app"), RepositoryName("lib")
MAIN = "refs/heads/main"
HEAD = "ref: refs/heads/main"


def state(oid: str, identity: str = "1" * 32) -> State:
    return State(identity, RefSnapshot("sha1", HEAD, {MAIN: oid * 40}))


def test_what_follows_on_what_was_told_is_told_as_a_difference() -> None:
    """The first time everything is compared."""
    published = Published()
    assert published.tell(APP, state("a"), TERM, 2) == Compare(TERM, 2, APP)
    change = RefChange(MAIN, "a" * 40, "b" * 40)
    assert published.tell(APP, state("b"), TERM, 3) == Changed(TERM, 3, APP, "1" * 32, HEAD, (change,))
    assert published.tell(APP, state("c", "2" * 32), TERM, 4) == Compare(TERM, 4, APP)


def test_only_exactly_what_was_told_last_has_its_number() -> None:
    """Another state, another repository of the name, one that was told before: no number."""
    published = Published()
    published.tell(APP, state("a"), TERM, 2)
    assert published.seq_of(APP, state("a")) == 2
    assert published.seq_of(APP, state("b")) is None
    assert published.seq_of(APP, state("a", "2" * 32)) is None
    assert published.seq_of(LIB, state("a")) is None
    published.tell(APP, state("b"), TERM, 3)
    assert published.seq_of(APP, state("a")) is None


def test_only_the_very_snapshot_that_is_on_disk_was_read_again() -> None:
    """An equal one may be of files that were written since; once it is on disk, it is the one."""
    published = Published()
    told, equal, other = state("a"), state("a"), state("b")
    assert not published.was_read_again(APP, told)
    published.tell(APP, told, TERM, 2)
    assert published.was_read_again(APP, told)
    assert not published.was_read_again(APP, equal)
    published.is_on_disk(APP, other)
    assert published.was_read_again(APP, told)
    published.is_on_disk(APP, equal)
    assert published.was_read_again(APP, equal)
    assert published.seq_of(APP, equal) == 2


def test_showing_something_else_takes_the_number_away() -> None:
    """And with it the difference: whoever has seen it could not apply that."""
    published = Published()
    told = state("a")
    published.tell(APP, told, TERM, 2)
    published.shown(APP, told.id, told.snapshot.digest)
    assert published.seq_of(APP, told) == 2
    published.shown(APP, told.id, state("b").snapshot.digest)
    assert published.seq_of(APP, told) is None
    assert published.tell(APP, told, TERM, 3) == Compare(TERM, 3, APP)


def test_refs_that_do_not_fit_are_compared_and_keep_their_number() -> None:
    """Were the number forgotten, each standby that asks would be told to ask again, for ever."""
    published = Published(max_bytes=2 * state("a").snapshot.size - 1)
    published.tell(APP, state("a"), TERM, 2)
    published.tell(LIB, state("a"), TERM, 3)
    assert published.seq_of(APP, state("a")) == 2
    assert isinstance(published.tell(APP, state("b"), TERM, 4), Compare)
    assert isinstance(published.tell(APP, state("c"), TERM, 5), Changed)
    none = Published(max_bytes=0)
    none.tell(APP, state("a"), TERM, 2)
    assert none.seq_of(APP, state("a")) == 2


def test_the_one_that_was_told_first_is_forgotten_first() -> None:
    """Beyond the bound it is told anew."""
    published = Published(max_repositories=1)
    published.tell(APP, state("a"), TERM, 2)
    published.tell(LIB, state("a"), TERM, 3)
    assert published.seq_of(APP, state("a")) is None
    assert published.seq_of(LIB, state("a")) == 3
