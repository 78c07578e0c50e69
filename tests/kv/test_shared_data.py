"""Data of other writers after the same specification: read as it is, and taken over when written."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.git import git
from tests.support.kv import Kv
from tests.support.ledger import audit

# How encoders that escape less spell keys: RFC 3986's unreserved characters, and Go's url.PathEscape.
SPELLED = {"App.Name": "App.Name", "user:42": "user:42", "~x": "~x", "a/B": "a%2FB"}


def blob(served: Path, content: bytes) -> str:
    """Store it; its oid."""
    return git("--git-dir", served, "hash-object", "-w", "--stdin", given=content)


def commit(served: Path, ref: str, files: dict[str, str]) -> None:
    """A commit of these files, by plain git."""
    index = {"GIT_INDEX_FILE": str(served / "other-writer")}
    lines = "".join(f"100644 {oid}\t{path}\n" for path, oid in files.items()).encode()
    (served / "other-writer").unlink(missing_ok=True)
    script = f"GIT_INDEX_FILE={index['GIT_INDEX_FILE']} git --git-dir {served}"
    git("--git-dir", served, "config", "alias.kvindex", f"!{script} update-index --add --index-info")
    git("--git-dir", served, "config", "alias.kvtree", f"!{script} write-tree")
    git("--git-dir", served, "kvindex", given=lines)
    tree = git("--git-dir", served, "kvtree")
    oid = git("--git-dir", served, "commit-tree", tree, "-m", "another writer")
    git("--git-dir", served, "update-ref", ref, oid)


@pytest.fixture
def foreign(served: Path) -> Path:
    """`served` with values that another program wrote; one of them is chunked, one without meta."""
    ledger, index = {}, {}
    for key, name in SPELLED.items():
        value = blob(served, f"value of {key}".encode())
        digest = hashlib.sha256(key.encode()).hexdigest()
        shards = f"{digest[:2]}/{digest[2:4]}"
        ledger[f"kv/main/data/{shards}/{name}"] = value
        if key != "~x":
            meta = {"ctype": "text/plain", "ttl": "2999-01-01T00:00:00Z", "etag": "blake3:00", "extra": 1}
            ledger[f"kv/main/meta/{shards}/{name}.meta"] = blob(served, json.dumps(meta).encode())
        first, second = name[:2], name[2:4] or "_"
        if key == "a/B":
            first, second = "a%2F", "B"
        ref = {"v": 1, "key": key, "type": "inline", "ledger_blob": value, "manifest_blob": None, "size": 9}
        index[f"kv/main/index/{first}/{second}/{name}.ref"] = blob(served, json.dumps(ref).encode())
    digest = hashlib.sha256(b"big").hexdigest()
    ledger[f"kv/main/data/{digest[:2]}/{digest[2:4]}/big.manifest.json"] = blob(served, b"{}")
    chunked = {"v": 1, "key": "big", "type": "chunked", "manifest_blob": "0" * 40, "size": 7340032}
    index["kv/main/index/bi/g/big.ref"] = blob(served, json.dumps(chunked).encode())
    commit(served, "refs/kv/main", ledger)
    commit(served, "refs/kv-index/main", index)
    return served


def test_values_of_other_writers_are_read(kv: Kv, foreign: Path) -> None:
    """However they spell a key; with or without meta."""
    assert kv.ok("list").decode().split() == sorted([*SPELLED, "big"])
    for key in SPELLED:
        assert kv.ok("get", key) == f"value of {key}".encode()
        assert kv.ok("list", "--prefix", key[:2]).decode().split() == [key]
    assert kv.json("get", "App.Name")["etag"] == "blake3:00"
    assert kv.json("get", "~x")["ttl"] is None


def test_a_chunked_value_is_not_taken_for_missing(kv: Kv, foreign: Path) -> None:
    """It cannot be read here yet."""
    assert kv.fails(5, "get", "big") == "big has a chunked value, which this version cannot read"
    assert kv.fails(2, "set", "big", "v", "--expect", "absent").startswith("conflict: big was expected")
    kv.ok("set", "big", "small now")
    assert kv.ok("get", "big") == b"small now"
    assert "manifest" not in git("--git-dir", foreign, "ls-tree", "-r", "--name-only", "refs/kv/main")


def test_a_chunked_value_can_be_deleted(kv: Kv, foreign: Path) -> None:
    """Its chunks are not this program's business."""
    kv.ok("del", "big")
    assert kv.fails(1, "get", "big") == "no such key: big"


def test_a_key_moves_to_our_spelling_when_it_is_written(kv: Kv, foreign: Path) -> None:
    """And is nowhere twice; its history goes on."""
    for key in SPELLED:
        kv.ok("set", key, "new")
        assert kv.ok("get", key) == b"new"
        assert [change["op"] for change in kv.json("history", key)] == ["set", "set"]
    names = git("--git-dir", foreign, "ls-tree", "-r", "--name-only", "refs/kv/main").splitlines()
    names += git("--git-dir", foreign, "ls-tree", "-r", "--name-only", "refs/kv-index/main").splitlines()
    assert len(names) == 3 * len(SPELLED) + 2
    assert not [
        name for name in names if name.endswith(("App.Name", "App.Name.ref", "user:42.ref", "~x.ref"))
    ]


def test_a_key_of_another_writer_can_be_deleted(kv: Kv, foreign: Path) -> None:
    """Data, meta and all; only the index remembers."""
    kv.ok("del", *SPELLED)
    assert kv.ok("list") == b"big\n"
    assert kv.fails(1, "get", "App.Name") == "no such key: App.Name"
    refs = git("--git-dir", foreign, "ls-tree", "-r", "--name-only", "refs/kv-index/main").splitlines()
    assert len(refs) == len(SPELLED) + 1
    data = git("--git-dir", foreign, "ls-tree", "-r", "--name-only", "refs/kv/main").splitlines()
    assert len(data) == 1


def test_a_new_ledger_beside_it_is_as_strict_as_ever(kv: Kv, foreign: Path) -> None:
    """Another namespace has nothing of it."""
    kv.ok("set", "App.Name", "mine", "--ns", "own")
    assert audit(foreign, "own").values == {"App.Name": b"mine"}


def test_a_replace_ref_changes_no_value(kv: Kv) -> None:
    """An object is what its id says, whatever the user's repository and its config say of it."""
    kv.ok("set", "a", "good")
    kv.ok("set", "b", "evil")
    good, evil = (
        git("hash-object", "-w", "--stdin", cwd=kv.path, given=value) for value in (b"good", b"evil")
    )
    kv.git("replace", good, evil)
    kv.git("config", "core.useReplaceRefs", "true")
    assert kv.ok("get", "a").strip() == b"good"
