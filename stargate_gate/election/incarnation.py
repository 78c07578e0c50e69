"""Incarnations: how a data_dir that was rolled back is recognised. Pure.

Theory of operation. The cluster record names its members by (name, data_dir id). A data_dir that is put
back from a backup, or a machine that is reset to a snapshot, still has its name and its id, but it has
lost what it acknowledged since. If it led by itself, acknowledged pushes would be gone.

So each membership has a random number, its incarnation:

- A node that begins to lead makes a new one. A standby that joins the sync set, for the first time or
  again, is given a new one by the leader.
- The node writes it to its own disk first. Only then does it go into the cluster record.
- A node leads by itself only if its disk knows the incarnation that the record names for it.

A data_dir from before the present membership does not know that number, so it does not lead by itself. It
follows as a standby like any other node, and joins again by being checked.

A crash between the two writes leaves a number on the disk that is not in the record. So the disk keeps the
number that was last seen in the record *and* those noted after it. As soon as the record names one of
them, the older ones are removed.

What this cannot see: a data_dir that was put back to a moment *within* its present membership. It knows
the right number. docs/runbook.md tells operators so.
"""

import secrets
from collections.abc import Iterable, Mapping

from stargate_gate.election.port import ClusterRecord, Member

INCARNATION_BYTES = 16
MAX_NOTED = 16  # joinings in a row of which none came into the record; forgetting one only refuses a node

Incarnations = tuple[tuple[str, str], ...]


def new_incarnation() -> str:
    """A fresh random incarnation, 32 hex digits."""
    return secrets.token_hex(INCARNATION_BYTES)


def noted(known: tuple[str, ...], incarnation: str) -> tuple[str, ...]:
    """What the disk has to know before `incarnation` may go into the record.

    The first of `known` is the one that was seen in the record last; it stays in any case.
    """
    if incarnation in known:
        return known
    longer = (*known, incarnation)
    return longer if len(longer) <= MAX_NOTED else (longer[0], *longer[2:])


def settled(known: tuple[str, ...], record: ClusterRecord) -> tuple[str, ...]:
    """`known` without those that are older than the one that `record` names."""
    named = {incarnation for _, incarnation in record.incarnations}
    for index in reversed(range(len(known))):
        if known[index] in named:
            return known[index:]
    return known


def rolled_back(record: ClusterRecord, me: Member, known: tuple[str, ...]) -> bool:
    """Whether this data_dir does not know the membership that the record names for it."""
    incarnation = record.incarnation_of(me)
    return incarnation is not None and incarnation not in known


def named(members: Mapping[Member, str | None]) -> Incarnations:
    """The record's `incarnations` for these members; those with none are left out."""
    pairs = ((member.data_dir_id, incarnation) for member, incarnation in members.items() if incarnation)
    return tuple(sorted(pairs))


def kept(record: ClusterRecord, members: Iterable[Member]) -> dict[Member, str | None]:
    """The incarnations that `record` names for these members."""
    return {member: record.incarnation_of(member) for member in members}
