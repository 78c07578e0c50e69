"""The history of a key: the ledger's commits that changed it."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from stargate_gate.kv import git
from stargate_gate.kv.errors import NoSuchKeyError
from stargate_gate.kv.keys import Path, places
from stargate_gate.kv.snapshot import Snapshot
from stargate_gate.kv.store import Store

_COMMIT = "\x1e"
_FORMAT = _COMMIT + "%H%x1f%cI%x1f%an <%ae>%x1f%(trailers:key=KV-Txn,valueonly,separator=%x20)"
_NOTHING = "0"  # git shows an oid of zeros for a file that does not exist


class Change(NamedTuple):
    """A transaction that set or deleted the key."""

    commit: str
    txn: str
    op: Literal["set", "del"]
    oid: str | None  # of the value that was set
    when: str
    by: str


def history(store: Store, here: Snapshot, key: str) -> list[Change]:
    """The changes of a key, the newest first.

    Raises:
        NoSuchKeyError: it never had a value.
    """
    where = places(store.namespace, key)
    found = list(_changes(here, [*where.data, *where.manifest, *where.meta]))[::-1]
    if not found:
        raise NoSuchKeyError(f"no such key: {key} never had a value")
    return found


def _changes(here: Snapshot, paths: list[Path]) -> Iterator[Change]:
    """The changes, the oldest first."""
    if here.ledger is None:
        return
    said = git.output(
        "--literal-pathspecs", "log", "-z", "--raw", "--no-abbrev", "--no-renames", "--root", "--no-color",
        "--no-show-signature", "--no-notes", f"--format={_FORMAT}", here.ledger.oid, "--",
        *("/".join(part.decode() for part in path) for path in paths),
    )  # fmt: skip
    value: str | None = None
    for entry in reversed(said.decode("utf-8", "replace").split(_COMMIT)[1:]):
        head, *files = entry.strip("\0\n").split("\0")
        commit, when, by, txn = head.split("\x1f")
        value = _value(files, value)
        yield Change(commit, txn.strip(), "del" if value is None else "set", value, when, by)


def _value(files: list[str], before: str | None) -> str | None:
    """The value's oid after a commit; None if it was deleted.

    `files` has two items for each changed file: how it changed, and its path. If no file of data changed, the
    same value was set again. If two did, the file now has another of the spellings in keys.py.
    """
    pairs = zip(files[::2], files[1::2], strict=True)
    data = [what.split(" ")[3] for what, path in pairs if path.split("/")[2] == "data"]
    if not data:
        return before
    return next((oid for oid in data if oid.strip(_NOTHING)), None)
