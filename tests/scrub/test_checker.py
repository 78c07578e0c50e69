"""A check finds every kind of damage of a real repository, names it, and takes no change for damage."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import HOME_FILE, ID_FILE, Repository
from stargate_gate.scrub import checker as checker_module
from stargate_gate.scrub.checker import Checker, Reading, _throttled
from stargate_gate.scrub.copies import find_copies, find_copy
from stargate_gate.scrub.findings import Verdict
from tests.support.git import git, make_work
from tests.support.room import Room

A = RepositoryName("org/a")
AS_FAST_AS_IT_CAN = 0.0


@pytest.fixture
def checker(room: Room) -> Checker:
    return Checker(room.store, room.processes, again_s=0.01)


async def filled(room: Room, tmp_path: Path, object_format: str = "sha1") -> Repository:
    """A repository with a pack, a loose object of each type, packed and loose refs, and a tag."""
    repository = await room.store.create(A, object_format=object_format)
    work = make_work(tmp_path / "work", commits=3, object_format=object_format)
    url = str(repository.path)
    hooks = ("-c", "core.hooksPath=/dev/null")
    push(work, url, "HEAD:refs/heads/packed")
    git(*hooks, "-C", url, "repack", "-adq", "--write-bitmap-index")
    git(*hooks, "-C", url, "pack-refs", "--all")
    (work / "new").write_text("loose\n")
    git("add", "new", cwd=work)
    git("commit", "-qm", "loose", cwd=work)
    git("tag", "-am", "a tag", "v1", cwd=work)
    push(work, url, "HEAD:refs/heads/main", "v1")
    git(*hooks, "-C", url, "commit-graph", "write", "--reachable")
    git(*hooks, "-C", url, "multi-pack-index", "write")
    return repository


def push(work: Path, url: str, *refs: str) -> None:
    """With the hooks of the server switched off, as if it had come through the gate."""
    receive = "git -c core.hooksPath=/dev/null -c receive.unpackLimit=100 receive-pack"
    git("push", "-q", f"--receive-pack={receive}", url, *refs, cwd=work)


async def verdict(room: Room, checker: Checker, name: RepositoryName = A) -> Verdict:
    """What a check of the copy says, damaged or not."""
    _, repository = find_copy(room.store.root, name)
    _, said = await checker.check(repository, AS_FAST_AS_IT_CAN, Reading())
    return said


def one(folder: Path, pattern: str) -> Path:
    """The one file that fits."""
    (found,) = folder.glob(pattern)
    return found


def loose(path: Path, revision: str) -> Path:
    """The file of a loose object."""
    oid = git("-C", path, "rev-parse", revision)
    return path / "objects" / oid[:2] / oid[2:]


def flip(path: Path, place: float = 0.5) -> None:
    """Change one bit of the file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0x10
    overwrite(path, bytes(content))


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def cut(path: Path) -> None:
    overwrite(path, path.read_bytes()[:-7])


def without_pack_index(path: Path) -> None:
    one(path / "objects/pack", "pack-*.idx").unlink()


def another_packs_index(path: Path) -> None:
    """Both files are whole, and do not belong together."""
    index = one(path / "objects/pack", "pack-*.idx")
    name = path.parent / "other"
    oid = git("-C", path, "rev-parse", "packed^{tree}")
    made = git("-C", path, "pack-objects", "-q", name, given=f"{oid}\n".encode())
    overwrite(index, Path(f"{name}-{made}.idx").read_bytes())


DAMAGES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    # what → how; where it is found; a word of why
    "ref of zeros": (lambda p: overwrite(p / "refs/heads/main", b"\0" * 41), "refs/heads/main", "zero"),
    "ref empty": (lambda p: overwrite(p / "refs/heads/main", b""), "refs/heads/main", "empty"),
    "ref to nothing": (
        lambda p: overwrite(p / "refs/heads/main", b"1" * 40 + b"\n"),
        "refs/heads/main",
        "invalid",
    ),
    "packed-refs cut": (lambda p: cut(p / "packed-refs"), "packed-refs", "ends within line"),
    "packed-refs of zeros": (lambda p: overwrite(p / "packed-refs", b"\0" * 300), "packed-refs", "line 1"),
    "HEAD empty": (lambda p: overwrite(p / "HEAD", b""), "HEAD", "empty"),
    "HEAD of zeros": (lambda p: overwrite(p / "HEAD", b"\0" * 23), "HEAD", "zero"),
    "HEAD missing": (lambda p: (p / "HEAD").unlink(), "HEAD", "has no HEAD"),
    "refs/ missing": (lambda p: (p / "refs").rename(p / "gone"), ".", "has no refs"),
    "loose object flipped": (lambda p: flip(loose(p, "main:new")), "objects/", ""),
    "loose object empty": (lambda p: overwrite(loose(p, "main^{tree}"), b""), "objects/", "empty"),
    "loose object cut": (lambda p: cut(loose(p, "main")), "objects/", "cut off"),
    "loose object removed": (lambda p: loose(p, "main:new").unlink(), "object ", "blob is missing"),
    "commit removed": (lambda p: loose(p, "main").unlink(), "refs/heads/main", "invalid"),
    "pack flipped": (lambda p: flip(one(p / "objects/pack", "*.pack")), ".pack", "checksum is wrong"),
    "pack cut": (lambda p: cut(one(p / "objects/pack", "*.pack")), ".pack", "checksum is wrong"),
    "pack empty": (lambda p: overwrite(one(p / "objects/pack", "*.pack"), b""), ".pack", "is empty"),
    "pack removed": (lambda p: one(p / "objects/pack", "*.pack").unlink(), ".pack", "is missing"),
    "idx flipped": (lambda p: flip(one(p / "objects/pack", "pack-*.idx")), ".idx", "checksum is wrong"),
    "idx of another pack": (another_packs_index, ".idx", "not the index of the pack"),
    "idx removed": (without_pack_index, ".idx", "is missing"),
    "bitmap flipped": (lambda p: flip(one(p / "objects/pack", "*.bitmap")), ".bitmap", "checksum"),
    "multi-pack-index flipped": (
        lambda p: flip(p / "objects/pack/multi-pack-index"),
        "objects/pack/multi-pack-index",
        "checksum",
    ),
    "commit-graph flipped": (
        lambda p: flip(p / "objects/info/commit-graph"),
        "objects/info/commit-graph",
        "checksum",
    ),
    "config of zeros": (lambda p: overwrite(p / "config", b"\0" * 200), "config", "zero"),
    "config broken": (lambda p: overwrite(p / "config", b"[core\nbare = tr"), "config", "config"),
    "config missing": (lambda p: (p / "config").unlink(), ".", "has no config"),
    "id of zeros": (lambda p: overwrite(p / ID_FILE, b"\0" * 33), ID_FILE, "no id"),
    "id missing": (lambda p: (p / ID_FILE).unlink(), ID_FILE, "missing"),
}


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
async def test_a_sound_copy_is_sound(
    room: Room, checker: Checker, tmp_path: Path, object_format: str
) -> None:
    """With every kind of file that git makes; so is an empty one."""
    repository = await filled(room, tmp_path, object_format)
    kinds = {path.suffix for path in (repository.path / "objects").rglob("*") if path.is_file()}
    assert {".pack", ".idx", ".bitmap"} <= kinds
    reading = Reading()
    folder, said = await checker.check(repository, AS_FAST_AS_IT_CAN, reading)
    assert said == Verdict("sound")
    assert folder == repository.path.stat().st_ino
    packs = sum(path.stat().st_size for path in (repository.path / "objects").rglob("*") if path.is_file())
    assert reading.read_bytes >= packs * 0.9
    await room.store.create(RepositoryName("empty"), object_format=object_format)
    assert await verdict(room, checker, RepositoryName("empty")) == Verdict("sound")


@pytest.mark.parametrize("what", DAMAGES)
async def test_damage_is_found_and_named(room: Room, checker: Checker, tmp_path: Path, what: str) -> None:
    """Each kind: the verdict says where, why, and what to do. The copy is among those that are listed."""
    repository = await filled(room, tmp_path)
    damage, where, why = DAMAGES[what]
    damage(repository.path)
    said = await verdict(room, checker)
    assert said.result == "damaged", said
    assert any(where in found.where and why in found.why for found in said.findings), said.findings
    assert all(found.remedy for found in said.findings)
    assert str(repository.path) not in said.why
    assert str(A) in [copy.name for copy, _ in find_copies(room.store.root).values()]


async def test_what_a_killed_git_leaves_is_no_damage(room: Room, checker: Checker, tmp_path: Path) -> None:
    """A pack without an index that nobody needs, lock files, temporary objects."""
    repository = await filled(room, tmp_path)
    objects = repository.path / "objects"
    pack = one(objects / "pack", "*.pack").read_bytes()
    (objects / "pack" / f"pack-{'1' * 40}.pack").write_bytes(pack)
    (objects / "pack" / "tmp_pack_abcdef").write_bytes(pack[:10])
    (objects / "11").mkdir(exist_ok=True)
    (objects / "11" / "tmp_obj_abcdef").write_bytes(b"")
    (repository.path / "refs/heads/main.lock").write_bytes(b"")
    assert await verdict(room, checker) == Verdict("sound")


async def test_a_copied_in_repository_needs_no_id(room: Room, checker: Checker, tmp_path: Path) -> None:
    """It never had one, so none is missing."""
    repository = await filled(room, tmp_path)
    (repository.path / ID_FILE).unlink()
    (repository.path / HOME_FILE).unlink()
    assert await verdict(room, checker) == Verdict("sound")


async def test_a_finding_that_is_gone_at_the_second_look_does_not_count(room: Room, tmp_path: Path) -> None:
    """Somebody repairs the copy between the two looks."""
    repository = await filled(room, tmp_path)
    ref = repository.path / "refs/heads/main"
    before = ref.read_bytes()
    overwrite(ref, b"")
    checker = Checker(room.store, room.processes, again_s=30.0)
    check = asyncio.create_task(checker.check(repository, AS_FAST_AS_IT_CAN, Reading()))
    looked = asyncio.Event()
    real_sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        if seconds == 30.0:
            overwrite(ref, before)
            looked.set()
            return
        await real_sleep(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stargate_gate.scrub.checker.asyncio.sleep", slept)
        _, said = await check
    assert looked.is_set()
    assert said == Verdict("sound")


async def test_pushes_and_housekeeping_are_no_damage(room: Room, checker: Checker, tmp_path: Path) -> None:
    """Checks run all the time while a client pushes, and everything is repacked and packed."""
    repository = await filled(room, tmp_path)
    work, url = tmp_path / "work", str(repository.path)

    def change() -> None:
        hooks = ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.multiPackIndex=true", "-C", url)
        for number in range(12):
            (work / "file").write_text(f"change {number}\n")
            git("commit", "-qam", f"change {number}", cwd=work)
            push(work, url, "HEAD:refs/heads/main", f"HEAD:refs/heads/b{number}")
            tasks = ("loose-objects", "incremental-repack", "commit-graph", "pack-refs")
            if number % 3 == 2:
                subprocess.run([*hooks, "repack", "-adq"], check=True, timeout=60, env=os.environ)
            for task in tasks:
                subprocess.run(
                    [*hooks, "maintenance", "run", "--quiet", f"--task={task}"], check=True, timeout=60
                )

    changing = asyncio.create_task(asyncio.to_thread(change))
    said = []
    while not changing.done():
        said.append(await verdict(room, checker))
    await changing
    said.append(await verdict(room, checker))
    assert {one.result for one in said} <= {"sound", "unverified"}, said
    assert said[-1] == Verdict("sound")


async def test_a_copy_that_is_replaced_meanwhile_is_not_judged(
    room: Room, checker: Checker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old folder is read, and another one has its name at the end."""
    repository = await filled(room, tmp_path)
    overwrite(repository.path / "refs/heads/main", b"")
    read = checker._read

    async def replaced(*args: object) -> object:
        answer = await read(*args)  # type: ignore[arg-type]
        repository.path.rename(tmp_path / "old.git")
        subprocess.run(["cp", "-a", tmp_path / "old.git", repository.path], check=True, timeout=60)
        return answer

    monkeypatch.setattr(checker, "_read", replaced)
    _, said = await checker.check(repository, AS_FAST_AS_IT_CAN, Reading())
    assert said.result == "unverified"
    assert "replaced" in said.why


async def test_git_is_held_up_while_it_reads_more_than_the_rate_allows(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, and continued when its time has come; the bytes are counted."""
    counted: list[int] = []
    process = await room.processes.start(["sleep", "600"], writes=None)
    monkeypatch.setattr(checker_module, "_disk_bytes", lambda _pid: 1_000_000)
    throttled = asyncio.create_task(_throttled(process, 1_000_000.0, counted.append))
    state = Path(f"/proc/{process.pid}/stat")

    async def until(letter: str) -> None:
        async with asyncio.timeout(30):
            while state.read_text().rpartition(") ")[2][0] != letter:
                await asyncio.sleep(0.01)

    await until("T")
    await until("S")
    assert sum(counted) == 1_000_000
    throttled.cancel()
    await process.end()


async def test_the_rate_holds_the_reading_up(room: Room, checker: Checker, tmp_path: Path) -> None:
    """1.5 MB at 1 MB/s take at least a second; cancelled, nothing is left running."""
    repository = await room.store.create(A)
    work = make_work(tmp_path / "work")
    (work / "big").write_bytes(os.urandom(1_500_000))
    git("add", "big", cwd=work)
    git("commit", "-qm", "big", cwd=work)
    push(work, str(repository.path), "HEAD:refs/heads/main")
    loop = asyncio.get_running_loop()
    began = loop.time()
    _, said = await checker.check(repository, 1_000_000.0, Reading())
    assert said == Verdict("sound")
    assert loop.time() - began >= 1.0
    task = asyncio.create_task(checker.check(repository, 10_000.0, Reading()))
    async with asyncio.timeout(20):
        while not len(room.processes):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(room.processes) == 0
