"""Which term a write belongs to: that of the scope that it entered."""

import asyncio
from typing import cast

import pytest

from stargate_gate.aio.tasks import Signal
from stargate_gate.election.status import LeadershipView
from stargate_gate.errors import LeadershipLostError, NotLeaderError
from stargate_gate.gate.ports import Changes
from stargate_gate.node.leadership import NodeLeadership

LEADS = LeadershipView("leader", "node-a", None, 1, True, "", None, proved=True)


def changes() -> Changes:
    """Of some term; only its identity matters here."""
    return cast("Changes", object())


async def test_a_write_keeps_the_changes_of_the_term_that_it_was_let_in_to():
    """A new term that begins at once never gives its changes to a write of the old one."""
    leadership = NodeLeadership("node-a", lambda: LEADS, lambda: None, Signal())
    first, second = changes(), changes()
    leadership.open("token", first)
    entered = asyncio.Event()

    async def write() -> None:
        async with leadership.writing() as mine:
            assert mine is first
            entered.set()
            await asyncio.Event().wait()

    old = asyncio.create_task(write())
    await entered.wait()
    await leadership.close("has lost its leadership")
    with pytest.raises(LeadershipLostError):
        await old
    leadership.open("token", second)
    async with leadership.writing() as mine:
        assert mine is second


async def test_without_a_term_there_are_no_changes_to_write_with():
    """The scope is refused before anything of the write runs."""
    leadership = NodeLeadership("node-a", lambda: LEADS, lambda: None, Signal())
    with pytest.raises(NotLeaderError):
        leadership.writing()
