"""What each package reports about itself: frozen values, one kind once. Pure; imports no other package.

replication/, address/ and the election fill them from memory; node/ puts them together into one report;
health/ shows that as text, as JSON and as metrics; control/ uses some for its answers.
"""

from dataclasses import dataclass
from typing import Literal

AddressState = Literal["claimed", "claiming", "released", "releasing"]


@dataclass(frozen=True)
class AddressReport:
    """One floating address, as far as this node moves it.

    state    "claimed": it leads here; "released": it does not; "claiming", "releasing": not known to
             be so yet
    problem  what failed last; None once it is as it should be
    """

    name: str
    state: AddressState
    problem: str | None = None

    @property
    def wanted(self) -> Literal["claimed", "released"]:
        """What it should be."""
        return "claimed" if self.state in {"claimed", "claiming"} else "released"

    def trouble(self) -> str | None:
        """What an operator should know, in one line."""
        return None if self.problem is None else f"{self.name} is not {self.wanted}: {self.problem}"


@dataclass(frozen=True)
class Refill:
    """How far a standby is with the first list of a connection.

    done, total     repositories that differed from the leader's; both 0 while it compares
    received_bytes  of this connection
    bytes_per_s     of the last seconds
    """

    done: int
    total: int
    received_bytes: int
    bytes_per_s: int


@dataclass(frozen=True)
class StandbyStatus:
    """A connected standby as the leader sees it. The lags are upper bounds; None: not known.

    refill   how far it is, while it is being checked
    problem  why it is not found where it says that it is; None if it is, or nobody has looked yet
    differs  values that should be the same on both nodes and are not, one line each
    heard_s  for how many seconds it has said nothing: the age of all that is known of it
    tried_s  how long ago the leader looked whether `problem` is so
    """

    name: str
    in_sync: bool
    lag_changes: int | None = None
    lag_s: float | None = None
    refill: Refill | None = None
    problem: str | None = None
    differs: tuple[str, ...] = ()
    heard_s: float | None = None
    tried_s: float | None = None


@dataclass(frozen=True)
class Equality:
    """When everything of a leader's was on a standby.

    position  of the feed of `term`
    at        seconds since 1970, by the leader's clock; 0: not known
    """

    term: int
    position: int
    at: int


@dataclass(frozen=True)
class MirrorStatus:
    """How a standby follows, as it sees it itself. None: not known.

    leader           whom it follows, or tries to
    behind_changes   repositories that it knows to differ from the leader's
    behind_s         for how long it has not been equal to its leader
    last_error       one line; None while all is well
    level            connected, and everything that the leader has told of is here
    position         of the leader's feed, up to which everything is here; 0: nobody knows
    not_connected_s  for how long; None while it is connected
    in_step          when it was last equal to a leader; None: never
    refill           how far it is, while the first list of a connection is not confirmed
    problem          why the leader does not find this node where it says that it is; None if it does
    behind           names of repositories that it knows to differ, or knew to when it last heard of them
    differs          values that should be the same on both nodes and are not, one line each
    notes            what is wrong with single repositories, though they hold up nothing; a line each
    orphans          names of repositories that are here, and that the leader has lost
    heard_s          for how many seconds the leader has said nothing, while it is connected: the age of all
                     that is known of it
    tried_s          how many seconds ago `last_error` was found
    """

    connected: bool
    leader: str | None = None
    behind_changes: int | None = None
    behind_s: float | None = None
    last_error: str | None = None
    level: bool = False
    position: int = 0
    not_connected_s: float | None = None
    in_step: Equality | None = None
    refill: Refill | None = None
    problem: str | None = None
    behind: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    heard_s: float | None = None
    tried_s: float | None = None


@dataclass(frozen=True)
class AwayStatus:
    """A standby that is not connected to this leader: a member of the sync set, or heard in this term.

    heard_s  how many seconds ago it said something; None: never in this term
    member   it is in the sync set
    """

    name: str
    heard_s: float | None = None
    member: bool = True


@dataclass(frozen=True)
class OpenChanges:
    """Changes of one repository that not every member of the sync set has confirmed.

    changes    how many, at least; 0: not known, they are from before this term
    since      seconds since 1970 of the oldest; 0: before this term
    elsewhere  names of the connected standbys that have confirmed all of it
    """

    repository: str
    changes: int
    since: float
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnreplicatedStatus:
    """What of this leader's data other nodes may lack.

    repositories  oldest change first
    unknown       nobody knows what was replicated before this term, and no standby was compared since
    """

    repositories: tuple[OpenChanges, ...] = ()
    unknown: bool = False


ALL_REPLICATED = UnreplicatedStatus()


@dataclass(frozen=True)
class AsideStatus:
    """One repository that not every node of the sync set holds: see docs/guarantees.md.

    repository  its name; its id if the name is not known
    holders     names of the nodes that hold every acknowledged push of it
    lacking     names of those that do not
    why         one line; "" if this node does not know
    since       seconds since 1970; 0: not known
    here        this node is a holder
    served      here: "normally", "read-only", or "refused" (exit 69)
    """

    repository: str
    id: str
    holders: tuple[str, ...]
    lacking: tuple[str, ...] = ()
    why: str = ""
    since: float = 0.0
    here: bool = True
    served: Literal["normally", "read-only", "refused"] = "normally"


@dataclass(frozen=True)
class ExpiringKey:
    """The last key of a user, which ends at `at`, in seconds since 1970. `line`: in authorized_keys."""

    user: str
    line: int
    at: float


@dataclass(frozen=True)
class VolumeStatus:
    """How much room a volume has. None: not known.

    what        "data_dir" or "lock volume"
    measured_s  how many seconds ago that was found; None: never since this node was started
    problem     why the last look failed
    """

    what: str
    path: str
    measured_s: float | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    free_inodes: int | None = None
    total_inodes: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class DamagedCopy:
    """A copy on this node's disk that a check has found damaged: what is wrong, and what to do."""

    name: str
    why: str
    remedy: str


@dataclass(frozen=True)
class ScrubStatus:
    """What the scrub of this node knows of its copies.

    on              whether copies are checked in the background
    unverified      never checked, or longer ago than scrub.interval_days, or not to the end
    suspects        of these: may have been written when the node ended uncleanly
    oldest_check_s  age of the check that is longest ago; a copy that was never checked counts from when it
                    was first seen. None: there are no copies, or they are not listed yet
    late            the oldest is twice as old as it may be: the scrub cannot keep up
    running         name of the repository that is checked now
    bytes_per_s     of that check
    read_bytes      since the node started
    """

    on: bool = False
    total: int = 0
    verified: int = 0
    unverified: int = 0
    suspects: int = 0
    damaged: tuple[DamagedCopy, ...] = ()
    oldest_check_s: float | None = None
    late: bool = False
    running: str | None = None
    bytes_per_s: int = 0
    read_bytes: int = 0


NO_SCRUB = ScrubStatus()  # nothing is checked, and nothing is known yet
