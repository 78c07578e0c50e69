"""Very many new refs in packed-refs: git reads them as its own, and nothing that is there is touched."""

from pathlib import Path

import pytest

from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.packed import PackedRef, PackedRefsError, add_packed_refs
from stargate_gate.repos.plan import BATCH_REFS, PACKED_FROM, RefChange, steps
from tests.support.git import git, make_work
from tests.support.room import Room


@pytest.fixture(params=["sha1", "sha256"])
async def path(room: Room, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    work = make_work(tmp_path / "work", commits=2, object_format=request.param)
    repository = await room.store.create(RepositoryName("a"), object_format=request.param)
    git("fetch", "-q", work, "+HEAD:refs/heads/main", cwd=repository.path)
    git("tag", "-a", "-m", "annotated", "v1", "main", cwd=repository.path)
    return repository.path


def refs(path: Path) -> str:
    return git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", cwd=path)


async def test_git_reads_them_as_its_own(path: Path) -> None:
    """In git's order, with tags peeled; so it still is when git has written the file itself."""
    tip, tag = git("rev-parse", "main", "v1", cwd=path).split()
    before = refs(path)
    names = [b"refs/changes/%02d/%d" % (number % 7, number) for number in range(50)]
    names += [b"refs/heads/main-2", b"refs/heads/\xff\xfe", b"refs/heads/a.b", "refs/heads/é".encode()]
    added = {name: PackedRef(tip) for name in names} | {b"refs/tags/v2": PackedRef(tag, tip)}
    add_packed_refs(path, added)
    after = refs(path)
    assert set(before.splitlines()) < set(after.splitlines())
    assert len(after.splitlines()) == len(before.splitlines()) + len(added)
    assert f"refs/tags/v2 {tag} {tip}" in after
    git("pack-refs", "--all", cwd=path)
    assert refs(path) == after
    add_packed_refs(path, {b"refs/heads/later": PackedRef(tip)})
    assert "refs/heads/later" in refs(path)
    assert git("fsck", "--full", "--no-dangling", cwd=path) == ""
    assert not list(path.glob("packed-refs.*"))


@pytest.mark.parametrize(
    "name", [b"refs/heads/main", b"refs/heads/main/below", b"refs/heads", b"refs/tags/v1/x", b"refs/packed"]
)
async def test_what_is_in_the_way_is_said(path: Path, name: bytes) -> None:
    """A ref of that name, or one where a folder would be, loose or packed: nothing is written."""
    git("update-ref", "refs/packed", "main", cwd=path)
    git("pack-refs", "--all", cwd=path)
    git("update-ref", "refs/heads/main", "main~1", cwd=path)
    before, content = refs(path), (path / "packed-refs").read_bytes()
    with pytest.raises(PackedRefsError, match="in the way"):
        add_packed_refs(path, {name: PackedRef(git("rev-parse", "main", cwd=path))})
    assert refs(path) == before
    assert (path / "packed-refs").read_bytes() == content
    assert not (path / "packed-refs.lock").exists()


async def test_a_lock_of_somebody_else_is_left_to_them(path: Path) -> None:
    """git is at work there: not now."""
    lock = path / "packed-refs.lock"
    lock.touch()
    with pytest.raises(PackedRefsError, match="somebody else"):
        add_packed_refs(path, {b"refs/x/y": PackedRef(git("rev-parse", "main", cwd=path))})
    assert lock.exists()


async def test_a_damaged_file_is_not_taken_over(path: Path) -> None:
    """What cannot be read is not written anew as if it were empty."""
    (path / "packed-refs").write_bytes(b"\0" * 300)
    with pytest.raises(PackedRefsError, match="damaged"):
        add_packed_refs(path, {b"refs/x/y": PackedRef("1" * 40)})
    assert (path / "packed-refs").read_bytes() == b"\0" * 300


def test_no_step_is_long_and_new_refs_come_last() -> None:
    """Deletions and updates in transactions of bounded size, very many new refs as one file."""
    moved = [RefChange(f"refs/a/{number}", "1", "2") for number in range(BATCH_REFS + 1)]
    new = [RefChange(f"refs/b/{number}", None, "2") for number in range(PACKED_FROM)]
    made = list(steps([*new, *moved]))
    assert [len(step.changes) for step in made] == [BATCH_REFS, 1, PACKED_FROM]
    assert [step.packed for step in made] == [False, False, True]
    few = list(steps([*new[1:], *moved[:5]]))
    assert [step.packed for step in few] == [False]
    assert list(steps([])) == []
