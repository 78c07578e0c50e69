"""set, get, del and list: what they print, what they exit with, and what they leave alone."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.git import git
from tests.support.kv import Kv


def test_a_value_comes_back_byte_for_byte(kv: Kv) -> None:
    """`get` writes the value's bytes and nothing else."""
    value = bytes(range(256)) + b"\n\0\r\n"
    kv.ok("set", "k", "-", given=value)
    assert kv.ok("get", "k") == value
    kv.ok("set", "k", "text without newline")
    assert kv.ok("get", "k") == b"text without newline"
    kv.ok("set", "k", "")
    assert kv.ok("get", "k") == b""


def test_a_value_can_come_from_a_file(kv: Kv) -> None:
    """@FILE, from the current directory."""
    (kv.path / "value").write_bytes(b"\xff\0")
    kv.ok("set", "k", "@value")
    assert kv.ok("get", "k") == b"\xff\0"
    assert "absent.file: No such file" in kv.fails(5, "set", "k", "@absent.file")


def test_a_key_that_was_never_set_or_was_deleted_is_1(kv: Kv) -> None:
    """For `get` and for `del`."""
    assert kv.fails(1, "get", "k") == "no such key: k"
    assert kv.fails(1, "del", "k") == "no such key: k"
    kv.ok("set", "k", "v")
    kv.ok("del", "k")
    assert kv.fails(1, "get", "k") == "no such key: k"
    assert kv.ok("list") == b""
    kv.ok("set", "k", "again")
    assert kv.ok("get", "k") == b"again"


def test_del_of_several_keys_is_all_or_nothing(kv: Kv) -> None:
    """One that is missing keeps the others."""
    kv.ok("set", "a", "1")
    kv.ok("set", "b", "2")
    assert kv.fails(1, "del", "a", "c", "b") == "no such key: c"
    assert kv.ok("list") == b"a\nb\n"
    kv.ok("del", "a", "b", "a")
    assert kv.ok("list") == b""


def test_list_is_sorted_and_takes_a_prefix_of_any_length(kv: Kv) -> None:
    """By the bytes of the keys; prefixes that end inside a pair, too."""
    keys = ["a", "ab", "abc", "abcd", "abcde", "abd", "b", "B", "ä", "äö:ü", "ab/", "ab_", "ab__", "_", "a b"]
    lines = [json.dumps({"op": "set", "key": key, "value": key}) for key in keys]
    kv.ok("mset", "--file", "-", given="\n".join(lines).encode())
    for prefix in ["", "a", "ab", "abc", "abcd", "abcde", "abcdef", "ä", "äö", "äö:", "_", "ab_", "B", "a "]:
        expected = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)
        assert kv.ok("list", "--prefix", prefix).decode().splitlines() == expected, prefix


@pytest.mark.parametrize(
    "key", ["", "x" * 513, "a\nb", "a\x7f", "a\u0085", b"\xff".decode(errors="surrogateescape")]
)
def test_what_is_no_key_is_4(kv: Kv, key: str) -> None:
    """1 to 512 bytes of UTF-8 without control characters; nothing is asked of the remote."""
    for command in (["get", key], ["set", key, "v"], ["del", key], ["history", key]):
        assert kv.fails(4, *command).startswith("bad key: ")


@pytest.mark.parametrize(
    "key", ["x" * 512, "ü" * 256, ".", "..", ".git", "GIT~1", "a/b", "/", "con", "-", "\u200d", "%41", "😀"]
)
def test_odd_keys_are_keys(kv: Kv, served: Path, key: str) -> None:
    """Nothing that git, a disk or a shell thinks of a name matters; fsck is content."""
    kv.ok("set", "--", key, "v")
    assert kv.ok("get", "--", key) == b"v"
    assert kv.ok("list").decode() == f"{key}\n"
    assert "error" not in git("--git-dir", served, "fsck", "--strict")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["frobnicate"],
        ["get"],
        ["set", "k"],
        ["get", "k", "--ns", "Bad"],
        ["get", "k", "--ns", "a..b"],
        ["get", "k", "--ns", "a.lock"],
        ["get", "k", "--remote", "nowhere"],
        ["set", "k", "v", "--ttl", "soon"],
        ["set", "k", "v", "--ttl", "0"],
        ["set", "k", "v", "--expect", "abc"],
        ["del", "a", "b", "--expect", "a" * 40],
        ["get", "k", "--timeout", "x"],
    ],
)
def test_what_cannot_be_meant_is_64(kv: Kv, args: list[str]) -> None:
    """Usage errors."""
    assert kv.run(*args).returncode == 64


def test_a_value_over_64_mib_is_refused(kv: Kv) -> None:
    """64 MiB are inline, one byte more is not taken."""
    limit = 64 * 1024 * 1024
    assert "the limit is 67108864 (64 MiB)" in kv.fails(64, "set", "k", "-", given=bytes(limit + 1))
    kv.ok("set", "k", "-", given=bytes(limit))
    assert kv.ok("get", "k") == bytes(limit)


def test_a_value_expires(kv: Kv, new_client: Callable[..., Kv]) -> None:
    """An expired key is 7 for `get`, and not there for `list`; a reader enforces it, not the server."""
    kv.ok("set", "k", "v", "--ttl", "1h")
    until = datetime.fromisoformat(kv.json("get", "k")["ttl"])
    assert timedelta(minutes=59) < until - datetime.now(UTC) <= timedelta(hours=1)
    kv.ok("set", "gone", "v", "--ttl", "0.001s")
    assert kv.fails(7, "get", "gone").startswith("expired: gone was valid until ")
    assert new_client().ok("list") == b"k\n"
    assert [key["key"] for key in kv.json("list")] == ["k"]
    kv.ok("set", "gone", "back")
    assert kv.ok("get", "gone") == b"back"


def test_json_tells_what_is_known_of_a_value(kv: Kv) -> None:
    """One object for `get`; `oid` is git's, so it can be checked."""
    written = kv.json("set", "k", "v", "--ctype", "text/plain")
    found = kv.json("get", "k")
    assert found["value"] == "v"
    assert found["ctype"] == "text/plain"
    assert found["oid"] == written["oids"]["k"] == git("hash-object", "--stdin", cwd=kv.path, given=b"v")
    assert found["created_by"] == "test@example.org"
    assert found["etag"] == "sha256:4c94485e0c21ae6c41ce1dfe7b6bfaceea5ab68e40a2476f50208e526f506080"
    assert kv.json("list") == [
        {"key": "k", "oid": found["oid"], "size": 1, "ctype": "text/plain", "ttl": None}
    ]
    kv.ok("set", "k", "-", given=b"\xff")
    assert kv.json("get", "k")["value_b64"] == "/w=="


def test_namespaces_do_not_see_each_other(kv: Kv) -> None:
    """Each has refs of its own."""
    kv.ok("set", "k", "1")
    kv.ok("--ns", "other.one", "set", "k", "2")
    assert kv.ok("get", "k", "--ns", "main") == b"1"
    assert kv.ok("get", "--ns", "other.one", "k") == b"2"
    kv.ok("del", "k")
    assert kv.ok("list", "--ns", "other.one") == b"k\n"


def test_another_remote_can_be_named(kv: Kv, tmp_path: Path) -> None:
    """--remote NAME; what is kept here of one is not taken for the other's."""
    git("init", "-q", "--bare", tmp_path / "second.git")
    kv.git("remote", "add", "second", str(tmp_path / "second.git"))
    kv.ok("set", "k", "1")
    assert kv.fails(1, "get", "k", "--remote", "second") == "no such key: k"
    kv.ok("set", "k", "2", "--remote", "second")
    assert kv.ok("get", "k") == b"1"
    assert kv.ok("get", "k", "--remote", "second") == b"2"


def test_offline_reads_what_is_here(kv: Kv, new_client: Callable[..., Kv], served: Path) -> None:
    """The last fetch; and in a repository that serves others, its own refs."""
    other = new_client()
    kv.ok("set", "k", "1")
    assert other.fails(1, "get", "k", "--offline") == "no such key: k"
    assert other.ok("get", "k") == b"1"
    kv.ok("set", "k", "2")
    assert other.ok("get", "k", "--offline") == b"1"
    assert other.ok("list", "--offline") == b"k\n"
    assert Kv(served).ok("get", "k", "--offline") == b"2"
    served.rename(served.with_name("gone"))
    assert other.ok("get", "k", "--offline") == b"1"
    assert "does not appear to be a git repository" in other.fails(5, "get", "k", "--timeout", "1")


def test_it_works_in_a_bare_repository(new_client: Callable[..., Kv]) -> None:
    """There is no checkout at any time."""
    bare = new_client(bare=True)
    bare.ok("set", "k", "v")
    assert bare.ok("get", "k") == b"v"


def test_it_works_in_a_mirror_clone(kv: Kv, served: Path, tmp_path: Path) -> None:
    """`git clone --mirror` makes a remote of a peculiar kind."""
    kv.ok("set", "k", "v")
    git("clone", "-q", "--mirror", served, tmp_path / "mirror.git")
    mirror = Kv(tmp_path / "mirror.git")
    assert mirror.ok("get", "k", "--offline") == b"v"
    mirror.ok("set", "k", "w")
    assert kv.ok("get", "k") == b"w"


def test_it_works_with_sha256(tmp_path: Path) -> None:
    """In repositories of the other object format."""
    git("init", "-q", "--bare", "--object-format=sha256", tmp_path / "served.git")
    git("init", "-q", "--object-format=sha256", tmp_path / "client")
    kv = Kv(tmp_path / "client")
    kv.git("remote", "add", "origin", str(tmp_path / "served.git"))
    kv.ok("set", "k", "v")
    kv.ok("set", "k2", "v2")
    assert kv.ok("get", "k") == b"v"
    assert len(kv.json("list")[0]["oid"]) == 64
    assert "error" not in git("--git-dir", tmp_path / "served.git", "fsck", "--strict")


def test_index_work_tree_and_fetch_head_are_left_alone(kv: Kv) -> None:
    """Whatever the user is in the middle of."""
    (kv.path / "staged").write_text("staged")
    kv.git("add", "staged")
    (kv.path / ".git" / "FETCH_HEAD").write_text("the user's")
    before = kv.git("status", "--porcelain", "-uall")
    kv.ok("set", "k", "v")
    kv.ok("get", "k")
    kv.ok("del", "k")
    assert kv.git("status", "--porcelain", "-uall") == before == "A  staged"
    assert (kv.path / ".git" / "FETCH_HEAD").read_text() == "the user's"
    assert kv.git("for-each-ref", "--format=%(refname)").split() == [
        "refs/kv-remotes/origin/main/index",
        "refs/kv-remotes/origin/main/ledger",
    ]


def test_outside_a_repository_is_5(tmp_path: Path) -> None:
    """With git's own words."""
    assert "not a git repository" in Kv(tmp_path).fails(5, "get", "k")


def test_history_tells_of_every_change_the_newest_first(kv: Kv) -> None:
    """Also of one that set the same value again; old values can be read by their oid."""
    assert kv.fails(1, "history", "k") == "no such key: k never had a value"
    kv.ok("set", "k", "1")
    kv.ok("set", "other", "1")
    kv.ok("set", "k", "1", "--ctype", "text/plain")
    kv.ok("del", "k")
    last = kv.json("set", "k", "2")
    found = kv.json("history", "k")
    assert [change["op"] for change in found] == ["set", "del", "set", "set"]
    assert [change["oid"] and kv.git("cat-file", "blob", change["oid"]) for change in found] == [
        "2",
        None,
        "1",
        "1",
    ]
    assert (found[0]["commit"], found[0]["txn"]) == (last["commit"], last["txn"])
    lines = kv.ok("history", "k", "--offline").decode().splitlines()
    assert [line.split()[2] for line in lines] == ["set", "del", "set", "set"]
    assert lines[0].startswith(last["commit"])
    assert lines[0].endswith(" Test <test@example.org>")
