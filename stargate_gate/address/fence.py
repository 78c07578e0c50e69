"""Who may change the name: a TXT record beside it, which each claim replaces and compares. Pure.

A node that was frozen during its claim may continue when another node has already claimed the name in a later
term. So the record contains the term, and every update has a condition (RFC 2136, section 2.4): the record
must still be what the claiming node has read. The DNS server itself then refuses an update that comes too
late.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from stargate_gate.address.port import Turn

_WORDS = re.compile(
    r"stargate term=(?P<term>[0-9]{1,18}) cluster=(?P<cluster>\S{1,64}) node=(?P<node>\S{1,64})"
)


@dataclass(frozen=True)
class Fence:
    """One claim. Its str() is the text of the record."""

    term: int
    cluster_id: str
    node: str

    def __str__(self) -> str:
        return f"stargate term={self.term} cluster={self.cluster_id} node={self.node}"


def fence_of(turn: Turn) -> Fence:
    """The record that a claim for `turn` writes."""
    return Fence(turn.term, turn.cluster_id, turn.node)


def why_not(mine: Fence, texts: Collection[str]) -> str | None:
    """Why `mine` may not replace the existing records; None if it may."""
    for text in texts:
        found = _WORDS.fullmatch(text)
        if found is None:
            return f"holds {text[:60]!r}, which is not Stargate's; remove it, if the name is for this cluster"
        if found["cluster"] != mine.cluster_id:
            return (
                f"belongs to the cluster {found['cluster']} (node {found['node']}); "
                "remove the record, if that cluster is gone"
            )
        if int(found["term"]) > mine.term:
            return f"was claimed by {found['node']} in term {found['term']}, after this term {mine.term}"
    return None
