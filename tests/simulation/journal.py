"""A node's journal of what is not known replicated, and what a crash leaves of it.

Follows replication/rescue/journal.py. Facts are appended in the order in which they were taken, and synced
only when somebody waits for that. A crash may lose any suffix of what was not synced: with the power what the
system had not written yet, with the process alone what its task had not.
"""

from collections.abc import Callable, Collection, Iterable
from random import Random

from stargate_gate.replication.rescue.unreplicated import (
    Fact,
    Forced,
    Kept,
    Mark,
    Refine,
    Replicated,
    Settled,
    Unknown,
    Unreplicated,
    decode,
    encode,
)


class JournalFile:
    """One per data_dir."""

    def __init__(self) -> None:
        self._known = Unreplicated()
        self._safe: list[Fact] = []
        self._tail: list[Fact] = []  # appended, or about to be, and not synced

    @property
    def forced_term(self) -> int:
        return self._known.forced_term

    def kept(self, repository_id: str, before: int) -> Kept:
        return self._known.kept(repository_id, before)

    # -- what is waited for --------------------------------------------------------------------------

    def mark(self, term: int, seq: int, identity: str, name: str, refs: Collection[str] | None) -> None:
        """On disk after `sync`."""
        self._take(Mark(term, seq, identity, name, None if refs is None else tuple(sorted(refs))))

    def distrust(self, facts: Iterable[Fact]) -> None:
        """On disk after `sync`, from the first to the last."""
        for fact in facts:
            self._take(fact)

    def sync(self, write: Callable[[], None]) -> None:
        """`write` raises if the disk takes nothing."""
        write()
        self._safe += self._tail
        self._tail.clear()

    # -- what is on disk some time ---------------------------------------------------------------------

    def told(self, term: int, seq: int, identity: str, name: str, refs: Collection[str] | None) -> None:
        if refs is not None or self._known.is_open(identity, term):
            self.mark(term, seq, identity, name, refs)

    def refine(self, identity: str, term: int, seq: int) -> None:
        self._take(Refine(term, seq, identity, ()))

    def replicated(self, term: int, seq: int) -> bool:
        """Whether that was news."""
        return self._news(Replicated(term, seq))

    def settle(self, term: int, seq: int, identity: str | None = None, name: str | None = None) -> None:
        self._news(Settled(term, seq, identity, name))

    def forced(self, forced_term: int) -> None:
        if forced_term > self._known.forced_term:
            self._take(Forced(forced_term))

    # -- a crash ---------------------------------------------------------------------------------------

    def cut(self, chance: Random) -> None:
        """The process is gone, with whatever was not safe from that; the next one reads what is left."""
        left = self._tail[: chance.randint(0, len(self._tail))]
        self._open([*self._safe, *left])

    def lose(self) -> None:
        """The file is gone, or damaged: nothing is known."""
        self._open([Unknown()])

    def _open(self, facts: Iterable[Fact]) -> None:
        """As Journal.open: what is read is written afresh."""
        known = Unreplicated()
        for fact in facts:
            known.apply(fact)
        self._safe, self._tail, self._known = decode(encode(known.facts())), [], Unreplicated()
        for fact in self._safe:
            self._known.apply(fact)

    def _take(self, fact: Fact) -> None:
        self._known.apply(fact)
        self._tail.append(fact)

    def _news(self, fact: Replicated | Settled) -> bool:
        news = self._known.changes(fact)
        if news:
            self._take(fact)
        return news
