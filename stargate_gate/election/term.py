"""One leadership of this node: its number, its record, and whether it is still valid."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from stargate_gate.election.eligibility import needed
from stargate_gate.election.incarnation import kept, named
from stargate_gate.election.lease import Lease
from stargate_gate.election.port import ClusterRecord, Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError


class Term:
    """Handed out by `Elector.term`; of no use after that scope has ended."""

    def __init__(self, lease: Lease, record: ClusterRecord, on_change: Callable[[], None]) -> None:
        self._lease = lease
        self._record = record
        self._attempted: ClusterRecord | None = None
        self._on_change = on_change
        self._writing = asyncio.Lock()
        self._open = False
        self.closed_because = "not open yet"  # for operators; of no meaning while open

    @property
    def number(self) -> int:
        """The fencing token: stamp it on everything that is sent or written."""
        return self._record.term

    @property
    def record(self) -> ClusterRecord:
        """The record that was in force when it was last known for certain."""
        return self._record

    @property
    def in_force(self) -> frozenset[Member]:
        """The sync set of `record`."""
        return frozenset(self._record.sync_set)

    @property
    def members(self) -> dict[Member, str | None]:
        """The sync set of `record`, with the incarnation of each; None: the record names none."""
        return kept(self._record, self._record.sync_set)

    @property
    def needed(self) -> frozenset[Member]:
        """Whose acknowledgements a push needs now: of both records while the last write is uncertain."""
        return needed(self._record, self._attempted)

    @property
    def is_open(self) -> bool:
        """`open` was called, and neither `close` nor the end of the term came after it."""
        return self._open

    def valid(self) -> bool:
        """This node leads, provably, at this moment. Ask right before whatever must not be done without."""
        return self._lease.valid()

    def open(self) -> None:
        """Writes are accepted from now on."""
        self._set_open(is_open=True)

    def close(self, reason: str = "stepping down") -> None:
        """No new writes are accepted; the term goes on."""
        self.closed_because = reason
        self._set_open(is_open=False)

    async def update(
        self,
        *,
        sync_set: Iterable[Member] | None = None,
        position: int | None = None,
        clean: bool | None = None,
        successor: Member | None = None,
    ) -> None:
        """Put the next version of the record in force; what is None stays as it is, except `successor`.

        `successor` goes with `clean` and is dropped by every update that does not name it.

        Raises:
            LeadershipLostError: the term is over.
            ElectionUnavailableError: the old or the new record is in force. `needed` is the union of
                both until an update succeeds.
        """
        async with self._writing:
            now = self._record
            members = now.sync_set if sync_set is None else _others(sync_set, now.leader)
            await self._write(
                replace(
                    now,
                    sync_set=members,
                    incarnations=named(kept(now, (*members, now.leader))),
                    position=now.position if position is None else position,
                    clean=now.clean if clean is None else clean,
                    successor=successor,
                )
            )

    async def update_members(
        self, choose: Callable[[], Mapping[Member, str | None]], *, position: int
    ) -> frozenset[Member]:
        """Put a sync set into the record, with the incarnation of each member; returns that set.

        `choose` is called when no other write is under way. From that moment on `needed` names whom it
        has returned, until a later write has succeeded. There must be no moment in between: a member that
        is dismissed there, while this write waits for its turn, would be acknowledged without and named
        by the record afterwards. (So a write that adds a member has always ended, or its outcome counts
        as unknown, before a write without that member begins.)

        Raises:
            LeadershipLostError: the term is over.
            ElectionUnavailableError: as for `update`.
        """
        async with self._writing:
            now, chosen = self._record, dict(choose())
            chosen.pop(now.leader, None)
            incarnations = named({**chosen, now.leader: now.incarnation_of(now.leader)})
            await self._write(
                replace(
                    now,
                    sync_set=_others(chosen, now.leader),
                    incarnations=incarnations,
                    position=position,
                    successor=None,
                )
            )
            return frozenset(chosen)

    async def _write(self, changed: ClusterRecord) -> None:
        """Write it as the next version. The caller holds `_writing`, and has not waited since it chose."""
        changed = replace(changed, version=(self._attempted or self._record).version + 1)
        if not self.valid():
            self._lease.lose("the lease has run out")  # for good: a proof that comes late changes nothing
            raise LeadershipLostError(self._lease.lost or "the lease has run out")
        self._attempted = changed if self._attempted is None else _both(self._attempted, changed)
        try:
            async with asyncio.timeout(self._lease.left_s()):
                await self._lease.handle.write(changed)
        except LeadershipLostError as error:
            self._lease.lose(error.message.removeprefix("not leader: "))
            raise
        except TimeoutError as error:
            raise ElectionUnavailableError(
                "the cluster record could not be written in time: outcome unknown"
            ) from error
        self._record, self._attempted = changed, None
        self._on_change()

    def _set_open(self, *, is_open: bool) -> None:
        if self._open != is_open:
            self._open = is_open
            self._on_change()


def _both(first: ClusterRecord, second: ClusterRecord) -> ClusterRecord:
    """Either of two uncertain writes may be in force: the later one, with the sync sets of both."""
    return replace(second, sync_set=tuple(sorted({*first.sync_set, *second.sync_set})))


def _others(members: Iterable[Member], leader: Member) -> tuple[Member, ...]:
    """In a fixed order, the leader not among them."""
    return tuple(sorted({*members} - {leader}))
