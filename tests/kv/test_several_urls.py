"""Several pushurls: one takes pushes, the others may be behind; what is decided is decided by the one."""

from pathlib import Path

import pytest

from tests.support.git import git
from tests.support.kv import Kv, make_clone

# Stands in for ssh: a host is a folder; a host that does not lead refuses pushes as a Stargate node does.
SSH = """\
#!/bin/sh
cd "$(dirname "$0")/hosts" || exit 255
while [ "$1" = -o ] || [ "$1" = -p ]; do shift 2; done
host=${1#*@}
case $2 in *receive-pack*) [ ! -f "$host/refuses" ] || { cat "$host/refuses" >&2; exit 9; } ;; esac
cd "$host" && exec sh -c "$2"
"""


@pytest.fixture
def kv(tmp_path: Path) -> Kv:
    """A client of `behind`, a standby that has missed a transaction, and of `leads`, in this order."""
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    for host in ("behind", "leads"):
        git("init", "-q", "--bare", tmp_path / "hosts" / host / "state.git")
    env = {"GIT_SSH_COMMAND": str(ssh), "GIT_SSH_VARIANT": "simple"}
    writer = make_clone(tmp_path / "writer", "leads:state.git", env=env)
    writer.ok("set", "old", "1")
    git(
        "--git-dir",
        tmp_path / "hosts/behind/state.git",
        "fetch",
        "-q",
        tmp_path / "hosts/leads/state.git",
        "+refs/*:refs/*",
    )
    refuse(tmp_path, "behind", "not leader: behind is a standby; the leader is leads")
    writer.ok("set", "new", "1")
    writer.ok("set", "old", "2")
    return make_clone(tmp_path / "client", "behind:state.git", "leads:state.git", env=env)


def refuse(folder: Path, host: str, line: str) -> None:
    """From now on."""
    (folder / "hosts" / host / "refuses").write_text(f"{line}\n")


def test_reads_are_not_behind_what_was_acknowledged(kv: Kv) -> None:
    """The first URL answers fetches, and is not believed."""
    assert kv.ok("get", "old") == b"2"
    assert kv.ok("list") == b"new\nold\n"
    assert kv.ok("get", "new") == b"1"


def test_decisions_are_not_made_on_an_old_state(kv: Kv) -> None:
    """`del` and --expect."""
    kv.ok("del", "new")
    assert kv.fails(2, "set", "old", "3", "--expect", "absent").startswith("conflict: ")
    assert kv.fails(1, "del", "new") == "no such key: new"


def test_who_may_not_push_reads_from_whoever_answers(kv: Kv, tmp_path: Path) -> None:
    """Nobody says who leads then."""
    for host in ("behind", "leads"):
        refuse(tmp_path, host, "stargate: not allowed: reader has read access and may not push")
    assert kv.ok("get", "old") == b"1"
    assert "not allowed" in kv.fails(5, "set", "old", "3")


def test_without_a_leader_reads_go_on_when_the_time_is_over(kv: Kv, tmp_path: Path) -> None:
    """And writes are 9."""
    refuse(tmp_path, "leads", "not leader: leads is a standby; no leader is known yet, try again")
    assert kv.ok("get", "old", "--timeout", "1") == b"1"
    assert kv.fails(9, "del", "old", "--timeout", "1").startswith("not leader: ")


def test_the_server_names_no_host_that_is_followed(kv: Kv, tmp_path: Path) -> None:
    """Only configured URLs: a refusal names another host that would take the push."""
    git("init", "-q", "--bare", tmp_path / "hosts" / "trap" / "state.git")
    for host in ("behind", "leads"):
        refuse(tmp_path, host, "not leader: the leader is trap at ssh://git@trap/state.git")
    assert "trap" in kv.fails(9, "set", "old", "3", "--timeout", "1")
    assert git("--git-dir", tmp_path / "hosts/trap/state.git", "for-each-ref") == ""
