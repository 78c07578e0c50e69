"""A copy that is damaged here is fetched anew beside it; what only looks like damage is not."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from stargate_gate.errors import StargateError, UnavailableError
from stargate_gate.replication.standby.damage import DamageSteps
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.step_runner import carry_out_all
from stargate_gate.repos.housekeeping import Housekeeping
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.sweep import sweep_data_dir
from tests.support.git import git, git_run
from tests.support.leading import commits
from tests.support.room import Room, open_room
from tests.support.site import MAIN, Site, refs_of, set_refs, whole

LIMIT_S = 30.0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_room(tmp_path / "a") as leader, open_room(tmp_path / "b") as standby:
        yield Site(leader, standby)


async def mirrored(site: Site) -> tuple[Repository, Repository, list[str]]:
    """org/app on both, main at the second of three commits; the leader's is at the third by now."""
    there = await site.there()
    made = commits(there, 3)
    set_refs(there, {MAIN: made[1]})
    here = await site.compare()
    assert here is not None
    set_refs(there, {MAIN: made[2]})
    return there, here, made


def in_trash(room: Room) -> list[Path]:
    return list(room.datadir.trash.glob("*/org/app.git"))


def leftovers(room: Room) -> list[Path]:
    return [path for path in room.datadir.repositories.iterdir() if path.name.startswith(".")]


def empty_objects(path: Path) -> None:
    for loose in (path / "objects").glob("??/*"):
        loose.chmod(0o600)
        loose.write_bytes(b"")


def lose_refs(path: Path) -> None:
    git("pack-refs", "--all", cwd=path)
    shutil.rmtree(path / "refs")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an empty ref": lambda path: (path / MAIN).write_bytes(b""),
    "empty objects": empty_objects,
    "NULs in packed-refs": lambda path: (path / "packed-refs").write_bytes(b"\0" * 300),
    "NULs in HEAD": lambda path: (path / "HEAD").write_bytes(b"\0" * 21),
    "an empty HEAD": lambda path: (path / "HEAD").write_bytes(b""),
    "no HEAD": lambda path: (path / "HEAD").unlink(),
    "no folder of refs": lose_refs,
    "no folder of objects": lambda path: shutil.rmtree(path / "objects"),
}


@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_damaged_copy_is_fetched_anew_and_the_old_one_kept_whole(site: Site, kind: str) -> None:
    """Whatever a power cut has left: the copy is the leader's again, and the old folder is in the trash."""
    there, here, _ = await mirrored(site)
    DAMAGES[kind](here.path)
    (here.path / "witness").write_text("of the old folder")
    await site.compare()
    assert refs_of(here) == refs_of(there)
    assert here.id() == there.id()
    assert whole(here)
    (kept,) = in_trash(site.standby)
    assert (kept / "witness").exists()
    assert leftovers(site.standby) == []
    assert await site.compare() == here
    assert len(in_trash(site.standby)) == 1, "once is enough"


async def test_nothing_goes_to_the_trash_before_its_replacement_is_here(site: Site) -> None:
    """The leader cannot give it either: the damaged copy stays where it is."""
    there, here, made = await mirrored(site)
    (here.path / "packed-refs").write_bytes(b"\0" * 300)
    (there.path / "objects" / made[2][:2] / made[2][2:]).unlink()
    with pytest.raises(StargateError):
        await site.compare()
    assert (here.path / "packed-refs").read_bytes() == b"\0" * 300
    assert in_trash(site.standby) == []


async def test_a_fetch_that_fails_for_the_leaders_sake_is_no_damage_here(site: Site) -> None:
    """An object is missing there; the copy here is whole, and stays."""
    there, here, made = await mirrored(site)
    (there.path / "objects" / made[2][:2] / made[2][2:]).unlink()
    with pytest.raises(StargateError):
        await site.compare()
    assert refs_of(here) == {MAIN: made[1]}
    assert in_trash(site.standby) == []


async def test_a_full_disk_is_no_damage(site: Site) -> None:
    """Every write fails; what is here reads well."""
    there, here, _ = await mirrored(site)
    steps = DamageSteps(lambda: 0.0)
    wanted = await site.leader.room.refs.snapshot(there)
    full = UnavailableError("fatal: write error: No space left on device")
    look = steps.look(here, wanted, full)
    assert await carry_out_all(look, site.applier.runner, Progress()) is None


async def test_values_that_only_this_copy_had_stay_in_the_trash(site: Site) -> None:
    """A damaged copy with a value that is not known replicated is kept beyond trash_days."""
    there, here, made = await mirrored(site)
    await site.journal.mark(2, 5, there.id(), "org/app", None)
    lose_refs(here.path)
    await site.compare()
    assert refs_of(here) == refs_of(there)
    assert site.rescues.has(there.id())
    assert site.rescues.all()[0].in_trash
    assert made


async def test_who_writes_to_it_is_waited_for(site: Site) -> None:
    """Housekeeping of the old copy must not go on in the new one: it would remove what only that has."""
    _, here, _ = await mirrored(site)
    (here.path / "packed-refs").write_bytes(b"\0" * 300)
    room = site.standby
    async with room.processes.writing(here.path):
        healing = asyncio.create_task(site.compare())
        async with asyncio.timeout(LIMIT_S):
            while not list(room.datadir.repositories.glob(f".*/app.git/{MAIN}")):
                await asyncio.sleep(0.01)
        assert in_trash(room) == []
        assert not healing.done()
    await asyncio.wait_for(healing, LIMIT_S)
    assert len(in_trash(room)) == 1


@pytest.mark.parametrize("after", ["the trash", "the fetch"])
async def test_a_crash_leaves_a_whole_copy_to_come_to_its_place(
    site: Site, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Killed when the old copy is in the trash: the new one comes at the next start. Else the old stays."""
    _, here, made = await mirrored(site)
    (here.path / "packed-refs").write_bytes(b"\0" * 300)
    store = site.standby.store

    class Killed(BaseException):
        pass

    async def dies(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(store, "_move_in" if after == "the trash" else "_to_trash", dies)
    if after == "the fetch":
        monkeypatch.setattr("stargate_gate.repos.store.mark_complete", lambda *_: None)
    with pytest.raises(Killed):
        await site.compare()
    monkeypatch.undo()
    assert len(leftovers(site.standby)) == 1
    sweep_data_dir(site.standby.datadir, frozenset())
    assert leftovers(site.standby) == []
    if after == "the trash":
        assert refs_of(here) == {MAIN: made[2]}
        assert len(in_trash(site.standby)) == 1
    else:
        assert (here.path / "packed-refs").read_bytes() == b"\0" * 300
        assert in_trash(site.standby) == []


# -- HEAD ------------------------------------------------------------------------------------------------


async def test_the_commit_of_a_detached_head_comes_and_stays(site: Site) -> None:
    """No ref reaches it; it is here, HEAD says it, and housekeeping does not take it away."""
    there = await site.there()
    one, two = commits(there, 2)
    set_refs(there, {MAIN: one})
    git("update-ref", "--no-deref", "HEAD", two, cwd=there.path)
    here = await site.compare()
    assert here is not None
    assert (here.path / "HEAD").read_text().strip() == two
    await Housekeeping(site.standby.store, site.standby.processes).look_after(here)
    assert git_run("cat-file", "-e", two, cwd=here.path).returncode == 0
    assert whole(here)
    assert await site.standby.refs.digest(here) == await site.leader.room.refs.digest(there)


@pytest.mark.parametrize(
    "head", ["1" * 40, "ref: refs/heads/a b", "ref: refs/heads/a..b", "ref: refs/stargate/rescued/1/x"]
)
async def test_a_head_that_names_nothing_to_be_had_stops_nothing(site: Site, head: str) -> None:
    """The refs are mirrored; HEAD stays here as it is, and that is said."""
    there = await site.there()
    one, two = commits(there, 2)
    here = await site.compare()
    assert here is not None
    set_refs(there, {MAIN: one})
    (there.path / "HEAD").write_text(f"{head}\n")
    assert await site.compare() == here
    assert refs_of(here) == {MAIN: one}
    assert (here.path / "HEAD").read_text() == f"ref: {MAIN}\n"
    assert site.notes.lines[0].startswith("org/app: HEAD is not mirrored")
    set_refs(there, {MAIN: two})
    assert await site.compare() == here
    assert refs_of(here) == {MAIN: two}
    (there.path / "HEAD").write_text(f"ref: {MAIN}\n")
    assert await site.compare() == here
    assert site.notes.lines == ()
