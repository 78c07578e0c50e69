"""What the leader has sent last of each repository in a term, and with which number. Pure.

A state that is equal to the one that was sent last keeps its number, so nothing has to be sent. That holds
only if no standby has seen another state in between. So when a list or an answer shows another state, the
entry is removed, and what is sent next gets a number of its own.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

from stargate_gate.replication.wire.delta import difference
from stargate_gate.replication.wire.messages import Changed, Compare, News
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.snapshot import RefSnapshot

MAX_BYTES = 32 * 1024 * 1024  # of snapshots, for differences; beyond that standbys are told to compare
MAX_REPOSITORIES = 100_000  # some 400 bytes each; one that was forgotten is sent again


@dataclass(frozen=True)
class State:
    """One repository at one moment: what it is called, and its refs."""

    id: str
    name: RepositoryName
    snapshot: RefSnapshot


@dataclass(frozen=True)
class SentState:
    """A state that was sent with the sequence number `seq`. snapshot None: it was dropped to save memory."""

    name: RepositoryName
    digest: str
    seq: int
    snapshot: RefSnapshot | None

    def is_of(self, name: RepositoryName, digest: str) -> bool:
        """Whether it is that state."""
        return (self.name, self.digest) == (name, digest)


class LastRead:
    """The digest of each repository, by id, when this leader read it last in its term.

    A leader whose copy of a repository is damaged cannot say what it is any more, and so no standby could
    be compared. It may still know what it was, and that is enough. The argument:

    1. Before a push is acknowledged, its repository is read here and gets a number. When the repository
       cannot be read, the client is told "try again", whatever git has done (`Readings`).
    2. So what was read last, in this term, holds every push that was acknowledged in this term; and since
       the leader held everything of earlier terms when its own began, those as well.
    3. A standby that is equal to that lacks nothing. One that is not may lack something,
       and stays out; so does everybody if nothing was read in this term: a digest of an earlier term is not
       known to be the newest. What was read with refs that had lost their values is not whole, and counts
       as not read.

    Once it can be read again it is sent as usual, and every standby is compared with that.
    """

    def __init__(self, *, max_repositories: int = MAX_REPOSITORIES) -> None:
        self._max_repositories = max_repositories
        self._last: OrderedDict[str, str] = OrderedDict()

    def note(self, identity: str, digest: str, *, whole: bool) -> None:
        """It was read just now. `whole`: no ref had lost its value."""
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


class Gone:
    """Ids of repositories that this node does not have any more.

    It has searched every folder for each of them, or a user has deleted it. Beyond the limit the oldest are
    forgotten: those are searched for again.
    """

    def __init__(self, *, max_repositories: int = MAX_REPOSITORIES) -> None:
        self._max_repositories = max_repositories
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, identity: str) -> None:
        """It is not here."""
        self._ids[identity] = None
        self._ids.move_to_end(identity)
        if len(self._ids) > self._max_repositories:
            self._ids.popitem(last=False)

    def discard(self, identity: str) -> None:
        """It was read: it is here."""
        self._ids.pop(identity, None)

    def __contains__(self, identity: str) -> bool:
        return identity in self._ids


class SentStates:
    """What was sent last of each repository, by id, in one term. Beyond the limits the oldest are removed."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_repositories: int = MAX_REPOSITORIES) -> None:
        self._max_bytes = max_bytes
        self._max_repositories = max_repositories
        self._bytes = 0
        self._sent: OrderedDict[str, SentState] = OrderedDict()
        self._with_snapshot: OrderedDict[str, None] = OrderedDict()

    def seq_of(self, state: State) -> int | None:
        """The number with which exactly that was sent; None: it was not, or another state was shown since."""
        sent = self._sent.get(state.id)
        return sent.seq if sent is not None and sent.is_of(state.name, state.snapshot.digest) else None

    def was_read_again(self, state: State) -> bool:
        """Whether that is the same snapshot object that was sent: then not even a file was written since."""
        sent = self._sent.get(state.id)
        return sent is not None and sent.snapshot is state.snapshot

    def is_on_disk(self, state: State) -> None:
        """That state is on disk. If it was sent already, `was_read_again` is true for this snapshot now."""
        seq = self.seq_of(state)
        if seq is not None and not self.was_read_again(state):
            self._keep(state, seq)

    def send(self, state: State, term: int, seq: int) -> News:
        """The message that tells standbys of that state, which counts as sent from here on.

        It is a Compare if no difference can be given, or the repository has another name than before.
        """
        before = self._sent.get(state.id)
        self._keep(state, seq)
        delta = None
        if before is not None and before.snapshot is not None and before.name == state.name:
            delta = difference(before.snapshot, state.snapshot)
        if delta is None:
            return Compare(term, seq, state.name, state.id)
        return Changed(term, seq, state.name, state.id, state.snapshot.head, delta)

    def shown(self, name: RepositoryName, identity: str, digest: str) -> None:
        """A standby is about to see that state, whether it was sent or not."""
        sent = self._sent.get(identity)
        if sent is not None and not sent.is_of(name, digest):
            self.forget(identity)

    def forget(self, identity: str) -> None:
        """What is sent of it next gets a number of its own."""
        self._drop_snapshot(identity)
        self._sent.pop(identity, None)

    def _keep(self, state: State, seq: int) -> None:
        self.forget(state.id)
        self._sent[state.id] = SentState(state.name, state.snapshot.digest, seq, state.snapshot)
        self._with_snapshot[state.id] = None
        self._bytes += state.snapshot.size
        self._shrink()

    def _shrink(self) -> None:
        while self._bytes > self._max_bytes:
            self._drop_snapshot(next(iter(self._with_snapshot)))
        while len(self._sent) > self._max_repositories:
            self.forget(next(iter(self._sent)))

    def _drop_snapshot(self, identity: str) -> None:
        if identity in self._with_snapshot:
            del self._with_snapshot[identity]
            sent = self._sent[identity]
            if sent.snapshot is not None:
                self._bytes -= sent.snapshot.size
                self._sent[identity] = replace(sent, snapshot=None)
