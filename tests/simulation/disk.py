"""A node's own disk: repositories, what it knows of the election, its journal, its rescued values.

Refs are written to the system first and are safe from a power loss after `sync`; objects, state files,
trash, journal and rescued values are safe at once (core.fsync=all; files that are replaced as a whole).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from stargate_gate.election.eligibility import Known
from stargate_gate.election.port import Member
from stargate_gate.replication.intent import Intent
from stargate_gate.replication.unreplicated import Unreplicated
from stargate_gate.repos.plan import RefChange


class FullError(Exception):
    """The disk takes no more."""


class Repo:
    """`refs` as seen now, `stable` as a power loss would leave them at worst.

    own  pushes have changed it since the last sync
    """

    __slots__ = ("id", "name", "own", "refs", "stable")

    def __init__(self, name: str, identity: str) -> None:
        self.name = name
        self.id = identity
        self.own = False
        self.refs: dict[str, str] = {}
        self.stable: dict[str, str] = {}


@dataclass
class Disk:
    """Of one data_dir.

    had  by repository, every value that was ever in a ref here, or that came before what was compared with
         a leader's; the simulator's knowledge, not the node's
    """

    member: Member
    known: Known = field(default_factory=Known)
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: set[str] = field(default_factory=set)
    unsynced_objects: set[str] = field(default_factory=set)
    had: dict[str, set[str]] = field(default_factory=dict)
    journal: Unreplicated = field(default_factory=Unreplicated)
    intents: dict[str, Intent] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)  # rescued, or in the trash
    full: bool = False

    def write(self) -> None:
        """Something is to be written. Raises FullError."""
        if self.full:
            raise FullError

    def put(self, repo: Repo, change: RefChange) -> None:
        """One ref file is written, or removed; others see it at once."""
        if change.new is None:
            repo.refs.pop(change.ref, None)
        else:
            repo.refs[change.ref] = change.new
            self.had.setdefault(repo.name, set()).add(change.new)

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
            self.had.setdefault(repo.name, set()).difference_update({*repo.refs.values()} - {*left.values()})
            repo.refs = left
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
