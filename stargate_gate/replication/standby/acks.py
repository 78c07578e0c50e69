"""What a standby has to tell the leader: of each kind only the newest, kept until it is sent. Pure."""

import math
from collections.abc import Container

from stargate_gate.config.rules import PROGRESS_EVERY_S
from stargate_gate.replication.standby.answers import OnDisk
from stargate_gate.replication.standby.instructions import Send
from stargate_gate.replication.wire.about import About, Refilling
from stargate_gate.replication.wire.messages import (
    Alive,
    Applied,
    Checked,
    Enrolled,
    Message,
    Progress,
)


class Acks:
    """Of one session. A leader that reads slowly makes it grow with the repositories, not the changes.

    What is applied to a copy whose id is in `unsound` is told when it is not in there any more.
    """

    def __init__(self, term: int, unsound: Container[str] = ()) -> None:
        self._term = term
        self._unsound = unsound
        self._progress: dict[str, tuple[int, int]] = {}  # the change, and bytes that have come
        self._progress_at: dict[str, float] = {}  # of what is not applied yet
        self._applied: dict[str, tuple[int, OnDisk]] = {}
        self._about: About | None = None
        self._checked: int | None = None
        self._refilling: Refilling | None = None
        self._enrolled: tuple[str, OnDisk] | None = None
        self._position: int | None = None
        self._unasked_at = -math.inf

    def about(self, about: About) -> None:
        """This node, as it is now."""
        self._about = about

    def refilling(self, refilling: Refilling) -> None:
        """How far this node is with the list that it has not confirmed yet."""
        self._refilling = refilling

    def applied(self, identity: str, seq: int, on_disk: OnDisk) -> None:
        """That change of that repository, and all before it, is done, and `on_disk`."""
        before, _ = self._applied.get(identity, (0, on_disk))
        self._applied[identity] = max(seq, before), on_disk
        self.silent(identity)

    def progress(self, identity: str, seq: int, received: int, now: float) -> None:
        """That change makes progress; `received` bytes, `now` in seconds.

        It is told every PROGRESS_EVERY_S at most.
        """
        if now - self._progress_at.get(identity, -PROGRESS_EVERY_S) >= PROGRESS_EVERY_S:
            self._progress_at[identity] = now
            self._progress[identity] = (seq, received)

    def silent(self, identity: str) -> None:
        """No progress there now: it has failed, or is done."""
        self._progress.pop(identity, None)
        self._progress_at.pop(identity, None)

    def checked(self, check: int) -> None:
        """Everything of that list is here."""
        self._checked = check

    def enrolled(self, incarnation: str, on_disk: OnDisk) -> None:
        """That incarnation is noted, and `on_disk`."""
        self._enrolled = incarnation, on_disk

    def alive(self, position: int) -> None:
        """This node works, and has everything up to `position`."""
        self._position = position

    def alive_unasked(self, position: int, now: float, every_s: float) -> None:
        """The same without a heartbeat of the leader's, which may be late; every `every_s` at most."""
        if now - self._unasked_at >= every_s:
            self._unasked_at = now
            self.alive(position)

    def _may_be_told(self, identity: str) -> bool:
        return identity not in self._unsound

    def take(self) -> Send | None:
        """What is to be sent now, each change before what it is part of; None: nothing."""
        if not self._has_news():
            return None
        messages: list[Message] = [] if self._about is None else [self._about]
        messages += [
            Progress(self._term, seq, identity, received)
            for identity, (seq, received) in self._progress.items()
        ]
        applied = {one: done for one, done in self._applied.items() if self._may_be_told(one)}
        messages += [Applied(self._term, seq, identity) for identity, (seq, _) in applied.items()]
        after = [on_disk for _, on_disk in applied.values()]
        if self._checked is not None:
            messages.append(Checked(self._term, self._checked))
        elif self._refilling is not None:
            messages.append(self._refilling)
        if self._enrolled is not None:
            messages.append(Enrolled(self._term, self._enrolled[0]))
            after.append(self._enrolled[1])
        if self._position is not None:
            messages.append(Alive(self._term, self._position))
        self._progress.clear()
        for identity in applied:
            del self._applied[identity]
        self._about = self._refilling = None
        self._checked = self._enrolled = self._position = None
        return Send(tuple(messages), tuple(after))

    def _has_news(self) -> bool:
        return bool(
            any(self._may_be_told(identity) for identity in self._applied)
            or self._progress
            or self._position is not None
            or self._about is not None
            or self._checked is not None
            or self._refilling is not None
            or self._enrolled is not None
        )
