"""A node's own disk: repositories, what it knows of the election, its journal, its rescued values.

Refs are written to the system first and are safe from a power loss after `sync`; objects, state files,
trash and rescued values are safe at once (core.fsync=all; files that are replaced as a whole). The journal
has a file of its own: see journal.py.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from stargate_gate.election.eligibility import Known
from stargate_gate.election.port import Member
from stargate_gate.replication.standby.intent import Intent
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.snapshot import RefSnapshot
from tests.simulation.journal import JournalFile

Line = frozenset[str]


class FullError(OSError):
    """The disk takes no more."""


class Repo:
    """`refs` as seen now, `stable` as a power loss would leave them at worst.

    own  pushes have changed it since the last sync
    """

    __slots__ = ("_snapshot", "id", "name", "own", "refs", "stable")

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self.id = identity
        self.own = False
        self.refs: dict[str, str] = {}
        self.stable: dict[str, str] = {}
        self._snapshot: RefSnapshot | None = None

    def snapshot(self) -> RefSnapshot:
        """As RefReader: the same object as long as no file was written."""
        if self._snapshot is None:
            self._snapshot = RefSnapshot("sha1", "", dict(self.refs))
        return self._snapshot

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

    lines  by repository, every value that came before what is here now, on the nodes that it came from: what
           pushes and mirrors have put here, and of a leader that it was made equal to, all of the leader's
           instead; the simulator's knowledge, not the node's
    """

    member: Member
    known: Known = field(default_factory=Known)
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)
    unsynced_objects: set[str] = field(default_factory=set)
    lines: dict[str, Line] = field(default_factory=dict)
    journal: JournalFile = field(default_factory=JournalFile)
    intents: dict[str, Intent] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)  # rescued, or in the trash
    deleted: set[str] = field(default_factory=set)  # ids of repositories in the trash that a user has deleted
    full: bool = False
    at_journal_sync: Callable[[], None] | None = None  # a crash that waits for the next one

    def write(self) -> None:
        """Something is to be written. Raises FullError."""
        if self.full:
            raise FullError

    def put(self, repo: Repo, change: RefChange) -> None:
        """One ref file is written, or removed; others see it at once."""
        repo.put(change.ref, change.new)
        if change.new is not None:
            self.lines[repo.name] = self.line(repo.name) | {change.new}

    def by_id(self, identity: str) -> Repo | None:
        """The repository of that id."""
        return next((repo for repo in self.repos.values() if repo.id == identity), None)

    def line(self, name: str) -> Line:
        """What came before the repository of that name as it is here."""
        return self.lines.get(name, frozenset())

    def sync(self, repo: Repo) -> None:
        """All refs of it are safe from a power loss."""
        repo.stable = dict(repo.refs)
        repo.own = False

    def lose_power(self, chance: Random) -> list[Repo]:
        """Of what was not synced, some is there and some is not: the repositories that lost own changes."""
        lost = []
        self.unsynced_objects.clear()
        for repo in self.repos.values():
            if repo.refs == repo.stable:
                continue
            if repo.own:
                lost.append(repo)
            left = dict(repo.refs)
            for ref in sorted({*repo.refs, *repo.stable}):
                if repo.refs.get(ref) != repo.stable.get(ref) and chance.random() < 0.5:
                    left.pop(ref, None)
                    left.update({ref: repo.stable[ref]} if ref in repo.stable else {})
            if any(other.startswith(f"{ref}/") for ref in left for other in left):
                left = dict(repo.stable)  # no disk has a file and a folder of one name
            self.lines[repo.name] = self.line(repo.name) - ({*repo.refs.values()} - {*left.values()})
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
