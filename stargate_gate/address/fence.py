"""Who may change the name: a TXT record beside it, which each claim replaces and compares. Pure.

A node that was frozen may wake up in the middle of its claim, when another one has claimed in a later
term. So the record tells the term, and every update demands (RFC 2136, section 2.4) that it still is what
the claimer has read: a late update is refused by the server itself.
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
    """The claim that is in force: str() is the text of the record."""

    term: int
    cluster_id: str
    node: str

    def __str__(self) -> str:
        return f"stargate term={self.term} cluster={self.cluster_id} node={self.node}"


def fence_of(turn: Turn) -> Fence:
    """What a claim of `turn` writes."""
    return Fence(turn.term, turn.cluster_id, turn.node)


def why_not(mine: Fence, texts: Collection[str]) -> str | None:
    """Why `mine` may not replace the records that are there; None if it may."""
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
