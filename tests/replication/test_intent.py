"""A change of several refs is there as a whole, wherever a crash cuts it."""

import asyncio
import subprocess
import threading
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.standby import intent_files as intents_module
from stargate_gate.replication.standby.answers import TermOverError
from stargate_gate.replication.standby.intent import (
    DamagedIntentError,
    Intent,
    decode,
    encode,
    needed,
    remaining,
)
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.intent_steps import complete
from stargate_gate.replication.standby.progress import Progress
from stargate_gate.replication.standby.step_runner import StepRunner, carry_out_all
from stargate_gate.replication.wire.messages import Changed
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.plan import RefChange, update_ref_input
from stargate_gate.repos.repository import Repository
from tests.support.room import Room, open_room
from tests.support.site import Applier, runner_of

APP = parse_repository_name("org/app")
ID = "1" * 32
OLD, NEW = "a" * 40, "b" * 40
TOPIC = RefChange("refs/heads/topic", OLD, None)
BELOW = RefChange("refs/heads/topic/\udcff", None, OLD)
MAIN = RefChange("refs/heads/main", OLD, NEW)
RENAME = Intent(ID, "org/app", ((TOPIC,), (BELOW, MAIN)), "ref: refs/heads/topic/x")


def test_one_ref_is_one_rename_and_needs_no_intent() -> None:
    """The usual push costs no further fsync; everything else can be cut in half."""
    assert not needed([[MAIN]], head_moves=False)
    assert not needed([], head_moves=True)
    assert needed([[MAIN]], head_moves=True)
    assert needed([[TOPIC], [BELOW]], head_moves=False)
    assert needed([[TOPIC, MAIN]], head_moves=False)


def test_what_is_written_is_read_again_and_damage_is_noticed() -> None:
    """Names may be any bytes; half a file is none."""
    written = encode(RENAME)
    assert decode(written) == RENAME
    for damaged in (written[:-1], written[:-9], b"", written.replace(OLD.encode(), NEW.encode())):
        with pytest.raises(DamagedIntentError):
            decode(damaged)


@pytest.mark.parametrize("done", range(4))
def test_what_is_done_is_skipped_and_the_rest_stays_in_order(done: int) -> None:
    """After any number of its steps what remains is exactly the others."""
    refs = {TOPIC.ref: OLD, MAIN.ref: OLD}
    for change in (TOPIC, BELOW, MAIN)[:done]:
        refs.pop(change.ref, None)
        if change.new is not None:
            refs[change.ref] = change.new
    left = remaining(RENAME, refs)
    assert left.misfits == ()
    assert [change for changes in left.transactions for change in changes] == [TOPIC, BELOW, MAIN][done:]


def test_a_ref_that_somebody_else_moved_stays_as_it_is() -> None:
    """Neither the old nor the new value: told, and left alone."""
    left = remaining(RENAME, {TOPIC.ref: OLD, MAIN.ref: "c" * 40})
    assert left.misfits == (MAIN,)
    assert left.transactions == ((TOPIC,), (BELOW,))


# -- with git --------------------------------------------------------------------------------------------


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    async with open_room(tmp_path / "data") as opened:
        yield opened


def git(repository: Repository, *args: str, given: bytes = b"") -> str:
    return (
        subprocess.run(
            ["git", "--git-dir", str(repository.path), *args],
            input=given,
            capture_output=True,
            check=True,
            timeout=30,
        )
        .stdout.decode()
        .strip()
    )


async def prepared(room: Room) -> tuple[Repository, Intent]:
    """A repository with main and topic, and what would move them to a new commit and topic/next."""
    repository = await room.store.create(APP, id=ID)
    tree = git(repository, "mktree")
    old, new = (git(repository, "commit-tree", "-m", text, tree) for text in ("old", "new"))
    for ref in ("refs/heads/main", "refs/heads/topic"):
        git(repository, "update-ref", ref, old)
    transactions = (
        (RefChange("refs/heads/topic", old, None),),
        (RefChange("refs/heads/main", old, new), RefChange("refs/heads/topic/next", None, new)),
    )
    return repository, Intent(ID, "org/app", transactions, "ref: refs/heads/topic/next")


def intents_of(room: Room) -> Intents:
    return Intents(room.datadir.state / "intents")


def runner(room: Room, kind: type[StepRunner] = StepRunner) -> StepRunner:
    state = room.datadir.state
    journal = Journal.open(state / "unreplicated.log", has_repositories=False)
    return runner_of(room, journal, Rescues.open(state / "rescued"), kind=kind)


async def completed(room: Room) -> None:
    await carry_out_all(complete(), runner(room), Progress())


async def assert_whole(room: Room, repository: Repository, intent: Intent) -> None:
    new = intent.transactions[1][0].new
    snapshot = await room.refs.snapshot(repository)
    assert dict(snapshot.refs) == {"refs/heads/main": new, "refs/heads/topic/next": new}
    assert snapshot.head == intent.head
    assert await intents_of(room).all() == []


@pytest.mark.parametrize("done", range(4))
async def test_a_restart_completes_what_was_cut(room: Room, done: int) -> None:
    """Before the first step, after each of them, and after HEAD: then all of it is there, once."""
    repository, intent = await prepared(room)
    await intents_of(room).put(intent)
    for changes in intent.transactions[:done]:
        git(repository, "update-ref", "--stdin", "-z", given=update_ref_input(changes))
    if done == 3:
        git(repository, "symbolic-ref", "HEAD", "refs/heads/topic/next")
    await completed(room)
    await assert_whole(room, repository, intent)
    await completed(room)
    await assert_whole(room, repository, intent)


async def test_an_intent_of_another_repository_of_that_name_is_dropped(room: Room) -> None:
    """A repository that was deleted and made again is not what the intent meant."""
    repository, intent = await prepared(room)
    await intents_of(room).put(Intent("2" * 32, intent.name, intent.transactions, intent.head))
    await completed(room)
    assert git(repository, "rev-parse", "refs/heads/topic") == intent.transactions[0][0].old
    assert await intents_of(room).all() == []


REFUSED = RefChange("refs/heads/a..b", None, NEW)  # this git takes no such ref; another one may


@pytest.mark.parametrize("done", [0, 1])
async def test_what_cannot_be_completed_is_undone_and_holds_up_nothing(room: Room, done: int) -> None:
    """What was there before the change was acknowledged: it is back, in that repository and no other."""
    repository, intent = await prepared(room)
    first = intent.transactions[0]
    refused = Intent(intent.repository_id, intent.name, (first, (REFUSED,)), intent.head)
    for changes in refused.transactions[:done]:
        git(repository, "update-ref", "--stdin", "-z", given=update_ref_input(changes))
    other = await room.store.create(parse_repository_name("org/other"), id="f" * 32)
    tip = first[0].old
    assert tip is not None
    git(other, "fetch", "-q", repository.path, "refs/heads/main:refs/heads/main")
    main = git(other, "rev-parse", "refs/heads/main")
    new = (RefChange("refs/heads/x", None, main), RefChange("refs/heads/y", None, main))
    await intents_of(room).put(refused)
    await intents_of(room).put(Intent("f" * 32, "org/other", (new,), "ref: refs/heads/main"))
    await completed(room)
    assert git(repository, "rev-parse", "refs/heads/topic") == tip
    assert git(other, "rev-parse", "refs/heads/x", "refs/heads/y").split() == [main, main]
    assert await intents_of(room).all() == []


@pytest.mark.parametrize("done", [0, 1])
async def test_before_a_node_leads_the_values_of_an_undone_change_are_rescued(room: Room, done: int) -> None:
    """In `async` the lost leader may have acknowledged them: `stargate rescued list` shows them here."""
    repository, intent = await prepared(room)
    main, new = intent.transactions[1]
    assert new.new is not None
    refused = RefChange(REFUSED.ref, None, new.new)
    await intents_of(room).put(Intent(ID, intent.name, ((main,), (refused,)), intent.head))
    if done:
        git(repository, "update-ref", "--stdin", "-z", given=update_ref_input((main,)))
    assert await carry_out_all(complete(rescue=True), runner(room), Progress()) == []
    assert git(repository, "rev-parse", "refs/heads/main") == main.old
    (listed,) = Rescues.open(room.datadir.state / "rescued").all()
    assert [(one.value.ref, one.value.oid) for one in listed.values] == [
        (REFUSED.ref, new.new),
        (main.ref, new.new),
    ]
    assert git(repository, "rev-parse", listed.values[0].value.rescued_ref) == new.new


async def test_values_whose_objects_are_not_here_hold_up_nothing(room: Room) -> None:
    """They cannot be rescued; the change is undone all the same, and the log says so."""
    repository, intent = await prepared(room)
    await intents_of(room).put(
        Intent(ID, intent.name, ((intent.transactions[1][0],), (REFUSED,)), intent.head)
    )
    assert await carry_out_all(complete(rescue=True), runner(room), Progress()) == []
    assert git(repository, "rev-parse", "refs/heads/main") == intent.transactions[1][0].old
    assert not Rescues.open(room.datadir.state / "rescued").all()
    assert await intents_of(room).all() == []


async def test_what_cannot_be_undone_either_is_given_up_and_holds_up_nothing(room: Room) -> None:
    """A damaged repository. Its intent stays until it was compared with the leader."""
    repository, intent = await prepared(room)
    await intents_of(room).put(intent)
    (repository.path / "refs/heads/topic").parent.mkdir(exist_ok=True)
    git(repository, "pack-refs", "--all")
    (repository.path / "packed-refs").write_bytes(b"this is damaged\n")
    assert await carry_out_all(complete(), runner(room), Progress()) == [intent]
    assert await intents_of(room).all() == [intent]


async def test_a_damaged_intent_was_never_acted_upon(room: Room) -> None:
    """Half-written files come from a crash before the first step: removed, and no start fails."""
    repository, intent = await prepared(room)
    await intents_of(room).put(intent)
    folder = room.datadir.state / "intents"
    (folder / ID).write_bytes(encode(intent)[:-7])
    (folder / f".{ID}.123.new").write_bytes(b"half")
    await completed(room)
    assert list(folder.iterdir()) == []
    assert git(repository, "rev-parse", "refs/heads/topic") == intent.transactions[0][0].old


class _HasAll(StepRunner):
    """Its objects are here; it notes what is on disk whenever refs are about to change.

    steps  of those that ask whether they may, before the term ends
    """

    steps = 0
    intended: list[Intent]

    def _require_current(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise TermOverError("the mirror has ended")

    async def _fetch(self, repository: Repository, oids: Collection[str], progress: Progress) -> None:
        """Nothing is missing."""

    async def _change_refs(self, *args: object, **flags: object) -> None:
        self.intended = await self._intents.all()
        await super()._change_refs(*args, **flags)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", range(5))
async def test_a_change_that_is_cut_anywhere_is_completed_by_whoever_comes_next(
    room: Room, steps: int
) -> None:
    """The term ends after any step of a change; a promotion, or the next connection, does the rest.

    With no step allowed nothing was written down, and nothing has changed.
    """
    repository, intent = await prepared(room)
    delta = tuple(change for changes in intent.transactions for change in changes)
    has_all = runner(room, _HasAll)
    assert isinstance(has_all, _HasAll)
    has_all.steps = steps
    applier = Applier(has_all)
    change = Changed(3, 7, APP, ID, intent.head, delta)
    if steps < 4:
        with pytest.raises(TermOverError):
            await applier.change(change, Progress())
    else:
        assert await applier.change(change, Progress()) == repository
        assert has_all.intended == [intent]
        await assert_whole(room, repository, intent)
    if steps == 0:
        assert await intents_of(room).all() == []
        assert git(repository, "rev-parse", "refs/heads/topic") == intent.transactions[0][0].old
        return
    await completed(room)
    await assert_whole(room, repository, intent)


async def test_a_cancelled_intent_is_there_or_not_when_the_cancellation_shows(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that appeared later would be carried out by a leader, at its next start."""
    began, let_go = threading.Event(), threading.Event()
    real = intents_module.write_durably

    def write_slowly(path: Path, content: bytes) -> None:
        began.set()
        assert let_go.wait(30)
        real(path, content)

    monkeypatch.setattr(intents_module, "write_durably", write_slowly)
    intents = intents_of(room)
    task = asyncio.create_task(intents.put(RENAME))
    assert await asyncio.to_thread(began.wait, 30)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=0.05)
    assert not done
    let_go.set()
    await asyncio.wait({task})
    assert task.cancelled()
    assert await intents.all() == [RENAME]


async def test_an_intent_whose_removal_was_cut_does_not_come_back(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that died right after the unlink: the next one syncs the folder before it goes on."""
    intents = intents_of(room)
    await intents.put(RENAME)
    folder = room.datadir.state / "intents"
    (folder / ID).unlink()
    synced: list[Path] = []
    monkeypatch.setattr(intents_module, "fsync_dir", synced.append)
    assert await intents.all() == []
    assert synced == [folder]
