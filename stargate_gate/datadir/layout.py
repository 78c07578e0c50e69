"""The folders and files of a data_dir, and its random id, which no other data_dir has."""

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.datadir.files import read_json, write_durably, write_json_durably
from stargate_gate.datadir.places import CONTROL_SOCKET
from stargate_gate.datadir.users import run_as, user
from stargate_gate.errors import ConfigurationError
from stargate_gate.formats import LAYOUT

IDENTITY = "state/data_dir_id"
FOLDERS = ("repositories", "trash", "hooks", "run", "run/writers", "state")
# What may be in a folder that is not a data_dir yet: what a first start that was interrupted has made, what
# operators may put there before, and what mkfs makes on a new disk.
BEFORE_THE_FIRST_START = frozenset({*FOLDERS, LAYOUT.where, "authorized_keys", "lost+found"})
PUT_ASIDE = "state."  # the runbook renames an old `state` to this when the lock volume is lost
SHOWN = 3  # names in a message
ID_BYTES = 16  # 128 random bits: two data_dirs never share an id
NODE_NAME = "node_name"  # in state/: the name of the node at its first start
MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class DataDir:
    """The data_dir of a node, from `open_data_dir`. `id` is random and never changes.

    repositories/  the bare repositories, org/app.git
    trash/         deleted repositories, until repositories.trash_days have passed
    hooks/         the hooks that every repository's core.hooksPath names
    run/           what has no meaning after a reboot: locks, sockets, records of running processes
    state/         what must never be lost: ids, the highest term seen
    """

    root: Path
    id: str

    @property
    def repositories(self) -> Path:
        """Where the bare repositories are."""
        return self.root / "repositories"

    @property
    def trash(self) -> Path:
        """Where deleted repositories are kept; on the same file system, so that a rename moves them there."""
        return self.root / "trash"

    @property
    def hooks(self) -> Path:
        """Where the installed hooks are."""
        return self.root / "hooks"

    @property
    def run(self) -> Path:
        """Locks, the control socket, records of running processes."""
        return self.root / "run"

    @property
    def state(self) -> Path:
        """Durable small files."""
        return self.root / "state"

    @property
    def node_lock(self) -> Path:
        """Held exclusively by the one `stargate serve` that owns this data_dir."""
        return self.run / "node.lock"

    @property
    def leading_lock(self) -> Path:
        """Held exclusively while this node leads; the pre-receive hook asks for it."""
        return self.run / "leading.lock"

    @property
    def writers_lock(self) -> Path:
        """Inherited, shared, by every git process that writes; taken exclusively by a starting node."""
        return self.run / "writers.lock"

    @property
    def writers(self) -> Path:
        """One file per running git process that writes, so that a later node can end it."""
        return self.run / "writers"

    @property
    def control_socket(self) -> Path:
        """The socket by which commands talk to the running node."""
        return self.root / CONTROL_SOCKET


def open_data_dir(root: Path) -> DataDir:
    """Make what is missing in the data_dir at `root` (0700), and read or make its id. Called at every start.

    Raises:
        ConfigurationError: it cannot be made, is no directory, belongs to another user, is read-only, is on
            several file systems, or its id is damaged. Or it contains files that are not stargate's or that a
            newer version has written; then nothing in it is changed, not even its mode.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = root.resolve()
        info = root.stat()
        if info.st_uid != os.geteuid():
            problem = (
                f"node.data_dir: {root} belongs to {user(info.st_uid)}, and this is {user()}: "
                f"run it as that user ({run_as(info.st_uid)}); chown it only if that is the wrong user"
            )
            raise ConfigurationError([problem])
        # Before anything is changed: the folder may be somebody's home directory, named by mistake.
        if (foreign := foreign_things(root)) is not None:
            raise ConfigurationError([f"node.data_dir: {foreign}"])
        known = _read_layout(root / LAYOUT.where)
        if stat.S_IMODE(info.st_mode) & 0o077:
            root.chmod(0o700)
        for name in FOLDERS:
            (root / name).mkdir(mode=0o700, exist_ok=True)
        _try_a_rename(root)
        if not known:
            write_json_durably(root / LAYOUT.where, {}, LAYOUT)
        return DataDir(root, _identity(root / IDENTITY))
    except OSError as error:
        if error.errno == errno.EROFS:
            problem = (
                f"node.data_dir: {root} is read-only: mount it writable (after an error of the disk "
                "the kernel mounts a file system read-only: see dmesg)"
            )
            raise ConfigurationError([problem]) from error
        raise ConfigurationError(
            [f"node.data_dir: {root} cannot be used ({error.strerror}): give a writable directory"]
        ) from error


def _read_layout(path: Path) -> bool:
    """Whether the data_dir has its layout's number; version 0.1 wrote none.

    Raises:
        ConfigurationError: a newer version has written it (NewerFormatError), or it is damaged.
        OSError: it cannot be read.
    """
    try:
        return read_json(path, LAYOUT) is not None
    except ValueError as error:
        problem = f"node.data_dir: {path} is damaged: remove it if no newer version has run on this data_dir"
        raise ConfigurationError([problem]) from error


def foreign_things(root: Path) -> str | None:
    """Why the folder at `root` must not become a data_dir: it contains other files. None if it may.

    A folder with the id of a data_dir is one, whatever else is in it.

    Raises:
        OSError: it cannot be read.
    """
    if not root.is_dir() or (root / IDENTITY).exists():
        return None
    names = {one.name for one in root.iterdir()} - BEFORE_THE_FIRST_START
    found = sorted(name for name in names if not name.startswith(PUT_ASIDE))
    if not found:
        return None
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    shown = f"{', '.join(found[:SHOWN])}{more}"
    return f"{root} is no data_dir, and not empty ({shown}): name an empty or a new folder"


def _try_a_rename(root: Path) -> None:
    """Try to move an empty folder from repositories/ to trash/, as a deletion does.

    A link or a mount below the data_dir makes that impossible. Without this, it would be noticed only at the
    first deletion.
    """
    probe = f".probe-{os.getpid()}"
    here, there = root / "repositories" / probe, root / "trash" / probe
    try:
        here.mkdir(mode=0o700)
        here.rename(there)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        problem = (
            f"node.data_dir: {root}/repositories and {root}/trash are on different file systems, so nothing "
            "can be moved from one to the other: put the whole data_dir on one (a link or a mount for the "
            "data_dir itself is fine)"
        )
        raise ConfigurationError([problem]) from error
    finally:
        for folder in (here, there):
            with contextlib.suppress(OSError):
                folder.rmdir()


def keep_name(datadir: DataDir, name: str, *, is_host_name: bool) -> None:
    """Store the node's name at its first start. Later, a new host name must not replace it.

    is_host_name  node.name is not in the YAML file, so `name` is the host's name

    Raises:
        ConfigurationError: the host has another name now; the cluster knows this node by the old one.
        OSError: the name cannot be read or written.
    """
    path = datadir.state / NODE_NAME
    try:
        with path.open("rb") as file:
            before = file.read(MAX_NAME_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        before = ""
    if before == name:
        return
    if before and is_host_name:
        problem = (
            f"node.name: this data_dir belongs to {before!r}; node.name is not in the file, so it is the "
            f"host name, and that is {name!r} now: write node.name: {before} into the file"
        )
        raise ConfigurationError([problem])
    write_durably(path, f"{name}\n".encode())


def _identity(path: Path) -> str:
    if not path.exists():
        write_durably(path, secrets.token_hex(ID_BYTES).encode() + b"\n")
    identity = path.read_text("ascii", "replace").strip()
    if len(identity) != 2 * ID_BYTES:
        raise ConfigurationError(
            [f"node.data_dir: {path} is damaged: restore it from a backup, or start with an empty data_dir"]
        )
    return identity
