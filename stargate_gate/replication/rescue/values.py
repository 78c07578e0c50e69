"""What to keep before a node's own values are replaced by another leader's. Pure.

A value is rescued if it is not known replicated (see unreplicated.py), the leader's repository has another
value or none for that ref, and no ref of the leader's reaches it. It stays reachable in the repository
itself, as refs/stargate/rescued/<term>/<object id>, which is never advertised, mirrored or pruned. A
repository that the leader does not have is kept as a whole, in the trash. Which ref and term a value came
from is in a file: `store.py`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stargate_gate.replication.rescue.unreplicated import Kept
from stargate_gate.repos.names import RESERVED

RESCUED = f"{RESERVED}/rescued"
COMMIT = "commit"


class DamagedRescuesError(ValueError):
    """It is not what was written."""


@dataclass(frozen=True, order=True)
class Value:
    """What a ref was here, and the term in which it became that; 0: nobody knows."""

    ref: str
    oid: str
    term: int

    @property
    def rescued_ref(self) -> str:
        """What keeps it from being pruned."""
        return f"{RESCUED}/{self.term}/{self.oid}"


@dataclass(frozen=True)
class Rescued:
    """A rescued value.

    leader       name of the node whose value came over it, or that has no such repository
    leader_term  the term that it led; 0: `leader` is this node, which received the value before it led and
                 could not apply it
    rescued_at   UTC, ISO 8601
    """

    value: Value
    leader: str
    leader_term: int
    rescued_at: str


@dataclass(frozen=True)
class RescuedRepository:
    """All rescued values of one repository; `in_trash`: all of it is there, and kept for their sake."""

    id: str
    name: str
    values: tuple[Rescued, ...]
    in_trash: bool

    def with_more(self, more: Iterable[Rescued], *, in_trash: bool) -> "RescuedRepository":
        """With these besides. What was rescued before keeps its date."""
        before = {one.value: one for one in self.values}
        values = {**{one.value: one for one in more}, **before}
        return RescuedRepository(
            self.id,
            self.name,
            tuple(values[value] for value in sorted(values)),
            self.in_trash or in_trash,
        )

    def without(self, oid: str) -> "RescuedRepository":
        """Without that value, whatever refs it was the value of."""
        left = tuple(one for one in self.values if one.value.oid != oid)
        return RescuedRepository(self.id, self.name, left, self.in_trash)


def in_question(local: Mapping[str, str], wanted: Mapping[str, str], kept: Kept) -> tuple[Value, ...]:
    """The values here that are not known replicated and would be overwritten or removed."""
    found = []
    for ref, oid in sorted(local.items()):
        term = kept.term_of(ref)
        if term is not None and wanted.get(ref) != oid:
            found.append(Value(ref, oid, term))
    return tuple(found)


def reachability_input(values: Iterable[Value], wanted: Collection[str]) -> bytes:
    """For `git rev-list --stdin`: which commits of `values` lead nowhere from the leader's?"""
    lines = [*sorted({value.oid for value in values}), *sorted(f"^{oid}" for oid in {*wanted})]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def lacking(
    values: Iterable[Value], kinds: Mapping[str, str], beyond: Collection[str], wanted: Collection[str]
) -> tuple[Value, ...]:
    """Those of `values` that the leader has not.

    kinds   object id → "commit", "tag", "tree" or "blob"
    beyond  the commits that `git rev-list` found
    wanted  the leader's values. A tag, a tree or a blob that is none of these counts as lacking
    """
    return tuple(
        value
        for value in values
        if (value.oid in beyond if kinds.get(value.oid) == COMMIT else value.oid not in wanted)
    )


def to_json(repository: RescuedRepository) -> dict[str, Any]:
    """What `from_json` reads."""
    return {
        "id": repository.id,
        "name": repository.name,
        "in_trash": repository.in_trash,
        "values": [
            {
                "ref": one.value.ref,
                "oid": one.value.oid,
                "term": one.value.term,
                "leader": one.leader,
                "leader_term": one.leader_term,
                "rescued_at": one.rescued_at,
            }
            for one in repository.values
        ],
    }


def from_json(value: Mapping[str, Any]) -> RescuedRepository:
    """The reverse of `to_json`.

    Raises:
        DamagedRescuesError: it is not what was written.
    """
    try:
        values = tuple(
            Rescued(
                Value(str(one["ref"]), str(one["oid"]), int(one["term"])),
                str(one["leader"]),
                int(one["leader_term"]),
                str(one["rescued_at"]),
            )
            for one in value["values"]
        )
        return RescuedRepository(str(value["id"]), str(value["name"]), values, bool(value["in_trash"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRescuesError(f"no rescued values of this version: {error!r}") from error
