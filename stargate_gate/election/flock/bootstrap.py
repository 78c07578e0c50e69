"""Makes the lock file of a new cluster, complete in one step. Only `bootstrap` does this, never `serve`."""

import contextlib
import os
import secrets
from pathlib import Path

from stargate_gate.datadir.files import fsync_dir
from stargate_gate.election.flock.engine import lock_exclusively
from stargate_gate.election.flock.lockfile import check_mount, unavailable, write_all
from stargate_gate.election.flock.slots import new_file
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.state import ElectionState
from stargate_gate.errors import UsageError

CLUSTER_ID_BYTES = 16


def bootstrap(path: Path, state: ElectionState, me: Member) -> ClusterRecord:
    """Create the lock file of a new cluster at `path`, with `me` as the first who may lead; join it.

    The file appears whole and on disk, or not at all. Of two at the same time one succeeds.

    Raises:
        UsageError: the cluster exists already, or this data_dir belongs to one.
        ElectionUnavailableError: the file cannot be made there.
    """
    if state.known.cluster_id is not None:
        raise UsageError(
            f"this data_dir has already joined cluster {state.known.cluster_id}: bootstrap is for a new "
            f"cluster, once; start the node with `stargate serve`"
        )
    record = ClusterRecord(cluster_id=secrets.token_hex(CLUSTER_ID_BYTES), term=0, version=1, leader=me)
    try:
        check_mount(path.parent)
        _create(path, new_file(record))
    except OSError as error:
        raise unavailable(path, error) from error
    state.note(record)
    return record


def bootstrap_single(path: Path, state: ElectionState, me: Member) -> None:
    """The same for a single node's own lock file inside its data_dir: at its first start, silently.

    A data_dir that has joined and lost its file is left alone: reading it says what to do.
    """
    if state.known.cluster_id is None and not path.exists():
        bootstrap(path, state, me)


def _create(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
    try:
        write_all(fd, content, 0)
        os.fsync(fd)
        try:
            os.link(beside, path)
        except FileExistsError:
            _replace_empty(beside, path)
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
    fsync_dir(path.parent)


def _replace_empty(beside: Path, path: Path) -> None:
    """Somebody made an empty file (`touch`): nothing is lost by replacing it, under its lock."""
    refusal = UsageError(
        f"{path} exists already: the cluster was bootstrapped; start the node with `stargate serve`. Only "
        f"if it is left over from a cluster that is gone for good, remove it first"
    )
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size > 0 or not lock_exclusively(fd):
            raise refusal
        info = path.stat()
        if (info.st_size, info.st_ino) != (0, os.fstat(fd).st_ino):
            raise refusal
        beside.rename(path)
    finally:
        os.close(fd)
