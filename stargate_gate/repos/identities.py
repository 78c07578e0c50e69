"""Which folder has which id. The decisions are pure; only `look` reads the disk.

Theory of operation. A name is where a repository lies, and an operator may change it with `mv` at any time.
Its id is in a file inside, so `mv` takes it along, and so does `cp -a`. What tells the two apart is the
folder itself, by its device and inode numbers: `mv` keeps the folder, a copy is another one. So of two
folders with one id, that one keeps it

    1. which was known to have it: the same folder, under whatever name
    2. else, if that folder is gone, the one that stands under its name: it was put back from a backup
    3. else the one in which it is noted that the id was given to this very folder (HOME_FILE: the inode
       number, written with the id; in a copy it is another's). This is how it is known after a restart
    4. else the older one, by the time at which the id file came to this disk

A file system may give inode numbers that change with each mount. Then rule 3 finds nobody at home, and
rule 4 decides. A node knows all of its folders from its start (`Store.load`), so that rules 1 and 2 hold
also for the first push after it has taken over.

A folder that was known and is not found stays known: a walk over all folders is no moment, and misses one
that is moved meanwhile.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stargate_gate.aio.foreign_files import read_file
from stargate_gate.datadir.files import fsync_dir, write_durably
from stargate_gate.repos.repository import ID_FILE, Repository, read_id

HOME_FILE = "stargate-folder"
MAX_HOME_BYTES = 32
FILE_MODE = 0o640


@dataclass(frozen=True)
class Folder:
    """One folder of this disk, whatever its name; see stat(2)."""

    device: int
    inode: int


@dataclass(frozen=True)
class RepositoryIdentity:
    """One repository of this node: its id, and the folder that has it."""

    id: str
    folder: Folder


@dataclass(frozen=True)
class Look:
    """What a folder says of its id.

    id       None: it has none, or its file is damaged
    home     whether it was noted here that the id was given to this folder
    since    when the id file came to this disk (ctime, ns)
    signature  of all that this was read from
    """

    id: str | None
    folder: Folder
    home: bool
    since: int
    signature: tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """Who has an id. `here`: the folder was found when it was looked for last."""

    repository: Repository
    folder: Folder
    here: bool = True


@dataclass(frozen=True)
class Census:
    """All repositories of a node. `known`: by id; `strays` have no id, a damaged one, or another's."""

    known: Mapping[str, Repository]
    strays: tuple[Repository, ...]


@dataclass
class Identities:
    """Who is known to have which id."""

    _by_id: dict[str, Known] = field(default_factory=dict)

    def get(self, identity: str) -> Known | None:
        """Who has that id, or had it last."""
        return self._by_id.get(identity)

    def has(self, identity: str) -> bool:
        """Whether there is one, as far as is known."""
        known = self._by_id.get(identity)
        return known is not None and known.here

    def is_known(self, repository: Repository, look: Look) -> bool:
        """Whether that is how it is known: nothing is to be decided."""
        return look.id is not None and self._by_id.get(look.id) == Known(repository, look.folder)

    def id_of(self, folder: Folder) -> str | None:
        """The id that this folder is known to have."""
        return next((identity for identity, one in self._by_id.items() if one.folder == folder), None)

    def put(self, identity: str, repository: Repository, folder: Folder) -> None:
        """That one has it."""
        self._by_id[identity] = Known(repository, folder)

    def forget(self, identity: str) -> None:
        """It was deleted, or put away: nobody has it."""
        self._by_id.pop(identity, None)

    def vanished(self) -> dict[str, Repository]:
        """Those that were known, were not deleted, and are not found: by id, as they were known last."""
        return {identity: one.repository for identity, one in self._by_id.items() if not one.here}

    def settle(self, found: Iterable[tuple[Repository, Look]]) -> Census:
        """Know everything that was found; see the theory of operation."""
        by_id: dict[str, list[tuple[Repository, Look]]] = {}
        strays = []
        for repository, look in found:
            if look.id is None:
                strays.append(repository)
            else:
                by_id.setdefault(look.id, []).append((repository, look))
        for identity, known in self._by_id.items():
            if identity not in by_id:
                self._by_id[identity] = Known(known.repository, known.folder, here=False)
        census = {}
        for identity, some in by_id.items():
            repository, look = _holder(some, self._by_id.get(identity))
            self.put(identity, repository, look.folder)
            census[identity] = repository
            strays += [other for other, _ in some if other != repository]
        return Census(census, tuple(strays))


def _holder(some: list[tuple[Repository, Look]], known: Known | None) -> tuple[Repository, Look]:
    """Who of those with one id keeps it."""
    if known is not None:
        for one in some:
            if one[1].folder == known.folder:
                return one
        for one in some:
            if one[0].name == known.repository.name:
                return one
    at_home = [one for one in some if one[1].home]
    return min(at_home or some, key=lambda one: (one[1].since, one[0].name))


def look(path: Path, before: Look | None = None) -> Look:
    """What the folder at `path` says of its id. Two stat calls while that is what it said `before`.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    info = path.lstat()
    folder = Folder(info.st_dev, info.st_ino)
    signature: tuple[int, ...] = (info.st_dev, info.st_ino)
    since = 0
    try:
        id_file = (path / ID_FILE).lstat()
    except FileNotFoundError:
        return Look(None, folder, home=False, since=0, signature=signature)
    since = id_file.st_ctime_ns
    signature += (id_file.st_ino, id_file.st_size, id_file.st_mtime_ns, id_file.st_ctime_ns)
    if before is not None and before.signature == signature:
        return before
    try:
        identity = read_id(path)
    except FileNotFoundError:
        identity = None
    return Look(identity, folder, _home(path) == folder.inode, since, signature)


def note_home(path: Path) -> None:
    """Note in the folder at `path` that its id was given to this very folder. Not synced: see rule 4.

    Raises:
        OSError: it is not noted.
    """
    beside = path / f".{HOME_FILE}.new"
    beside.write_bytes(b"%d\n" % path.lstat().st_ino)
    beside.replace(path / HOME_FILE)


def give_id(path: Path, identity: str) -> None:
    """Give the folder at `path` that id, durably.

    Raises:
        OSError: perhaps not.
    """
    note_home(path)
    write_durably(path / ID_FILE, identity.encode("ascii") + b"\n", mode=FILE_MODE)
    fsync_dir(path)


def _home(path: Path) -> int | None:
    try:
        return int(read_file(path / HOME_FILE, MAX_HOME_BYTES))
    except (OSError, ValueError):
        return None
