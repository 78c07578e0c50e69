"""Repositories come, are found, and go, whole."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.datadir.files import fsync_dir
from stargate_gate.errors import (
    BrokenRepositoryError,
    UnavailableError,
    UsageError,
)
from stargate_gate.repos import folders
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from stargate_gate.repos.repository import read_head, read_object_format
from stargate_gate.repos.store import Store
from tests.support.git import bare_copy, git
from tests.support.room import Room, entries, names

APP = RepositoryName("org/app")
A = RepositoryName("a")


# --- making -----------------------------------------------------------------------------------


async def test_a_new_repository_is_bare_empty_and_ours(room: Room) -> None:
    """HEAD at the default branch, our hooks, a random id, no sample files."""
    repository = await room.store.create(APP)
    assert repository.path == room.datadir.repositories / "org/app.git"
    assert read_head(repository.path) == "ref: refs/heads/main"
    assert git("rev-parse", "--is-bare-repository", cwd=repository.path) == "true"
    assert git("config", "core.hooksPath", cwd=repository.path) == str(room.datadir.hooks)
    assert len(repository.id()) == 32
    assert not (repository.path / "hooks").exists()
    assert (await room.store.create(A)).id() != repository.id()
    assert await names(room.store) == ["a", "org/app"]
    git("fsck", cwd=repository.path)


async def test_format_head_and_id_can_be_those_of_another_node(room: Room) -> None:
    """A mirror makes the same repository."""
    repository = await room.store.create(
        A, object_format="sha256", head="ref: refs/heads/ä\udcff", id="0" * 32
    )
    assert (read_object_format(repository.path), repository.id()) == ("sha256", "0" * 32)
    assert git("rev-parse", "--show-object-format", cwd=repository.path) == "sha256"
    assert read_head(repository.path) == "ref: refs/heads/ä\udcff"
    for number, head in enumerate(["ref: refs/heads/x\nevil", "0" * 40, "ref: ../x", ""]):
        other = await room.store.create(RepositoryName(f"b{number}"), head=head)
        assert read_head(other.path) == "ref: refs/heads/main"
    with pytest.raises(UsageError, match="sha1 or sha256"):
        await room.store.create(RepositoryName("c"), object_format="md5")


async def test_twenty_at_once_get_one_repository(room: Room) -> None:
    """One of them made it; nothing half-made is left."""
    async with asyncio.timeout(30):
        results = await asyncio.gather(*(room.store.ensure(APP) for _ in range(20)))
    assert len({repository.id() for repository, _ in results}) == 1
    assert sum(created for _, created in results) == 1
    assert entries(room.datadir.repositories) == ["org"]


async def test_two_stores_on_one_disk_cannot_make_the_same(room: Room) -> None:
    """Without a common lock the rename decides; the loser is told."""
    stores = [Store(room.datadir, room.processes, default_branch="main", trash_days=1) for _ in range(4)]
    results = await asyncio.gather(*(store.create(A) for store in stores), return_exceptions=True)
    assert sum(isinstance(result, UsageError) for result in results) == 3
    assert entries(room.datadir.repositories) == ["a.git"]


async def test_making_one_that_is_there_is_an_error_and_ensuring_is_none(room: Room) -> None:
    """In each spelling."""
    first = await room.store.create(APP)
    with pytest.raises(UsageError, match="already"):
        await room.store.create(parse_repository_name("/org/app.git"))
    assert await room.store.ensure(APP) == (first, False)


async def test_a_cancelled_creation_leaves_the_whole_or_nothing(room: Room) -> None:
    """At any moment."""
    for number in range(60):
        name = RepositoryName(f"deep/er/r{number}")
        task = asyncio.create_task(room.store.create(name))
        await asyncio.wait({task}, timeout=number * 0.0005)
        task.cancel()
        await asyncio.wait({task})
        found = room.store.find(name)
        assert found is None or found.id()
        assert not list(room.datadir.repositories.glob(".new-*"))
    assert not list(room.datadir.writers.iterdir())


async def test_it_is_on_disk_before_it_is_there(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder and file of it is synced before the rename, and its new parents after."""
    events: list[tuple[str, str]] = []
    sync, rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        events.append(("fsync", str(Path(f"/proc/self/fd/{fd}").readlink())))
        sync(fd)

    def renamed(self: Path, target: Path) -> Path:
        events.append(("rename", str(target)))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    repository = await room.store.create(APP)
    moved = events.index(("rename", str(repository.path)))
    before = {Path(path).name for kind, path in events[:moved] if kind == "fsync"}
    assert {"refs", "heads", "objects", "pack", "info"} <= before
    assert any(path.startswith(".HEAD.") for path in before)
    after = [path for kind, path in events[moved:] if kind == "fsync"]
    assert str(room.datadir.repositories / "org") in after
    assert str(room.datadir.repositories) in [path for kind, path in events if kind == "fsync"]


async def test_names_that_clash_with_what_is_there_are_clear_errors(room: Room, work: Path) -> None:
    """A file or a repository where a folder would be; something else where the repository would be."""
    root = room.datadir.repositories
    bare_copy(work, root / "old")
    (root / "file").write_text("x")
    (root / "b.git").write_text("x")
    (root / "half.git/objects").mkdir(parents=True)
    for raw in ("old/sub", "old/refs/heads", "file/x"):
        for attempt in (room.store.ensure, room.store.create, room.store.require):
            with pytest.raises(UsageError, match="choose another name"):
                await attempt(parse_repository_name(raw))
    with pytest.raises(UsageError, match="already"):
        await room.store.create(parse_repository_name("b"))
    for attempt in (room.store.ensure, room.store.create, room.store.require):
        with pytest.raises(BrokenRepositoryError, match="half cannot be served: it has no HEAD"):
            await attempt(parse_repository_name("half"))
    await room.store.create(RepositoryName("old2"))
    await room.store.create(RepositoryName("old2/below"))  # a folder beside old2.git
    assert await names(room.store) == ["old", "old2", "old2/below"]
    assert not list(root.glob(".new-*"))


async def test_making_and_deleting_in_one_folder_never_fails(room: Room) -> None:
    """The folder that becomes empty and the one that is needed are the same."""

    async def churn(number: int) -> None:
        for _ in range(8):
            await room.store.create(RepositoryName(f"x/y/r{number}"))
            await room.store.delete(RepositoryName(f"x/y/r{number}"))

    await asyncio.gather(*(churn(number) for number in range(4)))
    assert list(room.datadir.repositories.iterdir()) == []


async def test_a_folder_that_vanishes_meanwhile_is_made_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator's rmdir just then costs a second attempt."""
    removed: list[Path] = []

    def sync(path: Path) -> None:
        fsync_dir(path)
        if path == room.datadir.repositories and not removed:
            removed.append(path / "org")
            removed[0].rmdir()

    monkeypatch.setattr(folders, "fsync_dir", sync)
    await room.store.create(APP)
    assert removed
    assert await names(room.store) == ["org/app"]


# --- finding ----------------------------------------------------------------------------------


async def test_copied_in_repositories_are_found_without_a_restart(room: Room, work: Path) -> None:
    """With and without .git, at any depth; each gets an id and our hooks, and its content stays."""
    root = room.datadir.repositories
    assert await names(room.store) == []
    for path in ("org/app.git", "plain", "deep/er/x.git"):
        bare_copy(work, root / path)
    assert await names(room.store) == ["deep/er/x", "org/app", "plain"]
    assert entries(root) == ["deep", "org", "plain.git"]
    for repository in await room.store.list():
        assert len(repository.id()) == 32
        assert git("config", "core.hooksPath", cwd=repository.path) == str(room.datadir.hooks)
        assert str(work) in (repository.path / "config.before-stargate").read_text()
        assert git("rev-parse", "main", cwd=repository.path)
    before = {repository.name: repository.id() for repository in await room.store.list()}
    again = Store(room.datadir, room.processes, default_branch="main", trash_days=1)
    assert {repository.name: repository.id() for repository in await again.list()} == before


async def test_a_request_adopts_what_no_list_has_seen(room: Room, work: Path) -> None:
    """By whichever spelling, and many at once agree."""
    bare_copy(work, room.datadir.repositories / "org/app.git")
    found = await asyncio.gather(*(room.store.require(APP) for _ in range(10)))
    assert len({repository.id() for repository in found}) == 1
    assert await room.store.ensure(APP) == (found[0], False)


async def test_dot_git_wins_when_both_are_there(room: Room, work: Path) -> None:
    """One name, one repository; the other is reported once."""
    root = room.datadir.repositories
    bare_copy(work, root / "a.git")
    bare_copy(work, root / "a")
    assert (await room.store.require(A)).path == root / "a.git"
    with capture_logs() as logs:
        for _ in range(2):
            assert [repository.path for repository in await room.store.list()] == [root / "a.git"]
    assert [entry["path"] for entry in logs if entry["event"] == "not_a_repository_to_serve"] == ["a"]


async def test_links_are_refused_and_reported_once(room: Room, work: Path, tmp_path: Path) -> None:
    """A linked repository, folder, HEAD, objects, refs or config leads out; nothing there is served."""
    root = room.datadir.repositories
    outside = bare_copy(work, tmp_path / "outside/x.git")
    (root / "link.git").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    for part in ("HEAD", "objects", "refs", "config"):
        path = bare_copy(work, root / f"{part.lower()}.git")
        (shutil.rmtree if part in {"objects", "refs"} else os.unlink)(path / part)
        (path / part).symlink_to(outside / part)
    for raw in ("link", "folder/x"):
        with pytest.raises(UnavailableError, match="link to another place"):
            await room.store.require(parse_repository_name(raw))
        with pytest.raises(UnavailableError, match="link to another place"):
            await room.store.ensure(parse_repository_name(raw))
    with capture_logs() as logs:
        assert await names(room.store) == []
        assert await names(room.store) == []
    reported = [entry["path"] for entry in logs if entry["event"] == "not_a_repository_to_serve"]
    assert reported == ["config.git", "folder", "head.git", "link.git", "objects.git", "refs.git"]
    for part in ("HEAD", "objects", "refs", "config"):
        with pytest.raises(BrokenRepositoryError, match=f"cannot be served: its {part} is a link"):
            await room.store.require(parse_repository_name(part.lower()))
    assert entries(outside) == entries(bare_copy(work, tmp_path / "fresh.git"))


async def test_a_half_copied_repository_is_none_yet(room: Room, work: Path, tmp_path: Path) -> None:
    """Until its HEAD is there."""
    source = bare_copy(work, tmp_path / "source.git")
    target = room.datadir.repositories / "a.git"
    target.mkdir()
    for part in ("config", "objects", "refs", "packed-refs"):
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part)
        else:
            shutil.copy(source / part, target / part)
        assert await names(room.store) == []
        with pytest.raises(BrokenRepositoryError):
            room.store.find(A)
    assert room.store.not_served == ("a.git: it has no HEAD",)
    (target / "HEAD").touch()
    assert await names(room.store) == []
    assert room.store.not_served == ("a.git: its HEAD is empty",)
    shutil.copy(source / "HEAD", target / "HEAD")
    assert await names(room.store) == ["a"]
    assert room.store.not_served == ()


async def test_a_working_copys_git_folder_becomes_a_bare_repository(room: Room, work: Path) -> None:
    """`cp -r project/.git repositories/a.git` is how people copy."""
    shutil.copytree(work / ".git", room.datadir.repositories / "a.git")
    repository = await room.store.require(A)
    assert git("rev-parse", "--is-bare-repository", cwd=repository.path) == "true"
    shutil.copytree(work, room.datadir.repositories / "b.git")  # with the files: not that
    assert await names(room.store) == ["a"]


async def test_a_broken_config_is_refused_and_reported_once(room: Room, work: Path) -> None:
    """The others are served."""
    bare_copy(work, room.datadir.repositories / "good.git")
    broken = bare_copy(work, room.datadir.repositories / "bad.git")
    (broken / "config").write_text("[core\n")
    strange = bare_copy(work, room.datadir.repositories / "strange.git")
    (strange / "config").write_text("[extensions]\n\trefStorage = reftable\n")
    with capture_logs() as logs:
        for _ in range(3):
            assert await names(room.store) == ["good"]
    assert sorted(entry["repository"] for entry in logs if entry["event"] == "repository_not_adopted") == [
        "bad",
        "strange",
    ]
    with pytest.raises(UnavailableError, match="damaged"):
        await room.store.require(RepositoryName("bad"))
    with pytest.raises(UnavailableError, match="not stored as files"):
        await room.store.require(RepositoryName("strange"))


async def test_a_changed_config_is_checked_again(room: Room) -> None:
    """An operator's policy stays, a program goes, our hooks come back."""
    path = (await room.store.create(A)).path
    git("config", "receive.denyDeletes", "true", cwd=path)
    git("config", "core.hooksPath", "/elsewhere", cwd=path)
    git("config", "core.fsmonitor", "/bin/false", cwd=path)
    await room.store.require(A)
    assert git("config", "receive.denyDeletes", cwd=path) == "true"
    assert git("config", "core.hooksPath", cwd=path) == str(room.datadir.hooks)
    assert "fsmonitor" not in (path / "config").read_text()


async def test_a_config_that_git_has_locked_is_left_alone(room: Room, work: Path) -> None:
    """Adoption waits for whoever writes it."""
    path = bare_copy(work, room.datadir.repositories / "a.git")
    before = (path / "config").read_bytes()
    (path / "config.lock").touch()
    assert await names(room.store) == []
    assert (path / "config").read_bytes() == before
    (path / "config.lock").unlink()
    assert await names(room.store) == ["a"]


async def test_a_copy_inside_gets_an_id_of_its_own(room: Room) -> None:
    """`cp -r a.git b.git`: the elder keeps the id; a rename keeps it, too."""
    first = await room.store.create(A)
    identity = first.id()
    shutil.copytree(first.path, room.datadir.repositories / "0-copy.git")
    await room.store.list()
    ids = {str(repository.name): repository.id() for repository in await room.store.list()}
    assert ids["a"] == identity
    assert ids["0-copy"] != identity
    first.path.rename(room.datadir.repositories / "renamed.git")
    ids = {str(repository.name): repository.id() for repository in await room.store.list()}
    assert ids["renamed"] == identity


async def test_a_damaged_id_is_replaced(room: Room) -> None:
    """An id file that power loss left empty does not cost the repository."""
    repository = await room.store.create(A)
    (repository.path / "stargate-id").write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        repository.id()
    assert len((await room.store.require(A)).id()) == 32


async def test_an_idle_list_starts_no_process(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is new costs one."""
    await room.store.create(APP)
    await room.store.list()
    monkeypatch.setattr(room.processes, "start", None)
    assert await names(room.store) == ["org/app"]
    await room.store.require(APP)


async def test_what_is_no_repository_is_passed_over(room: Room, work: Path) -> None:
    """Files, folders with impossible names, repositories too deep, unreadable folders."""
    root = room.datadir.repositories
    (root / "notes.txt").write_text("x")
    bare_copy(work, root / "with space/a.git")
    bare_copy(work, root / "x.lock/a.git")
    bare_copy(work, root / "1/2/3/4/5/6/7/8/9.git")
    bare_copy(work, root / "1/2/3/4/5/6/7/8.git")
    bare_copy(work, root / ".hidden/a.git")
    assert await names(room.store) == ["1/2/3/4/5/6/7/8"]


# --- HEAD -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("branches", "head"),
    [
        (["master"], "refs/heads/master"),
        (["z", "b", "trunk"], "refs/heads/trunk"),
        (["z", "main", "master"], "refs/heads/main"),
        (["z", "master"], "refs/heads/master"),
        (["z/y", "ä\u2028x"], "refs/heads/z/y"),
        (["unborn", "main"], "refs/heads/unborn"),
    ],
)
async def test_head_follows_the_first_branch_pushed(
    room: Room, work: Path, branches: list[str], head: str
) -> None:
    """The default branch, main, master, else the first; a HEAD that is appeared stays."""
    store = Store(room.datadir, room.processes, default_branch="trunk", trash_days=1)
    repository = await store.create(A, head="ref: refs/heads/unborn")
    assert await store.settle_head(repository) is None
    for packed in (False, True):
        git("fetch", "-q", work, *(f"+HEAD:refs/heads/{branch}" for branch in branches), cwd=repository.path)
        if packed:
            git("pack-refs", "--all", cwd=repository.path)
        moved = await store.settle_head(repository)
        assert moved == (None if packed or head.endswith("unborn") else f"ref: {head}")
        assert read_head(repository.path) == f"ref: {head}"


async def test_a_detached_head_and_tags_alone_change_nothing(room: Room, work: Path) -> None:
    """Only branches are followed."""
    repository = await room.store.create(A)
    git("fetch", "-q", work, "+HEAD:refs/tags/v1", cwd=repository.path)
    assert await room.store.settle_head(repository) is None
    oid = git("rev-parse", "v1", cwd=repository.path)
    (repository.path / "HEAD").write_text(oid + "\n")
    git("update-ref", "refs/heads/x", oid, cwd=repository.path)
    assert await room.store.settle_head(repository) is None
    assert read_head(repository.path) == oid
