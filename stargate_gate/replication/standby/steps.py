"""The steps of a standby's jobs: values that a shell carries out. Pure.

A job (one repository that is being changed, a list that is being compared) is a generator of these. The shell
carries a step out and answers with `StepDone` or `StepFailed`; the job goes on then. A *remark* needs no
answer.

The order of durable effects
============================

A crash may come between any two steps. So a step that may only be carried out after something else is on
disk has a field of type `OnDisk` for it. Only the answer to a step that puts something on disk is
an `OnDisk` (and the constants below, each of which says why nothing has to be put on disk). So the code that
makes such a step has waited for the step before it:

    Mark ─────────────┐                           the journal says that these refs get values of this term
    NoteRescued ──────┼→ ChangeRefs ─→ SyncRepository ─→ RemoveIntent ─→ Send(Applied)
    PutIntent ────────┘
    NoteUnsound ─→ BeginCopy … Complete ─→ ClearUnsound
    KeepRefs ─→ NoteRescued ─→ PutAway, Complete
    SyncRepository ─→ PutIntent                   the objects are on disk before the intent names them
    NoteIncarnation ─→ Send(Enrolled)

Rejected: a rule in the shell that knows the order. It would have to know what each change is for; and the
simulator, which carries out the same steps on a disk that it makes, would need a copy of that rule.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from stargate_gate.replication.rescue.unreplicated import Mark
from stargate_gate.replication.rescue.values import Value
from stargate_gate.replication.standby.answers import Copy, OnDisk
from stargate_gate.replication.standby.intent import Intent
from stargate_gate.replication.wire.messages import Listed
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.plan import RefChange

T = TypeVar("T")

# -- steps that read -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class AskLeader:
    """What the leader has under that id. Answer: LeaderRepository | Gone.

    Fails with LeaderCannotReadError if it is damaged there, with another StargateError or ConnectionError
    if the leader does not tell.
    """

    id: str


@dataclass(frozen=True)
class Find:
    """The copy of that id. Answer: Copy | None.

    Fails with BrokenRepositoryError if git cannot run in it, with UnavailableError if that is not known now.
    """

    id: str


@dataclass(frozen=True)
class WhoHas:
    """The copy that lies under that name. Answer: Occupant | None."""

    name: RepositoryName


@dataclass(frozen=True)
class TakeCensus:
    """All copies of this node. Answer: CensusTaken."""


@dataclass(frozen=True)
class ReadDigests:
    """Digests of copies, beside what the leader has listed. Answer: tuple[Digest | None, ...] in that order.

    None: it cannot be read.
    """

    listed: tuple[tuple[Listed, Copy], ...]


@dataclass(frozen=True)
class ReadRefs:
    """Answer: RefSnapshot. Fails with NoSuchRepositoryError, GitFailedError or OSError."""

    copy: Copy


@dataclass(frozen=True)
class ReadHead:
    """What HEAD says. Answer: str. Fails with OSError."""

    copy: Copy


@dataclass(frozen=True)
class Inspect:
    """Answer: the copy's object format; None if it is no whole repository any more."""

    copy: Copy


@dataclass(frozen=True)
class FindRemains:
    """The copy of that id in which git cannot run. Or what is left of a repository of that name.

    Answer: Copy | None.
    """

    name: RepositoryName
    id: str


@dataclass(frozen=True)
class ReadId:
    """The id that is written in the copy. Answer: str | None."""

    copy: Copy


@dataclass(frozen=True)
class Adopt:
    """Make it safe to run git in. Answer: (Copy, whether it is safe now)."""

    copy: Copy


@dataclass(frozen=True)
class Walk:
    """Look for damage: read all commits and trees that its refs need. Answer: Walked; None after a limit."""

    copy: Copy


@dataclass(frozen=True)
class ReadJournal:
    """What of that repository is not known replicated, of terms before this one. Answer: Kept."""

    id: str


@dataclass(frozen=True)
class HasRescued:
    """Whether values of that repository are noted as rescued. Answer: bool."""

    id: str


@dataclass(frozen=True)
class CompareHistories:
    """Which of `values` the leader's values do not lead to. Answer: Histories."""

    copy: Copy
    values: tuple[Value, ...]
    wanted: frozenset[str]


@dataclass(frozen=True)
class ReadIntents:
    """What a crash has left undone. Answer: list[Intent]."""


@dataclass(frozen=True)
class NewId:
    """An id that no repository has. Answer: str."""


@dataclass(frozen=True)
class Compute:
    """`function(*arguments)`, pure and perhaps long: for a thread. Answer: what it returns."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Pause:
    """Wait that long. Answer: None."""

    seconds: float


# -- steps that write ----------------------------------------------------------------------------------
#
# Those that change what a client could see of a repository (or write down that it will be changed) are
# refused by the shell once the mirror has ended: they fail with TermOverError.


@dataclass(frozen=True)
class SettleFolders:
    """Put on disk whatever earlier sessions and processes have left to the system. Answer: OnDisk."""


@dataclass(frozen=True)
class NoteUnsound:
    """Note that the copy of that id is damaged: see repos/unsound.py. Answer: OnDisk."""

    id: str
    name: RepositoryName
    why: str


@dataclass(frozen=True)
class ClearUnsound:
    """The copy of that id is not damaged any more. Durable when answered. Answer: None.

    fresh  all of the new copy is on disk; it came to its place before this step
    """

    id: str
    fresh: OnDisk


@dataclass(frozen=True)
class BeginCopy:
    """Make a repository of that id beside the others, where nobody finds it. Answer: Copy.

    noted  if it is to replace a damaged copy, that is noted on disk
    """

    name: RepositoryName
    id: str
    object_format: str
    head: str | None
    noted: OnDisk


@dataclass(frozen=True)
class FetchObjects:
    """Have these objects and all that they need; and write `mark` into the journal at the same time.

    Both are on disk when this is answered: the mark does not have to wait for the objects, nor they for it.
    Answer: OnDisk, for the mark. Fails with GitFailedError, UnavailableError, OSError: then the mark may be
    in the journal all the same, which is safe.

    mark  None: no ref gets a value
    """

    copy: Copy
    oids: frozenset[str]
    mark: Mark | None


@dataclass(frozen=True)
class KeepRefs:
    """Let refs/stargate/rescued/… keep these values from being pruned. Answer: OnDisk."""

    copy: Copy
    values: tuple[Value, ...]


@dataclass(frozen=True)
class NoteRescued:
    """Note these values as rescued. Answer: OnDisk.

    kept      the refs that keep the values are on disk before: a note of a value that is gone helps nobody
    in_trash  the whole repository is about to go to the trash, and stays there for ever
    """

    id: str
    name: RepositoryName
    values: tuple[Value, ...]
    in_trash: bool
    kept: OnDisk


@dataclass(frozen=True)
class PutIntent:
    """Write down what is about to be done to the refs, since a crash could leave half of it. Answer: OnDisk.

    objects  all that the new values need is on disk before: when the intent is completed, there may be no
             leader to fetch from
    """

    intent: Intent
    objects: OnDisk


@dataclass(frozen=True)
class ChangeRefs:
    """One transaction of git's; each ref has the old value that `changes` names. Answer: None.

    Fails with GitFailedError or PackedRefsError if it does not: then nothing was changed.

    packed    they are new and very many: to be written as one file
    marked    the journal says that these refs get values of this term
    rescued   whatever goes and is not known replicated is kept
    intended  what is to be done is written down; None: it is one rename of git's, there or not there
    """

    copy: Copy
    changes: Sequence[RefChange]
    packed: bool
    marked: OnDisk
    rescued: OnDisk
    intended: OnDisk | None


@dataclass(frozen=True)
class ChangeHead:
    """Let HEAD say that. Answer: whether it does; False: git takes no such HEAD, and it stays as it is.

    intended  as in `ChangeRefs`
    """

    copy: Copy
    head: str
    intended: OnDisk | None


@dataclass(frozen=True)
class SyncRepository:
    """Put on disk all that was changed in it. Answer: OnDisk."""

    copy: Copy


@dataclass(frozen=True)
class RemoveIntent:
    """It is done. Durable when answered: one that came back later would undo what followed it. Answer: None.

    refs  what the intent told of is on disk
    """

    id: str
    refs: OnDisk


@dataclass(frozen=True)
class Move:
    """Give the copy another name, which is free. Durable. Answer: Copy."""

    copy: Copy
    name: RepositoryName


@dataclass(frozen=True)
class Exchange:
    """Let two copies change names, at once. Durable. Answer: (Copy, Copy), each with its new name."""

    one: Copy
    other: Copy


@dataclass(frozen=True)
class Complete:
    """Put a copy that was made beside into its place, as a whole; `instead_of` goes to the trash before.

    Durable. Answer: Copy.

    whole    all of the new copy is on disk
    rescued  what `instead_of` may hold alone is noted, so that it stays in the trash
    """

    made: Copy
    name: RepositoryName
    instead_of: Copy | None
    whole: OnDisk
    rescued: OnDisk


@dataclass(frozen=True)
class PutAway:
    """Move the copy to the trash. Durable. Answer: OnDisk.

    deleted   a user has deleted it
    entry_id  what it is called there; None: by its own id
    rescued   what it may hold alone is noted, so that it stays in the trash
    """

    copy: Copy
    deleted: bool
    entry_id: str | None
    rescued: OnDisk


@dataclass(frozen=True)
class NoteIncarnation:
    """Note that this node is about to join the sync set with that incarnation. Answer: OnDisk."""

    incarnation: str


@dataclass(frozen=True)
class LookAfter:
    """Housekeeping, if it is due: the copy was written to. Answer: None."""

    copy: Copy


Step: TypeAlias = (
    AskLeader
    | Find
    | WhoHas
    | TakeCensus
    | ReadDigests
    | ReadRefs
    | ReadHead
    | Inspect
    | FindRemains
    | ReadId
    | Adopt
    | Walk
    | ReadJournal
    | HasRescued
    | CompareHistories
    | ReadIntents
    | NewId
    | Compute
    | Pause
    | SettleFolders
    | NoteUnsound
    | ClearUnsound
    | BeginCopy
    | FetchObjects
    | KeepRefs
    | NoteRescued
    | PutIntent
    | ChangeRefs
    | ChangeHead
    | SyncRepository
    | RemoveIntent
    | Move
    | Exchange
    | Complete
    | PutAway
    | NoteIncarnation
    | LookAfter
)


# -- what needs no answer ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """A line for the log: structlog's level, event and fields."""

    level: str
    event: str
    fields: Mapping[str, object]

    @classmethod
    def of(cls, level: str, event: str, **fields: object) -> "Log":
        """With the fields as keywords."""
        return cls(level, event, fields)


@dataclass(frozen=True)
class Note:
    """What is wrong with one repository, though it holds up nothing; `line` None: nothing any more."""

    name: RepositoryName
    line: str | None


@dataclass(frozen=True)
class ClearNotes:
    """Nothing is wrong with any other repository."""

    but: Collection[RepositoryName]


@dataclass(frozen=True)
class NoteSettled:
    """For the journal, some time: what older terms left is the leader's as of `seq`, or rescued.

    id, name  of that repository; None: of all
    """

    term: int
    seq: int
    id: str | None
    name: RepositoryName | None


@dataclass(frozen=True)
class NoteReplicated:
    """For the journal, some time: the whole sync set has everything up to `seq`."""

    term: int
    seq: int


Remark: TypeAlias = Log | Note | ClearNotes | NoteSettled | NoteReplicated


@dataclass(frozen=True)
class TakeTurn:
    """For the session itself: this job wants to move folders, and one job at a time may."""


Steps: TypeAlias = Generator[Step | Remark | TakeTurn, Any, T]
