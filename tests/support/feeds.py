"""A feed with its sync set, over a channel in memory, and standbys that say what a test wants them to say."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from stargate_gate.election.port import Member
from stargate_gate.errors import ElectionUnavailableError
from stargate_gate.replication.leader.context import FeedSettings
from stargate_gate.replication.leader.feed import Feed
from stargate_gate.replication.leader.sync_rules import Limits, Mode
from stargate_gate.replication.rescue.journal import NoJournal
from stargate_gate.replication.wire.about import About, Profile
from stargate_gate.replication.wire.messages import (
    PROTOCOL,
    Alive,
    Applied,
    Checked,
    Enroll,
    Enrolled,
    Heartbeat,
    Join,
    ListEnd,
    Message,
    decode,
    encode,
)
from stargate_gate.repos.durable import FolderSyncs
from stargate_gate.repos.names import parse_repository_name
from stargate_gate.repos.repository import Repository
from tests.support.git import git, make_work
from tests.support.room import Room, open_room

OnDisk = Callable[[Repository], Awaitable[None]]

ME, B, C = (Member(f"node-{letter}", f"id-{letter}") for letter in "abc")
APP = parse_repository_name("org/app")
APP_ID = "a" * 32
LIMIT_S = 10.0
TERM = 7


class Record:
    """A `TermRecord` that can be told to fail, or to wait, at the next write."""

    number = TERM

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.members: dict[Member, str | None] = dict.fromkeys(members)
        self.attempted: frozenset[Member] = frozenset()
        self.failures = 0
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.leads = True
        self.writing = False

    @property
    def in_force(self) -> frozenset[Member]:
        return frozenset(self.members)

    @property
    def needed(self) -> frozenset[Member]:
        return self.in_force | self.attempted

    def valid(self) -> bool:
        return self.leads

    async def update_members(
        self, choose: Callable[[], Mapping[Member, str | None]], *, position: int
    ) -> frozenset[Member]:
        chosen = dict(choose())
        self.attempted = self.attempted | frozenset(chosen)
        self.writing = True
        await self.may_write.wait()
        self.writing = False
        if self.failures:
            self.failures -= 1
            raise ElectionUnavailableError("the volume is full")
        self.members, self.attempted = chosen, frozenset()
        return frozenset(chosen)


class Doors:
    """The standbys' front doors: all of them open, until a test says what is wrong with one."""

    def __init__(self) -> None:
        self.problems: dict[Member, str] = {}
        self.asked: list[tuple[Member, str]] = []

    async def reach(self, standby: Member, ssh: str) -> str | None:
        self.asked.append((standby, ssh))
        return self.problems.get(standby)


class Pipe:
    """Both ends of a feed's channel: a `Channel` for the feed, lines for the test."""

    def __init__(self) -> None:
        self._said: deque[bytes] = deque()
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        self._more = asyncio.Event()
        self._open = True
        self.enrolls = True  # the standby's disk takes writes

    async def read(self, n: int) -> bytes:
        while not self._said and self._open:
            self._more.clear()
            await self._more.wait()
        return self._said.popleft() if self._said else b""

    async def write(self, data: bytes) -> None:
        if not self._open:
            raise ConnectionResetError("the standby is gone")
        message = decode(data.rstrip(b"\n"))
        if isinstance(message, Enroll) and self.enrolls:
            self.say(Enrolled(message.term, message.incarnation))
        self._heard.put_nowait(message)

    def say(self, message: Message) -> None:
        self._said.append(encode(message))
        self._more.set()

    def cut(self) -> None:
        self._open = False
        self._more.set()

    async def hear(self, *kinds: type[Message]) -> Message:
        """The next message of these kinds; heartbeats are answered on the way."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                message = await self._heard.get()
                if isinstance(message, Heartbeat):
                    self.say(Alive(message.term, 0))
                if isinstance(message, kinds):
                    return message


class Answer:
    """A `Channel` that keeps what is written."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def read(self, n: int) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        self.messages.append(decode(data.rstrip(b"\n")))


class Standby:
    """One that follows the feed, a word at a time."""

    def __init__(self, feed: Feed, member: Member) -> None:
        self.pipe = Pipe()
        self.member = member
        self.served = asyncio.create_task(feed.serve(["stargate-feed"], self.pipe, "test"))
        self.pipe.say(Join(PROTOCOL, member, "instance"))
        self.pipe.say(About(TERM, f"{member.name}.example:2222", ()))

    async def confirm_list(self) -> None:
        end = await self.pipe.hear(ListEnd)
        assert isinstance(end, ListEnd)
        self.pipe.say(Checked(TERM, end.check))

    def applied(self, seq: int, identity: str = APP_ID) -> None:
        self.pipe.say(Applied(TERM, seq, identity))


class House:
    """A feed, its record, a repository, and the standbys that came."""

    def __init__(self, room: Room, record: Record, feed: Feed, work: Path, doors: "Doors") -> None:
        self.room, self.record, self.feed, self.work, self.doors = room, record, feed, work, doors
        self.standbys: list[Standby] = []

    def join(self, member: Member = B) -> Standby:
        self.standbys.append(Standby(self.feed, member))
        return self.standbys[-1]

    async def level(self, member: Member = B) -> Standby:
        """A standby that is in the record."""
        standby = self.join(member)
        await standby.confirm_list()
        await self.until(lambda: member in self.record.in_force)
        return standby

    async def push(self) -> int:
        """One more commit in the repository; its sequence number."""
        repository = await self.repository()
        (self.work / "file").write_text(f"change {self.feed.position}\n")
        await asyncio.to_thread(git, "commit", "-qam", "more", cwd=self.work)
        fetch = ("--git-dir", repository.path, "fetch", "-q", self.work, "HEAD:refs/heads/main")
        await asyncio.to_thread(git, *fetch)  # no push: there is no gate here for its hook to ask
        return await self.pushed(repository)

    async def change(self, *words: str | Path) -> None:
        """Run git in the repository, past everybody."""
        repository = await self.repository()
        await asyncio.to_thread(git, "--git-dir", repository.path, *words)

    async def tip(self) -> str:
        """The newest commit of the working copy."""
        return await asyncio.to_thread(git, "rev-parse", "HEAD", cwd=self.work)

    async def refs(self) -> list[Message]:
        """What a standby is answered that asks for the repository."""
        answer = Answer()
        await self.feed.serve(["stargate-refs", APP_ID], answer, "test")
        return answer.messages

    async def repository(self) -> Repository:
        found = self.room.store.find(APP)
        return found or await self.room.store.create(APP, id=APP_ID)

    async def pushed(self, repository: Repository) -> int:
        """The feed is told that it was pushed to; the number that covers it."""
        return await self.feed.pushed(self.room.store.register.identity(repository))

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():  # type: ignore[operator]
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def opened(
    tmp_path: Path,
    mode: Mode,
    *,
    members: Iterable[Member] = (),
    limits: Limits | None = None,
    heartbeat_s: float = 30.0,  # the standby here answers only while the test listens
    on_disk: OnDisk | None = None,
) -> AsyncIterator[House]:
    async with open_room(tmp_path / "data") as room:
        record = Record(members)
        settings = FeedSettings(mode, limits or Limits(30.0, 60.0), heartbeat_s, full_check_s=60.0)
        folders = FolderSyncs()

        async def sync(repository: Repository) -> None:
            await folders.sync(repository.path)

        doors = Doors()
        feed = Feed(
            record, ME, room.store, room.refs, settings, on_disk or sync, NoJournal(),
            profile=Profile, reach=doors.reach,
        )  # fmt: skip
        house = House(room, record, feed, make_work(tmp_path / "work"), doors)
        try:
            yield house
        finally:
            record.may_write.set()
            for standby in house.standbys:
                standby.pipe.cut()
            await feed.close()
            await asyncio.gather(*(standby.served for standby in house.standbys), return_exceptions=True)
