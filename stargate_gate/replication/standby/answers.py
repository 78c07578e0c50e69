"""What the steps of a standby's jobs are answered with. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stargate_gate.errors import StargateError, UnavailableError
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.snapshot import RefSnapshot


class Copy(Protocol):
    """A repository of this node. The session passes it on, and looks at its name only."""

    @property
    def name(self) -> RepositoryName:
        """What it is called here."""


@dataclass(frozen=True)
class OnDisk:
    """Something is on disk: `what`, for people."""

    what: str


NOTHING_MARKED = OnDisk("no ref gets a value: nothing to note in the journal")
NOTHING_TO_RESCUE = OnDisk("nothing that is not known replicated goes: nothing to rescue")
LEADER_HAS_BOTH = OnDisk("the leader has told the old values and the new ones: nothing to rescue")
NOTED_BEFORE_THE_CRASH = OnDisk("the intent was written after the journal and after the rescue")
NOT_DAMAGED = OnDisk("no damaged copy is replaced: nothing to note")
NOTHING_HERE = OnDisk("there is no such repository here: nothing to put on disk")
STAYS = OnDisk("nothing was changed")


@dataclass(frozen=True)
class LeaderRepository:
    """One repository as it is on the leader: all of it was received. `seq` covers what it shows."""

    id: str
    name: RepositoryName
    refs: RefSnapshot
    seq: int


class LeaderCannotReadError(UnavailableError):
    """The leader has it, and cannot read it. `last`: its digest when it could in this term."""

    def __init__(self, name: RepositoryName, reason: str, last: str | None) -> None:
        super().__init__(f"the leader cannot read it: {reason}")
        self.name = name
        self.reason = reason
        self.last = last


class TermOverError(StargateError):
    """What was being applied belongs to a term that this standby follows no more."""


@dataclass(frozen=True)
class Occupant:
    """`id` is None if the copy has no id of its own: it has none, or that of another folder."""

    copy: Copy
    id: str | None


class CensusTaken(Protocol):
    """All copies of this node: by id, and those that have no id of their own."""

    @property
    def known(self) -> Mapping[str, Copy]:
        """By id."""

    @property
    def strays(self) -> Sequence[Copy]:
        """Without one."""


@dataclass(frozen=True)
class Digest:
    """`unsettled`: the journal has something of an older term for it."""

    value: str
    unsettled: bool


@dataclass(frozen=True)
class Walked:
    """How git's walk ended: `status` 0 is without a problem; `error` is what git said, with its reason."""

    status: int
    error: StargateError


@dataclass(frozen=True)
class Histories:
    """See `values.lacking`.

    kinds   object id → "commit", "tag", "tree" or "blob"
    beyond  commits of this node that none of the leader's values leads to
    """

    kinds: Mapping[str, str]
    beyond: frozenset[str]


@dataclass(frozen=True)
class Unsound:
    """A copy of this node that is damaged, and noted as such on disk: its last name, and what is wrong."""

    name: RepositoryName
    why: str


class SessionOverError(Exception):
    """Inside a session: it is over; the message says why, for operators."""
