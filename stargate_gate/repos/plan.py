"""From the refs that are here to the refs that are wanted, as transactions of git update-ref. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

# A killed git removes its lock files, one a ref: this many are gone in a moment. And each transaction that
# is through is progress.
BATCH_REFS = 2000
# So many new refs at a time are written as one file. Each loose ref is a file of its own, synced by itself:
# 100,000 of them took git longer than 300 s.
PACKED_FROM = 1000


@dataclass(frozen=True)
class RefChange:
    """One ref from `old` to `new`; None means that it is not there. Names may hold surrogates (any bytes)."""

    ref: str
    old: str | None
    new: str | None


def decode_ref(name: bytes) -> str:
    """A ref's name as text; bytes that are not UTF-8 become surrogates, the same on every machine."""
    return name.decode("utf-8", "surrogateescape")


def encode_ref(name: str) -> bytes:
    """The reverse of `decode_ref`."""
    return name.encode("utf-8", "surrogateescape")


def plan_transactions(local: Mapping[str, str], wanted: Mapping[str, str]) -> list[list[RefChange]]:
    """The transactions, in order, that bring `local` to `wanted`; none of them empty.

    A file cannot be where a folder is: `a` → `a/b` fails in one transaction of git's. So deletions
    that make room for a new ref come first, in a transaction of their own; all else is in one.
    """
    changes = [
        RefChange(ref, local.get(ref), wanted.get(ref))
        for ref in sorted({*local, *wanted})
        if local.get(ref) != wanted.get(ref)
    ]
    created = {change.ref for change in changes if change.old is None}
    folders = {folder for ref in created for folder in _folders(ref)}
    makes_room = [
        change
        for change in changes
        if change.new is None and (change.ref in folders or not created.isdisjoint(_folders(change.ref)))
    ]
    first = {change.ref for change in makes_room}
    rest = [change for change in changes if change.ref not in first]
    return [transaction for transaction in (makes_room, rest) if transaction]


@dataclass(frozen=True)
class Step:
    """Some changes of a transaction. `packed`: new refs, to be written into packed-refs all at once."""

    changes: Sequence[RefChange]
    packed: bool = False


def steps(transaction: Sequence[RefChange]) -> Iterator[Step]:
    """A transaction in steps, so that none of them is long. Not atomic together: see intent.py.

    New refs come last: what made room for them is gone by then.
    """
    created = [change for change in transaction if change.old is None and change.new is not None]
    packed = len(created) >= PACKED_FROM
    by_git = [change for change in transaction if change.old is not None] if packed else transaction
    for start in range(0, len(by_git), BATCH_REFS):
        yield Step(by_git[start : start + BATCH_REFS])
    if packed:
        yield Step(created, packed=True)


def update_ref_input(changes: Iterable[RefChange]) -> bytes:
    """The input for `git update-ref --stdin -z`: one transaction that also checks every old value.

    Where a symbolic ref has the name, it is replaced itself and not what it points to.
    """
    return b"".join(b"option no-deref\0" + _command(change) for change in changes)


def _command(change: RefChange) -> bytes:
    ref = encode_ref(change.ref)
    old = (change.old or "").encode("ascii")
    if change.new is None:
        return b"delete %b\0%b\0" % (ref, old)
    new = change.new.encode("ascii")
    if change.old is None:
        return b"create %b\0%b\0" % (ref, new)
    return b"update %b\0%b\0%b\0" % (ref, new, old)


def _folders(ref: str) -> list[str]:
    """Every name that is a folder when `ref` is a file: "a/b/c" → ["a", "a/b"]."""
    parts = ref.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
