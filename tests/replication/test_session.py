"""A standby's session with a leader that says what the test lets it say; repositories and git are real.

What a session confirms is on disk, whatever an earlier session or process has left.
"""

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncssh
import pytest

from stargate_gate.election.port import Member
from stargate_gate.errors import ElectionUnavailableError
from stargate_gate.replication.rescue.journal import Journal
from stargate_gate.replication.rescue.store import Rescues
from stargate_gate.replication.standby.equality import InStep
from stargate_gate.replication.standby.intent_files import Intents
from stargate_gate.replication.standby.mirror import Mirror, MirrorSettings
from stargate_gate.replication.standby.session import Callbacks, Here, Session, SessionEndedError
from stargate_gate.replication.standby.states import State
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.messages import (
    PROTOCOL,
    Applied,
    Changed,
    Checked,
    Compare,
    ListBegin,
    Listed,
    ListEnd,
    ListPart,
    Message,
    Welcome,
)
from stargate_gate.repos import durable
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.plan import RefChange
from stargate_gate.repos.repository import Repository
from tests.support.git import git
from tests.support.leading import End, GitChannel, RealPeer, commits
from tests.support.room import Room, open_room

APP = parse_repository_name("org/app")
MAIN = "refs/heads/main"
TERM = 3
LIMIT_S = 30.0
LEADER, ME = Member("node-a", "id-a"), Member("node-b", "id-b")


class Disk:
    """What was put on disk and what was said since, in order; and what keeps it from being put there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[object] = []
        self.whole = True  # this file system can be synced as a whole
        self.fails = False
        self.at_sync: Callable[[], None] = lambda: None  # called in a thread, before folders are synced
        fsync, sync_file_system, sync_changed = (
            os.fsync,
            durable.sync_file_system,
            durable.sync_changed_folders,
        )

        def note_fsync(fd: int) -> None:
            fsync(fd)
            self.order.append(Path(f"/proc/self/fd/{fd}").readlink())

        def note_syncfs(top: Path) -> bool:
            if self.fails:
                raise OSError(errno.EIO, "the disk is broken")
            if not self.whole:
                return False
            assert sync_file_system(top), "the machine that tests run on has syncfs"
            self.order.append("all")
            return True

        def note_sync(path: Path, since_ns: int) -> int:
            self.at_sync()
            return sync_changed(path, since_ns)

        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(durable, "sync_file_system", note_syncfs)
        monkeypatch.setattr(durable, "sync_changed_folders", note_sync)

    def holds(self, repository: Repository, *folders: str) -> bool:
        """Whether these folders of it were put on disk, as far as `order` tells."""
        return "all" in self.order or all(repository.path / folder in self.order for folder in folders)


class Pair:
    """A leader and a standby with org/app on both, in two data_dirs; sessions of the standby's."""

    def __init__(self, leader: Room, standby: Room, disk: Disk) -> None:
        self.leader, self.standby, self.disk = leader, standby, disk
        self.here = Here(
            ME,
            "instance",
            standby.store,
            standby.processes,
            standby.refs,
            Intents(standby.datadir.state / "intents"),
            Journal.open(standby.datadir.state / "unreplicated.log", has_repositories=False),
            Rescues.open(standby.datadir.state / "rescued"),
            FolderSyncs(),
            2,
            Profile,
        )
        self.at_said: Callable[[Message], None] = lambda _: None
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        self.ended: asyncio.Task[None]
        self.cancelling = 0

    async def make(self) -> tuple[Repository, Repository, tuple[str, str]]:
        """org/app on both with main at the first of two commits, as git leaves it; the commits."""
        there = await self.leader.store.create(APP)
        here = await self.standby.store.create(APP, id=there.id())
        old, new = commits(there, 2)
        git("update-ref", MAIN, old, cwd=there.path)
        git("fetch", "-q", there.path, f"{old}:{MAIN}", cwd=here.path)
        self.disk.order.clear()
        return there, here, (old, new)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Session, RealPeer]]:
        """One that the leader has welcomed; cut and reaped at the end."""
        peer = RealPeer(self.leader, TERM, self._heard)
        ended = False
        callbacks = Callbacks(lambda: not ended, lambda: None, lambda _: None, _enroll, _nothing)
        session = Session(peer, LEADER, TERM, self.here, callbacks)  # type: ignore[arg-type] # in memory
        self.ended = task = asyncio.create_task(self._run(session))
        try:
            async with asyncio.timeout(LIMIT_S):
                await peer.followed.wait()
            await peer.say(Welcome(PROTOCOL, TERM, LEADER, 60.0))
            yield session, peer
        finally:
            ended = True
            task.cancel()
            await asyncio.wait({task})

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        finally:
            task = asyncio.current_task()
            self.cancelling = task.cancelling() if task is not None else 0

    async def lists(self, peer: RealPeer, check: int) -> None:
        """The leader sends the list of what it has now."""
        repository = await self.leader.store.require(APP)
        listed = Listed(APP, repository.id(), await self.leader.refs.digest(repository))
        part = ListPart(TERM, check, (listed,))
        await peer.say(ListBegin(TERM, check, 0), part, ListEnd(TERM, check, 1))

    async def hear(self, *kinds: type[Message]) -> Message:
        """The standby's next word of these kinds."""
        async with asyncio.timeout(LIMIT_S):
            while not isinstance(message := await self.said.get(), kinds):
                pass
            return message

    def _heard(self, message: Message) -> None:
        self.at_said(message)
        self.said.put_nowait(message)


async def _enroll(_: str) -> None:
    """Noted."""


async def _nothing(_: Repository) -> None:
    """Nothing to look after."""


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    async with open_room(tmp_path / "a") as leader, open_room(tmp_path / "b") as standby:
        yield Pair(leader, standby, Disk(monkeypatch))


async def test_a_session_ends_when_the_leader_is_gone(pair: Pair) -> None:
    """Whatever runs for it is over then, and the reason is said."""
    async with pair.session() as (session, peer):
        peer.feed.close()
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(SessionEndedError, match=r"is gone|ended the feed"):
                await pair.ended
        assert session.core.state is State.ENDED
        assert pair.cancelling == 0, "whoever runs sessions is not cancelled by that"


class _BrokenEnd(End):
    """A channel that ends with its connection."""

    async def read(self, n: int) -> bytes:
        await super().read(n)
        raise ConnectionResetError("the connection to the leader is gone")


async def test_a_connection_that_breaks_ends_a_session_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed and a job hear of it at the same moment. The feed's reason is said, and nothing else fails."""
    there, _, _ = await pair.make()
    refs = _BrokenEnd()
    opened = asyncio.Event()
    async with pair.session() as (session, peer):
        open_real = peer.open

        async def open_channel(command: str, *, git_protocol: str | None = None) -> End | GitChannel:
            if not command.startswith("stargate-refs"):
                return await open_real(command, git_protocol=git_protocol)
            opened.set()
            return refs

        monkeypatch.setattr(peer, "open", open_channel)
        await peer.say(Compare(TERM, 5, APP, there.id()))
        async with asyncio.timeout(LIMIT_S):
            await opened.wait()
            await asyncio.sleep(0)  # the job reads
            peer.feed.close()
            refs.close()
            with pytest.raises(SessionEndedError, match="ended the feed"):
                await pair.ended
        assert session.core.state is State.ENDED


@pytest.mark.parametrize("whole", [True, False])
async def test_what_an_earlier_process_left_is_on_disk_before_it_is_confirmed(
    pair: Pair,
    whole: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """The leader's list is equal to what git put here, and nobody has synced the folders yet."""
    pair.disk.whole = whole
    _, here, _ = await pair.make()
    synced_before: list[bool] = []

    def at_said(message: Message) -> None:
        if isinstance(message, Checked):
            synced_before.append(pair.disk.holds(here, "objects/pack", "refs/heads", "refs", "."))

    pair.at_said = at_said
    async with pair.session() as (_, peer):
        await pair.lists(peer, 1)
        await pair.hear(Checked)
    assert synced_before == [True]


async def test_what_a_cut_session_left_is_on_disk_before_it_is_confirmed(pair: Pair) -> None:
    """A job that is cancelled between git and the folders leaves a ref that looks equal ever after."""
    there, here, (old, new) = await pair.make()
    async with pair.session() as (_, peer):
        await pair.lists(peer, 1)
        await pair.hear(Checked)
    held, let_go = threading.Event(), threading.Event()

    def hang() -> None:
        held.set()
        assert let_go.wait(LIMIT_S)
        raise OSError("the thread of a job that was cancelled puts nothing on disk")

    git("update-ref", MAIN, new, cwd=there.path)
    pair.disk.at_sync = hang
    async with pair.session() as (_, peer):
        await peer.say(
            Changed(TERM, 5, APP, there.id(), "ref: refs/heads/main", (RefChange(MAIN, old, new),))
        )
        await until(held.is_set)
    let_go.set()
    assert git("rev-parse", MAIN, cwd=here.path) == new
    pair.disk.at_sync = lambda: None
    pair.disk.order.clear()
    synced_before: list[bool] = []

    def at_said(message: Message) -> None:
        if isinstance(message, Checked):
            synced_before.append(pair.disk.holds(here, "refs/heads"))

    pair.at_said = at_said
    async with pair.session() as (_, peer):
        await pair.lists(peer, 2)
        await pair.hear(Checked)
    assert synced_before == [True]


async def test_a_change_is_on_disk_before_it_is_confirmed(pair: Pair) -> None:
    """Objects before refs, refs before the word, and nothing that has not changed."""
    there, here, (old, new) = await pair.make()
    synced: list[object] = []

    def at_said(message: Message) -> None:
        if isinstance(message, Applied):
            synced.extend(pair.disk.order)

    pair.at_said = at_said
    async with pair.session() as (_, peer):
        await pair.lists(peer, 1)
        await pair.hear(Checked)
        pair.disk.order.clear()
        git("update-ref", MAIN, new, cwd=there.path)
        await peer.say(
            Changed(TERM, 5, APP, there.id(), "ref: refs/heads/main", (RefChange(MAIN, old, new),))
        )
        await pair.hear(Applied)
    assert git("rev-parse", MAIN, cwd=here.path) == new
    assert here.path / f"objects/{new[:2]}" in synced
    assert synced.index(here.path / f"objects/{new[:2]}") < synced.index(here.path / "refs/heads")
    assert here.path / "refs/tags" not in synced


async def test_an_idle_reconnection_puts_nothing_on_disk(pair: Pair) -> None:
    """What one session has settled and applied, the next one does not sync again."""
    there, here, (old, new) = await pair.make()
    async with pair.session() as (_, peer):
        git("update-ref", MAIN, new, cwd=there.path)
        await peer.say(
            Changed(TERM, 5, APP, there.id(), "ref: refs/heads/main", (RefChange(MAIN, old, new),))
        )
        await pair.hear(Applied)
    assert "all" in pair.disk.order
    pair.disk.order.clear()
    async with pair.session() as (_, peer):
        await pair.lists(peer, 2)
        await pair.hear(Checked)
    assert git("rev-parse", MAIN, cwd=here.path) == new
    assert pair.disk.order == []


async def test_what_is_worked_on_equals_no_list(pair: Pair) -> None:
    """A job has asked the leader, which was back at an older value for a moment, and the list was not.

    When the list is compared the job has not begun to write: the repository looks equal, and goes back.
    """
    there, here, (old, new) = await pair.make()
    git("update-ref", MAIN, new, cwd=there.path)
    git("fetch", "-q", there.path, f"{new}:{MAIN}", cwd=here.path)
    at_checked: list[str] = []

    def at_said(message: Message) -> None:
        if isinstance(message, Checked):
            at_checked.append(git("rev-parse", MAIN, cwd=here.path))

    pair.at_said = at_said
    async with pair.session() as (session, peer):
        peer.may_tell.clear()
        git("update-ref", MAIN, old, cwd=there.path)
        await peer.say(Compare(TERM, 5, APP, there.id()))
        async with asyncio.timeout(LIMIT_S):
            await peer.told.wait()
        git("update-ref", MAIN, new, cwd=there.path)
        await pair.lists(peer, 1)
        await until(lambda: session.core._check_of)
        peer.may_tell.set()
        await pair.hear(Checked)
    assert at_checked == [new]


async def test_what_is_left_of_older_terms_gets_the_number_that_covers_it(pair: Pair) -> None:
    """A push that was lost with its leader came again, after the list had begun: nobody else has it yet.

    The list's own number is older. Taken for that, the value would count as replicated when it is not.
    """
    there, here, _ = await pair.make()
    identity = there.id()
    await pair.here.journal.mark(TERM - 1, 3, identity, str(APP), [MAIN])
    async with pair.session() as (_, peer):
        peer.leader.seq = 7
        await pair.lists(peer, 1)
        await pair.hear(Checked)
        assert peer.told.is_set(), "the leader was asked for that repository"
        pair.here.journal.replicated(TERM, 6)
        assert pair.here.journal.kept(identity, TERM + 1)
        pair.here.journal.replicated(TERM, 7)
        assert not pair.here.journal.kept(identity, TERM + 1)
        peer.told.clear()
        await pair.lists(peer, 2)
        await pair.hear(Checked)
        assert not peer.told.is_set(), "once in a term is enough"
    assert here.id() == identity


async def test_a_promotion_puts_on_disk_what_the_mirror_left(pair: Pair, tmp_path: Path) -> None:
    """A leader acknowledges what it shows. It leads in between: then others have written, too."""
    keys = [tmp_path / "cluster", tmp_path / "host"]
    for key in keys:
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(key)
        key.chmod(0o600)
    here = pair.here
    mirror = Mirror(
        ME,
        here.store,
        here.processes,
        here.refs,
        MirrorSettings(keys[0], (keys[1],)),
        intents=here.intents,
        journal=here.journal,
        rescues=here.rescues,
        in_step=InStep(tmp_path / "in_step.json"),
        profile=Profile,
        on_checked=lambda _term, _position: None,
        enroll=_enroll,
    )
    await pair.make()
    for _ in range(2):
        await mirror.finish_received()
        assert pair.disk.order == ["all"]
        pair.disk.order.clear()
    pair.disk.fails = True
    with pytest.raises(ElectionUnavailableError, match="cannot be completed"):
        await mirror.finish_received()
