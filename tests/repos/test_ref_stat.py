"""Refs that are read without git are what git would read; the rest is left to git."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.refs import RefReader
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.snapshot import RefSnapshot
from tests.support.git import git, git_run, make_work
from tests.support.room import Room

MAIN = "refs/heads/main"


class Counted(RefReader):
    """Counts how often git was asked."""

    def __init__(self, processes: GitProcesses) -> None:
        super().__init__(processes)
        self.reads = 0

    async def _read_once(self, repository: Repository) -> RefSnapshot:
        self.reads += 1
        return await super()._read_once(repository)


@pytest.fixture(params=["sha1", "sha256"])
async def repository(room: Room, tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    work = make_work(tmp_path / "work", commits=3, object_format=request.param)
    repository = await room.store.create(RepositoryName("a"), object_format=request.param)
    git("fetch", "-q", work, f"+HEAD:{MAIN}", cwd=repository.path)
    return repository


@pytest.fixture
def reader(room: Room) -> Counted:
    return Counted(room.processes)


async def truth(room: Room, repository: Repository) -> RefSnapshot:
    """What git says, unasked before."""
    return await RefReader(room.processes).snapshot(repository)


async def calm(reader: Counted, repository: Repository) -> None:
    """HEAD, config and packed-refs are older than a clock tick, and read."""
    while True:
        await reader.snapshot(repository)
        reads = reader.reads
        await reader.snapshot(repository)
        if reader.reads == reads:
            return


async def test_a_push_and_the_next_cost_no_process(
    room: Room, reader: Counted, repository: Repository
) -> None:
    """New branches, moved ones, tags, several at once: right after, and once more."""
    path = repository.path
    await calm(reader, repository)
    before, reads = await reader.snapshot(repository), reader.reads
    for command in (
        "update refs/heads/main main~1",
        "create refs/heads/team-1/a.b_c+d main",
        "create refs/tags/v1.0 main\nupdate refs/heads/main main",
    ):
        oids = {"main~1": git("rev-parse", "main~1", cwd=path), "main": git("rev-parse", "main", cwd=path)}
        given = "".join(
            " ".join([*line.split(" ")[:-1], oids[line.split(" ")[-1]]]) + "\n"
            for line in command.split("\n")
        )
        git("update-ref", "--stdin", cwd=path, given=given.encode())
        after = await reader.snapshot(repository)
        assert after == await truth(room, repository) != before
        assert await reader.snapshot(repository) is after
        assert await reader.digest(repository) == after.digest
        before = after
    assert reader.reads == reads


LEFT_TO_GIT: dict[str, Callable[[Path, str], object]] = {
    "deleted": lambda path, _: git("update-ref", "-d", "refs/heads/deep/x", cwd=path),
    "packed": lambda path, _: git("pack-refs", "--all", cwd=path),
    "HEAD": lambda path, _: git("symbolic-ref", "HEAD", "refs/heads/deep/x", cwd=path),
    "symbolic": lambda path, _: git("symbolic-ref", "refs/heads/alias", MAIN, cwd=path),
    "a link": lambda path, _: (path / "refs/heads/link").symlink_to("main"),
    "empty": lambda path, _: (path / "refs/heads/empty").touch(),
    "junk": lambda path, _: (path / "refs/heads/junk").write_text("junk\n"),
    "null": lambda path, oid: (path / "refs/heads/null").write_text("0" * len(oid) + "\n"),
    "upper case": lambda path, oid: (path / "refs/heads/upper").write_text(oid.upper() + "\n"),
    "of the other format": lambda path, oid: (path / "refs/heads/other").write_text(
        ("1" * 64 if len(oid) == 40 else "1" * 40) + "\n"
    ),
    "no end of line": lambda path, oid: (path / "refs/heads/open").write_text(oid),
    "an odd name": lambda path, oid: (path / "refs/heads/a..b").write_text(oid + "\n"),
    "a lock": lambda path, oid: (path / "refs/heads/main.lock").write_text(oid + "\n"),
    "reserved": lambda path, oid: git("update-ref", "refs/stargate/x", oid, cwd=path),
    "folder for file": lambda path, oid: (
        git(
            "update-ref",
            "--stdin",
            cwd=path,
            given=b"delete refs/heads/deep/x\n",
        )
        + git("update-ref", "refs/heads/deep", oid, cwd=path)
    ),
}


@pytest.mark.parametrize("change", LEFT_TO_GIT.values(), ids=LEFT_TO_GIT)
async def test_whatever_is_special_is_as_git_sees_it(
    room: Room, reader: Counted, repository: Repository, change: Callable[[Path, str], object]
) -> None:
    """Names, kinds and contents that git treats in a way of its own."""
    path = repository.path
    oid = git("rev-parse", "main", cwd=path)
    git("update-ref", "refs/heads/deep/x", oid, cwd=path)
    await calm(reader, repository)
    change(path, oid)
    snapshot = await reader.snapshot(repository)
    expected = await truth(room, repository)
    assert snapshot == expected
    assert snapshot.broken == expected.broken
    assert await reader.digest(repository) == expected.digest


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_in_a_row_is_as_git_sees_it(
    room: Room, reader: Counted, repository: Repository, seed: int
) -> None:
    """Moved, made, deleted, packed, by transactions and by hand, some of it within a clock tick."""
    chance, path = random.Random(seed), repository.path
    oids = [git("rev-parse", name, cwd=path) for name in ("main", "main~1", "main~2")]
    names = [MAIN, *(f"refs/{name}" for name in ("heads/a", "heads/a/b", "heads/c", "tags/t", "x/y/z"))]
    await calm(reader, repository)
    for _ in range(30):
        for _ in range(chance.randint(1, 3)):
            ref, oid = chance.choice(names), chance.choice(oids)
            match chance.randint(0, 9):
                case 0:
                    git("pack-refs", "--all", cwd=path)
                case 1 | 2:
                    git_run("update-ref", "-d", ref, cwd=path)
                case 3 if (path / ref).is_file():
                    (path / ref).write_text(oid + "\n")
                case 4:
                    git_run("symbolic-ref", "refs/heads/alias", ref, cwd=path)
                case _:
                    git_run("update-ref", ref, oid, cwd=path)
        assert await reader.snapshot(repository) == await truth(room, repository)


async def test_the_same_snapshot_is_the_same_files(reader: Counted, repository: Repository) -> None:
    """What was written again with the same value may not be on disk yet."""
    path = repository.path
    await calm(reader, repository)
    before = await reader.snapshot(repository)
    oid = before.refs[MAIN]
    git("update-ref", MAIN, f"{MAIN}~1", cwd=path)
    git("update-ref", MAIN, oid, cwd=path)
    after = await reader.snapshot(repository)
    assert after == before
    assert after is not before
    assert await reader.snapshot(repository) is after
