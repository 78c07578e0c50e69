"""What standbys know of each repository in a term, as the leader told it last. Pure.

Two states with the same digest are the same state, if nobody was shown another one in between: so
whatever shows something else forgets what was told, and what is told next has a number of its own.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

from stargate_gate.replication.wire.delta import difference
from stargate_gate.replication.wire.messages import Changed, Compare, News
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.snapshot import RefSnapshot

MAX_BYTES = 32 * 1024 * 1024  # of snapshots, to tell differences; beyond: everything is compared
MAX_REPOSITORIES = 100_000  # some 400 bytes each; one that was forgotten is told anew


@dataclass(frozen=True)
class State:
    """One repository at one moment: what it is called, and its refs."""

    id: str
    name: RepositoryName
    snapshot: RefSnapshot


@dataclass(frozen=True)
class Told:
    """A state that standbys were told of with the sequence number `seq`. `snapshot` may be forgotten."""

    name: RepositoryName
    digest: str
    seq: int
    snapshot: RefSnapshot | None

    def is_of(self, name: RepositoryName, digest: str) -> bool:
        """Whether that state is the one that was told."""
        return (self.name, self.digest) == (name, digest)


class LastRead:
    """The digest of each repository, by id, when this leader read it last in its term.

    A leader whose copy of a repository is damaged cannot say what it is any more, and so no standby could
    be compared. It may still know what it was, and that is enough. The argument:

    1. Whatever is acknowledged in a repository was read here before, to be told under a number. A push to a
       repository that cannot be read is told "try again", whatever git has done (`Feed._read_and_tell`).
    2. So what was read last, in this term, holds every push that was acknowledged in this term; and since
       the leader held everything of earlier terms when its own began, those as well.
    3. A standby that is equal to that lacks nothing. One that is not may lack something,
       and stays out; so does everybody if nothing was read in this term: a digest of an earlier term is not
       known to be the newest. What was read with refs that had lost their values is not whole, and counts
       as not read.

    If it can be read again it is told as ever, and everybody is compared with that.
    """

    def __init__(self, *, max_repositories: int = MAX_REPOSITORIES) -> None:
        self._max_repositories = max_repositories
        self._last: OrderedDict[str, str] = OrderedDict()

    def was(self, identity: str, digest: str, *, whole: bool) -> None:
        """It was read just now; `whole`: no ref had lost its value."""
        if not whole:
            self.forget(identity)
            return
        self._last[identity] = digest
        self._last.move_to_end(identity)
        if len(self._last) > self._max_repositories:
            self._last.popitem(last=False)

    def forget(self, identity: str) -> None:
        """Nothing is known of it."""
        self._last.pop(identity, None)

    def get(self, identity: str) -> str | None:
        """The digest, if it is known."""
        return self._last.get(identity)


class SentStates:
    """What was told last of each repository, by id, in one term. What was told longest ago goes first."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_repositories: int = MAX_REPOSITORIES) -> None:
        self._max_bytes = max_bytes
        self._max_repositories = max_repositories
        self._bytes = 0
        self._told: OrderedDict[str, Told] = OrderedDict()
        self._with_snapshot: OrderedDict[str, None] = OrderedDict()

    def seq_of(self, state: State) -> int | None:
        """The number with which exactly that was told, and nothing else was shown since; None if not so."""
        told = self._told.get(state.id)
        return told.seq if told is not None and told.is_of(state.name, state.snapshot.digest) else None

    def was_read_again(self, state: State) -> bool:
        """Whether that is the very snapshot that was told: its files are the same, and not only its refs."""
        told = self._told.get(state.id)
        return told is not None and told.snapshot is state.snapshot

    def is_on_disk(self, state: State) -> None:
        """That snapshot is: `was_read_again` holds for it from here on, if it is what was told."""
        seq = self.seq_of(state)
        if seq is not None and not self.was_read_again(state):
            self._keep(state, seq)

    def tell(self, state: State, term: int, seq: int) -> News:
        """The news of that state; it is what was told last from here on.

        What has another name than before is told as something to compare.
        """
        before = self._told.get(state.id)
        self._keep(state, seq)
        delta = None
        if before is not None and before.snapshot is not None and before.name == state.name:
            delta = difference(before.snapshot, state.snapshot)
        if delta is None:
            return Compare(term, seq, state.name, state.id)
        return Changed(term, seq, state.name, state.id, state.snapshot.head, delta)

    def shown(self, name: RepositoryName, identity: str, digest: str) -> None:
        """A standby is about to see that state, told or not."""
        told = self._told.get(identity)
        if told is not None and not told.is_of(name, digest):
            self.forget(identity)

    def forget(self, identity: str) -> None:
        """Whatever is told of it next has a number of its own."""
        self._drop_snapshot(identity)
        self._told.pop(identity, None)

    def _keep(self, state: State, seq: int) -> None:
        self.forget(state.id)
        self._told[state.id] = Told(state.name, state.snapshot.digest, seq, state.snapshot)
        self._with_snapshot[state.id] = None
        self._bytes += state.snapshot.size
        self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes:
            self._drop_snapshot(next(iter(self._with_snapshot)))
        while len(self._told) > self._max_repositories:
            self.forget(next(iter(self._told)))

    def _drop_snapshot(self, identity: str) -> None:
        if identity in self._with_snapshot:
            del self._with_snapshot[identity]
            told = self._told[identity]
            if told.snapshot is not None:
                self._bytes -= told.snapshot.size
                self._told[identity] = replace(told, snapshot=None)
