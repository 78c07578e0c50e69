"""An auditor of git-kv data: reads it with plain git and knows nothing of the product's code."""

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote


@dataclass(frozen=True)
class Audit:
    """What a namespace holds: the value of each key, and the transactions, the oldest first."""

    values: dict[str, bytes]
    txns: list[str]


def audit(repository: Path, namespace: str = "main") -> Audit:
    """Check everything that has to hold for a ledger and its index.

    Raises:
        AssertionError: something does not.
    """
    ledger, index = f"refs/kv/{namespace}", f"refs/kv-index/{namespace}"
    if not _git(repository, "for-each-ref", ledger, index):
        return Audit({}, [])
    txns = _check_commits(_commits(repository, ledger), _commits(repository, index), namespace)
    fsck = subprocess.run(
        ["git", "--git-dir", str(repository), "fsck", "--strict", "--no-dangling", "--no-progress"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert fsck.returncode == 0, fsck.stderr
    assert "error" not in fsck.stderr, fsck.stderr
    return Audit(_check_trees(repository, ledger, index, namespace), txns)


@dataclass(frozen=True)
class _Commit:
    tree: str
    parents: list[str]
    trailers: dict[str, str]


def _commits(repository: Path, ref: str) -> list[_Commit]:
    said = _git(repository, "log", "--reverse", "--format=%T%x1f%P%x1f%(trailers:only,unfold)%x1e", ref)
    found = []
    for record in said.split("\x1e")[:-1]:
        tree, parents, trailers = record.strip("\n").split("\x1f")
        pairs = dict(line.split(": ", 1) for line in trailers.strip().splitlines())
        found.append(_Commit(tree, parents.split(), pairs))
    return found


def _check_commits(ledger: list[_Commit], index: list[_Commit], namespace: str) -> list[str]:
    """Both are linear, and the commits of one belong to those of the other."""
    assert len(ledger) == len(index)
    before = "-"
    for number, (one, other) in enumerate(zip(ledger, index, strict=True)):
        assert len(one.parents) == len(other.parents) == (1 if number else 0), "not linear"
        assert one.trailers["KV-Txn"] == other.trailers["KV-Txn"]
        assert one.trailers["KV-NS"] == other.trailers["KV-NS"] == namespace
        assert one.trailers["Base-Tree"] == before
        assert one.trailers["KV-Index-Tree"] == other.tree
        assert other.trailers["KV-Ledger-Tree"] == one.tree
        assert int(one.trailers["Keys-Set"]) + int(one.trailers["Keys-Del"]) > 0
        before = one.tree
    txns = [commit.trailers["KV-Txn"] for commit in ledger]
    assert len(set(txns)) == len(txns), "a transaction was applied twice"
    return txns


def _check_trees(repository: Path, ledger: str, index: str, namespace: str) -> dict[str, bytes]:
    """Index and ledger agree, key by key; names are where and what they should be."""
    data, metas, refs = {}, {}, {}
    for path, oid in {**_files(repository, ledger), **_files(repository, index)}.items():
        root, name, part, first, second, file = path.split("/")
        assert (root, name) == ("kv", namespace)
        assert file == file.lower() or "%" in file
        suffix = {"data": "", "meta": ".meta", "index": ".ref"}[part]
        key = unquote(file.removesuffix(suffix), errors="strict")
        if part == "index":
            assert (unquote(first), unquote(second)) == (key[:2], key[2:4] or "_")
            refs[key] = json.loads(_blob(repository, oid))
        else:
            digest = hashlib.sha256(key.encode()).hexdigest()
            assert (first, second) == (digest[:2], digest[2:4])
            (data if part == "data" else metas)[key] = oid
    assert data.keys() == metas.keys() == {key for key, ref in refs.items() if ref["type"] == "inline"}
    values = {key: _blob(repository, oid) for key, oid in data.items()}
    for key, ref in refs.items():
        meta = json.loads(_blob(repository, metas[key])) if key in metas else {"ctype": None}
        assert ref == {
            "v": 1,
            "key": key,
            "type": "inline" if key in data else "deleted",
            "ledger_blob": data.get(key),
            "size": len(values.get(key, b"")),
            "ctype": meta["ctype"],
        }
        if key in data:
            assert set(meta) == {"ctype", "ttl", "etag", "created_by", "created_at"}
            assert meta["etag"] == f"sha256:{hashlib.sha256(values[key]).hexdigest()}"
    return values


def _files(repository: Path, ref: str) -> dict[str, str]:
    said = _git(repository, "ls-tree", "-r", "-z", "--format=%(objectname) %(path)", ref)
    return {path: oid for oid, _, path in (line.partition(" ") for line in said.split("\0") if line)}


def _blob(repository: Path, oid: str) -> bytes:
    return subprocess.run(
        ["git", "--git-dir", str(repository), "cat-file", "blob", oid],
        capture_output=True, timeout=60, check=True,
    ).stdout  # fmt: skip


def _git(repository: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "--git-dir", str(repository), *args], capture_output=True, timeout=120, check=True
    )
    return done.stdout.decode()
