"""What a standby sees of a repository has the number of exactly that, and what is told is on disk."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stargate_gate.errors import TryAgainError
from stargate_gate.replication.wire.messages import (
    Changed,
    Compare,
    Gone,
    Heartbeat,
    ListEnd,
    Message,
    RefsPart,
    SnapshotBegin,
    Unreadable,
)
from stargate_gate.replication.wire.numbers import FIRST_POSITION
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.repository import Repository
from tests.support.feeds import APP, APP_ID, LIMIT_S, B, C, House, opened

MAIN, OTHER = "refs/heads/main", "refs/heads/other"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path, "sync") as one:
        yield one


def seq_of(answer: list[Message]) -> int:
    begin = answer[0]
    assert isinstance(begin, SnapshotBegin | Gone)
    return begin.seq


def make_unreadable(repository: Repository) -> None:
    (repository.path / "packed-refs").write_text("damaged\n")


async def test_what_a_list_has_shown_in_between_is_told_anew(house: House) -> None:
    """A ref that goes away and comes back, and was seen gone: whoever saw that has to confirm it again."""
    b = await house.level()
    seq = await house.push()
    b.applied(seq)
    await asyncio.wait_for(house.feed.replicated(APP_ID, seq), LIMIT_S)
    await house.change("update-ref", OTHER, MAIN)
    await house.change("update-ref", "-d", MAIN)
    c = house.join(C)  # its list shows a repository without that ref
    await c.pipe.hear(ListEnd)
    await house.change("update-ref", MAIN, OTHER)
    await house.change("update-ref", "-d", OTHER)
    again = await house.pushed(await house.repository())
    assert again > seq
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, again))
    assert isinstance(await b.pipe.hear(Changed, Compare), Changed | Compare)
    assert isinstance(await b.pipe.hear(Changed, Compare), Compare), "no difference fits whoever saw it"
    assert not waiting.done()
    b.applied(again)
    await asyncio.wait_for(waiting, LIMIT_S)


async def test_a_list_that_shows_what_was_told_changes_no_number(house: House) -> None:
    """An idle cluster tells nothing anew."""
    await house.level()
    seq = await house.push()
    c = house.join(C)
    await c.pipe.hear(ListEnd)
    assert await house.pushed(await house.repository()) == seq


async def test_what_was_shown_to_one_who_asked_is_told_anew(house: House) -> None:
    """As with a list."""
    await house.level()
    seq = await house.push()
    await house.change("update-ref", OTHER, MAIN)
    shown = seq_of(await house.refs())
    await house.change("update-ref", "-d", OTHER)
    again = await house.pushed(await house.repository())
    assert seq < shown < again


async def test_a_repository_that_was_shown_to_be_gone_is_told_anew(house: House) -> None:
    """Even if the very same one comes back: whoever has seen that may have done something about it."""
    await house.level()
    seq = await house.push()
    repository = await house.repository()
    aside = repository.path.with_name(".aside")
    repository.path.rename(aside)
    answer = await house.refs()
    assert [type(message) for message in answer] == [Gone]
    aside.rename(repository.path)
    assert await house.pushed(repository) > seq


async def test_a_snapshot_has_the_number_of_what_it_shows(house: House) -> None:
    """What was not told yet is told by showing it: everybody else is to confirm that number, too."""
    b = await house.level()
    seq = await house.push()
    await b.pipe.hear(Changed, Compare)
    await house.change("update-ref", OTHER, MAIN)
    answer = await house.refs()
    assert any(isinstance(part, RefsPart) and OTHER in part.refs for part in answer)
    assert seq_of(answer) == seq + 1
    told = await b.pipe.hear(Changed, Compare)
    assert told == Compare(house.feed.term, seq + 1, APP, APP_ID)
    assert await house.pushed(await house.repository()) == seq + 1


async def test_asking_twice_tells_nothing_anew(house: House) -> None:
    """Else two standbys would keep each other busy for ever."""
    await house.push()
    first = await house.refs()
    position = house.feed.position
    assert seq_of(await house.refs()) == seq_of(first)
    assert house.feed.position == position


async def test_a_repository_that_cannot_be_read_is_not_told_of_by_asking(house: House) -> None:
    """The one who asks is told why, and what it was when it was read last; nothing new is told by that."""
    await house.push()
    repository = await house.repository()
    digest = await house.room.refs.digest(repository)
    make_unreadable(repository)
    position = house.feed.position
    for _ in range(3):
        (answer,) = await house.refs()
        assert isinstance(answer, Unreadable)
        assert "packed-refs" in answer.reason
        assert answer.last == digest
    assert house.feed.position == position
    assert len(house.feed.notes.lines) == 1


async def test_what_is_told_was_read_before_it_was_synced(tmp_path: Path) -> None:
    """What comes while the disk works may not be on it: it is told of in its own turn."""
    house: House
    during: list[str] = []

    async def on_disk(_: Repository) -> None:
        if during:
            await house.change("update-ref", during.pop(), MAIN)

    async with opened(tmp_path, "sync", on_disk=on_disk) as house:
        b = await house.level()
        await house.push()
        await b.pipe.hear(Changed, Compare)
        during.append(OTHER)
        seq = await house.push()
        assert not during
        told = await b.pipe.hear(Changed, Compare)
        assert isinstance(told, Changed)
        assert [change.ref for change in told.delta] == [MAIN]
        assert await house.pushed(await house.repository()) == seq + 1


@pytest.mark.parametrize("readable", [True, False])
async def test_what_is_not_on_disk_is_not_told(tmp_path: Path, *, readable: bool) -> None:
    """A standby would confirm what this node may lose."""

    async def on_disk(_: Repository) -> None:
        raise TryAgainError("not on disk")

    async with opened(tmp_path, "sync", on_disk=on_disk) as house:
        repository = await house.repository()
        if not readable:
            make_unreadable(repository)
        with pytest.raises(TryAgainError):
            await house.pushed(repository)
        assert house.feed.position == FIRST_POSITION


async def test_what_is_told_and_the_same_is_not_synced_again(tmp_path: Path) -> None:
    """A push tells twice: for what git showed, and for what it did. Only what was written costs the disk."""
    synced = 0

    async def on_disk(_: Repository) -> None:
        nonlocal synced
        synced += 1

    async with opened(tmp_path, "sync", on_disk=on_disk) as house:
        await house.push()
        repository = await house.repository()
        before = -1
        async with asyncio.timeout(LIMIT_S):
            while synced != before:  # HEAD was written just now, and is read by git for a moment
                before = synced
                seq = await house.pushed(repository)
        assert seq_of(await house.refs()) == seq
        assert synced == before
        await house.change("update-ref", MAIN, f"{MAIN}~1")
        await house.change("update-ref", MAIN, (await house.tip()))
        assert await house.pushed(repository) == seq
        assert synced == before + 1, "it is the same value, and was written anew"
        assert await house.pushed(repository) == seq
        assert synced == before + 1


async def test_one_task_at_a_time_tells_or_shows_a_repository(tmp_path: Path) -> None:
    """Reading, syncing and telling are one turn: a state never gets a later state's number."""
    going_on, entered = asyncio.Event(), asyncio.Event()

    async def on_disk(repository: Repository) -> None:
        if repository.name == APP and not entered.is_set():
            entered.set()
            await going_on.wait()

    async with opened(tmp_path, "sync", on_disk=on_disk) as house:
        repository = await house.repository()
        other, _ = await house.room.store.ensure(parse_repository_name("other"))
        first = asyncio.create_task(house.pushed(repository))
        await asyncio.wait_for(entered.wait(), LIMIT_S)
        await house.change("symbolic-ref", "HEAD", OTHER)
        second = asyncio.create_task(house.pushed(repository))
        asked = asyncio.create_task(house.refs())
        listed = asyncio.create_task(house.feed.listed(repository))
        for _ in range(3):  # whoever has no turn to wait for is done in that time
            await house.pushed(other)
        assert not any(task.done() for task in (first, second, asked, listed))
        going_on.set()
        async with asyncio.timeout(LIMIT_S):
            assert await first < await second == seq_of(await asked)
            assert await listed is not None


@pytest.mark.parametrize(("mode", "known"), [("sync", True), ("async", False)])
async def test_in_mode_async_nothing_is_known_to_be_replicated(
    tmp_path: Path, mode: str, *, known: bool
) -> None:
    """Others than the members may lead next: nobody may forget what it would have to rescue."""
    async with opened(tmp_path, mode, heartbeat_s=1.0) as house:  # type: ignore[arg-type]
        b = await house.level()
        seq = await house.push()
        b.applied(seq)
        async with asyncio.timeout(LIMIT_S):
            while house.feed.standbys()[0].lag_changes:
                await b.pipe.hear(Heartbeat)
        assert house.feed._core.sync_set.replicated_through == (seq if known else 0)


async def test_all_that_was_there_before_a_term_has_a_number(house: House) -> None:
    """0 is no position: a member that has confirmed its first list has everything up to the first one."""
    assert house.feed.position == FIRST_POSITION > 0
    assert house.feed._core.sync_set.replicated_through == 0
    await house.level()
    assert B in house.record.in_force
    assert house.feed._core.sync_set.replicated_through == FIRST_POSITION
