"""Waiting for children."""

import asyncio
import errno
import os
import subprocess

import pytest

from stargate_gate.aio.children import exited
from tests.support.git import open_descriptors


@pytest.fixture(params=["pidfd", "thread"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without pidfd_open(2)."""
    if request.param == "thread":

        def missing(_pid: int) -> int:
            raise OSError(errno.ENOSYS, "not here")

        monkeypatch.setattr(os, "pidfd_open", missing)


@pytest.mark.usefixtures("_way")
async def test_an_exit_is_seen_and_not_reaped() -> None:
    """The status is still there for whoever reaps."""
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    async with asyncio.timeout(10):
        await exited(child.pid)
        await exited(child.pid)
    assert child.wait() == 7


@pytest.mark.usefixtures("_way")
async def test_a_wait_can_be_given_up_and_begun_again() -> None:
    """Cancelling a wait leaves the child and no descriptor."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    before = open_descriptors()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await exited(child.pid)
    assert open_descriptors() == before
    child.stdin.close()
    async with asyncio.timeout(10):
        await exited(child.pid)
    assert child.wait() == 0
