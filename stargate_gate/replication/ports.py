"""What replication asks of the rest of the node. All protocols, no code."""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from stargate_gate.election.port import Member


class Channel(Protocol):
    """A stream of bytes both ways: the gate's end of a standby's request, or the standby's end of it.

    Every call raises ConnectionError once the other side is gone.
    """

    async def read(self, n: int) -> bytes:
        """Up to `n` bytes; b"" at the end of what the other side sends."""

    async def write(self, data: bytes) -> None:
        """Send; returns when it is on its way and not buffered here."""


class TermRecord(Protocol):
    """The cluster record of the term that is led here; `election.term.Term` is one."""

    @property
    def number(self) -> int:
        """The fencing token."""

    @property
    def in_force(self) -> frozenset[Member]:
        """The sync set of the record that was written last, for certain."""

    @property
    def members(self) -> Mapping[Member, str | None]:
        """The same, each with its incarnation; None: the record names none."""

    @property
    def needed(self) -> frozenset[Member]:
        """Everybody the record may name: also by a write whose outcome is unknown."""

    def valid(self) -> bool:
        """This node leads, provably, at this moment."""

    async def update_members(
        self, choose: Callable[[], Mapping[Member, str | None]], *, position: int
    ) -> frozenset[Member]:
        """Put what `choose` returns into the record; it is called when no other write is under way.

        Raises:
            LeadershipLostError: the term is over.
            ElectionUnavailableError: the outcome is unknown.
        """


class LeaderJournal(Protocol):
    """What a leader notes of its own values; `journal.Journal` is one, and says what the words mean."""

    async def mark(
        self, term: int, seq: int, repository_id: str, name: str, refs: Collection[str] | None
    ) -> None:
        """They are about to get values. On disk when this returns. Raises OSError."""

    def told(self, term: int, seq: int, repository_id: str, name: str, refs: Collection[str] | None) -> None:
        """What they got has that number."""

    def refine(self, repository_id: str, term: int, seq: int, refs: Collection[str] | None) -> None:
        """One that was marked without a number is over."""

    def replicated(self, term: int, seq: int) -> None:
        """The whole sync set has everything up to there."""
