"""Objects that a push may bring: what git itself calls broken is refused, old history is not."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stargate_gate.repos.git import HARMLESS
from tests.gate.conftest import Node, git, work_tree
from tests.gate.receive_pack import EMPTY_PACK, ZERO, commands

AUTHOR = b"A <a@example.org> 1700000000 +0000"
MISSING = "1234567890" * 4


@pytest.fixture
async def tree(node: Node) -> Path:
    """A work tree whose main the node has."""
    tree = work_tree(node.root / "tree")
    pushed = await node.git("push", "-q", node.url(), "main", cwd=tree)
    assert pushed.status == 0, pushed
    return tree


def put(tree: Path, kind: str, content: bytes) -> str:
    """Store an object as it is, however broken; its id."""
    return git("hash-object", "-t", kind, "-w", "--stdin", "--literally", cwd=tree, stdin=content).strip()


def entry(mode: str, name: str, oid: str) -> bytes:
    """One line of a tree."""
    return f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid)


def commit_of(tree: Path, tree_oid: str, author: bytes = AUTHOR, committer: bytes = AUTHOR) -> str:
    """A commit with these lines."""
    content = f"tree {tree_oid}\n".encode() + b"author " + author + b"\ncommitter " + committer + b"\n\nx\n"
    return put(tree, "commit", content)


def padded(tree: Path, blob: str, below: str) -> str:
    return commit_of(tree, put(tree, "tree", entry("100644", "a", blob) + entry("040000", "b", below)))


def by(author: bytes) -> Callable[[Path, str, str], str]:
    """A commit of an author whose line is that."""
    return lambda tree, blob, _: commit_of(tree, put(tree, "tree", entry("100644", "a", blob)), author)


def of(*entries: tuple[str, str]) -> Callable[[Path, str, str], str]:
    """A commit of a tree with entries of these modes and names, which all are one file."""
    return lambda tree, blob, _: commit_of(
        tree, put(tree, "tree", b"".join(entry(mode, name, blob) for mode, name in entries))
    )


OLD = {
    "zeroPaddedFilemode": padded,
    "badTimezone": by(b"A <a@example.org> 1700000000 +051800"),
    "missingSpaceBeforeDate": by(b"A <a@example.org>1700000000 +0000"),
    "missingSpaceBeforeEmail": by(b"A<a@example.org> 1700000000 +0000"),
    "missingEmail": by(b"A 1700000000 +0000"),
    "missingNameBeforeEmail": by(b"<a@example.org> 1700000000 +0000"),
    "badName": by(b"A> <a@example.org> 1700000000 +0000"),
    "badEmail": by(b"A <a@example.org 1700000000 +0000"),
    "badDate": by(b"A <a@example.org> never +0000"),
    "badDateOverflow": by(b"A <a@example.org> 18446744073709551617 +0000"),
    "zeroPaddedDate": by(b"A <a@example.org> 01700000000 +0000"),
}
BROKEN = {
    "duplicateEntries": of(("100644", "a"), ("100644", "a")),
    "hasDotgit": of(("100644", ".git")),
    "hasDotdot": of(("100644", "..")),
    "fullPathname": of(("100644", "a/b")),
    "treeNotSorted": of(("100644", "b"), ("100644", "a")),
    "gitmodulesSymlink": of(("120000", ".gitmodules")),
}


async def push(node: Node, tree: Path, make: Callable[[Path, str, str], str]) -> tuple[int, str]:
    """Push a commit that `make` makes, as refs/heads/made."""
    blob = put(tree, "blob", b"content\n")
    oid = make(tree, blob, put(tree, "tree", entry("100644", "a", blob)))
    done = await node.git("push", "-f", node.url(), f"{oid}:refs/heads/made", cwd=tree)
    return done.status, done.stderr


@pytest.mark.parametrize("message", sorted(HARMLESS))
async def test_old_history_is_taken(node: Node, tree: Path, message: str) -> None:
    """Git's check reports it, but nobody can change old history. Each message of the list is accepted."""
    status, said = await push(node, tree, OLD[message])
    assert status == 0, said
    assert message not in said
    checked = subprocess.run(
        ["git", "fsck", "--strict"], cwd=node.path(), capture_output=True, timeout=60, check=False
    )
    assert message.encode() in checked.stderr + checked.stdout  # it is what it is meant to be


@pytest.mark.parametrize("message", BROKEN)
async def test_what_misleads_a_clone_is_refused(node: Node, tree: Path, message: str) -> None:
    """With git's name of the problem. A repository that must have it can be configured to accept it."""
    status, said = await push(node, tree, BROKEN[message])
    assert status == 1
    assert message in said
    assert list(node.refs()) == ["refs/heads/main"]
    git("config", f"receive.fsck.{message}", "ignore", cwd=node.path())
    status, said = await push(node, tree, BROKEN[message])
    assert status == 0, said


async def test_a_push_says_nothing_of_the_check(node: Node, tree: Path) -> None:
    """No warning of names that git does not know."""
    status, said = await push(node, tree, OLD["badTimezone"])
    assert status == 0
    assert "remote:" not in said
    assert "warning" not in said


def raw(tree: Path, oid: str, ref: str, *objects: str) -> bytes:
    """A push by hand, of a pack with just these objects."""
    pack = EMPTY_PACK
    if objects:
        pack = subprocess.run(
            ["git", "pack-objects", "-q", "--stdout"], cwd=tree, input="\n".join([*objects, ""]).encode(),
            capture_output=True, check=True, timeout=60,
        ).stdout  # fmt: skip
    return commands("report-status", [f"{ZERO} {oid} {ref}"]) + pack


async def test_replace_refs_hide_nothing_from_gits_checks(node: Node, tree: Path) -> None:
    """A commit whose tree is missing is refused, although a replace ref leads to one that is whole."""
    main = git("rev-parse", "main", cwd=tree).strip()
    broken = commit_of(tree, MISSING)
    done = await node.ssh("git-receive-pack", "'org/app'", stdin=raw(tree, main, f"refs/replace/{broken}"))
    assert f"ok refs/replace/{broken}" in done.stdout
    done = await node.ssh("git-receive-pack", "'org/app'", stdin=raw(tree, broken, "refs/heads/bad", broken))
    assert "ng refs/heads/bad" in done.stdout
    assert "refs/heads/bad" not in node.refs()


async def test_replace_refs_change_nothing_that_is_read(node: Node, tree: Path) -> None:
    """`archive --remote` gives main's own files, whatever the repository's config says; pushes go on."""
    git("config", "core.useReplaceRefs", "true", cwd=node.path())
    evil = work_tree(node.root / "evil", "evil")
    main = git("rev-parse", "main", cwd=tree).strip()
    done = await node.git("push", node.url(), f"main:refs/replace/{main}", cwd=evil)
    assert done.status == 0, done
    archive = await node.git("archive", f"--remote={node.url()}", "-o", "main.tar", "main")
    assert archive.status == 0, archive
    listed = subprocess.run(
        ["tar", "tf", node.root / "main.tar"], capture_output=True, check=True, timeout=60
    ).stdout
    assert listed == b"README\n"
    done = await node.ssh(
        "git-receive-pack", "'org/app'", stdin=raw(tree, main, "refs/replace/" + "0" * 39 + "1")
    )
    assert "ok " in done.stdout
    head = git("commit-tree", "main^{tree}", "-p", main, "-m", "more", cwd=tree).strip()
    done = await node.git("push", node.url(), f"{head}:refs/heads/main", cwd=tree)
    assert done.status == 0, done
