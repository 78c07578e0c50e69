"""Snapshots and digests of refs, and a cache that nobody can change a ref behind."""

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.errors import NoSuchRepositoryError
from stargate_gate.repos.names import RepositoryName, encode_ref
from stargate_gate.repos.process import GitProcesses
from stargate_gate.repos.ref_files import RACY_NS, stat_refs
from stargate_gate.repos.refs import MAX_CACHED_BYTES, RefReader
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.snapshot import RefSnapshot
from tests.support.git import git, git_run, make_work
from tests.support.room import Room

A = RepositoryName("a")


class Counted(RefReader):
    """Counts the git processes that reading took."""

    def __init__(self, processes: GitProcesses, max_cached_bytes: int = MAX_CACHED_BYTES) -> None:
        super().__init__(processes, max_cached_bytes=max_cached_bytes)
        self.reads = 0

    async def _read_once(self, repository: Repository) -> RefSnapshot:
        self.reads += 1
        return await super()._read_once(repository)


@pytest.fixture(params=["sha1", "sha256"])
async def repository(room: Room, tmp_path: Path, request: pytest.FixtureRequest) -> Repository:
    work = make_work(tmp_path / "work", commits=3, object_format=request.param)
    repository = await room.store.create(A, object_format=request.param)
    git("fetch", "-q", work, "+HEAD:refs/heads/main", cwd=repository.path)
    git("update-ref", "refs/heads/deep/er/x", "main~1", cwd=repository.path)
    return repository


@pytest.fixture
def reader(room: Room) -> Counted:
    return Counted(room.processes)


async def settle(path: Path) -> None:
    """Wait until the stamps of what was written just now can be told from any later ones."""
    newest = max(entry.lstat().st_ctime_ns for entry in [path, *path.rglob("*")])
    while not stat_refs(path, time.time_ns()).settled:
        await asyncio.sleep(max(0, newest + RACY_NS - time.time_ns()) / 1e9 + 0.001)


def truth(path: Path) -> dict[str, str]:
    out = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=path)
    return dict(line.split(" ") for line in out.split("\n") if not line.startswith("refs/stargate/"))


async def test_all_refs_but_the_reserved_loose_and_packed(reader: Counted, repository: Repository) -> None:
    """Nested ones, odd names of any bytes, tags with their own ids; format and HEAD."""
    path = repository.path
    oid = git("rev-parse", "main", cwd=path)
    git("tag", "-a", "-m", "x", "v1", "main", cwd=path)
    git("update-ref", "refs/stargate/rescued/1/x", oid, cwd=path)
    git("update-ref", "refs/stargated", oid, cwd=path)
    odd = (
        b"update refs/heads/\xff\xfe\0%b\0\0" % oid.encode()
        + b"update refs/heads/\xe2\x80\xa8x\0%b\0\0" % oid.encode()
    )
    git("update-ref", "--stdin", "-z", cwd=path, given=odd)
    loose = await reader.snapshot(repository)
    assert loose.refs == truth(path)
    assert {"refs/heads/\udcff\udcfe", "refs/heads/\u2028x", "refs/stargated", "refs/heads/deep/er/x"} <= set(
        loose.refs
    )
    assert encode_ref("refs/heads/\udcff\udcfe") == b"refs/heads/\xff\xfe"
    assert loose.refs["refs/tags/v1"] != oid
    assert loose.object_format == git("rev-parse", "--show-object-format", cwd=path)
    assert loose.head == "ref: refs/heads/main"
    git("pack-refs", "--all", cwd=path)
    packed = await reader.snapshot(repository)
    assert packed == loose
    assert packed.digest == loose.digest


async def test_head_in_each_state(reader: Counted, repository: Repository) -> None:
    """Symbolic, unborn, detached; each is another digest."""
    path = repository.path
    digests = set()
    for head in ("ref: refs/heads/main", "ref: refs/heads/ünborn", git("rev-parse", "main", cwd=path)):
        (path / "HEAD").write_text(head + "\n")
        assert (await reader.snapshot(repository)).head == head
        digests.add(await reader.digest(repository))
    assert len(digests) == 3


async def test_an_empty_repository_has_a_digest(room: Room, reader: Counted) -> None:
    """Equal for equal ones, and the formats differ."""
    made = [
        await room.store.create(RepositoryName(f"e{n}"), object_format=f)
        for n, f in enumerate(["sha1", "sha1", "sha256"])
    ]
    digests = [await reader.digest(repository) for repository in made]
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_is_of_the_content_alone() -> None:
    """Not of the order, nor of what is broken; nothing can be shifted from one field to another."""
    one = RefSnapshot("sha1", "ref: refs/heads/a", {"refs/heads/a": "1", "refs/heads/b": "2"})
    other = RefSnapshot(
        "sha1", "ref: refs/heads/a", {"refs/heads/b": "2", "refs/heads/a": "1"}, frozenset({"x"})
    )
    assert one.digest == other.digest
    assert one == other
    different = [
        RefSnapshot("sha256", one.head, one.refs),
        RefSnapshot("sha1", "ref: refs/heads/b", one.refs),
        RefSnapshot("sha1", one.head, {"refs/heads/a": "2", "refs/heads/b": "1"}),
        RefSnapshot("sha1", one.head, {"refs/heads/a": "1"}),
        RefSnapshot("sha1", one.head, {}),
    ]
    assert len({snapshot.digest for snapshot in [one, *different]}) == 6


async def test_broken_refs_do_not_hide_the_others(reader: Counted, repository: Repository) -> None:
    """They are named, not counted; the problems are logged."""
    path = repository.path
    expected = truth(path)
    (path / "refs/heads/empty").touch()
    (path / "refs/heads/junk").write_text("junk\n")
    git("symbolic-ref", "refs/heads/dangling", "refs/heads/none", cwd=path)
    (path / "refs/heads/main.lock").touch()
    with capture_logs() as logs:
        snapshot = await reader.snapshot(repository)
    assert snapshot.refs == expected
    assert {"refs/heads/empty", "refs/heads/junk"} <= snapshot.broken
    assert [entry["event"] for entry in logs] == ["refs_with_problems"]


async def test_a_symbolic_ref_counts_with_its_value(reader: Counted, repository: Repository) -> None:
    """As clients see it; so a mirror with a plain ref there has the same digest."""
    path = repository.path
    git("symbolic-ref", "refs/heads/alias", "refs/heads/main", cwd=path)
    digest = await reader.digest(repository)
    git("symbolic-ref", "-d", "refs/heads/alias", cwd=path)
    git("update-ref", "refs/heads/alias", "refs/heads/main", cwd=path)
    assert await reader.digest(repository) == digest


async def test_an_idle_check_starts_no_process(reader: Counted, repository: Repository) -> None:
    """One read, then memory."""
    await settle(repository.path)
    first = await reader.digest(repository)
    for _ in range(20):
        assert await reader.digest(repository) == first
        await reader.snapshot(repository)
    assert reader.reads == 1
    reader.invalidate(repository)
    assert await reader.digest(repository) == first
    assert reader.reads == 2


CHANGES: list[Callable[[Path], object]] = [
    lambda path: git("update-ref", "refs/heads/new", "main", cwd=path),
    lambda path: git("update-ref", "refs/heads/main", "main~1", cwd=path),
    lambda path: git("update-ref", "-d", "refs/heads/deep/er/x", cwd=path),
    lambda path: git("symbolic-ref", "HEAD", "refs/heads/deep/er/x", cwd=path),
    lambda path: (path / "refs/heads/by-hand").write_text(git("rev-parse", "main", cwd=path) + "\n"),
    lambda path: (path / "refs/heads/main").write_text(git("rev-parse", "main~1", cwd=path) + "\n"),
    lambda path: shutil.rmtree(path / "refs/heads/deep"),
    lambda path: (path / "refs/heads/main").rename(path / "refs/heads/moved"),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_every_change_is_seen_by_whomever(
    reader: Counted, repository: Repository, change: Callable[[Path], object]
) -> None:
    """git, an editor, a file manager: right after, loose and packed."""
    path = repository.path
    await settle(path)
    before = await reader.snapshot(repository)
    change(path)
    after = await reader.snapshot(repository)
    assert after.refs == truth(path)
    assert after.digest != before.digest
    assert await reader.digest(repository) == after.digest
    git("pack-refs", "--all", cwd=path)
    await settle(path)
    assert (await reader.snapshot(repository)).refs == after.refs
    git("update-ref", "refs/x/last", git("hash-object", "-w", "--stdin", cwd=path), cwd=path)
    assert "refs/x/last" in (await reader.snapshot(repository)).refs


async def test_a_storm_of_changes_is_never_missed(reader: Counted, repository: Repository) -> None:
    """Each change within the same clock tick as the read before it: the next digest has it."""
    path = repository.path
    oids = [git("rev-parse", name, cwd=path) for name in ("main", "main~1")]
    ref = path / "refs/heads/main"
    for number in range(60):
        oid = oids[number % 2]
        ref.write_text(oid + "\n")  # same size, same inode, often the same stamp
        assert (await reader.snapshot(repository)).refs["refs/heads/main"] == oid


async def test_readers_during_pushes_see_only_states_that_were(
    reader: Counted, repository: Repository
) -> None:
    """While refs move all the time every snapshot is readable, and the last one is right."""
    path = repository.path
    oids = [git("rev-parse", name, cwd=path) for name in ("main", "main~1")]
    stop = asyncio.Event()

    async def push() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            command = f"update refs/heads/main\0{oids[number % 2]}\0\0".encode()
            await asyncio.to_thread(git_run, "update-ref", "--stdin", "-z", cwd=path, given=command)

    pushing = asyncio.create_task(push())
    for _ in range(30):
        assert (await reader.snapshot(repository)).refs["refs/heads/main"] in oids
    stop.set()
    await pushing
    assert (await reader.snapshot(repository)).refs == truth(path)


async def test_memory_is_bounded_and_digests_stay_the_longest(room: Room, repository: Repository) -> None:
    """Over the limit the least used snapshots go; their digests still cost no process."""
    reader = Counted(room.processes, max_cached_bytes=1)
    await settle(repository.path)
    digest = await reader.digest(repository)
    assert reader._cached_bytes == 0
    assert await reader.digest(repository) == digest
    assert reader.reads == 1
    assert (await reader.snapshot(repository)).digest == digest
    assert reader.reads == 2


async def test_a_repository_that_is_gone_is_a_clear_error(
    room: Room, reader: Counted, repository: Repository
) -> None:
    """Known before or not."""
    await settle(repository.path)
    await reader.digest(repository)
    await room.store.delete(A)
    for read in (reader.digest, reader.snapshot):
        with pytest.raises(NoSuchRepositoryError):
            await read(repository)
        reader.invalidate(repository)
