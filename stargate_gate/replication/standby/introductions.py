"""A standby's side of what nodes tell each other of themselves; about.py has the words."""

import asyncio
from collections.abc import Callable

from stargate_gate.replication.standby.acks import Answers
from stargate_gate.replication.standby.throughput import Throughput
from stargate_gate.replication.wire.about import (
    About,
    KeysApart,
    Profile,
    Reached,
    Refilling,
    Settings,
)


class Introductions:
    """Of one session.

    settings  the leader's; None before it has told them
    problem   why the leader does not reach this node; None: not tried yet; "": it does
    keys      whether the leader lets in other keys than this node
    """

    def __init__(
        self,
        term: int,
        answers: Answers,
        profile: Callable[[], Profile],
        received_bytes: Callable[[], int],
    ) -> None:
        self.settings: Settings | None = None
        self.problem: str | None = None
        self.keys = KeysApart()
        self._term = term
        self._answers = answers
        self._profile = profile
        self._received_bytes = received_bytes
        self._told: Profile | None = None
        self._throughput = Throughput()

    def hear(self, message: About | Reached) -> None:
        """The leader tells of itself, or of the way to this node."""
        if isinstance(message, About):
            self.settings = message.settings
        else:
            self.problem = message.problem

    def tell(self) -> None:
        """Tell the leader what of this node it was not told yet."""
        if (profile := self._profile()) != self._told:
            self._told = profile
            self._answers.about(profile.about(self._term))

    def beat(self, refilling: Refilling | None) -> None:
        """With each heartbeat: what is new of this node, and how far it is."""
        self.tell()
        self.keys.see(self._profile().settings, self.settings, asyncio.get_running_loop().time())
        self._throughput.sample(asyncio.get_running_loop().time(), self._received_bytes())
        if refilling is not None:
            self._answers.refilling(refilling)

    def refilling(self, done: int, total: int) -> Refilling:
        """So many repositories are done; with what came in, and how fast."""
        return Refilling(self._term, done, total, self._received_bytes(), self._throughput.bytes_per_s())
