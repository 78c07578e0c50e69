"""The leader's side of a mirror in this process: real repositories, real git, channels in memory."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from stargate_gate.replication.standby.answers import LeaderRepository
from stargate_gate.replication.wire.messages import (
    Gone,
    Message,
    RefsPart,
    SnapshotBegin,
    SnapshotEnd,
    decode,
    encode,
)
from stargate_gate.repos.git import git_environment, service_argv
from stargate_gate.repos.names import RepositoryName, parse_repository_name
from stargate_gate.repos.process import GitProcess
from stargate_gate.repos.repository import Repository
from tests.support.git import git
from tests.support.room import Room

TERM = 3
SEQ = 1  # covers all that was there before the first change of a term


def commits(repository: Repository, count: int) -> list[str]:
    """New commits there, each the child of the one before, that no ref names."""
    tree = git("mktree", cwd=repository.path)
    made: list[str] = []
    for number in range(count):
        parents = ("-p", made[-1]) if made else ()
        made.append(git("commit-tree", "-m", f"commit {number}", *parents, tree, cwd=repository.path))
    return made


class GitChannel:
    """A running upload-pack, as a `PeerChannel`."""

    stderr = ""

    def __init__(self, process: GitProcess) -> None:
        self._process = process
        self._ending: asyncio.Task[int] | None = None

    async def read(self, n: int) -> bytes:
        return await self._process.stdout.read(n)

    async def write(self, data: bytes) -> None:
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    def write_eof(self) -> None:
        self._process.stdin.close()

    def close(self) -> None:
        self._ending = asyncio.create_task(self._process.end(0))


class RealLeader:
    """`step_runner.Leader`: says what the repositories of a room are at that moment.

    asked  called with an id before its refs are read
    seq    the number that covers them
    """

    def __init__(self, room: Room) -> None:
        self.room = room
        self.seq = SEQ
        self.asked: Callable[[str], None] = lambda _: None

    async def repository(self, identity: str) -> LeaderRepository | Gone:
        self.asked(identity)
        repository = await self.room.store.by_id(identity, search=True)
        if repository is None:
            return Gone(TERM, self.seq, identity, await self.room.store.was_deleted(identity))
        snapshot = await self.room.refs.snapshot(repository)
        return LeaderRepository(identity, repository.name, snapshot, self.seq)

    async def upload_pack(self, name: RepositoryName) -> GitChannel:
        repository = await self.room.store.require(name)
        argv = service_argv("upload-pack", repository, hooks=self.room.datadir.hooks, peer=True)
        env = git_environment(extra={"GIT_PROTOCOL": "version=2"})
        return GitChannel(await self.room.processes.start(argv, writes=None, env=env))


class End:
    """One end of a channel in memory, as a `PeerChannel`. What is written is heard by `other`."""

    stderr = ""

    def __init__(self, wrote: Callable[[bytes], None] = lambda _: None) -> None:
        self.other = self
        self._held = bytearray()
        self._more = asyncio.Event()
        self._ended = False
        self._wrote = wrote

    async def read(self, n: int) -> bytes:
        while not self._held and not self._ended:
            self._more.clear()
            await self._more.wait()
        data = bytes(self._held[:n])
        del self._held[:n]
        return data

    async def write(self, data: bytes) -> None:
        if self._ended:
            raise ConnectionResetError("the other side is gone")
        self._wrote(data)
        self.other._held += data
        self.other._more.set()

    def close(self) -> None:
        for end in (self, self.other):
            end._ended = True
            end._more.set()


class RealPeer:
    """A `Peer`: answers about a room's repositories, and whose feed says what the test lets it say.

    said      called with each message of the standby's, before the leader can hear it
    told      set once refs were read; the standby hears them when `may_tell` is set
    """

    def __init__(self, room: Room, term: int, said: Callable[[Message], None] = lambda _: None) -> None:
        self.leader = RealLeader(room)
        self._term = term
        self._said = said
        self.received_bytes = 0
        self.feed = End()
        self.followed = asyncio.Event()
        self.told = asyncio.Event()
        self.may_tell = asyncio.Event()
        self.may_tell.set()

    async def open(self, command: str, *, git_protocol: str | None = None) -> End | GitChannel:
        word, _, name = command.partition(" ")
        if word == "git-upload-pack":
            return await self.leader.upload_pack(parse_repository_name(name.strip("'")))
        standby = End(self._heard if word == "stargate-feed" else lambda _: None)
        leader = End()
        standby.other, leader.other = leader, standby
        if word == "stargate-feed":
            self.feed = leader
            self.followed.set()
        else:
            await self._tell_refs(name, leader)
        return standby

    async def say(self, *messages: Message) -> None:
        for message in messages:
            await self.feed.write(encode(message))

    def _heard(self, data: bytes) -> None:
        for line in data.splitlines():
            self._said(decode(line))

    async def _tell_refs(self, identity: str, channel: End) -> None:
        found = await self.leader.repository(identity)
        self.told.set()
        await self.may_tell.wait()
        if isinstance(found, Gone):
            await channel.write(encode(replace(found, term=self._term)))
            return
        refs = found.refs
        begin = SnapshotBegin(self._term, found.seq, found.name, found.id, refs.object_format, refs.head)
        await channel.write(encode(begin))
        await channel.write(encode(RefsPart(self._term, dict(refs.refs))))
        await channel.write(encode(SnapshotEnd(self._term, len(refs.refs), tuple(sorted(refs.broken)))))
