"""Keys and their places, trees, packs, durations, names of transactions: the parts without I/O."""

import hashlib
import subprocess
import zlib
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stargate_gate.kv.durations import seconds
from stargate_gate.kv.errors import KvUsageError
from stargate_gate.kv.keys import check_key, check_namespace, places, unescape
from stargate_gate.kv.outcomes import Answer, Done, Outcome, of_fetch, of_push
from stargate_gate.kv.packs import NewObjects
from stargate_gate.kv.records import Commit, Meta, Ref
from stargate_gate.kv.snapshot import Snapshot
from stargate_gate.kv.trees import FILE, FOLDER, Changes, Entry, edit, lookup, note, parse, serialize
from stargate_gate.kv.ulid import ulid
from tests.support.git import git

KEYS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)


@given(KEYS)
@example("CON")
@example("..")
def test_a_name_says_its_key_and_means_nothing_else(key: str) -> None:
    """Any URL decoder reads it; it holds nothing that git or an operating system would take for something."""
    name = places("main", check_key(key)).data[0][-1].decode()
    assert unquote(name) == unescape(name.encode()) == key
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-%ABCDEF")


@given(KEYS, KEYS)
@example("Key", "key")
@example("straße", "STRASSE")
def test_two_keys_never_meet_on_a_disk_that_ignores_case(one: str, other: str) -> None:
    """Whole paths, folders of the index included."""
    if one != other:
        for mine, theirs in zip(places("main", one), places("main", other), strict=True):
            assert b"/".join(mine[0]).lower() != b"/".join(theirs[0]).lower()


def test_places_are_those_of_the_specification() -> None:
    """hh: of SHA-256(key); pp: of the key itself."""
    digest = hashlib.sha256(b"user:42").hexdigest()
    shards = (digest[:2].encode(), digest[2:4].encode())
    found = places("main", "user:42")
    assert found.data[0] == (b"kv", b"main", b"data", *shards, b"user%3A42")
    assert found.meta[0] == (b"kv", b"main", b"meta", *shards, b"user%3A42.meta")
    assert found.ref[0] == (b"kv", b"main", b"index", b"us", b"er", b"user%3A42.ref")


@pytest.mark.parametrize(
    ("key", "folders"),
    [
        ("a", (b"a", b"_")),
        ("ab", (b"ab", b"_")),
        ("abc", (b"ab", b"c")),
        ("abcd", (b"ab", b"cd")),
        ("äÖü", (b"%C3%A4%C3%96", b"%C3%BC")),
        ("..", (b"%2E%2E", b"_")),
        ("a/b", (b"a%2F", b"b")),
    ],
)
def test_short_keys_and_odd_ones_have_folders_in_the_index(key: str, folders: tuple[bytes, bytes]) -> None:
    """Two, never an empty one; pairs of characters, not of bytes."""
    assert places("main", key).ref[0][3:5] == folders


@given(KEYS)
def test_what_others_write_is_looked_for(key: str) -> None:
    """Python and RFC 3986, JavaScript, Go: each with the characters that it leaves as they are."""
    names = {path[-1] for path in places("main", key).data}
    for safe in ("-._~", "-._~!*'()", "-._~$&+=:@"):
        assert quote(key, safe=safe).encode() in names
    assert len(names) == len(places("main", key).data)


@pytest.mark.parametrize("name", ["main", "a", "a.b", "a-b_c", "0", "x" * 64, "a.locks"])
def test_names_of_namespaces(name: str) -> None:
    """What can be part of a ref on any disk."""
    assert check_namespace(name) == name
    git("check-ref-format", f"refs/kv/{name}")


@pytest.mark.parametrize(
    "name", ["", "A", "a/b", "a..b", "a.", ".a", "a.lock", "a.lock.b", "x" * 65, "a@b", "ä", "-a"]
)
def test_what_is_no_name_of_a_namespace(name: str) -> None:
    """Refused before git sees it. (`a.lock.b` could be one, and is refused with `a.lock`.)"""
    with pytest.raises(KvUsageError, match="bad namespace"):
        check_namespace(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("30s", 30),
        ("15m", 900),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("7d", 604800),
        ("2w", 1209600),
        ("1h5", 3605),
    ],
)
def test_durations(text: str, expected: float) -> None:
    """Units can be added up."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "1x", "h", "1 h", "1e3", "1h-5m", "1001w" * 60, "٣s"])
def test_what_is_no_duration(text: str) -> None:
    """Nothing, negative, without end, or no number."""
    with pytest.raises(KvUsageError, match="bad duration"):
        seconds(text)


def test_a_ulid_sorts_by_time_and_has_26_digits() -> None:
    """01ARZ3NDEKTSV4RRFFQ69G5FAV is the specification's example."""
    assert ulid(1469922850259, bytes(10))[:10] == "01ARZ3NDEK"
    assert ulid(0, bytes(10)) == "0" * 26
    assert ulid(2**48 - 1, b"\xff" * 10) == "7" + "Z" * 25
    assert ulid(1, bytes(10)) < ulid(2, bytes(10))


class Odb:
    """Objects in memory."""

    def __init__(self) -> None:
        self.objects = NewObjects("sha1")
        self.contents: dict[bytes, bytes] = {}
        self.loaded = 0

    def store(self, kind: str, content: bytes) -> bytes:
        """Keep it."""
        oid = self.objects.add(kind, content)
        self.contents[oid] = content
        return oid

    def load(self, oids: Collection[bytes]) -> dict[bytes, bytes]:
        """What was kept."""
        self.loaded += len(oids)
        return {oid: self.contents[oid] for oid in oids}


NAMES = st.sampled_from([b"a", b"b", b"a.b", b"a-b", b"c"])
FOLDERS = st.lists(st.sampled_from([b"x", b"x-", b"y"]), max_size=3)
PATHS = st.tuples(FOLDERS, NAMES).map(lambda pair: (*pair[0], pair[1]))


@given(
    st.lists(st.dictionaries(PATHS, st.none() | st.binary(min_size=20, max_size=20), min_size=1), max_size=4)
)
def test_edited_trees_hold_what_a_dictionary_would(
    steps: list[dict[tuple[bytes, ...], bytes | None]],
) -> None:
    """Any changes to any paths; trees are in git's order, and have no empty folders."""
    odb, root, model = Odb(), None, dict[tuple[bytes, ...], bytes]()
    for step in steps:
        changes: Changes = {}
        for path, oid in step.items():
            note(changes, path, None if oid is None else Entry(FILE, oid))
            if oid is None:
                model.pop(path, None)
            else:
                model[path] = oid
        root = edit(root, changes, odb.load, odb.store)
        assert {path: entry.oid for path, entry in lookup(root, [*model, *step], odb.load).items()} == model
        assert walk(root, odb) == model


def walk(oid: bytes, odb: Odb, above: tuple[bytes, ...] = ()) -> dict[tuple[bytes, ...], bytes]:
    """All files below a tree."""
    found = {}
    tree = parse(odb.contents[oid], 20)
    assert tree or not above, "an empty folder"
    assert serialize(tree) == odb.contents[oid]
    for name, entry in tree.items():
        below = walk(entry.oid, odb, (*above, name)) if entry.mode == FOLDER else {(*above, name): entry.oid}
        found.update(below)
    return found


def test_one_key_among_many_reads_few_trees() -> None:
    """Never all keys to set one."""
    odb = Odb()
    changes: Changes = {}
    for number in range(10_000):
        where = places("main", f"user:{number}")
        note(changes, where.data[0], Entry(FILE, bytes(20)))
    root = edit(None, changes, odb.load, odb.store)
    odb.loaded = 0
    one: Changes = {}
    note(one, places("main", "user:42").data[0], Entry(FILE, b"\1" * 20))
    edit(root, one, odb.load, odb.store)
    assert odb.loaded <= 6


@pytest.mark.parametrize("size", [0, 1, 15, 16, 99, 100, 2047, 2048, 70_000])
@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
def test_a_pack_is_what_git_reads(tmp_path: Path, hash_name: str, size: int) -> None:
    """Every way of writing a size, stored and deflated."""
    git("init", "-q", "--bare", f"--object-format={hash_name}", tmp_path)
    objects = NewObjects(hash_name)
    oid = objects.add("blob", b"x" * size).hex()
    objects.add("tree", serialize({b"name": Entry(FILE, bytes.fromhex(oid))}))
    subprocess.run(
        ["git", "index-pack", "--strict", "--stdin"],
        cwd=tmp_path,
        input=objects.pack(),
        capture_output=True,
        check=True,
    )
    assert git("cat-file", "blob", oid, cwd=tmp_path) == "x" * size


def test_small_objects_are_stored_as_zlib_reads_them() -> None:
    """RFC 1950 and 1951: also by other implementations than git's."""
    objects = NewObjects("sha1")
    objects.add("blob", b"hello")
    assert zlib.decompress(objects.pack()[13:-20]) == b"hello"


def test_meta_and_refs_come_back() -> None:
    """What is written is read; what others leave out is nothing."""
    meta = Meta("text/plain", None, "sha256:x", "a@b", "2026-01-01T00:00:00.000Z")
    assert Meta.parsed(meta.content(), "k") == meta
    assert Meta.parsed(b'{"ctype":null,"ttl":"2026-01-01T00:00:00Z"}', "k").ttl == "2026-01-01T00:00:00Z"
    ref = Ref("k", deleted=False, ledger_blob="a" * 40, size=3, ctype="text/plain")
    assert Ref.parsed(ref.content()) == ref


@pytest.mark.parametrize(
    ("ledger", "index", "agree"),
    [
        (None, None, True),
        ({"KV-Txn": "1"}, {"KV-Txn": "1"}, True),
        ({"KV-Txn": "1"}, {"KV-Txn": "2"}, False),
        ({"KV-Txn": "1"}, {}, True),
        ({}, {}, True),
        ({"KV-Txn": "1"}, None, False),
        (None, {"KV-Txn": "1"}, False),
    ],
)
def test_ledger_and_index_agree_by_their_transaction(
    ledger: dict[str, str] | None,
    index: dict[str, str] | None,
    agree: bool,  # noqa: FBT001
) -> None:
    """Writers that leave out the trailers are given the benefit of the doubt."""
    pair = [
        None if trailers is None else Commit("a" * 40, "b" * 40, trailers) for trailers in (ledger, index)
    ]
    assert Snapshot(*pair).agrees is agree


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "outcome"),
    [
        (0, "Done", "", Outcome.DONE),
        (1, "!\ta:b\t[rejected] (stale info)\n", "error: failed to push", Outcome.CONFLICT),
        (
            1,
            "!\ta:b\t[remote rejected] (cannot lock ref 'refs/kv/main': is at b)\n",
            "",
            Outcome.CONFLICT,
        ),
        (1, "!\ta:b\t[remote rejected] (failed to update ref)\n", "", Outcome.CONFLICT),
        (
            1,
            "!\ta:b\t[remote rejected] (not replicated in time; outcome unknown)\n",
            "",
            Outcome.UNKNOWN,
        ),
        (
            1,
            "!\ta:b\t[remote rejected] (leadership lost, not leader; outcome unknown)\n",
            "",
            Outcome.UNKNOWN,
        ),
        (
            1,
            "!\ta:b\t[remote rejected] (pre-receive hook declined)\n",
            "remote: not leader: x",
            Outcome.NOT_LEADER,
        ),
        (1, "!\ta:b\t[remote rejected] (pre-receive hook declined)\n", "remote: no", Outcome.REFUSED),
        (1, "!\ta:b\t[remote rejected] (unpacker error)\n", "", Outcome.UNKNOWN),
        (128, "", "fatal: remote error: not leader: node-b is a standby", Outcome.NOT_LEADER),
        (1, "", "not leader: b is stepping down; the outcome of this push is unknown", Outcome.UNKNOWN),
        (1, "", "not leader: b is stepping down; nothing was changed, push again", Outcome.NOT_LEADER),
        (128, "", "fatal: the remote end hung up unexpectedly", Outcome.UNKNOWN),
        (
            128,
            "",
            "ssh: connect to host x port 22: Connection refused\nfatal: Could not read",
            Outcome.UNKNOWN,
        ),
        (128, "", "git@x: Permission denied (publickey).\nfatal: Could not read", Outcome.REFUSED),
        (128, "", "fatal: remote error: not allowed: dev has read access", Outcome.REFUSED),
        (128, "", "fatal: the receiving end does not support --atomic push", Outcome.REFUSED),
    ],
)
def test_what_gits_words_mean_for_a_push(status: int, stdout: str, stderr: str, outcome: Outcome) -> None:
    """Only what is certain is a refusal or a conflict; everything else is tried again."""
    assert of_push(Done(status, stdout.encode(), stderr)).outcome is outcome


def test_silence_is_no_answer() -> None:
    """Whatever was said before."""
    assert of_push(Done(-15, b"", "fatal: not allowed", silent=True)) == Answer(Outcome.UNKNOWN, "no answer")
    assert of_fetch(Done(-15, b"", "", silent=True)) == Answer(Outcome.UNKNOWN, "no answer")
