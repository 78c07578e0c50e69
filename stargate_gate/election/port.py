"""The port between the elector and an engine: what every engine must do, however it keeps lock and record.

An engine offers three things: a record that all can read; a lock or lease that one node at a time can hold,
and only its holder may write the record; and proof that this node still holds it. `flock` does it with a
locked file on a shared volume; a lease with a time to live and a compare-and-set record fits as well. Every
engine must pass tests/election/conformance.py.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, order=True)
class Member:
    """A node as elections see it: the name from its YAML file and the random id of its data_dir."""

    name: str
    data_dir_id: str


@dataclass(frozen=True)
class ClusterRecord:
    """What the lock's holder publishes for all to read. Ordered by (term, version).

    cluster_id  random, made by bootstrap; every data_dir keeps the id it joined
    term        number of the leadership that wrote this; the fencing token. 0 after bootstrap
    version     number of the write within the term, from 1 (an engine may keep 0 for itself)
    leader      who leads (or led last); after bootstrap the first eligible node
    ssh, http   where peers and operators reach the leader: "host:port"; "" after bootstrap
    host_keys   SHA-256 fingerprints of the leader's SSH host keys, as ssh-keygen -l prints them
    mode        "sync", "strict" or "async", as in force
    sync_set    the standbys that hold every acknowledged push; the leader is not listed
    position    the feed position (number of the newest change in this term) at the time of writing
    clean       the term ended by stepping down with everything handed over
    successor   who was asked to take over by a clean step-down, if anyone
    forced      a term from which on leaders may lack what earlier sync sets held: an operator made
                somebody lead who was not eligible. The newest such term, at least; 0: never
    incarnations  (data_dir id, incarnation) of the leader and of the sync set's members, sorted; see
                incarnation.py. Records of older versions have none
    """

    cluster_id: str
    term: int
    version: int
    leader: Member
    ssh: str = ""
    http: str = ""
    host_keys: tuple[str, ...] = ()
    mode: str = "async"
    sync_set: tuple[Member, ...] = ()
    position: int = 0
    clean: bool = False
    successor: Member | None = None
    forced: int = 0
    incarnations: tuple[tuple[str, str], ...] = ()

    @property
    def eligible(self) -> frozenset[Member]:
        """Who may take over on their own: the sync set and the last leader."""
        return frozenset({*self.sync_set, self.leader})

    def incarnation_of(self, member: Member) -> str | None:
        """The incarnation that the record names for `member`; None: it names none."""
        return dict(self.incarnations).get(member.data_dir_id)


class LeaseHandle(Protocol):
    """The one place from which the record may be written.

    At most one exists per cluster at a time, as far as the engine's storage keeps its promises; terms
    catch what it does not.

    No method blocks the event loop. Callers bound each call with `asyncio.timeout`; after a timeout
    or a cancellation the outcome of a write is unknown.
    """

    async def read(self) -> ClusterRecord:
        """The record in force, read afresh.

        Raises:
            ElectionUnavailableError: missing, damaged or out of reach.
            LeadershipLostError: the lock or lease is lost, for certain.
        """

    async def claim(self, record: ClusterRecord, *, former: ClusterRecord) -> ClusterRecord:
        """Begin a new term: write its first record durably, and return it as it is in force.

        `record.term`, larger than `former.term`, is the smallest term that will do; the engine takes
        one that nobody has used or claimed. `former` is what `read` of this handle returned. Returns
        only if the record, read again afresh, is in force, and nothing of the former term has changed
        since `former` was read.
        """

    async def write(self, record: ClusterRecord) -> None:
        """Write the next version of this term's record, durably, and read it again.

        Raises:
            LeadershipLostError: a larger term is there.
            ElectionUnavailableError: the outcome is unknown; the old or the new record is in force
                until a later write succeeds.
        """

    async def prove(self) -> None:
        """One heartbeat: prove to the storage and to this node that this node still holds the lock or lease.

        Raises:
            LeadershipLostError: it is not, for certain (lock file replaced, larger term, ...).
            ElectionUnavailableError: it is not known now.
        """

    async def release(self) -> None:
        """Release the lock or lease, and make calls that still run stop at their next step.

        Never raises; safe to call twice; returns within a few seconds even while other calls hang.
        """


class Engine(Protocol):
    """What an election needs of its storage."""

    @property
    def place(self) -> str:
        """Where the record is, for messages to operators: "the leader lock /mnt/shared/leader.lock"."""

    async def read(self) -> ClusterRecord:
        """The record in force, read afresh and known to be durable; changes nothing.

        Raises:
            ElectionUnavailableError: missing, damaged or out of reach.
        """

    async def try_acquire(self) -> LeaseHandle | None:
        """Try once, without waiting. None: somebody else holds it.

        Raises:
            ElectionUnavailableError: as `LeaseHandle.read`.
        """

    async def close(self) -> None:
        """Give back threads and descriptors; the engine is not used again."""
