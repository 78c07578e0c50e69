"""The feed with its sync set, over a channel in memory: a standby that says what the test wants it to say."""

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from stargate_gate.election.port import Member
from stargate_gate.errors import ElectionUnavailableError, LeadershipLostError, TryAgainError
from stargate_gate.replication.feed import Feed, FeedSettings
from stargate_gate.replication.messages import (
    PROTOCOL,
    Alive,
    Applied,
    Changed,
    Checked,
    Compare,
    Heartbeat,
    Join,
    ListEnd,
    Message,
    Progress,
    Refused,
    decode,
    encode,
)
from stargate_gate.replication.syncset import Limits, Mode
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from stargate_gate.repos.repository import Repository
from tests.support.git import git, make_work
from tests.support.room import Room, open_room

ME, B, C = (Member(f"node-{letter}", f"id-{letter}") for letter in "abc")
APP = parse_repository_name("org/app")
LIMIT_S = 10.0
TERM = 7


class Record:
    """A `TermRecord` that can be told to fail, or to wait, at the next write."""

    number = TERM

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.in_force = frozenset(members)
        self.attempted: frozenset[Member] = frozenset()
        self.failures = 0
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.leads = True
        self.writing = False

    @property
    def needed(self) -> frozenset[Member]:
        return self.in_force | self.attempted

    def valid(self) -> bool:
        return self.leads

    async def update(self, *, sync_set: Iterable[Member], position: int) -> None:
        self.attempted = self.attempted | frozenset(sync_set)
        self.writing = True
        await self.may_write.wait()
        self.writing = False
        if self.failures:
            self.failures -= 1
            raise ElectionUnavailableError("the volume is full")
        self.in_force, self.attempted = frozenset(sync_set), frozenset()


class Pipe:
    """Both ends of a feed's channel: a `Channel` for the feed, lines for the test."""

    def __init__(self) -> None:
        self._said: deque[bytes] = deque()
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        self._more = asyncio.Event()
        self._open = True

    async def read(self, n: int) -> bytes:
        while not self._said and self._open:
            self._more.clear()
            await self._more.wait()
        return self._said.popleft() if self._said else b""

    async def write(self, data: bytes) -> None:
        if not self._open:
            raise ConnectionResetError("the standby is gone")
        self._heard.put_nowait(decode(data.rstrip(b"\n")))

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


class Standby:
    """One that follows the feed, a word at a time."""

    def __init__(self, feed: Feed, member: Member) -> None:
        self.pipe = Pipe()
        self.member = member
        self.served = asyncio.create_task(feed.serve(["stargate-feed"], self.pipe, "test"))
        self.pipe.say(Join(PROTOCOL, member, "instance"))

    async def confirm_list(self) -> None:
        end = await self.pipe.hear(ListEnd)
        assert isinstance(end, ListEnd)
        self.pipe.say(Checked(TERM, end.check))

    def applied(self, seq: int, name: RepositoryName = APP) -> None:
        self.pipe.say(Applied(TERM, seq, name))


class House:
    """A feed, its record, a repository, and the standbys that came."""

    def __init__(self, room: Room, record: Record, feed: Feed, work: Path) -> None:
        self.room, self.record, self.feed, self.work = room, record, feed, work
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
        return await self.feed.pushed(repository)

    async def repository(self) -> Repository:
        repository, _ = await self.room.store.ensure(APP)
        return repository

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
) -> AsyncIterator[House]:
    async with open_room(tmp_path / "data") as room:
        record = Record(members)
        settings = FeedSettings(mode, limits or Limits(30.0, 60.0), heartbeat_s, full_check_s=60.0)
        feed = Feed(record, ME, room.store, room.refs, settings)
        house = House(room, record, feed, make_work(tmp_path / "work"))
        try:
            yield house
        finally:
            record.may_write.set()
            for standby in house.standbys:
                standby.pipe.cut()
            await feed.close()
            await asyncio.gather(*(standby.served for standby in house.standbys), return_exceptions=True)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path, "sync") as one:
        yield one


async def waits(work: "asyncio.Task[None]") -> bool:
    """Whether it still waits, after everything that is ready has run."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not work.done()


async def test_a_push_waits_until_the_member_has_it_on_disk(house: House) -> None:
    """Told "ok" only when the commit is on every member of the sync set."""
    standby = await house.level()
    seq = await house.push()
    waiting = asyncio.create_task(house.feed.replicated(APP, seq))
    await standby.pipe.hear(Changed, Compare)
    assert await waits(waiting)
    standby.applied(seq)
    async with asyncio.timeout(LIMIT_S):
        await waiting


async def test_confirming_an_older_change_is_not_enough(house: House) -> None:
    """Acknowledgements are per sequence number."""
    standby = await house.level()
    first, second = await house.push(), await house.push()
    waiting = asyncio.create_task(house.feed.replicated(APP, second))
    standby.applied(first)
    await asyncio.wait_for(house.feed.replicated(APP, first), LIMIT_S)
    assert await waits(waiting)
    standby.applied(second)
    await asyncio.wait_for(waiting, LIMIT_S)


async def test_a_repeated_push_has_the_number_of_the_change_that_it_repeats(house: House) -> None:
    """ "Everything up-to-date" is an acknowledgement too: it waits for what the first one waits for."""
    standby = await house.level()
    seq = await house.push()
    again = await house.feed.pushed(await house.repository())
    assert again == seq
    waiting = asyncio.create_task(house.feed.replicated(APP, again))
    assert await waits(waiting)
    standby.applied(seq)
    await asyncio.wait_for(waiting, LIMIT_S)


async def test_a_late_standby_leaves_by_the_record_before_the_push_is_acknowledged(tmp_path: Path) -> None:
    """While the record cannot be written nothing is acknowledged without it."""
    async with opened(tmp_path, "sync", limits=Limits(0.2, 60.0)) as house:
        await house.level()
        house.record.may_write.clear()
        seq = await house.push()
        waiting = asyncio.create_task(house.feed.replicated(APP, seq))
        await house.until(lambda: house.record.writing)  # it is late, and the record still names it
        assert await waits(waiting)
        assert house.record.in_force == {B}
        house.record.may_write.set()
        await asyncio.wait_for(waiting, LIMIT_S)
        assert house.record.in_force == frozenset()


async def test_a_failed_record_write_keeps_both_sync_sets_needed(house: House) -> None:
    """Its outcome is unknown: nothing is acknowledged without the union, until a write succeeds."""
    standby = await house.level()
    house.record.failures = sys.maxsize
    standby.pipe.cut()
    await asyncio.wait_for(standby.served, LIMIT_S)
    waiting = asyncio.create_task(house.feed.replicated(APP, await house.push()))
    assert await waits(waiting)
    assert house.record.in_force == {B}
    house.record.failures = 0
    await asyncio.wait_for(waiting, LIMIT_S)
    assert house.record.in_force == frozenset()


async def test_progress_keeps_a_slow_transfer_alive(tmp_path: Path) -> None:
    """ack_timeout_s counts from the standby's last sign of progress."""
    async with opened(tmp_path, "sync", limits=Limits(0.5, 60.0)) as house:
        standby = await house.level()
        seq = await house.push()
        waiting = asyncio.create_task(house.feed.replicated(APP, seq))
        await standby.pipe.hear(Changed, Compare)
        for _ in range(8):  # over twice ack_timeout_s
            standby.pipe.say(Progress(TERM, seq, APP))
            await asyncio.sleep(0.15)
        assert not waiting.done()
        assert house.record.in_force == {B}
        standby.applied(seq)
        await asyncio.wait_for(waiting, LIMIT_S)


async def test_strict_refuses_without_a_member(tmp_path: Path) -> None:
    """At least one member at every acknowledgement, else 75."""
    async with opened(tmp_path, "strict", limits=Limits(0.2, 60.0)) as house:
        seq = await house.push()
        with pytest.raises(TryAgainError, match="not replicated in time"):
            await asyncio.wait_for(house.feed.replicated(APP, seq), LIMIT_S)


async def test_strict_keeps_a_member_that_is_gone_and_refuses(tmp_path: Path) -> None:
    """It holds everything that was acknowledged, and may take over."""
    async with opened(tmp_path, "strict", limits=Limits(0.2, 60.0)) as house:
        standby = await house.level()
        standby.pipe.cut()
        await asyncio.wait_for(standby.served, LIMIT_S)
        seq = await house.push()
        with pytest.raises(TryAgainError):
            await asyncio.wait_for(house.feed.replicated(APP, seq), LIMIT_S)
        assert house.record.in_force == {B}


async def test_async_waits_for_nobody(tmp_path: Path) -> None:
    """Not even for a member that lacks it."""
    async with opened(tmp_path, "async") as house:
        await house.level()
        await asyncio.wait_for(house.feed.replicated(APP, await house.push()), LIMIT_S)


async def test_a_member_that_was_carried_over_is_needed_until_it_matched(tmp_path: Path) -> None:
    """Each repository counts as pending for it until it was compared in this term."""
    async with opened(tmp_path, "sync", members=[B]) as house:
        seq = await house.push()
        waiting = asyncio.create_task(house.feed.replicated(APP, seq))
        assert await waits(waiting)
        standby = house.join()
        await standby.confirm_list()
        await asyncio.wait_for(waiting, LIMIT_S)
        assert house.record.in_force == {B}


async def test_one_that_was_carried_over_and_does_not_come_leaves(tmp_path: Path) -> None:
    """The cluster goes on without it, by the record."""
    async with opened(tmp_path, "sync", members=[B], limits=Limits(0.2, 60.0)) as house:
        await asyncio.wait_for(house.feed.replicated(APP, await house.push()), LIMIT_S)
        assert house.record.in_force == frozenset()


async def test_a_standby_is_told_to_compare_until_its_first_list_is_confirmed(house: House) -> None:
    """A difference proves nothing of the rest of a repository that was not compared yet."""
    await house.push()
    standby = house.join()
    await standby.pipe.hear(ListEnd)
    await house.push()
    assert isinstance(await standby.pipe.hear(Changed, Compare), Compare)


async def test_nobody_waits_beyond_the_term(house: House) -> None:
    """A push whose term is over is never acknowledged."""
    await house.level()
    seq = await house.push()
    waiting = asyncio.create_task(house.feed.replicated(APP, seq))
    assert await waits(waiting)
    house.record.leads = False
    await house.feed.close()
    with pytest.raises(LeadershipLostError):
        await asyncio.wait_for(waiting, LIMIT_S)


async def test_an_acknowledgement_of_another_term_ends_the_connection(house: House) -> None:
    """What is of another term counts for nothing."""
    standby = await house.level()
    seq = await house.push()
    standby.pipe.say(Applied(TERM - 1, seq, APP))
    await asyncio.wait_for(standby.served, LIMIT_S)
    assert house.feed.standbys() == ()


async def test_heartbeats_say_what_the_whole_sync_set_has(tmp_path: Path) -> None:
    """Standbys forget by it what they would have to rescue."""
    async with opened(tmp_path, "sync", heartbeat_s=1.0) as house:
        standby = await house.level()
        seq = await house.push()
        standby.applied(seq)
        async with asyncio.timeout(LIMIT_S):
            while True:
                beat = await standby.pipe.hear(Heartbeat)
                assert isinstance(beat, Heartbeat)
                if beat.replicated == seq:
                    break


async def test_stepping_down_waits_for_nobody_who_is_not_there(house: House) -> None:
    """A node that is alone, or whose last standby has gone, stops at once."""
    assert await asyncio.wait_for(house.feed.caught_up(60.0), LIMIT_S) is None
    standby = await house.level()
    await house.push()
    stepping_down = asyncio.create_task(house.feed.caught_up(60.0))
    assert not stepping_down.done()
    standby.pipe.cut()
    assert await asyncio.wait_for(stepping_down, LIMIT_S) is None


async def test_two_nodes_of_one_name_are_told_apart(house: House) -> None:
    """The second one is refused, with the reason."""
    await house.level()
    twin = house.join(Member(B.name, "another-id"))
    refused = await twin.pipe.hear(Refused)
    assert isinstance(refused, Refused)
    assert "another node is called 'node-b' too" in refused.reason
