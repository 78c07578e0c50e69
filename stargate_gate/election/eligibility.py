"""Who may try to lead: a decision on the record and on what this node knows of itself. Pure."""

from dataclasses import dataclass

from stargate_gate.election.incarnation import kept, named, rolled_back
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.election.status import Advertised


@dataclass(frozen=True)
class Known:
    """What a data_dir remembers of its cluster; state.py keeps it on disk.

    cluster_id     the cluster this data_dir belongs to; None until it has joined one
    highest_term   the largest term that was seen in force
    reserved_term  the largest term that this node itself has tried to take; never used again
    checked_term   the term against whose leader every repository here was fully checked
    position       how much of that term's feed was applied here then
    lock_file      device and inode of the lock file that was seen last (the flock engine's)
    incarnations   of this node's memberships: the one seen in the record last, then those that were noted
                   since and may come into the record; see incarnation.py
    """

    cluster_id: str | None = None
    highest_term: int = 0
    reserved_term: int = 0
    checked_term: int | None = None
    position: int = 0
    lock_file: tuple[int, int] | None = None
    incarnations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Try:
    """This node may take the lock. `why` is for the log. `forced`: only because an operator said so."""

    why: str
    forced: bool = False


@dataclass(frozen=True)
class Watch:
    """This node must not try now; `reason` says why, for operators."""

    reason: str


@dataclass(frozen=True)
class Unavailable:
    """The record cannot be trusted; `reason` says what to do."""

    reason: str


Decision = Try | Watch | Unavailable


@dataclass(frozen=True)
class Standing:
    """This node, as the decision sees it.

    known     what its data_dir knows
    seen_s    for how long it has been seeing this very record, in seconds
    aside     why it stands aside at the moment, if it does
    override  an operator accepts that data may be lost
    """

    me: Member
    known: Known
    seen_s: float
    aside: str | None = None
    override: bool = False


def distrust(record: ClusterRecord, known: Known, place: str) -> Unavailable | None:
    """Why the record that was read at `place` is not the one of this node's cluster, if so."""
    if known.cluster_id is not None and record.cluster_id != known.cluster_id:
        return Unavailable(
            f"{place} belongs to cluster {record.cluster_id}, but this data_dir joined {known.cluster_id}: "
            f"mount the right volume or correct election.flock.path; to move this node to the other cluster, "
            f"start it with an empty data_dir"
        )
    if record.term < known.highest_term:
        return Unavailable(
            f"{place} is at term {record.term}, but this data_dir has seen term {known.highest_term}: an "
            f"older copy was restored, or the volume was recreated; put the newest copy back (see the "
            f"runbook: lost lock volume)"
        )
    return None


def decide(record: ClusterRecord, standing: Standing, *, place: str, handover_wait_s: float) -> Decision:
    """What this node may do about the leader lock, given the record in force.

    The elector asks a second time when it has the lock, with the record that it read under the lock.
    """
    if (unavailable := distrust(record, standing.known, place)) is not None:
        return unavailable
    if standing.override:
        eligible = _by_content(record, standing)
        return eligible if isinstance(eligible, Try) else Try("an operator accepts data loss", forced=True)
    if standing.aside is not None:
        return Watch(standing.aside)
    if record.successor is not None and record.successor != standing.me and standing.seen_s < handover_wait_s:
        return Watch(f"{record.successor.name} was asked to take over from {record.leader.name}")
    return _by_content(record, standing)


def _by_content(record: ClusterRecord, standing: Standing) -> Try | Watch:
    """Decide by who has every acknowledged push. Nodes are compared by (name, data_dir id), not by name."""
    me, known = standing.me, standing.known
    if me in record.eligible and rolled_back(record, me, known.incarnations):
        return Watch(
            f"the data_dir of {me.name} was rolled back: an older state of it was restored, from a backup or "
            f"a snapshot, so it may lack acknowledged pushes. Start another node that led or was in the sync "
            f"set; this one follows it. Only if there is none: stargate promote --accept-data-loss"
        )
    if me == record.leader:
        return Try("this node led last")
    if me in record.sync_set:
        return Try("this node is in the sync set")
    checked = record.term > 0 and known.checked_term == record.term
    if record.mode == "async" and checked and known.position >= record.position:
        return Try(f"this node was fully checked against the leader of term {record.term}")
    if me.name in {member.name for member in record.eligible}:
        return Watch(
            f"{me.name} led or was in sync with another data_dir; this one has to be checked against the "
            f"leader first"
        )
    return Watch(f"this node is not in the sync set of term {record.term}")


def why_standby(record: ClusterRecord, me: Member, decision: Decision) -> str:
    """Why this node does not lead, in one line for operators. Of others it knows what the record says."""
    reason = decision.reason if isinstance(decision, Watch) else ""
    if not record.term and record.leader != me:
        return f"nobody has led yet: start {record.leader.name}, where bootstrap was run"
    if not record.term:
        others = "nobody has led yet"
    elif record.leader == me:
        others = "this node led last"
    else:
        others = f"{record.leader.name} leads, says the record"
    return f"{others}; {reason or 'this node leads as soon as it gets the leader lock'}"


def carried_over(record: ClusterRecord, me: Member) -> tuple[Member, ...]:
    """The sync set of a new term.

    All who were eligible before: pushes need their acknowledgement until the new leader writes another set.
    """
    return tuple(sorted(record.eligible - {me}))


def first_record(
    former: ClusterRecord,
    me: Member,
    known: Known,
    advertised: Advertised,
    *,
    members: tuple[Member, ...],
    incarnation: str,
    forced: bool,
) -> ClusterRecord:
    """The record with which this node claims the term after `former`.

    known        what its data_dir knows: a number that was used or tried before is never used again
    members      as `carried_over`
    incarnation  of this node; it is noted on its disk already
    forced       an operator let it lead although it was not eligible
    """
    number = max(former.term, known.highest_term, known.reserved_term) + 1
    return ClusterRecord(
        cluster_id=former.cluster_id,
        term=number,
        version=1,
        leader=me,
        ssh=advertised.ssh,
        http=advertised.http,
        host_keys=advertised.host_keys,
        mode=advertised.mode,
        sync_set=members,
        incarnations=named({**kept(former, members), me: incarnation}),
        forced=number if forced else former.forced,
    )


def needed(in_force: ClusterRecord, attempted: ClusterRecord | None) -> frozenset[Member]:
    """Whose acknowledgements a push needs while the outcome of a record write may be unknown.

    Either record may be the one that the next leader finds, so the union of both sync sets.
    """
    others = attempted.sync_set if attempted is not None else ()
    return frozenset({*in_force.sync_set, *others})
