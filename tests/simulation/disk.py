"""A node's own disk: folders of repositories, what it knows of the election, its journal, its rescued values.

A folder has a name, which is where it lies, and an inode number, which is the folder itself. What says which
repository it holds is in files inside: its id, and the inode number to which the id was given (`home`).

Refs are written to the system first and are safe from a power loss after `sync`; objects, state files,
trash and rescued values are safe at once (core.fsync=all; files that are replaced as a whole). The journal
has a file of its own: see journal.py.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from stargate_gate.election.eligibility import Known
from stargate_gate.election.port import Member
from stargate_gate.replication.standby.answers import Unsound
from stargate_gate.replication.standby.intent import Intent
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.snapshot import RefSnapshot
from tests.simulation.journal import JournalFile

Line = frozenset[str]
HALF = 0.5


class FullError(OSError):
    """The disk takes no more."""


DEVICE = 1  # of every folder: a data_dir is one file system


class Repo:
    """A folder. `refs` as seen now, `stable` as a power loss would leave them at worst.

    id        what its id file says; "" if there is none
    home      the inode number that is noted beside it, and `safe_home` after a power loss; None: none is
    since     the step at which the id file came to this disk
    original  whether it is what it says: a copy of another folder is not, until it has an id of its own.
              The simulator's knowledge, not the node's
    own       pushes have changed it since the last sync
    rotten    an object of it is damaged, whether anybody knows it or not. The simulator's knowledge
    noted     this node has noted that it is damaged; another folder with its id may be fresh
    """

    __slots__ = (
        "_snapshot", "home", "id", "inode", "name", "noted", "original", "own", "refs", "rotten",
        "safe_home", "since", "stable",
    )  # fmt: skip

    def __init__(self, name: str, identity: str, *, since: int = 0) -> None:
        self.name = name
        self.id = identity
        self.inode = 0
        self.home: int | None = None
        self.safe_home: int | None = None
        self.since = since
        self.original = True
        self.own = False
        self.rotten = False
        self.noted = False
        self.refs: dict[str, str] = {}
        self.stable: dict[str, str] = {}
        self._snapshot: RefSnapshot | None = None

    def snapshot(self) -> RefSnapshot:
        """As RefReader: the same object as long as no file was written."""
        if self._snapshot is None:
            self._snapshot = RefSnapshot("sha1", "", dict(self.refs))
        return self._snapshot

    def copy(self, name: str, *, since: int) -> "Repo":
        """As `cp -a` makes one: all that is inside, in another folder."""
        copy = Repo(name, self.id, since=since)
        copy.home = copy.safe_home = self.home
        copy.original = False
        copy.rotten = self.rotten
        copy.refs, copy.stable = dict(self.refs), dict(self.refs)
        return copy

    def put(self, ref: str, value: str | None) -> None:
        """One ref file is written, or removed."""
        self._snapshot = None
        if value is None:
            self.refs.pop(ref, None)
        else:
            self.refs[ref] = value


@dataclass
class Disk:
    """Of one data_dir.

    repos     folders, by name
    lines     by id of repository, every value that came before what is here now, on the nodes that it came
              from: what pushes and mirrors have put here, and of a leader that it was made equal to, all of
              the leader's instead; the simulator's knowledge, not the node's
    vanished  ids of what operators have taken away here, or what was not here when they took it away on the
              leader: nobody can ask that of this node. The simulator's knowledge, too
    """

    member: Member
    known: Known = field(default_factory=Known)
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)
    unsynced_objects: set[str] = field(default_factory=set)
    lines: dict[str, Line] = field(default_factory=dict)
    journal: JournalFile = field(default_factory=JournalFile)
    intents: dict[str, Intent] = field(default_factory=dict)
    unsound: dict[str, Unsound] = field(default_factory=dict)  # the notes of damaged copies
    kept: set[str] = field(default_factory=set)  # rescued, or in the trash
    deleted: set[str] = field(default_factory=set)  # ids of repositories in the trash that a user has deleted
    vanished: set[str] = field(default_factory=set)
    full: bool = False
    inodes: int = 0
    free_inodes: list[int] = field(default_factory=list)
    at_journal_sync: Callable[[], None] | None = None  # a crash that waits for the next one

    def write(self) -> None:
        """Something is to be written. Raises FullError."""
        if self.full:
            raise FullError

    def put(self, repo: Repo, change: RefChange) -> None:
        """One ref file is written, or removed; others see it at once."""
        repo.put(change.ref, change.new)
        if change.new is not None:
            self.lines[repo.id] = self.line(repo.id) | {change.new}

    def by_id(self, identity: str) -> Repo | None:
        """The repository of that id, as the simulator knows it: not a copy of it, if both are here."""
        found = None
        for repo in self.repos.values():
            if repo.id == identity:
                if repo.original:
                    return repo
                found = found or repo
        return found

    def line(self, identity: str) -> Line:
        """What came before the repository of that id as it is here."""
        return self.lines.get(identity, frozenset())

    # -- folders ---------------------------------------------------------------------------------------

    def place(self, name: str, repo: Repo) -> None:
        """A folder appears, with an inode number of its own; one that was removed may have had it before."""
        repo.inode = self.new_inode()
        self.put_under(name, repo)

    def new_inode(self) -> int:
        """Of a folder that is made; one that was removed may have had that number before."""
        if self.free_inodes:
            return self.free_inodes.pop()
        self.inodes += 1
        return self.inodes

    def made(self, name: str, repo: Repo) -> None:
        """This node has made that repository, with its id."""
        self.place(name, repo)
        repo.home = repo.safe_home = repo.inode

    def put_under(self, name: str, repo: Repo) -> None:
        """That folder has that name now."""
        repo.name = name
        self.repos[name] = repo

    def rename(self, name: str, other: str) -> None:
        """mv, to a name that is free."""
        self.put_under(other, self.repos.pop(name))

    def exchange(self, name: str, other: str) -> None:
        """Two folders change names."""
        one, two = self.repos[name], self.repos[other]
        self.put_under(name, two)
        self.put_under(other, one)

    def remove(self, name: str) -> Repo:
        """rm -rf: its inode number is free."""
        repo = self.repos.pop(name)
        self.free_inodes.append(repo.inode)
        return repo

    # -- what is on disk -------------------------------------------------------------------------------

    def sync(self, repo: Repo) -> None:
        """All refs of it are safe from a power loss."""
        repo.stable = dict(repo.refs)
        repo.own = False

    def lose_power(self, chance: Random) -> list[Repo]:
        """Of what was not synced, some is there and some is not: the repositories that lost own changes."""
        lost = []
        self.unsynced_objects.clear()
        for repo in self.repos.values():
            if repo.home != repo.safe_home and chance.random() < HALF:
                repo.home = repo.safe_home
            if repo.refs == repo.stable:
                continue
            if repo.own:
                lost.append(repo)
            left = dict(repo.refs)
            for ref in sorted({*repo.refs, *repo.stable}):
                if repo.refs.get(ref) != repo.stable.get(ref) and chance.random() < HALF:
                    left.pop(ref, None)
                    left.update({ref: repo.stable[ref]} if ref in repo.stable else {})
            if any(other.startswith(f"{ref}/") for ref in left for other in left):
                left = dict(repo.stable)  # no disk has a file and a folder of one name
            self.lines[repo.id] = self.line(repo.id) - ({*repo.refs.values()} - {*left.values()})
            for ref in {*repo.refs, *left}:
                repo.put(ref, left.get(ref))
            repo.stable, repo.own = dict(repo.refs), False
        return lost


def fits(refs: Mapping[str, str], transaction: Iterable[RefChange]) -> bool:
    """Whether git's update-ref would take it: old values as expected, no file where a folder is."""
    created = []
    for change in transaction:
        if refs.get(change.ref) != change.old:
            return False
        if change.old is None and change.new is not None:
            created.append(change.ref)
    return not any(
        other.startswith(f"{ref}/") or ref.startswith(f"{other}/") for ref in created for other in refs
    )
