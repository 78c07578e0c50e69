"""The folders and files of a data_dir, and the random id that tells it from every other."""

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.datadir.files import write_durably
from stargate_gate.datadir.places import CONTROL_SOCKET
from stargate_gate.errors import ConfigurationError

ID_BYTES = 16  # 128 random bits: two data_dirs never share an id


@dataclass(frozen=True)
class DataDir:
    """A node's own disk. Made by `open_data_dir`; `id` is random and lives as long as the folder.

    repositories/  the bare repositories, org/app.git
    trash/         deleted repositories, until repositories.trash_days have passed
    hooks/         the hooks that every repository's core.hooksPath names
    run/           what is meaningless after a reboot: locks, sockets, records of running processes
    state/         what must outlive everything: ids, the highest term seen
    """

    root: Path
    id: str

    @property
    def repositories(self) -> Path:
        """Where the bare repositories are."""
        return self.root / "repositories"

    @property
    def trash(self) -> Path:
        """Where deleted repositories wait; on the same file system, so that moving is a rename."""
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
        """Where the commands about a running node reach it."""
        return self.root / CONTROL_SOCKET


def open_data_dir(root: Path) -> DataDir:
    """Make what is missing of the data_dir at `root` (0700), and read or make its id.

    Raises:
        ConfigurationError: it cannot be made, is no directory, belongs to somebody else, or its id
            is damaged.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = root.resolve()
        info = root.stat()
        if info.st_uid != os.geteuid():
            raise ConfigurationError(
                [
                    f"node.data_dir: {root} is uid {info.st_uid}'s, stargate is uid {os.geteuid()}: chown it",
                ]
            )
        if stat.S_IMODE(info.st_mode) & 0o077:
            root.chmod(0o700)
        for name in ("repositories", "trash", "hooks", "run", "run/writers", "state"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        return DataDir(root, _identity(root / "state" / "data_dir_id"))
    except OSError as error:
        raise ConfigurationError(
            [f"node.data_dir: {root} cannot be used ({error.strerror}): give a writable directory"]
        ) from error


def _identity(path: Path) -> str:
    if not path.exists():
        write_durably(path, secrets.token_hex(ID_BYTES).encode() + b"\n")
    identity = path.read_text("ascii", "replace").strip()
    if len(identity) != 2 * ID_BYTES:
        raise ConfigurationError(
            [f"node.data_dir: {path} is damaged: restore it from a backup, or start with an empty data_dir"]
        )
    return identity
