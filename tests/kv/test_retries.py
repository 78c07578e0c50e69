"""Pushes that are refused, that break off after they were applied, that are never answered."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.git import git
from tests.support.kv import Kv
from tests.support.ledger import audit


def hook(served: Path, name: str, script: str) -> None:
    """A hook of the served repository; `once` in it is true the first time only."""
    path = served / "hooks" / name
    path.write_text(f"#!/bin/sh\nonce() {{ mkdir {served}/once-{name} 2>/dev/null; }}\n{script}\n")
    path.chmod(0o755)


def test_a_push_that_was_applied_and_not_answered_is_not_applied_again(kv: Kv, served: Path) -> None:
    """The connection dies behind the refs' move: the same commits are pushed again, and are there."""
    kv.ok("set", "k", "0")
    hook(served, "post-receive", "once && kill -9 $PPID; exit 0")
    written = kv.json("set", "k", "1")
    assert (served / "once-post-receive").exists()
    found = audit(served)
    assert (len(found.txns), found.txns[-1]) == (2, written["txn"])
    assert kv.ok("get", "k") == b"1"


def test_it_is_found_below_what_others_wrote_meanwhile(
    kv: Kv, new_client: Callable[..., Kv], served: Path
) -> None:
    """By its KV-Txn: the refs have moved on, and what was written then stays on top."""
    other = new_client()
    kv.ok("set", "k", "0")
    rival = f"cd {other.path} && env -u GIT_DIR -u GIT_QUARANTINE_PATH git kv set k rival"
    hook(served, "post-receive", f"once && {{ {rival}; kill -9 $PPID; }}; exit 0")
    written = kv.json("set", "k", "1")
    found = audit(served)
    assert len(found.txns) == 3
    assert found.txns[1] == written["txn"]
    assert found.values["k"] == b"rival"
    assert written["commit"] == git("--git-dir", served, "rev-parse", "refs/kv/main^")
    assert written["oids"]["k"] == git("hash-object", "--stdin", cwd=kv.path, given=b"1")


def test_a_deletion_that_was_applied_is_not_reported_as_missing(kv: Kv, served: Path) -> None:
    """The key is gone because of this very command."""
    kv.ok("set", "k", "0")
    hook(served, "post-receive", "once && kill -9 $PPID; exit 0")
    kv.ok("del", "k")
    assert len(audit(served).txns) == 2


def test_a_remote_that_does_not_answer_is_asked_again(kv: Kv, served: Path) -> None:
    """After a silence of some seconds; what was applied in silence counts."""
    kv.ok("set", "k", "0")
    hook(served, "post-receive", "once && exec sleep 1000; exit 0")
    kv.ok("set", "k", "1", "--timeout", "60s")
    found = audit(served)
    assert len(found.txns) == 2
    assert found.values["k"] == b"1"


def test_without_an_answer_the_outcome_is_unknown_and_said_so(kv: Kv, served: Path) -> None:
    """The transaction's name is told, so that it can be looked for."""
    kv.ok("set", "k", "0")
    hook(served, "post-receive", "exec sleep 1000")
    line = kv.fails(5, "set", "k", "1", "--timeout", "1")
    assert "gave up after 1 s: outcome unknown, look for transaction " in line
    assert audit(served).txns[-1] == line.rpartition(" ")[2]


def test_not_leader_is_waited_out(kv: Kv, served: Path) -> None:
    """A node that does not lead now may lead in a moment."""
    hook(served, "pre-receive", 'once && { echo "not leader: node-b is a standby" >&2; exit 9; }; exit 0')
    kv.ok("set", "k", "1")
    assert kv.ok("get", "k") == b"1"


def test_not_leader_for_too_long_is_9(kv: Kv, served: Path) -> None:
    """With the node's own line."""
    hook(served, "pre-receive", 'echo "not leader: node-b is a standby" >&2; exit 9')
    line = kv.fails(9, "set", "k", "1", "--timeout", "1")
    assert line == "not leader: node-b is a standby; gave up after 1 s"
    assert git("--git-dir", served, "for-each-ref") == ""


def test_a_refusal_for_good_is_told_at_once(kv: Kv, served: Path) -> None:
    """A hook's veto is 5, and not tried again."""
    hook(served, "pre-receive", f'echo x >> {served}/tries; echo "keys need a ticket" >&2; exit 1')
    line = kv.fails(5, "set", "k", "1")
    assert line == "[remote rejected] (pre-receive hook declined): keys need a ticket"
    assert (served / "tries").read_text() == "x\n"


def test_a_rival_makes_it_begin_again(kv: Kv, new_client: Callable[..., Kv], served: Path) -> None:
    """Another transaction lands between reading and writing: both are kept, in that order."""
    other = new_client()
    other.ok("set", "other", "0")
    kv.ok("set", "mine", "0")
    other.ok("set", "other", "1")
    kv.ok("set", "mine", "1")
    other.ok("del", "other")
    assert audit(served).values == {"mine": b"1"}
    assert len(audit(served).txns) == 5


def test_a_key_of_a_stale_copy_is_looked_for_at_the_remote(kv: Kv, new_client: Callable[..., Kv]) -> None:
    """`del` and --expect do not believe what was fetched yesterday."""
    other = new_client()
    assert other.fails(1, "del", "k") == "no such key: k"
    oid = kv.json("set", "k", "1")["oids"]["k"]
    other.ok("set", "k", "2", "--expect", oid)
    kv.ok("del", "k")
    assert other.fails(1, "del", "k") == "no such key: k"
    assert other.fails(2, "set", "k", "3", "--expect", oid).startswith("conflict: k was expected to be ")


def test_the_ledger_itself_can_be_expected(kv: Kv, new_client: Callable[..., Kv]) -> None:
    """Nothing at all may have changed since that commit."""
    commit = kv.json("set", "k", "1")["commit"]
    commit = kv.json("set", "k", "2", "--expect", commit)["commit"]
    new_client().ok("set", "elsewhere", "1")
    assert kv.fails(2, "set", "k", "3", "--expect", commit).startswith("conflict: ")
    assert kv.ok("get", "k") == b"2"


def test_a_ledger_that_was_reset_is_followed(kv: Kv, served: Path) -> None:
    """What is kept here of a remote is a copy, and nobody has to throw it away by hand."""
    kv.ok("set", "a", "1")
    for ref in ("refs/kv/main", "refs/kv-index/main"):
        git("--git-dir", served, "update-ref", "-d", ref)
    assert kv.ok("list") == b""
    kv.ok("set", "b", "1")
    assert audit(served).values == {"b": b"1"}


def test_a_ledger_without_its_index_is_not_written_to(kv: Kv, served: Path) -> None:
    """Another writer left it like that: an index of some of the keys would be worse than none."""
    kv.ok("set", "k", "1")
    git("--git-dir", served, "update-ref", "-d", "refs/kv-index/main")
    assert "refs/kv-index/main" in kv.fails(5, "set", "k", "2", "--timeout", "1")
    assert "refs/kv-index/main" in kv.fails(5, "list", "--timeout", "1")


def test_both_refs_move_or_neither(kv: Kv, served: Path) -> None:
    """The index cannot be locked: the ledger stays as well."""
    kv.ok("set", "k", "1")
    (served / "refs" / "kv-index" / "main.lock").touch()
    assert "refs/kv-index/main.lock" in kv.fails(2, "set", "k", "2", "--timeout", "1")
    assert kv.ok("get", "k") == b"1"
    assert len(audit(served).txns) == 1


def test_the_users_own_hooks_and_settings_do_not_get_in_the_way(kv: Kv) -> None:
    """A pre-push hook is about branches; so are these settings."""
    (kv.path / ".git/hooks/pre-push").write_text("#!/bin/sh\nexit 1\n")
    (kv.path / ".git/hooks/pre-push").chmod(0o755)
    for name, value in {
        "push.followTags": "true", "fetch.prune": "true", "remote.origin.mirror": "true",
        "push.default": "nothing", "remote.origin.fetch": "+refs/*:refs/*", "fetch.writeCommitGraph": "true",
        "core.pager": "false", "log.showSignature": "true", "diff.renames": "copies", "color.ui": "always",
        "i18n.logOutputEncoding": "latin1", "log.mailmap": "true", "core.quotePath": "true",
    }.items():  # fmt: skip
        kv.git("config", name, value)
    kv.ok("set", "ä", "ö")
    assert kv.ok("get", "ä") == "ö".encode()
    assert [change["op"] for change in kv.json("history", "ä")] == ["set"]
    assert kv.git("for-each-ref", "--format=%(refname)").split() == [
        "refs/kv-remotes/origin/main/index",
        "refs/kv-remotes/origin/main/ledger",
    ]


def test_who_has_no_name_is_told(kv: Kv) -> None:
    """A commit has an author; git's own words say what to do."""
    names = {f"GIT_{who}_{what}": "" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    ended = kv.run("set", "k", "1", **names)
    assert ended.returncode == 5
    assert b"git kv: git var failed: " in ended.stderr


@pytest.mark.parametrize("url", ["ssh://git@127.0.0.1:1/x", "/nowhere/x.git", "ext::sh -c false"])
def test_a_remote_that_cannot_be_reached_is_5(kv: Kv, url: str) -> None:
    """One line, and what is here can still be read."""
    kv.ok("set", "k", "1")
    kv.git("remote", "set-url", "origin", url)
    assert kv.fails(5, "set", "k", "2", "--timeout", "1")
    assert "--offline" in kv.fails(5, "get", "k", "--timeout", "1") or not url.startswith("ssh")
    assert json.loads(kv.ok("get", "k", "--offline")) == 1
