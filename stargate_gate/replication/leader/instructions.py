"""What a leader's term wants to be done, as values. Pure.

The shell carries them out in the order in which `LeaderTerm.handle` returned them. Those that take time
(Send, ReadRefs, SyncRepository, LookUp, ListRepositories, Reach, WriteRecord) are answered by an event, and
only that event says that it is done.

The order of durable effects is in the type. `after` is what must be on a disk before the instruction is
carried out. It always is by then, since the core waits for the event that says so; the simulator checks it
against its disks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.events import Purpose
from stargate_gate.replication.leader.sent_states import State
from stargate_gate.replication.wire.messages import FromLeader, Listed, Unreadable
from stargate_gate.repos.names import RepositoryName

Severity = Literal["info", "warning", "error"]

# -- connections of standbys -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admit:
    """This standby is served from now on: read its messages and pass them on."""

    link: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Send this standby `Refused(reason)`, and end its connection. reason None: the term is over."""

    link: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class EndLink:
    """End this connection. What is still heard of it counts for nothing; ConnectionEnded comes at last."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Send:
    """Write these messages, in this order; then `Sent`. There is one Send at a time for each link.

    after  (repository id, seq) of the changes that these messages tell of: the state with that number is on
           this node's disk, and the journal has its number appended. A standby may confirm it at once, so
           nothing may be sent that a crash of this node could undo
    """

    link: int
    messages: tuple[FromLeader, ...]
    after: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ListRepositories:
    """Find all repositories for a full list; then `RepositoriesListed`. A renamed folder may be missed."""

    link: int


@dataclass(frozen=True, slots=True)
class LookUp:
    """Read each of these with Purpose.LIST; then `LookedUp` with the entries."""

    link: int
    names: tuple[RepositoryName, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """Connect to that address, and see whether `member` answers there; then `ReachTried`."""

    link: int
    member: Member
    ssh: str


# -- repositories and the journal --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadRefs:
    """It is the turn of this reading: read now.

    Then RefsRead, DigestRead (Purpose.LIST), RefsUnreadable, NotThere or Vanished.
    """

    read: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class SyncRepository:
    """Put on disk what was complete in this repository before the call; then OnDisk or NotThere.

    It comes after the reading and before the state is numbered. A state that was read after the sync could
    be sent, confirmed by everybody, and lost here by a power failure.
    """

    read: int


@dataclass(frozen=True, slots=True)
class JournalSent:
    """Append to the journal: what is now sent of that repository has that number. refs None: any refs.

    It need not be synced. `LeaderJournal.mark` was synced before git wrote, and covers it.
    """

    seq: int
    id: str
    name: str
    refs: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class JournalRefined:
    """Append to the journal: what was announced without a number has that number."""

    seq: int
    id: str


@dataclass(frozen=True, slots=True)
class JournalReplicated:
    """Append to the journal: the whole sync set has everything up to that number, on disk."""

    seq: int


@dataclass(frozen=True, slots=True)
class Numbered:
    """Outcome of a reading: `seq` covers what the repository holds. state None: it was deleted."""

    seq: int
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Outcome of a reading: the repository was deleted or moved. `seq` covers that."""

    seq: int


@dataclass(frozen=True, slots=True)
class Moving:
    """Outcome of a reading for a standby: the repository is being moved; it should ask again."""


@dataclass(frozen=True, slots=True)
class CannotRead:
    """Outcome of a reading for a push: this node cannot read the repository. `reason` is one line."""

    name: RepositoryName
    reason: str


Outcome: TypeAlias = Numbered | Missing | Moving | CannotRead | Unreadable | Listed


@dataclass(frozen=True, slots=True)
class ReadDone:
    """This reading is over; give `outcome` to those that wait for it."""

    read: int
    outcome: Outcome


# -- the cluster record, pushes that wait ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Put `LeaderTerm.wanted_members()` into the cluster record; then RecordWritten, -Uncertain or -Lost.

    The shell asks for the members in the moment in which no other write of the record is under way, and
    until the outcome is known `TermRecord.needed` names the members of both records.

    after  members that join, each with the incarnation that it has on its disk
    """

    after: tuple[tuple[Member, str | None], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell the push that waits.

    acknowledged  the client may be told "ok"
    refused       it will not be replicated in time; why. Both unset: the term is over
    after         these members have confirmed that it is on their disks: everybody that the record names or
                  may name, and everybody whose confirmation pushes need
    """

    wait: int
    acknowledged: bool
    refused: str | None = None
    after: frozenset[Member] = frozenset()


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The answer to CatchUpWanted: this member has everything; None: nobody has."""

    successor: Member | None


# -- for operators, and the clock --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Note:
    """For status: what is wrong with that repository here. line None: nothing is."""

    name: RepositoryName
    line: str | None


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the log."""

    severity: Severity
    event: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a Tick at that time, and at no earlier one that was asked for before. None: no Tick is needed."""

    at: float | None


Instruction: TypeAlias = (
    Admit
    | Refuse
    | EndLink
    | Send
    | ListRepositories
    | LookUp
    | Reach
    | ReadRefs
    | SyncRepository
    | JournalSent
    | JournalRefined
    | JournalReplicated
    | ReadDone
    | WriteRecord
    | Answer
    | CaughtUp
    | Note
    | Log
    | Wake
)
