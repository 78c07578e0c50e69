"""A node dies by `kill -9` in the middle of pushes; the next one starts clean on the same data_dir."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stargate_gate.datadir.layout import open_data_dir
from stargate_gate.datadir.locks import NodeLock
from stargate_gate.datadir.procs import process_id
from stargate_gate.datadir.writers import WritersLock
from stargate_gate.repos.sweep import sweep_data_dir
from tests.support.git import git, git_run, make_work

LIMIT_S = 30.0
ROOT = Path(__file__).parents[2]

NODE = """
import asyncio, sys
from pathlib import Path
from stargate_gate.datadir.locks import NodeLock
from stargate_gate.repos.names import RepositoryName
from tests.support.room import open_room

async def main():
    async with open_room(Path(sys.argv[1])) as room:
        lock = NodeLock.acquire(room.datadir)
        repository = await room.store.create(RepositoryName("app"))
        argv = ["sh", "-c", sys.argv[2], "sh", str(repository.path)]
        writers = [await room.processes.start(argv, writes=repository.path) for _ in range(2)]
        for writer in writers:
            await writer.stdout.readline()
        print("writers", *(writer.pid for writer in writers), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""
# A git that holds a ref's lock, has a child, and does not heed the end of its input, or even SIGTERM.
BUSY = 'touch "$1/refs/heads/main.lock" "$1/objects/tmp_obj_x"; sleep 60 & echo; sleep 60'
STUBBORN = "trap '' TERM; " + BUSY


@pytest.fixture
def victims() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        if process_id(pid) is not None:
            os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize("script", [BUSY, STUBBORN])
async def test_what_a_killed_node_left_running_is_ended_and_swept(
    tmp_path: Path, victims: list[int], script: str
) -> None:
    """The next node ends the writers and their children, removes their locks, and pushes work again."""
    root = tmp_path / "data"
    node = subprocess.Popen([sys.executable, "-c", NODE, root, script], cwd=ROOT, stdout=subprocess.PIPE)
    assert node.stdout is not None
    line = b""
    while not line.startswith(b"writers"):
        line = node.stdout.readline()
        assert line, "the node ended"
    victims += map(int, line.split()[1:])
    node.kill()
    node.communicate()
    datadir = open_data_dir(root)
    repository = datadir.repositories / "app.git"
    assert all(process_id(pid) for pid in victims)
    assert (repository / "refs/heads/main.lock").exists()
    work = make_work(tmp_path / "work")
    push = (
        "-c",
        "core.hooksPath=/dev/null",
        "push",
        "-q",
        "--receive-pack=git -c core.hooksPath=/dev/null receive-pack",
        repository,
        "HEAD:refs/heads/main",
    )
    assert git_run(*push, cwd=work).returncode != 0

    with NodeLock.acquire(datadir):
        async with asyncio.timeout(LIMIT_S):
            lock = await WritersLock.open_exclusively_then_share(
                datadir,
                lambda paths: asyncio.to_thread(sweep_data_dir, datadir, paths),
                wait_s=0.1,
                term_s=0.5,
            )
        lock.close()
    assert not any(process_id(pid) for pid in victims)
    assert not list(repository.rglob("*.lock"))
    assert not list(repository.rglob("tmp_*"))
    assert list(datadir.writers.iterdir()) == []
    git(*push, cwd=work)
