"""Which folder keeps an id, whatever was renamed or copied, and whoever has looked meanwhile."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from stargate_gate.errors import NoSuchRepositoryError
from stargate_gate.repos.identities import Folder, Identities, Look, RepositoryIdentity, look
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import HOME_FILE, Repository
from stargate_gate.repos.store import Store
from tests.support.git import git, make_work
from tests.support.room import Room

APP, FORK, RENAMED = RepositoryName("org/app"), RepositoryName("org/fork"), RepositoryName("org/renamed")


def copied(room: Room, source: RepositoryName, target: RepositoryName) -> Path:
    """`cp -a`, with all times."""
    root = room.datadir.repositories
    path = root / f"{target}.git"
    shutil.copytree(root / f"{source}.git", path, symlinks=True)
    shutil.copystat(root / f"{source}.git", path)
    return path


def renamed(room: Room, source: RepositoryName, target: RepositoryName) -> Path:
    """`mv`."""
    root = room.datadir.repositories
    return (root / f"{source}.git").rename(root / f"{target}.git")


async def after_a_restart(room: Room) -> Store:
    """The store of a node that has just started."""
    store = Store(room.datadir, room.processes, default_branch="main", trash_days=7)
    await store.census()
    return store


class NewRepositories:
    """Who is told, and of what."""

    def __init__(self) -> None:
        self.expected: list[tuple[str, str]] = []
        self.told: list[str] = []

    async def expect(self, identity: str, name: RepositoryName) -> None:
        self.expected.append((identity, str(name)))

    async def appeared(self, identity: RepositoryIdentity) -> None:
        self.told.append(identity.id)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_copy_gets_an_id_of_its_own_before_anything_is_pushed_to_it(
    room: Room, *, restarted: bool
) -> None:
    """Whoever asks for it first; the one that was there keeps its own, also after a restart."""
    identity = (await room.store.create(APP)).id()
    copied(room, APP, FORK)
    store = await after_a_restart(room) if restarted else room.store
    assert (await store.require(FORK)).id() != identity
    assert (await store.require(APP)).id() == identity


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_copy_whose_owner_was_set_afterwards_is_still_the_copy(
    room: Room, *, restarted: bool
) -> None:
    """`chown -R` makes every file look new: the original's id file is the younger one then."""
    original = await room.store.create(APP)
    identity = original.id()
    copied(room, APP, FORK)
    for path in original.path.rglob("*"):
        os.chown(path, -1, -1)
        path.chmod(path.stat().st_mode)
    store = await after_a_restart(room) if restarted else room.store
    assert (await store.require(FORK)).id() != identity
    assert (await store.require(APP)).id() == identity


async def test_a_rename_keeps_the_id_and_tells_nobody_of_a_new_one(room: Room) -> None:
    """It is the same folder."""
    identity = (await room.store.create(APP)).id()
    new_repositories = NewRepositories()
    room.store.report_new_to(new_repositories)
    path = renamed(room, APP, RENAMED)
    assert (await room.store.require(RENAMED)).id() == identity
    assert await room.store.by_id(identity) == Repository(RENAMED, path)
    assert new_repositories.expected == new_repositories.told == []


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("first", [APP, RENAMED])
async def test_of_a_rename_and_a_copy_back_the_renamed_one_is_the_original(
    room: Room, first: RepositoryName, *, restarted: bool
) -> None:
    """`mv app renamed; cp -a renamed app`: whichever is asked for first."""
    identity = (await room.store.create(APP)).id()
    renamed(room, APP, RENAMED)
    copied(room, RENAMED, APP)
    store = await after_a_restart(room) if restarted else room.store
    await store.require(first)
    assert (await store.require(RENAMED)).id() == identity
    assert (await store.require(APP)).id() != identity


async def test_a_copy_of_something_that_was_renamed_is_still_the_copy(room: Room) -> None:
    """`mv app renamed; cp -a renamed fork`: the fork is pushed to before anybody looks at the other."""
    identity = (await room.store.create(APP)).id()
    renamed(room, APP, RENAMED)
    copied(room, RENAMED, FORK)
    assert (await room.store.require(FORK)).id() != identity
    assert (await room.store.require(RENAMED)).id() == identity


async def test_what_is_put_back_from_a_backup_is_what_it_was(room: Room, tmp_path: Path) -> None:
    """Another folder under the same name, and the one before is gone."""
    repository = await room.store.create(APP)
    identity = repository.id()
    shutil.copytree(repository.path, tmp_path / "backup")
    shutil.rmtree(repository.path)
    shutil.copytree(tmp_path / "backup", repository.path)
    assert (await room.store.require(APP)).id() == identity


async def test_a_move_across_file_systems_is_a_move(room: Room, tmp_path: Path) -> None:
    """It is a copy and a removal; nobody else has that id then."""
    repository = await room.store.create(APP)
    identity = repository.id()
    shutil.copytree(repository.path, tmp_path / "elsewhere")
    shutil.rmtree(repository.path)
    shutil.copytree(tmp_path / "elsewhere", room.datadir.repositories / "org/renamed.git")
    assert (await room.store.require(RENAMED)).id() == identity


async def test_a_folder_of_many_that_is_renamed_keeps_their_ids(room: Room) -> None:
    """`mv org org2`."""
    ids = [(await room.store.create(RepositoryName(f"org/r{number}"))).id() for number in range(5)]
    root = room.datadir.repositories
    (root / "org").rename(root / "org2")
    found = [await room.store.by_id(identity, search=True) for identity in ids]
    assert [str(one.name) for one in found if one is not None] == [f"org2/r{number}" for number in range(5)]


async def test_only_a_leader_gives_ids(room: Room, tmp_path: Path) -> None:
    """A standby serves what was copied in, and leaves what it is to the leader."""
    repository = await room.store.create(APP)
    copied(room, APP, FORK)
    git("clone", "-q", "--bare", make_work(tmp_path / "work"), room.datadir.repositories / "strange.git")
    standby = Store(room.datadir, room.processes, default_branch="main", trash_days=7, leads=lambda: False)
    census = await standby.census()
    assert census.known == {repository.id(): repository}
    assert {str(one.name) for one in census.strays} == {"org/fork", "strange"}
    assert {str(one.name) for one in await standby.list()} == {"org/app", "org/fork", "strange"}
    await standby.require(FORK)
    assert not (room.datadir.repositories / "strange.git/stargate-id").exists()
    assert Repository(FORK, room.datadir.repositories / "org/fork.git").id() == repository.id()


async def test_whatever_is_new_is_announced_before_it_has_its_id(room: Room, tmp_path: Path) -> None:
    """Made, copied here, copied in, moved in from elsewhere: until it is told, others lack it."""
    new_repositories = NewRepositories()
    room.store.report_new_to(new_repositories)
    made = await room.store.create(APP)
    copied(room, APP, FORK)
    git("clone", "-q", "--bare", make_work(tmp_path / "work"), room.datadir.repositories / "in.git")
    moved_in = copied(room, APP, RepositoryName("moved"))
    (moved_in / "stargate-id").write_text("9" * 32 + "\n")
    ids = {str(one.name): one.id() for one in await room.store.list()}
    assert ids["org/app"] == made.id()
    assert ids["moved"] == "9" * 32
    assert {name: identity for identity, name in new_repositories.expected} == ids
    assert set(new_repositories.told) == set(ids.values()) - {made.id()}, "the gate tells of what it makes"


async def test_an_id_that_cannot_be_announced_is_not_given(room: Room) -> None:
    """A crash could hide that nobody else has it."""
    identity = (await room.store.create(APP)).id()
    path = copied(room, APP, FORK)

    class Full(NewRepositories):
        async def expect(self, identity: str, name: RepositoryName) -> None:
            raise OSError(28, "No space left on device")

    room.store.report_new_to(Full())
    with pytest.raises(Exception, match="cannot be served now"):
        await room.store.require(FORK)
    assert Repository(FORK, path).id() == identity
    room.store.report_new_to(NewRepositories())
    assert (await room.store.require(FORK)).id() != identity


async def test_a_damaged_id_file_of_a_known_folder_gets_the_same_id_again(room: Room) -> None:
    """Power loss may empty it; its copies on other nodes know it by that id."""
    repository = await room.store.create(APP)
    identity = repository.id()
    (repository.path / "stargate-id").write_bytes(b"")
    assert (await room.store.require(APP)).id() == identity


async def test_another_folder_with_the_inode_number_of_a_removed_one_gets_an_id_of_its_own(
    room: Room,
) -> None:
    """A file system gives the number of a removed folder to the next one that is made.

    Else the standbys would take what was removed here for renamed, and overwrite their copies of it.
    """
    repository = await room.store.create(APP)
    identity = repository.id()
    (repository.path / "stargate-folder").unlink()  # the same inode number, and nothing that this node wrote
    (repository.path / "stargate-id").unlink()
    path = renamed(room, APP, RENAMED)
    assert (await room.store.require(RENAMED)).id() != identity
    assert Repository(RENAMED, path).id() != identity


async def test_whereabouts_is_of_the_folder_and_not_of_the_name(room: Room) -> None:
    """Of a push's repository: renamed it is found, copied back over its name it is not taken for it."""
    repository = await room.store.create(APP)
    identity = room.store.register.identity(repository)
    path = renamed(room, APP, RENAMED)
    copied(room, RENAMED, APP)
    assert await room.store.register.whereabouts(identity) == Repository(RENAMED, path)
    shutil.rmtree(path)
    assert await room.store.register.whereabouts(identity) is None
    with pytest.raises(NoSuchRepositoryError):
        room.store.register.identity(Repository(RENAMED, path))


async def test_what_was_deleted_is_known_by_its_id_while_the_trash_is_kept(room: Room) -> None:
    """And not what a mirror has put there, nor what was taken out again, nor what came back."""
    identity = (await room.store.create(APP)).id()
    assert await room.store.delete(APP) == identity
    assert await room.store.was_deleted(identity)
    other = await room.store.create(APP)
    other_id = other.id()
    await room.store.put_away(other, deleted=False)
    assert not await room.store.was_deleted(other_id)
    (lying,) = room.datadir.trash.glob(f"*-{identity}/org/app.git")
    lying.rename(room.datadir.repositories / "back.git")
    assert not await room.store.was_deleted(identity)
    assert await room.store.by_id(identity, search=True) is not None


async def test_a_copy_that_is_deleted_at_once_does_not_delete_the_original(room: Room) -> None:
    """It gets an id of its own first."""
    identity = (await room.store.create(APP)).id()
    copied(room, APP, FORK)
    assert await room.store.delete(FORK) != identity
    assert not await room.store.was_deleted(identity)


async def test_many_at_once_agree_who_is_who(room: Room) -> None:
    """Ten requests for ten copies."""
    identity = (await room.store.create(APP)).id()
    names = [RepositoryName(f"copy{number}") for number in range(10)]
    for name in names:
        copied(room, APP, name)
    found = await asyncio.gather(*(room.store.require(name) for name in (*names, APP, *names)))
    ids = {one.name: one.id() for one in found}
    assert ids[APP] == identity
    assert len(set(ids.values())) == 11


def test_a_walk_that_missed_a_folder_forgets_nobody() -> None:
    """It may have been moved just then: a copy that is found meanwhile does not inherit its id."""
    identities, one = Identities(), "1" * 32
    original, copy = Repository(APP, Path("/app")), Repository(FORK, Path("/fork"))
    here = Look(one, Folder(1, 10), home=True, since=1, signature=())
    there = Look(one, Folder(1, 20), home=False, since=2, signature=())
    identities.settle([(original, here)])
    identities.settle([])
    assert not identities.has(one)
    assert identities.vanished() == {one: original}
    known = identities.get(one)
    assert known is not None
    assert known.folder == here.folder
    census = identities.settle([(copy, there), (original, here)])
    assert census.known == {one: original}
    assert census.strays == (copy,)


def test_a_copy_gets_the_id_of_a_folder_that_is_gone_and_not_of_one_that_a_walk_has_missed() -> None:
    """The folder is moved during the walk, and a copy lies where it was: one walk does not tell that apart.

    The copy is no stray either, which a standby would put away: it may be a restored backup.
    """
    identities, one = Identities(), "1" * 32
    here = Look(one, Folder(1, 10), home=True, since=1, signature=())
    there = Look(one, Folder(1, 20), home=False, since=2, signature=())
    where, moved = Repository(APP, Path("/app")), Repository(FORK, Path("/fork"))
    identities.settle([(where, here)])
    missed = identities.settle([(where, there)])
    assert (missed.known, missed.strays) == ({}, ())
    found = identities.settle([(where, there), (moved, here)])
    assert (found.known, found.strays) == ({one: moved}, (where,))
    identities.settle([(where, there)])
    gone = identities.settle([(where, there)])
    assert (gone.known, gone.strays) == ({one: where}, ())


def test_of_two_folders_that_got_the_id_from_the_node_the_newer_keeps_it() -> None:
    """A repository was moved away by hand, came anew from the leader, and the old folder was put back."""
    old, new = Repository(APP, Path("/app")), Repository(FORK, Path("/fork"))
    put_back = Look("1" * 32, Folder(1, 7), home=True, since=1, signature=())
    fetched = Look("1" * 32, Folder(1, 8), home=True, since=2, signature=())
    census = Identities().settle([(old, put_back), (new, fetched)])
    assert census.known == {"1" * 32: new}
    assert census.strays == (old,)


def test_without_inode_numbers_that_stay_the_older_one_keeps_the_id(tmp_path: Path) -> None:
    """Some file systems number anew with each mount: then nobody is at home."""
    one = "1" * 32
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stargate-id").write_text(f"{one}\n")
        (tmp_path / name / HOME_FILE).write_text("1\n")
    looks = [(Repository(RepositoryName(name), tmp_path / name), look(tmp_path / name)) for name in "ba"]
    assert not any(seen.home for _, seen in looks)
    assert [str(one.name) for one in Identities().settle(looks).known.values()] == ["a"]


async def test_a_repository_that_one_search_misses_is_found_by_the_next(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator moves its folder from where the search comes to where it has been: it is not gone."""
    identity = (await room.store.create(APP)).id()
    root = room.datadir.repositories
    walk = room.store.register._files._find_all
    moved = []

    def moving() -> list[Repository]:
        found = list(walk())
        if not moved:
            moved.append((root / "org").rename(root / "a"))
            return []
        return found

    renamed(room, APP, RENAMED)  # so that it has to be searched for
    monkeypatch.setattr(room.store.register._files, "_find_all", moving)
    found = await room.store.by_id(identity, search=True)
    assert found is not None
    assert str(found.name) == "a/renamed"


async def test_a_copy_under_the_name_of_the_original_is_not_the_original(room: Room) -> None:
    """`mv` and `cp -a` back, and nobody has looked yet: the id leads to the folder that was moved."""
    identity = (await room.store.create(APP)).id()
    renamed(room, APP, RENAMED)
    copied(room, RENAMED, APP)
    found = await room.store.by_id(identity)
    assert found is not None
    assert found.name == RENAMED


async def test_a_repository_that_is_moved_just_after_a_search_for_another_is_found(room: Room) -> None:
    """That one was nowhere says nothing of the others."""
    identity = (await room.store.create(APP)).id()
    gone = (await room.store.create(FORK)).id()
    shutil.rmtree(room.datadir.repositories / f"{FORK}.git")
    assert await room.store.by_id(gone, search=True) is None
    renamed(room, APP, RENAMED)
    found = await room.store.by_id(identity, search=True)
    assert found is not None
    assert found.name == RENAMED


def test_a_folder_that_is_moved_during_the_search_is_no_copy_of_itself(tmp_path: Path) -> None:
    """It was found under its former name, and then under the new one."""
    identities, seen = Identities(), Look("1" * 32, Folder(1, 7), home=True, since=1, signature=())
    before, after = (Repository(name, tmp_path / str(name)) for name in (APP, RENAMED))
    assert identities.settle([(before, seen)]).known == {"1" * 32: before}
    census = identities.settle([(before, seen), (after, seen)])
    assert census.known == {"1" * 32: after}
    assert census.strays == ()
