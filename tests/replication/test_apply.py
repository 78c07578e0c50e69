"""One repository is made what it is on the leader: real git on both sides, objects through a pipe."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from stargate_gate.errors import GitFailedError, UnavailableError
from stargate_gate.replication.standby.answers import TermOverError
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.step_runner import StepRunner
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.repository import Repository, read_head, read_object_format
from tests.support.git import git, git_run
from tests.support.leading import commits
from tests.support.room import open_room
from tests.support.site import APP, HEAD, MAIN, Site, refs_of, set_refs, whole

TOPIC, BELOW = "refs/heads/topic", "refs/heads/topic/next"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_room(tmp_path / "a") as leader, open_room(tmp_path / "b") as standby:
        yield Site(leader, standby)


@pytest.fixture
async def there(site: Site) -> Repository:
    return await site.there()


# -- everything of a repository -----------------------------------------------------------------------


async def test_a_repository_that_is_not_here_is_made_with_the_leaders_id(
    site: Site, there: Repository
) -> None:
    """Its refs of every kind, its HEAD, all objects; and a second comparison fetches nothing."""
    old, new = commits(there, 2)
    git("tag", "-a", "-m", "annotated", "v1", old, cwd=there.path)
    set_refs(there, {MAIN: new, "refs/notes/commits": old, "refs/changes/01/1/1": old})
    git("symbolic-ref", "HEAD", "refs/heads/unborn", cwd=there.path)
    here = await site.compare()
    assert here is not None
    assert refs_of(here) == refs_of(there)
    assert read_head(here.path) == "ref: refs/heads/unborn"
    assert here.id() == there.id()
    assert whole(here)
    assert site.moves > 0
    site.moves = 0
    assert await site.compare() == here
    assert site.moves == 0


async def test_whatever_is_different_becomes_the_leaders(site: Site, there: Repository) -> None:
    """Moved, rewound, removed, added, `a` for `a/b` and the other way round, in one comparison."""
    one, two, three = commits(there, 3)
    set_refs(
        there, {MAIN: two, TOPIC: one, "refs/heads/x/y": one, "refs/tags/gone": one, "refs/tags/back": three}
    )
    here = await site.compare()
    assert here is not None
    set_refs(
        there,
        {
            TOPIC: None,
            "refs/heads/x/y": None,
            "refs/tags/gone": None,
            MAIN: three,
            BELOW: one,
            "refs/heads/x": two,
            "refs/tags/back": one,
        },
    )
    assert await site.compare() == here
    assert (
        refs_of(here)
        == refs_of(there)
        == {
            MAIN: three,
            BELOW: one,
            "refs/heads/x": two,
            "refs/tags/back": one,
        }
    )
    assert await site.intents.all() == []
    assert whole(here)


async def test_a_ref_without_a_value_on_the_leader_is_not_removed_here(site: Site, there: Repository) -> None:
    """A damaged file is no deletion: the copy's value may be the only one left."""
    one, two = commits(there, 2)
    set_refs(there, {MAIN: two, TOPIC: one})
    here = await site.compare()
    assert here is not None
    (there.path / TOPIC).write_bytes(b"")
    set_refs(there, {MAIN: one})
    assert await site.compare() == here
    assert refs_of(here) == {MAIN: one, TOPIC: one}


async def test_a_repository_of_another_id_goes_to_the_trash(site: Site, there: Repository) -> None:
    """It was deleted on the leader and made again: the old one is kept, whole, under its id."""
    (one,) = commits(there, 1)
    set_refs(there, {MAIN: one})
    former = await site.compare()
    assert former is not None
    identity = former.id()
    await site.leader.room.store.delete(APP)
    again = await site.there()
    (other,) = commits(again, 1)
    set_refs(again, {TOPIC: other})
    here = await site.compare()
    assert here is not None
    assert here.id() == again.id() != identity
    assert refs_of(here) == {TOPIC: other}
    (kept,) = site.standby.datadir.trash.glob(f"*-{identity}/org/app.git")
    assert git("rev-parse", MAIN, cwd=kept) == one


async def test_a_repository_of_another_object_format_goes_to_the_trash(site: Site) -> None:
    """The same id does not make it the same: not one of its objects fits."""
    made = await site.leader.room.store.create(APP, object_format="sha256")
    (one,) = commits(made, 1)
    set_refs(made, {MAIN: one})
    await site.standby.store.create(APP, id=made.id())
    here = await site.compare()
    assert here is not None
    assert read_object_format(here.path) == "sha256"
    assert refs_of(here) == {MAIN: one}
    assert len(list(site.standby.datadir.trash.glob("*/org/app.git"))) == 1


async def test_what_cannot_be_noted_as_rescued_stays_where_it_is(
    site: Site, there: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the disk says, that a file is missing included: it goes to the trash once it is noted."""
    set_refs(there, {MAIN: commits(there, 1)[0]})
    here = await site.compare()
    assert here is not None
    await site.journal.mark(2, 7, here.id(), "org/app", [MAIN])
    await site.leader.room.store.delete(APP)

    def write(*_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(site.rescues, "_write", write)
        with pytest.raises(FileNotFoundError):
            await site.compare(here.id())
    assert site.standby.store.find(APP) is not None
    assert await site.compare(here.id()) is None
    assert site.standby.store.find(APP) is None
    assert [one.in_trash for one in site.rescues.all()] == [True]


async def test_a_repository_that_a_user_has_deleted_goes_to_the_trash(site: Site, there: Repository) -> None:
    """And nothing happens where there is none either. It is known to be deleted here, too, from then on."""
    (one,) = commits(there, 1)
    set_refs(there, {MAIN: one})
    here = await site.compare()
    assert here is not None
    identity = here.id()
    assert await site.compare("f" * 32) is None
    await site.leader.room.store.delete(APP)
    for _ in range(2):
        assert await site.compare(identity) is None
    assert site.standby.store.find(APP) is None
    assert await site.standby.store.was_deleted(identity)
    (kept,) = site.standby.datadir.trash.glob("*/org/app.git")
    assert git("rev-parse", MAIN, cwd=kept) == one


async def test_somebody_who_writes_here_all_the_time_is_said_and_ends_nothing(
    site: Site, there: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ref has moved each time that it is about to: so many tries, and then an error until the next one."""
    one, two, three = commits(there, 3)
    set_refs(there, {MAIN: one})
    here = await site.compare()
    assert here is not None
    git("fetch", "-q", there.path, three, cwd=here.path)
    set_refs(there, {MAIN: two})
    real, moves = StepRunner._change_refs, [three, one, three]

    async def raced(*args: Any, **flags: Any) -> None:
        set_refs(here, {MAIN: moves.pop(0)})
        await real(*args, **flags)

    monkeypatch.setattr(StepRunner, "_change_refs", raced)
    with pytest.raises(GitFailedError, match="cannot lock ref"):
        await site.compare()
    assert moves == []
    assert refs_of(here) == {MAIN: three}
    monkeypatch.setattr(StepRunner, "_change_refs", real)
    assert await site.compare() == here
    assert refs_of(here) == {MAIN: two}


# -- what has changed ---------------------------------------------------------------------------------


async def test_a_change_that_fits_is_applied_without_asking_for_refs(site: Site, there: Repository) -> None:
    """Objects by id, refs by transaction: the leader's refs may be elsewhere by then."""
    one, two, three = commits(there, 3)
    set_refs(there, {MAIN: one})
    here = await site.compare()
    assert here is not None
    asked: list[object] = []
    site.leader.asked = asked.append
    set_refs(there, {MAIN: three})
    assert await site.change(there, RefChange(MAIN, one, two)) == here
    assert refs_of(here) == {MAIN: two}
    assert git_run("cat-file", "-e", three, cwd=here.path).returncode != 0, "only what was told of"
    assert site.moves > 0
    assert asked == []


async def test_a_ref_becomes_a_folder_of_refs(site: Site, there: Repository) -> None:
    """`a` → `a/b`, and back, with HEAD on it: deletions are a transaction of their own."""
    one, two = commits(there, 2)
    set_refs(there, {MAIN: one, TOPIC: one})
    here = await site.compare()
    assert here is not None
    set_refs(there, {"refs/heads/keep": two})
    delta = (RefChange(TOPIC, one, None), RefChange(BELOW, None, two), RefChange(MAIN, one, two))
    assert await site.change(there, *delta, head=f"ref: {BELOW}") == here
    assert refs_of(here) == {BELOW: two, MAIN: two}
    assert read_head(here.path) == f"ref: {BELOW}"
    assert await site.change(there, RefChange(BELOW, two, None), RefChange(TOPIC, None, one)) == here
    assert refs_of(here) == {TOPIC: one, MAIN: two}
    assert read_head(here.path) == HEAD
    assert await site.intents.all() == []


async def test_a_change_that_does_not_fit_changes_nothing_and_a_comparison_mends_it(
    site: Site, there: Repository
) -> None:
    """One of its refs is not at the old value: git refuses the whole transaction."""
    one, two, three = commits(there, 3)
    set_refs(there, {MAIN: one, TOPIC: one})
    here = await site.compare()
    assert here is not None
    set_refs(here, {TOPIC: None})
    set_refs(there, {MAIN: two, TOPIC: three})
    assert await site.change(there, RefChange(MAIN, one, two), RefChange(TOPIC, one, three)) is None
    assert refs_of(here) == {MAIN: one}
    assert await site.compare() == here
    assert refs_of(here) == {MAIN: two, TOPIC: three}
    assert await site.intents.all() == []


async def test_a_change_of_another_repository_of_that_name_is_none_of_this(
    site: Site, there: Repository
) -> None:
    """Neither if there is none here, nor if the id is another."""
    (one,) = commits(there, 1)
    assert await site.change(there, RefChange(MAIN, None, one)) is None
    here = await site.standby.store.create(APP, id="f" * 32)
    assert await site.change(there, RefChange(MAIN, None, one)) is None
    assert refs_of(here) == {}


async def test_objects_that_the_leader_does_not_have_are_an_error_that_says_so(
    site: Site, there: Repository
) -> None:
    """No ref moves without its objects; what git says comes through."""
    (one,) = commits(there, 1)
    set_refs(there, {MAIN: one})
    here = await site.compare()
    assert here is not None
    with pytest.raises((GitFailedError, UnavailableError), match="not our ref"):
        await site.change(there, RefChange(TOPIC, None, "1" * 40))
    assert refs_of(here) == {MAIN: one}


# -- cut in the middle --------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(4))
async def test_a_term_that_ends_in_the_middle_of_a_change(site: Site, there: Repository, steps: int) -> None:
    """Before the intent, before each transaction, before HEAD: whoever comes next does the rest, or none."""
    one, two = commits(there, 2)
    set_refs(there, {MAIN: one, TOPIC: one})
    here = await site.compare()
    assert here is not None
    before = refs_of(here)
    delta = (RefChange(TOPIC, one, None), RefChange(BELOW, None, two), RefChange(MAIN, one, two))
    site.steps = steps
    with pytest.raises(TermOverError):
        await site.change(there, *delta, head=f"ref: {BELOW}")
    halves = [before, before, {MAIN: one}, {BELOW: two, MAIN: two}]
    assert refs_of(here) == halves[steps]
    await site.restarted()
    after = {BELOW: two, MAIN: two} if steps else before
    assert refs_of(here) == after
    assert read_head(here.path) == (f"ref: {BELOW}" if steps else HEAD)


@pytest.mark.parametrize("steps", range(4))
async def test_a_term_that_ends_in_the_middle_of_a_comparison(
    site: Site, there: Repository, steps: int
) -> None:
    """The same for what a comparison does; after a restart and a comparison all is the leader's."""
    one, two = commits(there, 2)
    set_refs(there, {MAIN: one, TOPIC: one})
    here = await site.compare()
    assert here is not None
    set_refs(there, {TOPIC: None, BELOW: two, MAIN: two})
    git("symbolic-ref", "HEAD", BELOW, cwd=there.path)
    site.steps = steps
    with pytest.raises(TermOverError):
        await site.compare()
    await site.restarted()
    assert refs_of(here) == ({BELOW: two, MAIN: two} if steps else {MAIN: one, TOPIC: one})
    site.steps = 1_000
    assert await site.compare() == here
    assert refs_of(here) == refs_of(there)
    assert read_head(here.path) == f"ref: {BELOW}"


async def test_a_term_that_is_over_makes_and_removes_no_repository(site: Site, there: Repository) -> None:
    """Neither the one that is missing here, nor the one that was deleted on the leader."""
    identity = there.id()
    site.steps = 0
    with pytest.raises(TermOverError):
        await site.compare()
    assert site.standby.store.find(APP) is None
    await site.standby.store.create(APP, id=identity)
    await site.leader.room.store.delete(APP)
    with pytest.raises(TermOverError):
        await site.compare(identity)
    assert site.standby.store.find(APP) is not None


async def test_of_a_change_that_did_not_fit_a_restart_does_what_still_fits(
    site: Site, there: Repository
) -> None:
    """Its first transaction was done, the second refused, and then the node died.

    The ref that somebody else has moved stays as it is, and that is said.
    """
    one, two, three = commits(there, 3)
    set_refs(there, {MAIN: one, TOPIC: one})
    here = await site.compare()
    assert here is not None
    git("fetch", "-q", there.path, two, cwd=here.path)
    set_refs(here, {MAIN: two})
    delta = (RefChange(TOPIC, one, None), RefChange(BELOW, None, three), RefChange(MAIN, one, three))
    assert await site.change(there, *delta) is None
    assert refs_of(here) == {MAIN: two}
    with capture_logs() as logs:
        await site.restarted()
    assert [line["ref"] for line in logs if line["event"] == "intent_does_not_fit"] == [MAIN]
    assert refs_of(here) == {MAIN: two, BELOW: three}


async def test_a_cancelled_fetch_is_reaped_and_swept(site: Site, there: Repository) -> None:
    """Nothing of it runs or lies about when the cancellation shows; the next comparison is whole."""
    blob = git("hash-object", "-w", "--stdin", cwd=there.path, given=os.urandom(8_000_000))
    tree = git("mktree", cwd=there.path, given=f"100644 blob {blob}\tfile\n".encode())
    commit = git("commit-tree", "-m", "large", tree, cwd=there.path)
    set_refs(there, {MAIN: commit})
    came = asyncio.Event()

    def moved() -> None:
        site.moves += 1
        if site.moves == 20:
            came.set()

    task = asyncio.create_task(site.applier.compare(there.id(), Progress(moved)))
    async with asyncio.timeout(30):
        await came.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert not site.standby.processes._running
    assert site.standby.store.find(APP) is None, "it is not complete"
    assert not list(site.standby.datadir.repositories.rglob("tmp_*"))
    here = await site.compare()
    assert here is not None
    assert refs_of(here) == {MAIN: commit}
    assert whole(here)
