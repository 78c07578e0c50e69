"""What the nodes tell of themselves: the standby's side of `Welcome`, `About` and `Reached`. Pure."""

from collections import deque

from stargate_gate.election.port import Member
from stargate_gate.replication.standby.acks import Acks
from stargate_gate.replication.standby.answers import SessionOverError
from stargate_gate.replication.wire.about import (
    About,
    KeysApart,
    Profile,
    Reached,
    Refilling,
    Settings,
)
from stargate_gate.replication.wire.messages import PROTOCOL, Message, Refused, Welcome, out_of_place

SAMPLES = 11  # one a heartbeat: ten seconds, with the usual heartbeat_s of 1


class Throughput:
    """How fast bytes came in lately, from a running count. Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES)

    def sample(self, now: float, count_bytes: int) -> None:
        """So much had come in by `now`."""
        self._samples.append((now, count_bytes))

    def bytes_per_s(self) -> int:
        """Between the oldest sample and the newest; 0 while there are fewer than two."""
        if not self._samples:
            return 0
        (then, before), (now, after) = self._samples[0], self._samples[-1]
        return int((after - before) / (now - then)) if now > then else 0


class Introductions:
    """Of one session.

    settings  the leader's; None before it has told them
    problem   why the leader does not reach this node; None: not tried yet; "": it does
    keys      whether the leader lets in other keys than this node
    """

    def __init__(self, term: int, acks: Acks) -> None:
        self.settings: Settings | None = None
        self.problem: str | None = None
        self.keys = KeysApart()
        self._term = term
        self._acks = acks
        self._profile = Profile()
        self._told: Profile | None = None
        self._throughput = Throughput()
        self._received_bytes = 0

    def measured(self, now: float, profile: Profile, received_bytes: int) -> None:
        """This node as it is now, and how many bytes have come by this connection."""
        self._profile = profile
        self._received_bytes = received_bytes
        self._throughput.sample(now, received_bytes)

    def hear(self, message: About | Reached) -> None:
        """The leader tells of itself, or of the way to this node."""
        if isinstance(message, About):
            self.settings = message.settings
        else:
            self.problem = message.problem

    def tell(self) -> None:
        """Tell the leader what of this node it was not told yet."""
        if self._profile != self._told:
            self._told = self._profile
            self._acks.about(self._profile.about(self._term))

    def beat(self, now: float, refilling: Refilling | None) -> None:
        """With each heartbeat: what is new of this node, and how far it is."""
        self.tell()
        self.keys.see(self._profile.settings, self.settings, now)
        if refilling is not None:
            self._acks.refilling(refilling)

    def refilling(self, done: int, total: int) -> Refilling:
        """So many repositories are done; with what came in, and how fast."""
        return Refilling(self._term, done, total, self._received_bytes, self._throughput.bytes_per_s())


def welcomed(message: Message, leader: Member, term: int) -> Welcome:
    """The first word of a leader, if it is the one that was looked for, and takes this standby in.

    Raises:
        SessionOverError: it is another one, or it refuses.
    """
    if isinstance(message, Refused):
        raise SessionOverError(f"{leader.name} refuses this node: {message.reason}")
    if not isinstance(message, Welcome):
        raise SessionOverError(str(out_of_place(message)))
    if message.protocol != PROTOCOL:
        raise SessionOverError(
            f"{message.leader.name} speaks version {message.protocol} of the feed, and this node "
            f"version {PROTOCOL}: update the older node"
        )
    if (message.term, message.leader) != (term, leader):
        found = f"{message.leader.name} with term {message.term}"
        raise SessionOverError(f"{found} answers instead of {leader.name} with term {term}")
    return message
