"""One standby's connection on the leader: carries out the term's instructions, and passes on its messages."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from stargate_gate.aio.clock import now
from stargate_gate.aio.tasks import TaskGroup, all_of
from stargate_gate.replication.leader.events import (
    Event,
    Heard,
    LookedUp,
    ReachTried,
    RepositoriesListed,
    Sent,
)
from stargate_gate.replication.leader.instructions import ListRepositories, LookUp, Reach, Refuse, Send
from stargate_gate.replication.leader.reach import Reach as ReachStandby
from stargate_gate.replication.ports import Channel
from stargate_gate.replication.wire.channel import LineReader
from stargate_gate.replication.wire.messages import Listed, MessageError, decode, encode
from stargate_gate.repos.names import RepositoryName
from stargate_gate.repos.repository import Repository
from stargate_gate.repos.store import Store

Handle = Callable[[Event], None]


class _EndedError(Exception):
    """The connection is over; the message says why."""


class StandbyConnection:
    """Made when a standby has introduced itself.

    handle      gives an event to the term, and carries out what follows from it
    list_entry  a repository's entry in a full list; None if it is gone
    admission   None: the term has admitted it; else why not
    ended       set when nothing runs for it any more
    """

    def __init__(
        self,
        number: int,
        channel: Channel,
        lines: LineReader,
        handle: Handle,
        *,
        store: Store,
        list_entry: Callable[[Repository], Coroutine[Any, Any, Listed | None]],
        reach: ReachStandby,
    ) -> None:
        self.number = number
        self.ended = asyncio.Event()
        self.admission: asyncio.Future[Refuse | None] = asyncio.get_running_loop().create_future()
        self._channel = channel
        self._lines = lines
        self._handle = handle
        self._store = store
        self._list_entry = list_entry
        self._reach = reach
        self._to_send: asyncio.Queue[Send] = asyncio.Queue(1)  # the term waits for Sent before the next one
        self._to_look_up: asyncio.Queue[ListRepositories | LookUp] = asyncio.Queue(1)
        self._to_reach: asyncio.Queue[Reach] = asyncio.Queue(1)
        self._listed: dict[RepositoryName, Repository] = {}
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def is_admitted(self) -> bool:
        """The term has admitted it. Its session may have been cancelled before the term has decided."""
        return self.admission.done() and not self.admission.cancelled() and self.admission.result() is None

    def decide(self, refusal: Refuse | None) -> None:
        """The term has admitted it, or not."""
        if not self.admission.done():
            self.admission.set_result(refusal)

    def take(self, instruction: Send | ListRepositories | LookUp | Reach) -> None:
        """Carry this out; an event says when it is done."""
        match instruction:
            case Send():
                self._to_send.put_nowait(instruction)
            case Reach():
                self._to_reach.put_nowait(instruction)
            case ListRepositories() | LookUp():
                self._to_look_up.put_nowait(instruction)

    def end(self, reason: str) -> None:
        """Let `run` return."""
        if not self._end.done():
            self._end.set_result(reason)

    async def run(self) -> str:
        """Serve the standby until the connection ends; why it did."""
        reason = "the connection has ended"
        try:
            async with TaskGroup() as group:
                for work, name in (
                    (self._listen(), "feed-listen"),
                    (self._send_all(), "feed-send"),
                    (self._look_up_all(), "feed-list"),
                    (self._reach_all(), "feed-reach"),
                    (self._until_ended(), "feed-stop"),
                ):
                    group.create_task(work, name=name)
        except* _EndedError as ended:
            reason = str(ended.exceptions[0])
        except* ConnectionError as lost:
            reason = str(lost.exceptions[0]) or reason
        return reason

    async def _until_ended(self) -> None:
        raise _EndedError(await self._end)

    async def _listen(self) -> None:
        while True:
            try:
                message = decode(await self._lines.line())
            except (EOFError, MessageError) as error:
                raise _EndedError(str(error)) from error
            self._handle(Heard(now(), self.number, message))

    async def _send_all(self) -> None:
        while True:
            for message in (await self._to_send.get()).messages:
                await self._channel.write(encode(message))
            self._handle(Sent(now(), self.number))

    async def _look_up_all(self) -> None:
        while True:
            match await self._to_look_up.get():
                case ListRepositories():
                    self._listed = {one.name: one for one in await self._store.list()}
                    known = self._store.known()
                    self._handle(RepositoriesListed(now(), self.number, tuple(self._listed), known))
                case LookUp(names=names):
                    listed = await self._look_up(names)
                    self._handle(LookedUp(now(), self.number, listed))

    async def _look_up(self, names: Sequence[RepositoryName]) -> tuple[Listed, ...]:
        entries = await all_of(self._list_entry(self._listed[name]) for name in names)
        return tuple(one for one in entries if one is not None)

    async def _reach_all(self) -> None:
        while True:
            wanted = await self._to_reach.get()
            problem = await self._reach(wanted.member, wanted.ssh)
            self._handle(ReachTried(now(), self.number, problem))
