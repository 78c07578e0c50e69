"""What `get`, `list` and `history` read: a snapshot from the remote, or with --offline the local copy."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from stargate_gate.kv.errors import ExpiredError, KvError, NoSuchKeyError
from stargate_gate.kv.keys import PAIR, index_root, may_hold, places, unescape
from stargate_gate.kv.outcomes import Outcome, failure, telling
from stargate_gate.kv.pace import Pace
from stargate_gate.kv.records import Meta, Ref
from stargate_gate.kv.snapshot import Snapshot
from stargate_gate.kv.store import Store
from stargate_gate.kv.trees import FOLDER, Entry, lookup, parse


class Value(NamedTuple):
    """A key's value with its meta data."""

    key: str
    oid: str
    content: bytes
    meta: Meta


class Listed(NamedTuple):
    """A key that has a value."""

    key: str
    oid: str
    size: int
    ctype: str | None
    expires: str | None


def snapshot(store: Store, pace: Pace, *, offline: bool) -> Snapshot:
    """The remote's refs as they are now; with `offline`, the local copy.

    Of several URLs, the one that accepts pushes is read, because the others may be behind. If none accepts
    pushes before the time is over, or this user may not push, any URL that answers is read.

    Raises:
        GaveUpError, KvError: the remote could not be read in time.
    """
    if offline:
        return store.local()
    urls = store.remote.urls
    if len(urls) > 1 and (found := _of_leader(store, pace)) is not None:
        return found
    while True:
        answers = []
        for url in urls:
            answer, found = store.fetch(url, pace)
            if answer.outcome is Outcome.DONE:
                return found
            answers.append(answer)
        answer = telling(answers)
        if answer.outcome is Outcome.REFUSED or pace.over():
            hint = "; --offline reads what is here"
            raise failure(answer, f"{answer.reason}; gave up after {pace.timeout_s:g} s{hint}")
        pace.pause()


def _of_leader(store: Store, pace: Pace) -> Snapshot | None:
    """The refs of the URL that accepts pushes. None if no URL does in time, or all refuse this user."""
    while not pace.over():
        outcomes = set()
        for url in store.remote.urls:
            answer, found = store.fetch_leading(url, pace)
            if answer.outcome is Outcome.DONE:
                return found
            outcomes.add(answer.outcome)
        if outcomes == {Outcome.REFUSED}:
            return None
        pace.pause()
    return None


def get(store: Store, here: Snapshot, key: str) -> Value:
    """The value of `key`.

    Raises:
        NoSuchKeyError, ExpiredError
        KvError: another writer has stored it in a way that is not supported here.
    """
    reader = store.reader
    data, meta, _, manifests = places(store.namespace, key)
    found = lookup(here.ledger_root, {*data, *meta, *manifests}, reader.trees)
    entry = next((found[path] for path in data if path in found), None)
    if entry is None:
        if any(path in found for path in manifests):
            raise KvError(f"{key} has a chunked value, which this version cannot read")
        raise NoSuchKeyError(f"no such key: {key}")
    about = next((found[path] for path in meta if path in found), None)
    known = Meta.parsed(None if about is None else reader.blob(about.oid), key)
    if known.expired(datetime.now(UTC)):
        raise ExpiredError(f"expired: {key} was valid until {known.ttl}")
    return Value(key, entry.oid.hex(), reader.blob(entry.oid), known)


def keys(store: Store, here: Snapshot, prefix: str) -> list[Listed]:
    """The keys that begin with `prefix` and have a value that has not expired, sorted by their UTF-8.

    Raises:
        KvError
    """
    blobs = [entry.oid for entry in _refs(store, here, prefix)]
    refs = [Ref.parsed(content) for content in store.reader.blobs(blobs)]
    refs = [ref for ref in refs if not ref.deleted and ref.key.startswith(prefix)]
    refs.sort(key=lambda ref: ref.key.encode(errors="surrogateescape"))
    expiries = _expiries(store, here, [ref.key for ref in refs])
    now = datetime.now(UTC)
    return [
        Listed(ref.key, ref.ledger_blob or "", ref.size, ref.ctype, meta.ttl)
        for ref in refs
        if not (meta := expiries[ref.key]).expired(now)
    ]


def _refs(store: Store, here: Snapshot, prefix: str) -> Iterator[Entry]:
    """The files of the index that may point to a key with that prefix."""
    root = index_root(store.namespace)
    top = lookup(here.index_root, [root], store.reader.trees).get(root)
    folders = [] if top is None else [top.oid]
    for pair in (prefix[:PAIR], prefix[PAIR : 2 * PAIR]):
        folders = [
            entry.oid
            for content in store.reader.trees(folders).values()
            for name, entry in parse(content, len(folders[0])).items()
            if entry.mode == FOLDER and may_hold(name, pair)
        ]
    for content in store.reader.trees(folders).values():
        for name, entry in parse(content, len(folders[0])).items():
            if unescape(name).startswith(prefix):
                yield entry


def _expiries(store: Store, here: Snapshot, wanted: Sequence[str]) -> dict[str, Meta]:
    """The meta data of each key from the ledger: the index does not say when a value expires."""
    paths = {path: key for key in wanted for path in places(store.namespace, key).meta}
    found = lookup(here.ledger_root, paths, store.reader.trees)
    contents = store.reader.blobs(entry.oid for entry in found.values())
    metas = {
        paths[path]: Meta.parsed(content, paths[path]) for path, content in zip(found, contents, strict=True)
    }
    nothing = Meta.parsed(None, "")
    return {key: metas.get(key, nothing) for key in wanted}
