"""`stargate rescued …` on the node's side: what was rescued here, for people and for programs."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stargate_gate.errors import NoSuchRepositoryError
from stargate_gate.printable import printable
from stargate_gate.replication.rescue.restore import Restorer
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.rescue.values import Rescued, RescuedRepository
from stargate_gate.repos.store import Store

SHORT = 10  # hex digits of an object id that people are shown
HEADER = ("REPOSITORY", "OBJECT", "WAS", "OF TERM", "RESCUED", "FROM")


class RescuedCommands:
    """Without a `restorer`, as on a single node, nothing was ever rescued.

    orphans  lines about repositories that are here, and that the leader has lost
    """

    def __init__(
        self,
        node: str,
        rescues: Rescues,
        restorer: Restorer | None,
        orphans: Callable[[], Iterable[str]] = lambda: (),
    ) -> None:
        self._node = node
        self._rescues = rescues
        self._restorer = restorer
        self._orphans = orphans

    def list(self, *, as_json: bool) -> Mapping[str, Any]:
        """Everything that was rescued on this node."""
        repositories = self._rescues.all()
        if as_json:
            return {"output": json.dumps([row for one in repositories for row in _objects(one)], indent=2)}
        lines = [*_table([row for one in repositories for row in _rows(one)])]
        lines += [f"! {problem}" for problem in self._rescues.problems]
        lines = lines or [f"no rescued refs on {self._node}"]
        lines += [f"! {orphan}" for orphan in self._orphans()]
        return {"output": "\n".join(lines)}

    async def restore(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Push one value to the leader. Raises StargateError."""
        name, oid = str(args.get("name", "")), str(args.get("oid", ""))
        as_ref, to = args.get("as"), args.get("to")
        restorer = self._require()
        found = restorer.find(name, oid)
        target, ref = await restorer.restore(
            found, as_ref=None if as_ref is None else str(as_ref), to=None if to is None else str(to)
        )
        return {
            "output": f"{found.rescued.value.oid} is {ref} of {target} now, on the leader and its sync set"
        }

    async def drop(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """Stop keeping one value. Raises StargateError."""
        restorer = self._require()
        found = restorer.find(str(args.get("name", "")), str(args.get("oid", "")))
        await restorer.drop(found)
        return {"output": f"{found.rescued.value.oid} of {found.repository.name} is not kept any more"}

    def _require(self) -> Restorer:
        if self._restorer is None:
            raise NoSuchRepositoryError(f"no rescued refs on {self._node}: it is a single node")
        return self._restorer


def vanished(store: Store, orphans: Iterable[str], *, leads: bool) -> list[str]:
    """Repositories that an operator or a disk has taken from the leader, undeleted; a line each.

    orphans  on a standby: names of repositories that are here, and that the leader has lost
    """
    if leads:
        return sorted(
            f"{one.name} has vanished from this node's disk; a standby may have it: see the runbook"
            for one in store.register.vanished().values()
        )
    return [f"{name} is here and not on the leader, which has lost it: see the runbook" for name in orphans]


def _objects(repository: RescuedRepository) -> Iterator[Mapping[str, Any]]:
    for one in repository.values:
        yield {
            "repository": repository.name,
            "repository_id": repository.id,
            "oid": one.value.oid,
            "ref": one.value.ref,
            "term": one.value.term,
            "leader": one.leader,
            "leader_term": one.leader_term,
            "rescued_at": one.rescued_at,
            "in_trash": repository.in_trash,
        }


def _rows(repository: RescuedRepository) -> Iterator[tuple[str, ...]]:
    name = f"{repository.name} (in the trash)" if repository.in_trash else repository.name
    if not repository.values:
        yield name, "-", "all of it", "-", "-", "-"
    for one in repository.values:
        yield name, one.value.oid[:SHORT], one.value.ref, _term(one), one.rescued_at, _origin(one)


def _term(one: Rescued) -> str:
    return str(one.value.term) if one.value.term else "unknown"


def _origin(one: Rescued) -> str:
    if not one.leader_term:
        return f"{one.leader} received it and could not apply it"
    return f"{one.leader} led term {one.leader_term}"


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    if not rows:
        return
    shown = [HEADER, *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
