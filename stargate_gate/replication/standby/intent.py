"""Which refs of one repository a standby is going to change, so that a crash cannot leave half of it. Pure.

git puts one ref in place by one rename. So a change of one ref alone is done or not done, and needs no
intent. Several refs, several transactions (`a` → `a/b`), or a ref and HEAD are several renames, and a crash
in between leaves only some of them done. If `a` is removed and `a/b` does not exist yet, an acknowledged
value would be missing here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stargate_gate.datadir.checked_lines import checked_line, read_checked_line
from stargate_gate.repos.plan import RefChange

Transactions = Sequence[Sequence[RefChange]]


class DamagedIntentError(ValueError):
    """It is not what was written."""


@dataclass(frozen=True)
class Intent:
    """The transactions, in order, and then what HEAD says (as in RefSnapshot)."""

    repository_id: str
    name: str
    transactions: tuple[tuple[RefChange, ...], ...]
    head: str


@dataclass(frozen=True)
class Remaining:
    """What is left of an intent to do, in order, and which of its refs have another value than expected."""

    transactions: tuple[tuple[RefChange, ...], ...]
    misfits: tuple[RefChange, ...]


def needed(transactions: Transactions, *, head_moves: bool) -> bool:
    """Whether the change takes more than one rename of git's."""
    return sum(map(len, transactions)) + head_moves > 1


def remaining(intent: Intent, refs: Mapping[str, str]) -> Remaining:
    """What to do where the refs are `refs` now. Idempotent.

    A ref at neither its old nor its new value was changed by somebody else: it stays as it is.
    """
    misfits = [
        change
        for transaction in intent.transactions
        for change in transaction
        if refs.get(change.ref) not in {change.old, change.new}
    ]
    transactions = [
        tuple(
            change
            for change in transaction
            if refs.get(change.ref) == change.old and change.old != change.new
        )
        for transaction in intent.transactions
    ]
    return Remaining(tuple(filter(None, transactions)), tuple(misfits))


def undoing(intent: Intent, refs: Mapping[str, str]) -> Remaining:
    """What to do so that nothing of it is there, where the refs are `refs` now: the last comes first.

    A ref at its old value stays as it is, and so does one that somebody else has changed.
    """
    back = [
        tuple(
            RefChange(change.ref, change.new, change.old)
            for change in transaction
            if refs.get(change.ref) == change.new != change.old
        )
        for transaction in reversed(intent.transactions)
    ]
    return Remaining(tuple(filter(None, back)), ())


def encode(intent: Intent) -> bytes:
    """Its CRC-32, and the intent as JSON. Odd bytes of refs are escaped surrogates."""
    value = [
        intent.repository_id,
        intent.name,
        intent.head,
        [[[change.ref, change.old, change.new] for change in changes] for changes in intent.transactions],
    ]
    return checked_line(value)


def decode(content: bytes) -> Intent:
    """The reverse of `encode`.

    Raises:
        DamagedIntentError: it is not what was written.
    """
    try:
        value = read_checked_line(content[:-1] if content.endswith(b"\n") else b"")
    except ValueError as error:
        raise DamagedIntentError("its checksum does not fit") from error
    try:
        identity, name, head, transactions = value
        return Intent(
            identity,
            name,
            tuple(tuple(RefChange(*change) for change in changes) for changes in transactions),
            head,
        )
    except (ValueError, TypeError) as error:
        raise DamagedIntentError("it is of another version") from error
