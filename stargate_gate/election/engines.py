"""Which engine an election has: the only module that knows the engines.

A new engine is a package beside flock/ that implements `port.Engine` and passes the suite in
tests/election/conformance.py. It is named in the configuration (`election.engine`), and here. `serve` and
`bootstrap` get their engine from here and know no engine's own modules; an import contract sees to that.

Only `bootstrap` makes the record of a cluster. An engine that finds none says that it is unavailable: a
shared volume that is not mounted must never look like a new cluster.
"""

import os
from pathlib import Path

from stargate_gate.config.model import Election
from stargate_gate.datadir.filesystem import read_mountinfo
from stargate_gate.election.flock import bootstrap as flock
from stargate_gate.election.flock.engine import FlockEngine
from stargate_gate.election.flock.mounts import no_volume, shared_data_dir
from stargate_gate.election.port import ClusterRecord, Engine, Member
from stargate_gate.election.state import ElectionState
from stargate_gate.errors import UsageError

SINGLE_LOCK = "leader.lock"  # of a single node, in the state/ of its own data_dir


def open_engine(election: Election, state: ElectionState, me: Member) -> Engine:
    """The engine of a node that starts. Nothing of the shared volume is touched yet.

    A single node (no `election.flock.path`) has a lock file beside `state`, made at its first start.

    Raises:
        ElectionUnavailableError: that file cannot be made.
    """
    path = election.flock.path
    if path is None:
        path = state.path.with_name(SINGLE_LOCK)
        flock.bootstrap_single(path, state, me)
    return FlockEngine(path, state, lease_s=election.lease_s)


def bootstrap(election: Election, state: ElectionState, me: Member) -> ClusterRecord:
    """Make the first record of a new cluster, with `me` as the first who may lead; this data_dir joins it.

    Raises:
        UsageError: the cluster exists already, this data_dir belongs to one, or no place is configured.
        ElectionUnavailableError: the record cannot be made there.
    """
    if election.flock.path is None:
        raise UsageError("election.flock.path is not set: name the lock file on the shared volume")
    return flock.bootstrap(election.flock.path, state, me)


def retry_s(election: Election) -> float:
    """How often a standby looks at the record and tries to lead."""
    return election.flock.retry_s


def data_dir_is_shared(election: Election, data_dir: Path, *, look: bool = True) -> str | None:
    """Why `data_dir` is on the volume where the engine keeps what all nodes share; None: it is not.

    look  follow the links of that volume's path; it may hang
    """
    lock = election.flock.path
    if lock is None:
        return None
    folder = os.path.realpath(lock.parent) if look else os.path.normpath(lock.parent.absolute())
    return shared_data_dir(os.path.realpath(data_dir), folder, read_mountinfo())


def nothing_is_shared(election: Election, data_dir: Path) -> str | None:
    """Why other nodes would not see what the engine keeps, judged by what is mounted; None: they would."""
    lock = election.flock.path
    if lock is None:
        return None
    return no_volume(os.path.realpath(lock.parent), os.path.realpath(data_dir), read_mountinfo())
