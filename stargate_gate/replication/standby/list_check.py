"""The leader's lists of all its repositories, and what differs from them here. Pure."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stargate_gate.errors import StargateError
from stargate_gate.replication.standby.answers import (
    CensusTaken,
    Copy,
    Digest,
    SessionOverError,
    Unsound,
)
from stargate_gate.replication.standby.apply_steps import ApplySteps
from stargate_gate.replication.standby.placement import Placement
from stargate_gate.replication.standby.steps import ReadDigests, Steps, TakeCensus
from stargate_gate.replication.wire.messages import ListBegin, Listed, ListEnd, ListPart
from stargate_gate.repos.names import RepositoryName

LOOKS_AT_ONCE = 50  # repositories compared with a list at a time; each costs some stat calls
ORPHANS_EVERY = 10  # lists; one that the leader has lost is asked for again with every tenth


@dataclass(frozen=True)
class CompleteList:
    """All of the list number `check`. It covers every change up to `seq`, and perhaps later ones."""

    check: int
    seq: int
    repositories: tuple[Listed, ...]


@dataclass
class WorkedOff:
    """A list that was compared: confirmed when the jobs up to these tickets are done.

    total  of tickets, at first
    """

    number: int
    seq: int
    tickets: dict[str, int]
    total: int

    @property
    def progress(self) -> tuple[int, int]:
        """How many tickets are done, and of how many."""
        return max(0, self.total - len(self.tickets)), self.total

    def done(self, identity: str, ticket: int) -> None:
        """That job of that repository is done."""
        if ticket >= self.tickets.get(identity, ticket + 1):
            del self.tickets[identity]


class ListCheck:
    """For one session. `unsound`: copies that equal no list, whatever their refs look like; by id."""

    def __init__(self, apply: ApplySteps, placement: Placement, unsound: Mapping[str, Unsound]) -> None:
        self._apply = apply
        self._placement = placement
        self._unsound = unsound
        self._begun: ListBegin | None = None
        self._parts: list[Listed] = []

    def begin(self, message: ListBegin) -> None:
        """A list begins; one that was not complete is dropped."""
        self._begun = message
        self._parts = []

    def receive(self, message: ListPart | ListEnd) -> CompleteList | None:
        """More of it, or its end: then all of it is returned.

        Raises:
            SessionOverError: it has no beginning, or is not complete.
        """
        begun = self._begun
        if begun is None or begun.check != message.check:
            raise SessionOverError("the leader's list has no beginning")
        if isinstance(message, ListPart):
            self._parts += message.repositories
            return None
        self._begun = None
        if len(self._parts) != message.count:
            raise SessionOverError("the leader's list is not complete")
        return CompleteList(begun.check, begun.seq, tuple(self._parts))

    def differences(
        self, complete: CompleteList
    ) -> Steps[tuple[list[RepositoryName], dict[str, RepositoryName]]]:
        """Names of copies without an id of their own; and by id what differs, or is not in the list."""
        try:
            census: CensusTaken = yield TakeCensus()
        except (StargateError, OSError) as error:
            raise SessionOverError(f"the repositories here cannot be listed: {error}") from error
        listed = {one.id for one in complete.repositories}
        different = {
            identity: copy.name
            for identity, copy in census.known.items()
            if identity not in listed and self._asks_again(identity, complete.check)
        }
        different |= {
            identity: unsound.name for identity, unsound in self._unsound.items() if identity not in listed
        }
        unknown = {one.name for one in complete.repositories if one.digest is None}
        yield self._apply.clear_notes({*different.values(), *unknown})
        for start in range(0, len(complete.repositories), LOOKS_AT_ONCE):
            some = complete.repositories[start : start + LOOKS_AT_ONCE]
            same = yield from self._same(some, census.known)
            different |= {one.id: one.name for one in some if one.id not in same}
        awaited = {one.name for one in complete.repositories if one.id not in census.known}
        # A stray with the name of one of these may be that one, with a damaged id: it stays until that comes.
        return [stray.name for stray in census.strays if stray.name not in awaited], different

    def _asks_again(self, identity: str, check: int) -> bool:
        """Whether the leader is asked for one that it has not listed; if it has lost it, now and then."""
        orphan = identity in self._placement.orphans
        return not orphan or check % ORPHANS_EVERY == zlib.crc32(identity.encode()) % ORPHANS_EVERY

    def _same(self, some: Sequence[Listed], known: Mapping[str, Copy]) -> Steps[set[str]]:
        """Ids of those that are here as the list shows them, and have nothing left of older terms.

        For what is left a number of this term is needed which covers it. A list has one for all, from
        before it began: a value may have come back to the leader since, and be with nobody else.
        """
        pairs = [
            (one, known[one.id])
            for one in some
            if one.digest is not None
            and one.id in known
            and one.id not in self._unsound
            and known[one.id].name == one.name
        ]
        if not pairs:
            return set()
        digests: tuple[Digest | None, ...] = yield ReadDigests(tuple(pairs))
        same = [
            one
            for (one, _), digest in zip(pairs, digests, strict=True)
            if digest is not None and digest.value == one.digest and not digest.unsettled
        ]  # of what cannot be read, the comparison that follows will say what is wrong
        for one in same:
            if one.unreadable is not None:
                yield self._apply.only_here(one.name, one.unreadable)
        return {one.id for one in same}
