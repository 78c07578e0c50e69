"""What a `StandbySession` is told: values, each with the time at which it happened. Pure.

Times are seconds of one monotonic clock; the session has no clock of its own.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.messages import Message
from stargate_gate.repos.names import RepositoryName


@dataclass(frozen=True)
class Begun:
    """The connection to the leader is made. Sent once, first."""

    now: float


@dataclass(frozen=True)
class Connected:
    """The channel of the feed is open: the answer to `OpenFeed`."""

    now: float


@dataclass(frozen=True)
class Heard:
    """The leader's next message."""

    now: float
    message: Message


@dataclass(frozen=True)
class Measured:
    """This node as it is now: sent before each `Heard` of a Welcome or a Heartbeat.

    received_bytes  of this connection, all channels together
    """

    now: float
    profile: Profile
    received_bytes: int


@dataclass(frozen=True)
class Sent:
    """The connection has taken the messages of the last `Send`, and takes more."""

    now: float


@dataclass(frozen=True)
class StepDone:
    """A step of a job is done. `answer` is what the step's docstring says."""

    now: float
    job: int
    answer: Any


@dataclass(frozen=True)
class StepFailed:
    """A step of a job has failed: StargateError, OSError or ValueError.

    chance  0.0 to 1.0, at random: spreads the waits before another try
    """

    now: float
    job: int
    error: Exception
    chance: float


@dataclass(frozen=True)
class BytesCame:
    """Objects of some fetch have come: the leader lives, though its heartbeats may wait behind them."""

    now: float


@dataclass(frozen=True)
class MadeProgress:
    """A job has made progress, by the rules of progress.py.

    received  bytes of objects that have come for it in this try
    """

    now: float
    job: int
    received: int


@dataclass(frozen=True)
class FoundUnsound:
    """Somebody has looked at the copy of that id, and it is damaged. The note of it is on disk.

    name  what it is called here
    why   what is wrong, for people
    """

    now: float
    id: str
    name: RepositoryName
    why: str


@dataclass(frozen=True)
class Tick:
    """The time that a `Wake` has asked for has come."""

    now: float


@dataclass(frozen=True)
class ConnectionEnded:
    """The connection or the feed's channel is gone; `reason` is one line for operators."""

    now: float
    reason: str


Event: TypeAlias = (
    Begun
    | Connected
    | Heard
    | Measured
    | Sent
    | StepDone
    | StepFailed
    | BytesCame
    | MadeProgress
    | FoundUnsound
    | Tick
    | ConnectionEnded
)
