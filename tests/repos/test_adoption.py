"""What somebody copies in: what must not be served is refused by name, and nothing ever waits for it."""

import asyncio
import os
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.aio.foreign_files import read_file
from stargate_gate.errors import UnavailableError
from stargate_gate.repos import durable
from stargate_gate.repos.adoption import seal_key
from stargate_gate.repos.gitconfig import ConfigEntry, adopted, seal
from stargate_gate.repos.names import MAX_REF_BYTES, MAX_REF_COMPONENT_BYTES, RepositoryName
from stargate_gate.repos.repository import read_head, read_id
from stargate_gate.repos.sweep import sweep_repository
from tests.support.git import git, make_work
from tests.support.room import Room

A = RepositoryName("a")
LIMIT_S = 20.0
OUTSIDE = "/etc"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return make_work(tmp_path / "work")


@pytest.fixture
def copied(room: Room, work: Path) -> Path:
    """A bare repository that lies among the others, and that nobody has looked at yet."""
    path = room.datadir.repositories / "a.git"
    git("clone", "-q", "--bare", work, path)
    return path


def socket_at(path: Path) -> None:
    """A socket's name, which outlives it. By a short way: a socket's path has 108 bytes at most."""
    here = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    """Something else in its place."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)


def link(path: Path) -> None:
    path.symlink_to(OUTSIDE)


def file(path: Path) -> None:
    path.write_text(OUTSIDE + "\n")


def nested(path: Path) -> None:
    git("init", "-q", "--bare", path)


def packed(path: Path, *refs: str) -> None:
    """These refs, packed."""
    oid = git("rev-parse", "main", cwd=path)
    lines = "".join(f"{oid} {ref}\n" for ref in ("refs/heads/main", *refs))
    (path / "packed-refs").write_text("# pack-refs with: peeled fully-peeled sorted \n" + lines)


def refs_of_length(path: Path, ref: str) -> None:
    """A loose ref of that name, as git itself would make it."""
    git("update-ref", ref, git("rev-parse", "main", cwd=path), cwd=path)


WIDE = "refs/heads/" + "w" * (MAX_REF_COMPONENT_BYTES + 1)
LONG = ("refs/heads/" + "/".join(["d" * 200] * 6))[: MAX_REF_BYTES + 1]
# What is put in → a word of what is said.
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"{kind.__name__} at {name}": (
            lambda path, kind=kind, name=name: replaced(path / name, kind),  # type: ignore[misc]
            name,
        )
        for name in (
            *("stargate-id", "packed-refs", "info", "info/grafts", "objects/pack", "objects/info/alternates"),
            *("objects/pack/pack-1.keep", "refs/heads/x", "hooks/update", "config.lock", "shallow", "x/y/z"),
        )
        for kind in (link, os.mkfifo, socket_at)
    },
    "commondir": (lambda path: file(path / "commondir"), "commondir"),
    "gitdir": (lambda path: file(path / "gitdir"), "gitdir"),
    "alternates": (lambda path: replaced(path / "objects/info/alternates", file), "objects/info/alternates"),
    "http": (lambda path: replaced(path / "objects/info/http-alternates", file), "http-alternates"),
    "a folder of links": (lambda path: replaced(path / "refs/heads/d/e", link), "refs/heads/d/e is a link"),
    "nested": (lambda path: nested(path / "sub.git"), "sub.git is a repository inside"),
    "deep": (lambda path: nested(path / "modules/x"), "modules/x is a repository inside"),
    "partial": (lambda path: (path / "objects/pack/pack-1.promisor").touch(), "partial clone"),
    "wide": (lambda path: packed(path, WIDE), f"{MAX_REF_COMPONENT_BYTES} are allowed"),
    "long": (lambda path: packed(path, LONG), f"may have {MAX_REF_BYTES}"),
    "long and loose": (lambda path: refs_of_length(path, LONG), f"may have {MAX_REF_BYTES}"),
    "reserved": (lambda path: packed(path, "refs/stargate"), "refs/stargate"),
    "reserved and loose": (lambda path: refs_of_length(path, "refs/stargate"), "refs/stargate"),
    "extension": (lambda path: git("config", "extensions.fancy", "1", cwd=path), "extensions.fancy"),
    "version": (lambda path: git("config", "core.repositoryformatversion", "7", cwd=path), "formatversion"),
}


@pytest.mark.parametrize(("put", "word"), HOSTILE.values(), ids=HOSTILE)
async def test_what_must_not_be_served_is_refused_by_name(
    room: Room, copied: Path, put: Callable[[Path], object], word: str
) -> None:
    """Links, FIFOs, sockets, other places, other formats. Nothing in it is changed, and nothing waits."""
    put(copied)
    before = sorted(entry.name for entry in copied.rglob("*"))
    with capture_logs() as logs:
        async with asyncio.timeout(LIMIT_S):
            for _ in range(2):
                assert await room.store.list() == []
            with pytest.raises(UnavailableError, match=r"^repository a cannot be served: ") as refused:
                await room.store.require(A)
            with pytest.raises(UnavailableError):
                await room.store.ensure(A)
    assert word in refused.value.message
    assert str(copied) not in refused.value.message  # clients see it
    events = [entry for entry in logs if entry["event"] == "repository_not_adopted"]
    assert [entry["repository"] for entry in events] == ["a"]
    assert len(room.store.not_served) == 1
    assert room.store.not_served[0].startswith("a.git: ")
    assert sorted(entry.name for entry in copied.rglob("*")) == before


async def test_what_is_named_can_be_removed(room: Room, copied: Path) -> None:
    """Then it is served, and no warning stays."""
    (copied / "commondir").write_text("x\n")
    (copied / "hooks").mkdir(exist_ok=True)
    for number in range(9):
        (copied / f"hooks/link-{number}").symlink_to("/etc/passwd")
    assert await room.store.list() == []
    (message,) = room.store.not_served
    assert message.count("hooks/link-") == 2
    assert message.endswith("and there is more")
    (copied / "commondir").unlink()
    shutil.rmtree(copied / "hooks")
    assert [str(one.name) for one in await room.store.list()] == ["a"]
    assert room.store.not_served == ()


async def test_what_is_common_is_served(room: Room, work: Path, copied: Path) -> None:
    """A shallow copy, grafts, symbolic refs, refs of nodes, linked working copies, files of desktops."""
    git("symbolic-ref", "refs/heads/alias", "refs/heads/main", cwd=copied)
    git("update-ref", "refs/stargate/rescued/1/x", "main", cwd=copied)
    git("worktree", "add", "-q", "--detach", copied.parent.parent / "elsewhere", cwd=copied)
    (copied / "refs/.DS_Store").touch()
    (copied / "info/grafts").write_text(git("rev-parse", "main", cwd=copied) + "\n")
    git("clone", "-q", "--bare", "--depth=1", f"file://{work}", copied.parent / "b.git")
    shutil.copytree(work / ".git", copied.parent / "c.git")
    assert [str(one.name) for one in await room.store.list()] == ["a", "b", "c"]
    assert room.store.not_served == ()


@pytest.mark.parametrize(
    "part", ["stargate-id", "HEAD", "config", "packed-refs", "refs/heads/x", "refs/tags"]
)
@pytest.mark.parametrize("kind", [link, os.mkfifo])
async def test_nothing_waits_for_what_appears_later(
    room: Room, copied: Path, part: str, kind: Callable[[Path], None]
) -> None:
    """After adoption, too: an error, soon, whichever part of the node looks at it."""
    (repository,) = await room.store.list()
    await room.refs.snapshot(repository)
    replaced(copied / part, kind)
    if part == "refs/heads/x" and kind is link:
        (copied / part).unlink()
        (copied / part).symlink_to("/dev/null")
    problems = []
    async with asyncio.timeout(LIMIT_S):
        for attempt in (
            lambda: room.store.require(A),
            lambda: room.refs.snapshot(repository),
            lambda: room.refs.digest(repository),
            lambda: asyncio.to_thread(repository.id),
            lambda: asyncio.to_thread(read_head, copied),
            lambda: asyncio.to_thread(sweep_repository, copied),
            room.store.list,
        ):
            try:
                await attempt()  # type: ignore[operator]
            except (OSError, UnavailableError, ValueError) as error:
                problems.append(str(error))
    assert problems


async def test_git_is_never_led_to_another_place_later(room: Room, copied: Path, tmp_path: Path) -> None:
    """A commondir that appears in a repository that is served: it is served no longer."""
    await room.store.require(A)
    (copied / "commondir").write_text(f"{tmp_path}\n")
    with pytest.raises(UnavailableError, match="commondir"):
        await room.store.require(A)
    (copied / "commondir").unlink()
    await room.store.require(A)


async def test_a_config_cannot_come_with_a_seal(room: Room, copied: Path) -> None:
    """The checksum needs a secret of this data_dir: who makes one up is looked at like everybody else."""
    evil = [ConfigEntry(b"core.bare", b"true"), ConfigEntry(b"tar.x.command", b"/bin/false")]
    forged = encode_with(evil, room.datadir.hooks)
    (copied / "config").write_bytes(forged)
    (copied / "stargate-id").write_text("0" * 32 + "\n")
    await room.store.require(A)
    assert b"/bin/false" not in (copied / "config").read_bytes()
    key = seal_key(room.datadir)
    assert len(key) >= 32
    assert (room.datadir.state / "seal_key").stat().st_mode & 0o077 == 0
    assert seal_key(room.datadir) == key


def encode_with(entries: list[ConfigEntry], hooks: Path) -> bytes:
    """As one who knows this program, the path of the hooks, and not the secret would write it."""
    return seal([*entries, *adopted([], hooks)], b"")


async def test_a_folder_without_git_at_its_end_gets_it(room: Room, copied: Path) -> None:
    """So that a/b can be made here as on any other node; many at once agree on it."""
    plain = copied.with_name("plain")
    copied.rename(plain)
    name = RepositoryName("plain")
    found = await asyncio.gather(*(room.store.require(name) for _ in range(10)))
    assert {one.path for one in found} == {copied.with_name("plain.git")}
    assert not plain.exists()
    await room.store.create(RepositoryName("plain/below"))
    assert [str(one.name) for one in await room.store.list()] == ["plain", "plain/below"]


@pytest.mark.parametrize("length", [1200, 4030])
async def test_folders_of_a_ref_that_was_too_long_harm_nobody(
    room: Room, copied: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version let git make them. The repository is served, read, swept and put on disk."""
    (repository,) = await room.store.list()
    await room.refs.snapshot(repository)
    make_deep(copied / "refs/heads", length)
    oid = git("rev-parse", "main", cwd=copied)
    git("update-ref", "refs/heads/new", oid, cwd=copied)
    assert (await room.refs.snapshot(repository)).refs["refs/heads/new"] == oid
    assert durable.sync_changed_folders(copied, 0) > 0
    monkeypatch.setattr(durable, "sync_file_system", lambda _: False)
    durable.sync_everything(room.store.root)
    assert sweep_repository(copied) == []
    (copied / "config").write_text((copied / "config").read_text() + "[receive]\n\tdenyDeletes = true\n")
    assert len(await room.store.list()) == 1
    await room.store.delete(A)
    assert await room.store.empty_trash(datetime.now(UTC) + timedelta(days=8)) == ["a"]
    assert list(room.datadir.trash.iterdir()) == []


def make_deep(folder: Path, length: int, *, width: int = 1) -> None:
    """Folders below `folder` whose names have `length` bytes together, made from inside, as git does it."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(length // (width + 1)):
        os.mkdir("d" * width, dir_fd=here)
        below = os.open("d" * width, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_only_files_are_read(tmp_path: Path) -> None:
    """And no more of them than was asked for."""
    (tmp_path / "file").write_bytes(b"x" * 200_000)
    assert read_file(tmp_path / "file", 150_000) == b"x" * 150_000
    assert read_file(tmp_path / "file", 1 << 20) == b"x" * 200_000
    for name, make in {"fifo": os.mkfifo, "link": link, "socket": socket_at, "folder": os.mkdir}.items():
        make(tmp_path / name)  # type: ignore[operator]
        with pytest.raises(OSError, match="not a file"):
            read_file(tmp_path / name, 10)
    with pytest.raises(OSError, match="a device"):
        read_file("/dev/zero", 10)
    with pytest.raises(FileNotFoundError):
        read_id(tmp_path)
