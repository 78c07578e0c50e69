"""A program of the operator's own: what it is told, and that nothing of it is left behind."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from stargate_gate.address.command import Command
from stargate_gate.address.port import Turn
from stargate_gate.address.running import environment, run
from stargate_gate.errors import AddressError
from tests.support.cluster import eventually
from tests.support.scripts import script

LEADER = Turn("node-a", "leader", 7, "c", "takeover")
STANDBY = Turn("node-a", "standby", 7, "c", "step-down")


def gone(pid: int) -> bool:
    """Neither running nor waiting to be reaped by us."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_it_is_told_the_role_the_term_and_the_reason(tmp_path: Path) -> None:
    """In its environment, which holds nothing of this node's own besides."""
    out = tmp_path / "out"
    program = script(tmp_path / "move", f'echo "$@" >>{out}; env | grep -v -e ^PWD= -e ^_= >>{out}')
    os.environ["STARGATE_SECRET"] = "x"
    try:
        one = Command((str(program), "a b"), name="move", address="stargate.local:2222", timeout_s=10)
        await one.claim(LEADER)
        await one.keep(LEADER)
        await one.release(STANDBY)
    finally:
        del os.environ["STARGATE_SECRET"]
    first, second = out.read_text().split("a b\n")[1:]
    assert {line for line in first.splitlines() if not line.startswith(("PATH=", "SHLVL="))} == {
        "LC_ALL=C",
        "STARGATE_ROLE=leader",
        "STARGATE_TERM=7",
        "STARGATE_REASON=takeover",
        "STARGATE_NODE=node-a",
        "STARGATE_ADDRESS=stargate.local:2222",
    }
    assert "STARGATE_ROLE=standby\n" in second
    assert "STARGATE_REASON=step-down\n" in second


async def test_a_failure_is_told_with_the_last_line(tmp_path: Path) -> None:
    """However much the program writes: it never waits for us."""
    program = script(
        tmp_path / "move", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo no luck >&2; exit 3"
    )
    with pytest.raises(AddressError, match=r"move exited 3: no luck$"):
        await Command((str(program),), name="move", address="", timeout_s=60).claim(LEADER)


async def test_what_does_not_start_is_told() -> None:
    """A path that leads nowhere."""
    with pytest.raises(AddressError, match="/no/such/program does not start: No such file or directory"):
        await Command(("/no/such/program",), name="move", address="", timeout_s=10).claim(LEADER)


async def test_at_the_limit_it_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """Not the shell alone: also what waits in it."""
    pids = tmp_path / "pids"
    program = script(tmp_path / "move", f"sleep 1000 & echo $$ $! >{pids}; wait")
    with pytest.raises(AddressError, match=r"move was ended: it took more than 0.5 s"):
        await run((str(program),), environment(), 0.5)
    for pid in pids.read_text().split():
        eventually(lambda pid=int(pid): gone(pid), f"{pid} is gone")


async def test_given_up_it_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """The node has other things to do with the address: two programs must not move it at a time."""
    pids = tmp_path / "pids"
    program = script(tmp_path / "move", f"sleep 1000 & echo $$ $! >{pids}.new; mv {pids}.new {pids}; wait")
    task = asyncio.create_task(run((str(program),), environment(), 1000))
    async with asyncio.timeout(30):
        while not pids.exists():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in pids.read_text().split():
        eventually(lambda pid=int(pid): gone(pid), f"{pid} is gone")


async def test_a_process_that_it_leaves_behind_on_purpose_does_not_hold_us_up(tmp_path: Path) -> None:
    """It may hold our pipe for ever."""
    pids = tmp_path / "pids"
    program = script(tmp_path / "move", f"sleep 1000 & echo $! >{pids}; echo done")
    started = time.monotonic()
    assert await run((str(program),), environment(), 60) == "done\n"
    assert time.monotonic() - started < 50
    pid = int(pids.read_text())
    assert not gone(pid)
    os.kill(pid, 9)
