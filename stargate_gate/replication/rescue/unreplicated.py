"""Which values of this node are not known to be on every other node that may lead. Pure.

A node that follows another leader replaces its own values by the leader's. It may overwrite values that every
member of the sync set had: the leader had them, too. Other values may be only here, and are kept as rescued
refs. This module remembers which those are; `journal.py` keeps it on disk.

A fact is one change of that memory, and one line of the journal's file:

    Mark        a ref (or any ref: refs is None) of a repository is about to get a value
    Refine      a Mark of any ref was of these refs, and has that number in the feed
    Replicated  everything of a term up to a position is on every member of the sync set
    Settled     all that older terms left, in one repository or everywhere, is what the leader of that
                term has at that position, or was rescued. The leader's other standbys may lack it
                still, so from then on it counts as a change of that term with that number
    Unknown     what was known is lost, or of no use: every value counts as one of that term with that
                number, as not known replicated if it has none
    Known       that does not hold for one repository any more
    Forced      a leadership that an operator forced was taken account of: what the sync set had before
                it, that leader may lack

Forgetting too little only rescues more; so nothing but Mark, Unknown and Forced has to be on disk at once.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from stargate_gate.datadir.checked_lines import checked_line, read_checked_line
from stargate_gate.replication.wire.numbers import FIRST_POSITION, UNNUMBERED

MAX_REFS = 1000  # of one repository and term, by name; beyond it is "any ref", a line instead of megabytes
COMPACT_AT_LINES = 10_000  # of the file, about a megabyte
COMPACT_SHARE = 4  # and so many times as many as would do


class DamagedError(ValueError):
    """A line is not what was written."""


@dataclass(frozen=True)
class Mark:
    """Refs of the repository get values with the change `seq` of `term`; None: any of its refs."""

    term: int
    seq: int
    repository_id: str
    name: str
    refs: tuple[str, ...] | None


@dataclass(frozen=True)
class Refine:
    """One unnumbered Mark of any ref is over: it was of these refs, in the change `seq`."""

    term: int
    seq: int
    repository_id: str
    refs: tuple[str, ...] | None


@dataclass(frozen=True)
class Replicated:
    """Everything of `term` up to `seq` is on every member of a sync set that is not empty."""

    term: int
    seq: int


@dataclass(frozen=True)
class Settled:
    """What terms before `term` left is the leader's at `seq`, or was rescued: there, or everywhere."""

    term: int
    seq: int
    repository_id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Unknown:
    """Nothing more is known of what is here."""

    term: int = 0
    seq: int = UNNUMBERED


@dataclass(frozen=True)
class Known:
    """Of that repository more is known."""

    repository_id: str


@dataclass(frozen=True)
class Forced:
    """The newest term known to have begun by an operator's override."""

    term: int


Fact: TypeAlias = Mark | Refine | Replicated | Settled | Unknown | Known | Forced

_KINDS: Mapping[str, type[Any]] = {
    "mark": Mark,
    "refine": Refine,
    "replicated": Replicated,
    "settled": Settled,
    "unknown": Unknown,
    "known": Known,
    "forced": Forced,
}
_WORDS = {kind: word for word, kind in _KINDS.items()}


@dataclass(frozen=True)
class Kept:
    """What to keep of one repository before another leader's values come over it.

    terms  ref → the term in which it got its value here; for the refs that are marked by name
    rest   the term for every other ref, if any ref counts; None: the others are known replicated
    """

    terms: Mapping[str, int]
    rest: int | None

    def term_of(self, ref: str) -> int | None:
        """The term that gave `ref` its value; None: it is known replicated. 0: nobody knows the term."""
        return self.terms.get(ref, self.rest)

    def __bool__(self) -> bool:
        return bool(self.terms) or self.rest is not None


@dataclass
class _Marks:
    """Of one repository in one term."""

    name: str
    refs: dict[str, int] = field(default_factory=dict)  # ref → number of its newest change
    any_seq: int | None = None  # any ref, up to that change
    open: int = 0  # Marks of any ref that have no number yet

    @property
    def empty(self) -> bool:
        """Nothing is marked."""
        return not self.refs and self.any_seq is None and not self.open

    def holds(self, seq: int) -> bool:
        """Whether any of it has a number up to `seq`."""
        return any(UNNUMBERED < at <= seq for at in (*self.refs.values(), self.any_seq or UNNUMBERED))

    def drop_through(self, seq: int) -> None:
        """Forget what has a number up to `seq`."""
        self.refs = {ref: at for ref, at in self.refs.items() if at == UNNUMBERED or at > seq}
        if self.any_seq is not None and UNNUMBERED < self.any_seq <= seq:
            self.any_seq = None


class Unreplicated:
    """The sum of facts. `apply` them in the order in which they were written."""

    def __init__(self) -> None:
        self._marks: dict[str, dict[int, _Marks]] = {}  # repository id → term → marks
        self._unknown: Unknown | None = None
        self._known: set[str] = set()  # repositories for which `unknown` does not hold
        self._forced = 0

    def __len__(self) -> int:
        """How many lines would do to write it down."""
        return sum(1 + marks.open for _, _, marks in self._all()) + len(self._known) + 2

    @property
    def nothing_known(self) -> bool:
        """Whether every value counts as not known replicated."""
        return self._unknown is not None

    def repositories(self) -> Iterator[tuple[str, str]]:
        """(id, name) of those with values that are not known replicated, one by one."""
        for identity, terms in self._marks.items():
            yield identity, next(iter(terms.values())).name

    @property
    def forced_term(self) -> int:
        """The newest forced leadership that was taken account of; 0: none."""
        return self._forced

    def is_open(self, repository_id: str, term: int) -> bool:
        """Whether a Mark of that term has no number yet."""
        marks = self._marks.get(repository_id, {}).get(term)
        return marks is not None and marks.open > 0

    def kept(self, repository_id: str, before: int) -> Kept:
        """What of the repository is not known replicated, of terms older than `before`."""
        terms: dict[str, int] = {}
        unknown = None if repository_id in self._known else self._unknown
        rest = unknown.term if unknown is not None and unknown.term < before else None
        for term, marks in sorted(self._marks.get(repository_id, {}).items()):
            if term < before:
                terms.update(dict.fromkeys(marks.refs, term))
                if marks.any_seq is not None or marks.open:
                    rest = term
        return Kept(terms, rest)

    def apply(self, fact: Fact) -> None:
        """One more fact."""
        match fact:
            case Mark():
                self._mark(fact)
            case Refine():
                self._refine(fact)
            case Replicated():
                self._replicated(fact)
            case Settled(repository_id=None):
                self._settle_all(fact)
            case Settled():
                self._settle_one(fact)
            case Unknown():
                self._unknown = fact
                self._known.clear()
            case Known():
                self._known.add(fact.repository_id)
            case Forced():
                self._forced = max(self._forced, fact.term)

    def changes(self, fact: Replicated | Settled) -> bool:
        """Whether `fact` is any news."""
        unknown = self._unknown
        if isinstance(fact, Replicated):
            if fact.seq == UNNUMBERED:
                return False  # as in every heartbeat of mode async
            marked = any(marks.holds(fact.seq) for _, term, marks in self._all() if term == fact.term)
            return marked or (unknown is not None and _covers(fact, unknown))
        ours = self._all() if fact.repository_id is None else self._of(fact.repository_id)
        if any(term < fact.term for _, term, _ in ours):
            return True
        return unknown is not None and unknown.term < fact.term and fact.repository_id not in self._known

    def facts(self) -> Iterator[Fact]:
        """The fewest facts that sum up to this."""
        if self._forced:
            yield Forced(self._forced)
        if self._unknown is not None:
            yield self._unknown
            yield from map(Known, sorted(self._known))
        for identity, term, marks in self._all():
            by_seq: dict[int, list[str]] = {}
            for ref, seq in sorted(marks.refs.items()):
                by_seq.setdefault(seq, []).append(ref)
            for seq, refs in sorted(by_seq.items()):
                yield Mark(term, seq, identity, marks.name, tuple(refs))
            if marks.any_seq is not None:
                yield Mark(term, marks.any_seq, identity, marks.name, None)
            yield from [Mark(term, UNNUMBERED, identity, marks.name, None)] * marks.open

    def worth_compacting(self, lines: int) -> bool:
        """Whether a file of so many lines should be written afresh."""
        return lines > COMPACT_AT_LINES and lines > COMPACT_SHARE * len(self)

    def _all(self) -> Iterator[tuple[str, int, _Marks]]:
        for identity in sorted(self._marks):
            yield from self._of(identity)

    def _of(self, identity: str) -> Iterator[tuple[str, int, _Marks]]:
        for term, marks in sorted(self._marks.get(identity, {}).items()):
            yield identity, term, marks

    def _mark(self, mark: Mark) -> None:
        marks = self._marks.setdefault(mark.repository_id, {}).setdefault(mark.term, _Marks(mark.name))
        marks.name = mark.name
        if mark.refs is None and mark.seq == UNNUMBERED:
            marks.open += 1
        else:
            _add(marks, mark.seq, mark.refs)

    def _refine(self, fact: Refine) -> None:
        marks = self._marks.get(fact.repository_id, {}).get(fact.term)
        if marks is not None and marks.open and (fact.refs is not None or fact.seq != UNNUMBERED):
            marks.open -= 1
            _add(marks, fact.seq, fact.refs)
            self._clear(fact.repository_id, fact.term)

    def _replicated(self, fact: Replicated) -> None:
        for identity, term, marks in list(self._all()):
            if term == fact.term:
                marks.drop_through(fact.seq)
                self._clear(identity, term)
        if self._unknown is not None and _covers(fact, self._unknown):
            self._unknown = None
            self._known.clear()

    def _settle_all(self, fact: Settled) -> None:
        for identity in list(self._marks):
            self._restamp(identity, fact)
        if self._unknown is not None and self._unknown.term < fact.term:
            self._unknown = Unknown(fact.term, max(FIRST_POSITION, fact.seq))
            self._known.clear()

    def _settle_one(self, fact: Settled) -> None:
        identity = fact.repository_id
        assert identity is not None  # noqa: S101 - only a mark of one repository gets here
        self._restamp(identity, fact)
        unknown = self._unknown
        if unknown is not None and unknown.term < fact.term and identity not in self._known:
            self._known.add(identity)
            self._mark(Mark(fact.term, max(FIRST_POSITION, fact.seq), identity, fact.name or "", None))

    def _restamp(self, identity: str, fact: Settled) -> None:
        """What older terms left is of that term now, with that number."""
        seq = max(FIRST_POSITION, fact.seq)
        for _, term, marks in list(self._of(identity)):
            if term >= fact.term:
                continue
            del self._marks[identity][term]
            if marks.refs:
                self._mark(Mark(fact.term, seq, identity, marks.name, tuple(marks.refs)))
            if marks.any_seq is not None or marks.open:
                self._mark(Mark(fact.term, seq, identity, marks.name, None))

    def _clear(self, identity: str, term: int) -> None:
        if self._marks[identity][term].empty:
            del self._marks[identity][term]
            if not self._marks[identity]:
                del self._marks[identity]


def distrusted(forced_term: int) -> tuple[Fact, ...]:
    """That a leadership was forced, as facts: whatever a crash leaves of them, in this order, is safe.

    What it means comes first: with Forced alone on disk, nobody would ask again what it meant.
    """
    return Unknown(), Forced(forced_term)


def encode(facts: Iterable[Fact]) -> bytes:
    """A line for each: its CRC-32, and the fact as JSON. Odd bytes of refs are escaped surrogates."""
    return b"".join(checked_line([_WORDS[type(fact)], *vars(fact).values()]) for fact in facts)


def decode(content: bytes) -> list[Fact]:
    """The facts in a file. A last line without its end was never promised to anybody, and is none.

    Raises:
        DamagedError: a whole line is not what was written.
    """
    *lines, _torn = content.split(b"\n")
    return [_decode_line(line) for line in lines]


def _decode_line(line: bytes) -> Fact:
    try:
        content = read_checked_line(line)
    except ValueError as error:
        raise DamagedError(f"damaged line {line[:80]!r}") from error
    try:
        word, *values = content
        values = [tuple(value) if isinstance(value, list) else value for value in values]
        fact: Fact = _KINDS[word](*values)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"no fact of this version in {line[:80]!r}") from error
    return fact


def _add(marks: _Marks, seq: int, refs: Collection[str] | None) -> None:
    """One more change; what has no number is newer than all that has."""
    if refs is None:
        marks.any_seq = max(seq, marks.any_seq or seq)
        return
    for ref in refs:
        marks.refs[ref] = UNNUMBERED if seq == UNNUMBERED else _newer(seq, marks.refs.get(ref, seq))
    if len(marks.refs) > MAX_REFS:
        if UNNUMBERED in marks.refs.values():
            marks.open += 1
        marks.any_seq = max(*marks.refs.values(), marks.any_seq or UNNUMBERED) or None
        marks.refs.clear()


def _newer(one: int, other: int) -> int:
    return UNNUMBERED if UNNUMBERED in {one, other} else max(one, other)


def _covers(fact: Replicated, unknown: Unknown) -> bool:
    return unknown.term == fact.term and UNNUMBERED < unknown.seq <= fact.seq
