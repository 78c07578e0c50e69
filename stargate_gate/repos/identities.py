"""Decides which folder has which id. The decisions are pure; only `look` and the two writers use the disk.

Theory of operation. A repository's name is its path, and an operator may change it with `mv` at any time. Its
id is in a file inside, so the id moves with `mv`, and is copied with `cp -a`. To distinguish a move from a
copy, the folder itself is compared, by its device and inode numbers: after `mv` it is the same folder, a copy
is another one. If two folders have the same id, the one that keeps it is

    1. the folder that is known to have it, whatever its name is now
    2. else, if that folder is gone, the folder with its name: it was restored from a backup
    3. else the folder whose inode number is in its HOME_FILE. The number is written together with the id; in
       a copy, it is that of another folder. After a restart of the node, this rule decides. If this is true
       of several, the node gave the id again while the older one was away: so the newest one keeps it, by the
       time at which the id file was written to this disk
    4. else the older one, by the same time

A folder that is known and has lost its id, or has a damaged id file, gets the same id again. The inode number
alone does not show that it is that folder: after `rm -r`, a file system gives the number to the next folder
that is made. HOME_FILE shows it, since a folder that somebody else has made has none.

Some file systems change inode numbers with each mount. Then no folder fits rule 3, and rule 4 decides. A node
reads all of its folders when it starts, so rules 1 and 2 are valid also for the first push after it has taken
over.

A search through all folders takes time, and misses one that is moved meanwhile. So a folder that was known
and is not found stays known; and another folder with the same id gets it by rules 2 to 4 only if so many
searches in a row as ENOUGH_SEARCHES have missed the known one. Until then such a folder counts neither as the
repository nor as a copy of it.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stargate_gate.aio.foreign_files import read_file
from stargate_gate.datadir.files import fsync_dir, write_durably
from stargate_gate.repos.repository import HOME_FILE, ID_FILE, Repository, read_id

ENOUGH_SEARCHES = 2
MAX_HOME_BYTES = 32
FILE_MODE = 0o640


@dataclass(frozen=True)
class Folder:
    """One folder of this disk, independent of its name; see stat(2)."""

    device: int
    inode: int


@dataclass(frozen=True)
class RepositoryIdentity:
    """One repository of this node: its id and its folder."""

    id: str
    folder: Folder


@dataclass(frozen=True)
class Look:
    """What was found in a folder about its id.

    id         None: it has none, or the id file is damaged
    home       whether HOME_FILE says that an id was given to this folder
    since      when the id file was written to this disk (ctime, ns)
    signature  the stat of what this was read from
    """

    id: str | None
    folder: Folder
    home: bool
    since: int
    signature: tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """The repository that has an id. `missed`: so many searches in a row have not found its folder."""

    repository: Repository
    folder: Folder
    missed: int = 0


@dataclass(frozen=True)
class Census:
    """All repositories of a node. `known`: by id. `strays`: no id, a damaged id, or the id of another."""

    known: Mapping[str, Repository]
    strays: tuple[Repository, ...]


@dataclass
class Identities:
    """The repositories that are known, by id."""

    _by_id: dict[str, Known] = field(default_factory=dict)

    def get(self, identity: str) -> Known | None:
        """The repository that has the id, or had it last."""
        return self._by_id.get(identity)

    def has(self, identity: str) -> bool:
        """Whether a repository with the id was found by the last search."""
        return self.missed(identity) == 0

    def missed(self, identity: str) -> int:
        """So many searches in a row have not found it; very many if it was never known."""
        known = self._by_id.get(identity)
        return known.missed if known is not None else sys.maxsize

    def is_known(self, repository: Repository, look: Look) -> bool:
        """Whether the repository is known with this name, folder and id: then nothing has to be decided."""
        return look.id is not None and self._by_id.get(look.id) == Known(repository, look.folder)

    def id_of(self, folder: Folder) -> str | None:
        """The id that the folder is known to have."""
        return next((identity for identity, one in self._by_id.items() if one.folder == folder), None)

    def put(self, identity: str, repository: Repository, folder: Folder) -> None:
        """Note that the repository has the id."""
        self._by_id[identity] = Known(repository, folder)

    def forget(self, identity: str) -> None:
        """The repository was deleted or moved to the trash: nobody has the id."""
        self._by_id.pop(identity, None)

    def vanished(self) -> dict[str, Repository]:
        """Repositories that were known, were not deleted, and are not found: by id."""
        return {identity: one.repository for identity, one in self._by_id.items() if one.missed}

    def known(self) -> dict[str, Repository]:
        """Repositories that were known and were not deleted, found or not: by id."""
        return {identity: one.repository for identity, one in self._by_id.items()}

    def settle(self, found: Iterable[tuple[Repository, Look]]) -> Census:
        """Take over what a search has found; see the theory of operation."""
        seen: dict[str, dict[Folder, tuple[Repository, Look]]] = {}
        strays = []
        for repository, look in found:
            if look.id is None:
                strays.append(repository)
            else:
                # One folder that is moved during the walk is found twice: it is no copy, and lies where it
                # was found last.
                seen.setdefault(look.id, {})[look.folder] = repository, look
        by_id = {identity: list(folders.values()) for identity, folders in seen.items()}
        for identity, known in self._by_id.items():
            if identity not in by_id:
                self._by_id[identity] = Known(known.repository, known.folder, known.missed + 1)
        census = {}
        for identity, some in by_id.items():
            before = self._by_id.get(identity)
            if before is not None and all(look.folder != before.folder for _, look in some):
                missed = before.missed + 1
                if missed < ENOUGH_SEARCHES:
                    self._by_id[identity] = Known(before.repository, before.folder, missed)
                    continue
            repository, look = _holder(some, before)
            self.put(identity, repository, look.folder)
            census[identity] = repository
            strays += [other for other, _ in some if other != repository]
        return Census(census, tuple(strays))


def _holder(some: list[tuple[Repository, Look]], known: Known | None) -> tuple[Repository, Look]:
    """Which of the folders with the same id keeps it."""
    if known is not None:
        for one in some:
            if one[1].folder == known.folder:
                return one
        for one in some:
            if one[0].name == known.repository.name:
                return one
    if at_home := [one for one in some if one[1].home]:
        return max(at_home, key=lambda one: (one[1].since, one[0].name))
    return min(some, key=lambda one: (one[1].since, one[0].name))


def look(path: Path, before: Look | None = None) -> Look:
    """Read what the folder at `path` says about its id. Two stat calls if nothing has changed since `before`.

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
        return Look(None, folder, home=_home(path) == folder.inode, since=0, signature=signature)
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
    """Write HOME_FILE in the folder at `path`. Not synced: if it is lost, rule 4 decides.

    Raises:
        OSError: it was not written.
    """
    # Written beside and renamed, so that a copy made just now never has half a number. Not made durable:
    # after a power cut rule 4 is enough.
    beside = path / f".{HOME_FILE}.new"
    beside.write_bytes(b"%d\n" % path.lstat().st_ino)
    beside.replace(path / HOME_FILE)


def give_id(path: Path, identity: str) -> None:
    """Give the folder at `path` the id, durably.

    Raises:
        OSError: it may or may not have it.
    """
    note_home(path)
    write_durably(path / ID_FILE, identity.encode("ascii") + b"\n", mode=FILE_MODE)
    fsync_dir(path)


def _home(path: Path) -> int | None:
    try:
        return int(read_file(path / HOME_FILE, MAX_HOME_BYTES))
    except (OSError, ValueError):
        return None
