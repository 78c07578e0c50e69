"""Where repositories lie on a standby: real folders on both sides; see replication/standby/placement.py."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stargate_gate.errors import UnavailableError
from stargate_gate.replication.standby.answers import NOTHING_HERE
from stargate_gate.replication.standby.placement import Placement
from stargate_gate.replication.standby.rescue_steps import RescueSteps
from stargate_gate.replication.standby.steps import Find, TakeTurn
from stargate_gate.repos import folders
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from tests.support.leading import commits
from tests.support.room import open_room
from tests.support.site import MAIN, Site, refs_of, set_refs


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_room(tmp_path / "a") as leader, open_room(tmp_path / "b") as standby:
        yield Site(leader, standby)


async def mirrored(site: Site, *names: str) -> dict[str, str]:
    """Repositories with a commit of their own on both nodes; their ids."""
    ids = {}
    for name in names:
        there = await site.leader.room.store.create(RepositoryName(name))
        set_refs(there, {MAIN: commits(there, len(ids) + 1)[-1]})
        ids[name] = there.id()
        assert await site.compare(there.id()) is not None
    return ids


def renamed(site: Site, *moves: tuple[str, str]) -> None:
    """`mv` on the leader."""
    root = site.leader.room.datadir.repositories
    for one, other in moves:
        (root / f"{other}.git").parent.mkdir(exist_ok=True)
        (root / f"{one}.git").rename(root / f"{other}.git")


async def names_here(site: Site) -> dict[str, str]:
    """What is where on the standby: id by name."""
    return {str(one.name): identity for identity, one in (await site.standby.store.census()).known.items()}


SWAP = (("a", "t"), ("b", "a"), ("t", "b"))
CIRCLE = (("a", "t"), ("b", "a"), ("c", "b"), ("d", "c"), ("t", "d"))
CHAIN = (("d", "org/e"), ("c", "d"), ("b", "c"), ("a", "b"))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("moves", [SWAP, CIRCLE, CHAIN])
@pytest.mark.parametrize("first", ["a", "c"])
async def test_names_follow_the_leaders_whoever_is_compared_first(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    moves: tuple[tuple[str, str], ...],
    first: str,
    *,
    at_once: bool,
) -> None:
    """One comparison moves all that are in its way; no object comes, nothing is put away."""
    if not at_once:  # as on a file system that cannot exchange two names
        monkeypatch.setattr(folders, "_exchange_at_once", lambda *_: False)
    ids = await mirrored(site, "a", "b", "c", "d")
    renamed(site, *moves)
    site.moves = 0
    await site.compare(ids[first])
    wanted = {str(one.name): one.id() for one in await site.leader.room.store.list()}
    if moves is SWAP and first == "c":
        await site.compare(ids["b"])
    if moves is CHAIN and first == "c":
        for name in "ab":
            await site.compare(ids[name])
    assert await names_here(site) == wanted
    assert site.moves == 0
    assert list(site.standby.datadir.trash.iterdir()) == []


async def test_a_new_one_pushes_a_whole_chain_on(site: Site) -> None:
    """a → b → c on the leader, and another one is called a now: it comes when the others have moved."""
    ids = await mirrored(site, "a", "b")
    renamed(site, ("b", "c"), ("a", "b"))
    there = await site.leader.room.store.create(RepositoryName("a"))
    set_refs(there, {MAIN: commits(there, 3)[-1]})
    here = await site.compare(there.id())
    assert here is not None
    assert refs_of(here) == refs_of(there)
    assert await names_here(site) == {"a": there.id(), "b": ids["a"], "c": ids["b"]}


async def test_what_is_being_worked_on_is_not_moved(site: Site) -> None:
    """A git process writes there. Whoever needs the name tries again later; the work goes on."""
    ids = await mirrored(site, "a", "b")
    renamed(site, *SWAP)
    with (
        site.applier.placement.working(ids["a"]),
        pytest.raises(UnavailableError, match="a is being worked on"),
    ):
        await site.compare(ids["b"])
    assert await names_here(site) == ids
    await site.compare(ids["b"])
    assert await names_here(site) == {"a": ids["b"], "b": ids["a"]}


@pytest.mark.parametrize("replicated", [True, False])
async def test_what_the_leader_has_lost_stays_unless_it_may_never_have_had_it(
    site: Site, *, replicated: bool
) -> None:
    """Everybody had it: it stays, and is told of. This node alone may have had it: it is rescued."""
    ids = await mirrored(site, "a")
    if not replicated:
        await site.journal.mark(2, 7, ids["a"], "a", [MAIN])
    root = site.leader.room.datadir.repositories
    (root / "a.git").rename(root / ".elsewhere")
    assert await site.compare(ids["a"]) is None
    orphans = {ids["a"]: RepositoryName("a")} if replicated else {}
    assert site.applier.placement.orphans == orphans
    assert await names_here(site) == ({"a": ids["a"]} if replicated else {})
    assert [one.in_trash for one in site.rescues.all()] == ([] if replicated else [True])
    (root / ".elsewhere").rename(root / "b.git")
    await site.leader.room.store.list()  # as it does for a standby every full_check_s
    assert await site.compare(ids["a"]) is not None
    assert site.applier.placement.orphans == {}
    assert await names_here(site) == {"b": ids["a"]}


async def test_a_stray_in_the_way_is_rescued(site: Site) -> None:
    """Somebody has made a folder here by hand: the leader's repository gets the name."""
    there = await site.leader.room.store.create(RepositoryName("a"))
    set_refs(there, {MAIN: commits(there, 1)[0]})
    stray = await site.standby.store.create(RepositoryName("a"))
    (value,) = commits(stray, 1)
    set_refs(stray, {MAIN: value})
    (stray.path / "stargate-id").unlink()
    await site.compare(there.id())
    assert await names_here(site) == {"a": there.id()}
    (kept,) = site.rescues.all()
    assert (kept.name, [one.value.oid for one in kept.values]) == ("a", [value])
    found = await site.standby.store.in_trash(kept.id)
    assert found is not None
    assert refs_of(found) == {MAIN: value}


async def test_an_id_that_comes_back_is_not_taken_for_deleted(site: Site) -> None:
    """It was deleted here, when this node led, and nobody heard of it: the one that leads now has it."""
    ids = await mirrored(site, "a")
    await site.standby.store.delete(RepositoryName("a"))
    assert await site.standby.store.was_deleted(ids["a"])
    here = await site.compare(ids["a"])
    assert isinstance(here, Repository)
    assert not await site.standby.store.was_deleted(ids["a"])


async def test_what_was_moved_by_hand_is_no_stray(site: Site) -> None:
    """An operator has moved it on the standby, to the name of a new one on the leader: it moves back."""
    ids = await mirrored(site, "a")
    root = site.standby.datadir.repositories
    (root / "a.git").rename(root / "b.git")
    there = await site.leader.room.store.create(RepositoryName("b"))
    await site.compare(there.id())
    assert await names_here(site) == {"a": ids["a"], "b": there.id()}
    assert site.rescues.all() == ()


def test_a_deletion_is_of_the_repository_and_not_of_what_has_its_place_by_now() -> None:
    """While the job waits for its turn, another puts the deleted one away and moves one to its name."""
    steps = Placement(RescueSteps(3, "node-a")).gone("1" * 32, deleted=True)
    before = Repository(RepositoryName("a"), Path("a"))
    assert next(steps) == Find("1" * 32)
    assert steps.send(before) == TakeTurn()
    assert steps.send(None) == Find("1" * 32)
    with pytest.raises(StopIteration) as ended:
        steps.send(None)
    assert ended.value.value == NOTHING_HERE
