"""One event of a plan, and the names that clients use."""

from dataclasses import dataclass

REPOS = ("r", "s", "t")


@dataclass(frozen=True)
class Event:
    """At that step: a fault of `node` (and `other`) for `seconds`, or a wish of a client (kind "wish:…")."""

    at: int
    kind: str
    node: int
    other: int
    seconds: float
    seed: int
