"""What has happened around a leader's term, as values. Pure.

The shell (feed.py, or the simulator) makes these and passes them to `LeaderTerm.handle`. Every event
carries `now`, in seconds of one monotonic clock. `link` is the number of a standby's connection, `read` that
of one reading of one repository, `wait` that of one push that waits. The shell chooses these numbers, and
uses none of them twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.sent_states import State
from stargate_gate.replication.wire.messages import Join, Listed, Message
from stargate_gate.repos.names import RepositoryName


class Purpose(Enum):
    """Why a repository is read."""

    SEND = "send"  # a push may have changed it
    SEND_ANNOUNCED = "send announced"  # the same, and the journal has a mark without a number for it
    SHOW = "show"  # a standby asks for its refs
    LIST = "list"  # its entry in a full list
    DELETE = "delete"  # a user has deleted it; nothing is read


# -- connections of standbys -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """A standby has connected and introduced itself. `source` is its address."""

    now: float
    link: int
    join: Join
    source: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A standby has sent a message."""

    now: float
    link: int
    message: Message


@dataclass(frozen=True, slots=True)
class Sent:
    """The messages of the last `Send` of this link are on their way: the link takes more."""

    now: float
    link: int


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """Nothing runs for this connection any more. Comes once for each `Joined`; also after `EndLink`."""

    now: float
    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class RepositoriesListed:
    """The answer to `ListRepositories`: the names that were found, and the ids that should be found.

    known  every repository that this node knows to have, by id, with the name that it had last; also those
           that were not found this time. Folders may be renamed while they are listed
    """

    now: float
    link: int
    names: Sequence[RepositoryName]
    known: Mapping[str, RepositoryName]


@dataclass(frozen=True, slots=True)
class LookedUp:
    """The answer to `LookUp`; what is gone by now is left out."""

    now: float
    link: int
    listed: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class ReachTried:
    """The answer to `Reach`: why the standby was not found where it says that it is; None if it was."""

    now: float
    link: int
    problem: str | None


@dataclass(frozen=True, slots=True)
class WorkedFor:
    """Git has worked on that repository here for the standbys at that address: that is progress."""

    now: float
    source: str
    id: str


# -- readings of repositories ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReadWanted:
    """A repository is to be read. `name` is needed for Purpose.DELETE only."""

    now: float
    read: int
    id: str
    purpose: Purpose
    name: RepositoryName | None = None


@dataclass(frozen=True, slots=True)
class RefsRead:
    """The answer to `ReadRefs`: what the repository holds, with every change before the reading."""

    now: float
    read: int
    state: State


@dataclass(frozen=True, slots=True)
class DigestRead:
    """The answer to `ReadRefs` for Purpose.LIST. `whole`: no ref has lost its value."""

    now: float
    read: int
    name: RepositoryName
    digest: str
    whole: bool


@dataclass(frozen=True, slots=True)
class RefsUnreadable:
    """The answer to `ReadRefs`: the repository is there, and cannot be read; why, in one line."""

    now: float
    read: int
    name: RepositoryName
    reason: str


@dataclass(frozen=True, slots=True)
class NotThere:
    """The answer to `ReadRefs` or `SyncRepository`: it was moved meanwhile, or another one is there now."""

    now: float
    read: int


@dataclass(frozen=True, slots=True)
class Vanished:
    """The answer to `ReadRefs`: this node has no repository of that id."""

    now: float
    read: int


@dataclass(frozen=True, slots=True)
class OnDisk:
    """The answer to `SyncRepository`: all that was read is safe from a loss of power."""

    now: float
    read: int


@dataclass(frozen=True, slots=True)
class ReadGivenUp:
    """Nobody wants the reading any more, or this node's disk has failed."""

    now: float
    read: int


# -- the cluster record, pushes that wait, the term ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordWritten:
    """The answer to `WriteRecord`: these members are in force, for certain."""

    now: float
    members: frozenset[Member]


@dataclass(frozen=True, slots=True)
class RecordUncertain:
    """The answer to `WriteRecord`: the old or the new record is in force; why, in one line."""

    now: float
    problem: str


@dataclass(frozen=True, slots=True)
class RecordLost:
    """The answer to `WriteRecord`: another node leads, or the lease has run out."""

    now: float


@dataclass(frozen=True, slots=True)
class WaitBegan:
    """A push waits until the sync set has that repository as it was at `seq`. `name` is for the log."""

    now: float
    wait: int
    id: str
    seq: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class WaitGivenUp:
    """The push has gone."""

    now: float
    wait: int


@dataclass(frozen=True, slots=True)
class CatchUpWanted:
    """No more writes come: find a member of the sync set that has everything, before `until`."""

    now: float
    until: float


@dataclass(frozen=True, slots=True)
class CatchUpGivenUp:
    """Nobody waits for that any more."""

    now: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; due when `Wake` says so, and harmless at any other time."""

    now: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The term is over."""

    now: float


LinkEvent: TypeAlias = Heard | Sent | ConnectionEnded | RepositoriesListed | LookedUp | ReachTried
ReadEvent: TypeAlias = RefsRead | DigestRead | RefsUnreadable | NotThere | Vanished | OnDisk | ReadGivenUp
RecordEvent: TypeAlias = RecordWritten | RecordUncertain | RecordLost
Event: TypeAlias = (
    Joined
    | LinkEvent
    | WorkedFor
    | ReadWanted
    | ReadEvent
    | RecordEvent
    | WaitBegan
    | WaitGivenUp
    | CatchUpWanted
    | CatchUpGivenUp
    | Tick
    | Closed
)
