"""What a standby tells the leader, sent as fast as the leader takes it and no faster."""

import asyncio
import math

from stargate_gate.config.rules import PROGRESS_EVERY_S
from stargate_gate.replication.ports import Channel
from stargate_gate.replication.wire.about import About, Refilling
from stargate_gate.replication.wire.messages import (
    Alive,
    Applied,
    Checked,
    Enrolled,
    Message,
    Progress,
    encode,
)


class Answers:
    """Holds the newest of each kind until it is sent: bounded by the number of repositories."""

    def __init__(self, term: int) -> None:
        self._term = term
        self._progress: dict[str, tuple[int, int]] = {}  # the change, and bytes that have come
        self._progress_at: dict[str, float] = {}  # of what is not applied yet
        self._applied: dict[str, int] = {}
        self._about: About | None = None
        self._checked: int | None = None
        self._refilling: Refilling | None = None
        self._enrolled: str | None = None
        self._position: int | None = None
        self._unasked_at = -math.inf
        self._any = asyncio.Event()

    def about(self, about: About) -> None:
        """This node, as it is now."""
        self._about = about
        self._any.set()

    def refilling(self, refilling: Refilling) -> None:
        """How far this node is with the list that it has not confirmed yet."""
        self._refilling = refilling
        self._any.set()

    def applied(self, identity: str, seq: int) -> None:
        """That change of that repository, and all before it, is on disk."""
        self._applied[identity] = max(seq, self._applied.get(identity, 0))
        self._progress.pop(identity, None)
        self._progress_at.pop(identity, None)
        self._any.set()

    def progress(self, identity: str, seq: int, received: int, now: float) -> None:
        """That change gets on; `received` bytes, `now` in seconds. Told every PROGRESS_EVERY_S at most."""
        if now - self._progress_at.get(identity, -PROGRESS_EVERY_S) >= PROGRESS_EVERY_S:
            self._progress_at[identity] = now
            self._progress[identity] = (seq, received)
            self._any.set()

    def silent(self, identity: str) -> None:
        """Nothing moves there now: it has failed, or needs no answer."""
        self._progress.pop(identity, None)
        self._progress_at.pop(identity, None)

    def checked(self, check: int) -> None:
        """Everything of that list is here."""
        self._checked = check
        self._any.set()

    def enrolled(self, incarnation: str) -> None:
        """That incarnation is on disk."""
        self._enrolled = incarnation
        self._any.set()

    def alive(self, position: int) -> None:
        """This node works, and has everything up to `position`."""
        self._position = position
        self._any.set()

    def alive_unasked(self, position: int, now: float, every_s: float) -> None:
        """The same without a heartbeat of the leader's, which may be late; every `every_s` at most."""
        if now - self._unasked_at >= every_s:
            self._unasked_at = now
            self.alive(position)

    async def send(self, channel: Channel) -> None:
        """Send what is to be said, for ever.

        Raises:
            ConnectionError: the leader is gone.
        """
        while True:
            await self._any.wait()
            self._any.clear()
            for message in self._take():
                await channel.write(encode(message))

    def _take(self) -> list[Message]:
        """What is done before what that adds up to."""
        taken: list[Message] = [] if self._about is None else [self._about]
        taken += [
            Progress(self._term, seq, identity, received)
            for identity, (seq, received) in self._progress.items()
        ]
        taken += [Applied(self._term, seq, identity) for identity, seq in self._applied.items()]
        if self._checked is not None:
            taken.append(Checked(self._term, self._checked))
        elif self._refilling is not None:
            taken.append(self._refilling)
        if self._enrolled is not None:
            taken.append(Enrolled(self._term, self._enrolled))
        if self._position is not None:
            taken.append(Alive(self._term, self._position))
        self._progress.clear()
        self._applied.clear()
        self._about = self._refilling = None
        self._checked = self._enrolled = self._position = None
        return taken
