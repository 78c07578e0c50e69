"""Applies operations to a ledger and an index, as one transaction. Pure.

`prepare` makes all new objects in memory, including both commits. The caller stores and pushes them.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias

from stargate_gate.kv.errors import ConflictError, KvUsageError, NoSuchKeyError
from stargate_gate.kv.keys import Path, places
from stargate_gate.kv.packs import NewObjects
from stargate_gate.kv.records import Commit, Meta, Ref, commit, message
from stargate_gate.kv.snapshot import Snapshot
from stargate_gate.kv.trees import FILE, Changes, Entry, edit, lookup, note

MAX_VALUE_BYTES = 64 * 1024 * 1024  # larger values would have to be split into chunks
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
ABSENT = "absent"  # as an expectation: the key has no value, or one that has expired
SET_BEFORE = "set before"  # by an earlier operation of the same transaction
NONE = "-"  # the value of a trailer that has none


class Put(NamedTuple):
    """Give a key a value. `expires` is an RFC 3339 time, `expect` an oid or ABSENT."""

    key: str
    value: bytes
    ctype: str
    expires: str | None = None
    expect: str | None = None


class Drop(NamedTuple):
    """Delete a key. `expect` as in `Put`."""

    key: str
    expect: str | None = None


Operation: TypeAlias = Put | Drop


class Writer(NamedTuple):
    """Who writes, and when; author and committer as git-var(1) gives them."""

    author: str
    committer: str
    email: str
    now: datetime
    created_at: str


@dataclass(frozen=True)
class Prepared:
    """A transaction that is ready to be stored and pushed."""

    txn: str
    base: Snapshot
    ledger: Commit
    index: Commit
    objects: NewObjects
    values: Mapping[str, str]  # the values' oids, by key


def check_expected(text: str | None) -> str | None:
    """Returns `text`, the value of --expect, if it is a whole object id, "absent" or None.

    Raises:
        KvUsageError
    """
    if text is None or text == ABSENT or _OID.fullmatch(text):
        return text
    raise KvUsageError(f"bad --expect: {text!r} is neither a whole object id nor {ABSENT!r}")


def checked(operations: Iterable[Operation]) -> list[Operation]:
    """Returns `operations` as a list if no value is too large.

    Raises:
        KvUsageError
    """
    found = list(operations)
    for operation in found:
        if isinstance(operation, Put) and len(operation.value) > MAX_VALUE_BYTES:
            raise KvUsageError(
                f"the value of {operation.key!r} is {len(operation.value)} bytes long; "
                f"the limit is {MAX_VALUE_BYTES} (64 MiB)"
            )
    return found


class Source(Protocol):
    """Reads objects; objects.Reader implements it."""

    def trees(self, oids: Collection[bytes]) -> Mapping[bytes, bytes]:
        """Trees' contents, by oid."""

    def blob(self, oid: bytes) -> bytes:
        """A blob's content."""


class State(NamedTuple):
    """The state of a namespace that a transaction is applied to."""

    namespace: str
    base: Snapshot
    source: Source
    hash_name: str  # "sha1" or "sha256"

    def values(self, keys: Iterable[str]) -> dict[str, str]:
        """The oids of the values of `keys`, including expired ones and manifests."""
        found_at = {key: places(self.namespace, key) for key in keys}
        paths = {path: key for key, where in found_at.items() for path in (*where.data, *where.manifest)}
        found = lookup(self.base.ledger_root, paths, self.source.trees)
        return {paths[path]: entry.oid.hex() for path, entry in found.items()}

    def expired(self, keys: Iterable[str], now: datetime) -> set[str]:
        """Those of `keys` whose values have expired."""
        paths = {path: key for key in keys for path in places(self.namespace, key).meta}
        found = lookup(self.base.ledger_root, paths, self.source.trees)
        return {
            paths[path]
            for path, entry in found.items()
            if Meta.parsed(self.source.blob(entry.oid), paths[path]).expired(now)
        }


def prepare(state: State, txn: str, operations: Sequence[Operation], writer: Writer) -> Prepared:
    """Apply `operations` to `state` in their order, as the transaction of that name.

    Raises:
        NoSuchKeyError: an operation deletes a key that has no value at that point.
        ConflictError: a key is not what was expected.
    """
    _check(state, operations, writer.now)
    objects = NewObjects(state.hash_name)
    last = {operation.key: operation for operation in operations}
    in_ledger: Changes = {}
    in_index: Changes = {}
    values: dict[str, str] = {}
    for key, operation in last.items():
        data, meta, ref = _files(operation, writer, objects)
        if data is not None:
            values[key] = data.hex()
        where = places(state.namespace, key)
        _replace(in_ledger, where.data, data)
        _replace(in_ledger, where.manifest, None)
        _replace(in_ledger, where.meta, meta)
        _replace(in_index, where.ref, ref)
    trees = (
        edit(state.base.ledger_root, in_ledger, state.source.trees, objects.add).hex(),
        edit(state.base.index_root, in_index, state.source.trees, objects.add).hex(),
    )
    ledger, index = _commits(state, txn, list(last.values()), writer, trees)
    return Prepared(
        txn=txn,
        base=state.base,
        ledger=Commit.parsed(objects.add("commit", ledger).hex(), ledger),
        index=Commit.parsed(objects.add("commit", index).hex(), index),
        objects=objects,
        values=values,
    )


def _files(
    operation: Operation, writer: Writer, objects: NewObjects
) -> tuple[bytes | None, bytes | None, bytes]:
    """The new oids of data, meta data and index ref of one key."""
    if isinstance(operation, Drop):
        ref = Ref(operation.key, deleted=True, ledger_blob=None, size=0, ctype=None)
        return None, None, objects.add("blob", ref.content())
    value = operation.value
    etag = f"sha256:{hashlib.sha256(value).hexdigest()}"
    meta = Meta(operation.ctype, operation.expires, etag, writer.email, writer.created_at)
    data = objects.add("blob", value)
    ref = Ref(operation.key, deleted=False, ledger_blob=data.hex(), size=len(value), ctype=operation.ctype)
    return data, objects.add("blob", meta.content()), objects.add("blob", ref.content())


def _replace(changes: Changes, paths: Sequence[Path], oid: bytes | None) -> None:
    """Set `oid` at the path in our spelling, and remove the paths in other spellings."""
    for path in paths[1:]:
        note(changes, path, None)
    note(changes, paths[0], None if oid is None else Entry(FILE, oid))


def _check(state: State, operations: Sequence[Operation], now: datetime) -> None:
    """Check each operation against the state that the operations before it leave."""
    asking = {op.key for op in operations if isinstance(op, Drop) or op.expect is not None}
    here: dict[str, str | None] = {**state.values(asking)}
    expired = state.expired({op.key for op in operations if op.expect is not None and op.key in here}, now)
    for operation in operations:
        key, oid = operation.key, here.get(operation.key)
        if operation.expect is not None:
            _check_expected(key, operation.expect, None if key in expired else oid, state.base)
        if isinstance(operation, Drop) and oid is None:
            raise NoSuchKeyError(f"no such key: {key}")
        here[key] = None if isinstance(operation, Drop) else SET_BEFORE
        expired.discard(key)


def _check_expected(key: str, expected: str, oid: str | None, base: Snapshot) -> None:
    if expected == ABSENT and oid is None:
        return
    ledger = () if base.ledger is None else (base.ledger.oid, base.ledger.tree)
    if expected not in {oid, *ledger}:
        raise ConflictError(f"conflict: {key} was expected to be {expected}, but is {oid or ABSENT}")


def _commits(
    state: State, txn: str, operations: Sequence[Operation], writer: Writer, trees: tuple[str, str]
) -> tuple[bytes, bytes]:
    """The contents of the ledger's and of the index's commit; each names the other's tree."""
    base = state.base
    puts = [op.key for op in operations if isinstance(op, Put)]
    drops = [op.key for op in operations if isinstance(op, Drop)]
    name = {"KV-NS": state.namespace, "KV-Txn": txn}
    for_ledger: dict[str, str | int] = {
        **name,
        "Base-Tree": base.ledger.tree if base.ledger is not None else NONE,
        "KV-Index-Tree": trees[1],
        "Keys-Set": len(puts),
        "Keys-Del": len(drops),
    }
    for_index: dict[str, str | int] = {**name, "KV-Ledger-Tree": trees[0]}
    subject = _subject(puts, drops)
    ledger, index = (
        commit(
            tree=tree,
            parent=None if parent is None else parent.oid,
            author=writer.author,
            committer=writer.committer,
            message=message(subject, trailers),
        )
        for tree, parent, trailers in (
            (trees[0], base.ledger, for_ledger),
            (trees[1], base.index, for_index),
        )
    )
    return ledger, index


def _subject(puts: Sequence[str], drops: Sequence[str]) -> str:
    parts = [
        f"{word} {keys[0] if len(keys) == 1 else f'{len(keys)} keys'}"
        for word, keys in (("set", puts), ("del", drops))
        if keys
    ]
    return "kv: " + (", ".join(parts) or "nothing")
