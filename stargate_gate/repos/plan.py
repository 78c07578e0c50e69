"""Which transactions of git update-ref bring the refs of a repository to the wanted refs. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stargate_gate.repos.names import encode_ref

# A git that is killed removes its lock files, one for each ref: with this many that takes a moment. And each
# transaction that is done counts as progress.
BATCH_REFS = 2000
# From this many new refs on, they are written into packed-refs. git writes each ref as a file and syncs it:
# 100,000 of them took longer than 300 s.
PACKED_FROM = 1000


@dataclass(frozen=True)
class RefChange:
    """One ref changes from `old` to `new`; None: it does not exist. See `decode_ref` for its name."""

    ref: str
    old: str | None
    new: str | None


def plan_transactions(local: Mapping[str, str], wanted: Mapping[str, str]) -> list[list[RefChange]]:
    """The transactions, in order, that bring `local` to `wanted`. None of them is empty.

    Where the ref `a` is a file, `a/b` needs a folder: git refuses to delete `a` and create `a/b` in one
    transaction. So deletions that make room for a new ref come first, in a transaction of their own.
    Everything else is in the second one.
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
    """A part of a transaction. `packed`: all of it are new refs, to be written into packed-refs at once."""

    changes: Sequence[RefChange]
    packed: bool = False


def steps(transaction: Sequence[RefChange]) -> Iterator[Step]:
    """Divide a transaction into short steps. They are not atomic together: see standby/intent.py.

    New refs come last, when the refs that were in their way are gone.
    """
    created = [change for change in transaction if change.old is None and change.new is not None]
    packed = len(created) >= PACKED_FROM
    by_git = [change for change in transaction if change.old is not None] if packed else transaction
    for start in range(0, len(by_git), BATCH_REFS):
        yield Step(by_git[start : start + BATCH_REFS])
    if packed:
        yield Step(created, packed=True)


def update_ref_input(changes: Iterable[RefChange]) -> bytes:
    """The input for `git update-ref --stdin -z`: one transaction, which also checks every old value.

    A symbolic ref is replaced itself; the ref that it points to is left alone.
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
    """The names that must be folders if `ref` is to be a file: "a/b/c" → ["a", "a/b"]."""
    parts = ref.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
