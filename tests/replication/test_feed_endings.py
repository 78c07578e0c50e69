"""What ends in the same moment as the term: pushes that wait, new standbys, the wait for a successor."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from stargate_gate.exitcodes import ExitCode
from stargate_gate.replication.leader.sync_rules import Limits
from stargate_gate.replication.wire.messages import PROTOCOL, Join
from stargate_gate.repos.repository import ID_FILE, Repository
from tests.support.feeds import APP_ID, LIMIT_S, B, House, Pipe, opened


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path, "sync") as one:
        yield one


async def settled() -> None:
    """Everything that is ready has run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_push_that_is_cancelled_while_its_answer_comes_is_cancelled(house: House) -> None:
    """No other error takes the place of the cancellation: whoever cancels a push waits for it to end."""
    await house.level()
    waiting = asyncio.create_task(house.feed.replicated(APP_ID, await house.push()))
    await settled()
    assert not waiting.done()
    waiting.cancel()
    await house.feed.close()  # the term answers the push before the push's task has run again
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, LIMIT_S)


async def test_a_step_down_that_is_cancelled_while_its_answer_comes_is_cancelled(house: House) -> None:
    """The same, for the wait for a successor."""
    await house.level()
    await house.push()  # which nobody confirms
    catching = asyncio.create_task(house.feed.caught_up(60.0))
    await settled()
    assert not catching.done()
    catching.cancel()
    await house.feed.close()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(catching, LIMIT_S)


async def test_a_term_ends_while_a_standby_that_came_twice_is_cancelled(house: House) -> None:
    """The second connection waits to be admitted, and its session is cancelled as the term ends."""
    await house.level()
    pipe = Pipe()
    served = asyncio.create_task(house.feed.serve(["stargate-feed"], pipe, "test"))
    pipe.say(Join(PROTOCOL, B, "another-start"))
    await settled()
    assert not served.done()
    served.cancel()
    async with asyncio.timeout(LIMIT_S):
        await house.feed.close()  # before the task of that session has run again
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(served, LIMIT_S)
    assert await asyncio.wait_for(house.standbys[0].served, LIMIT_S) == ExitCode.NOT_LEADER


async def test_what_time_brings_is_not_logged_as_a_sessions(tmp_path: Path) -> None:
    """A push sets the term's timer; what the term does then is not of that push's session."""
    seen: list[dict[str, Any]] = []
    async with opened(tmp_path, "sync", limits=Limits(0.2, 60.0)) as house:
        await house.level()
        seq, write = await house.push(), house.record.update_members

        async def noted(*given: Any, **named: Any) -> Any:
            seen.append(get_contextvars())
            return await write(*given, **named)

        house.record.update_members = noted  # type: ignore[method-assign]
        with bound_contextvars(session="push"):
            await asyncio.wait_for(house.feed.replicated(APP_ID, seq), LIMIT_S)  # the standby is late
    assert seen == [{}]


async def test_a_repository_that_loses_its_id_while_it_is_listed_is_left_out(house: House) -> None:
    """It does not end the connection of the standby whose list it is."""
    await house.push()
    repository, digest = await house.repository(), house.room.refs.digest_and_whole

    async def and_lose_the_id(of: Repository) -> tuple[str, bool]:
        found = await digest(of)
        (of.path / ID_FILE).unlink()
        return found

    house.room.refs.digest_and_whole = and_lose_the_id  # type: ignore[method-assign]
    assert await house.feed.listed(repository) is None
