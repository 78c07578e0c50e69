"""Many operations in one transaction: all of them, or none."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.git import git
from tests.support.kv import Kv


def lines(*operations: object) -> bytes:
    """A JSONL file's bytes."""
    return b"".join(json.dumps(operation).encode() + b"\n" for operation in operations)


def test_all_of_it_is_one_commit_in_ledger_and_index(kv: Kv, served: Path) -> None:
    """Text, base64, a file, and deletions, in their order."""
    kv.ok("set", "old", "1")
    (kv.path / "file").write_bytes(b"\0\1")
    batch = kv.path / "batch.jsonl"
    batch.write_bytes(
        lines(
            {"op": "set", "key": "text", "value": "ä", "ctype": "text/plain"},
            {"op": "set", "key": "bytes", "value_b64": base64.b64encode(b"\xff").decode()},
            {"op": "set", "key": "file", "file": "file", "ttl": "1h"},
            {"op": "del", "key": "old"},
            {"op": "set", "key": "twice", "value": "1"},
            {"op": "set", "key": "twice", "value": "2", "ctype": None},
            {"op": "set", "key": "brief", "value": "1"},
            {"op": "del", "key": "brief"},
        )
        + b"\n"
    )
    written = kv.json("mset", "--file", "batch.jsonl")
    assert kv.ok("list").split() == [b"bytes", b"file", b"text", b"twice"]
    values = {"text": "ä".encode(), "bytes": b"\xff", "file": b"\0\1", "twice": b"2"}
    assert {key: kv.ok("get", key) for key in values} == values
    assert sorted(written["oids"]) == sorted(values)
    assert kv.json("get", "text")["ctype"] == "text/plain"
    assert kv.json("get", "file")["ttl"]
    for ref in ("refs/kv/main", "refs/kv-index/main"):
        assert git("--git-dir", served, "rev-list", "--count", ref) == "2"
    message = git("--git-dir", served, "log", "-1", "--format=%B", "refs/kv/main")
    assert "Keys-Set: 4\nKeys-Del: 2" in message


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        (b"{", 64, "line 2: no JSON"),
        (b"[]", 64, "line 2: no JSON object"),
        (b'{"op":"get","key":"k"}', 64, 'line 2: "op" is \'get\'; write "set" or "del"'),
        (b'{"op":"set","value":"v"}', 64, 'line 2: "key" is missing'),
        (b'{"op":"set","key":"k"}', 64, "line 2: write one of 'value', 'value_b64' and 'file'"),
        (b'{"op":"set","key":"k","value":"v","file":"f"}', 64, "line 2: write one of"),
        (b'{"op":"set","key":"k","value":1}', 64, "line 2: 'value' has to be a text"),
        (b'{"op":"set","key":"k","value_b64":"*"}', 64, "line 2: 'value_b64' is no base64"),
        (b'{"op":"set","key":"k","value":"\\ud800"}', 64, "line 2: 'value' is no UTF-8"),
        (b'{"op":"set","key":"k","vlaue":"v"}', 64, "line 2: unknown field 'vlaue' for 'set'"),
        (b'{"op":"set","key":"","value":"v"}', 4, "line 2: bad key: "),
        (b'{"op":"set","key":"k","value":"v","ttl":"x"}', 64, "line 2: bad duration: "),
        (b'{"op":"set","key":"k","file":"nowhere"}', 5, "nowhere: No such file"),
        (b'{"op":"del","key":"k"}', 1, "no such key: k"),
        (b'{"op":"set","key":"k","value":"v","expect":"' + b"a" * 40 + b'"}', 2, "conflict: k was expected"),
    ],
)
def test_a_line_that_cannot_be_done_undoes_all(kv: Kv, line: bytes, status: int, said: str) -> None:
    """Whatever is wrong with it."""
    given = lines({"op": "set", "key": "first", "value": "1"}) + line
    assert kv.fails(status, "mset", "--file", "-", given=given).startswith(said)
    assert kv.ok("list") == b""


def test_nothing_to_do_is_no_transaction(kv: Kv, served: Path) -> None:
    """An empty file."""
    kv.ok("mset", "--file", "-")
    assert kv.json("mset", "--file", "-")["commit"] is None
    assert git("--git-dir", served, "for-each-ref") == ""


def test_a_thousand_keys_at_once(kv: Kv, new_client: Callable[..., Kv], served: Path) -> None:
    """More than is unpacked to loose objects; then half of them again, and the others away."""
    keys = [f"user:{number:04}" for number in range(1000)]
    kv.ok("mset", "--file", "-", given=lines(*({"op": "set", "key": key, "value": key} for key in keys)))
    again = [{"op": "set", "key": key, "value": "new"} for key in keys[:500]]
    gone = [{"op": "del", "key": key} for key in keys[500:]]
    other = new_client()
    other.ok("mset", "--file", "-", given=lines(*again, *gone))
    assert kv.ok("list").decode().split() == keys[:500]
    assert kv.ok("get", keys[0]) == b"new"
    assert "error" not in git("--git-dir", served, "fsck", "--strict")
