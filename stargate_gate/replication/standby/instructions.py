"""What a `StandbySession` wants done: values that a shell carries out, in their order. Pure.

The steps of jobs, and the order of what they put on disk, are in steps.py.
"""

from dataclasses import dataclass
from typing import TypeAlias

from stargate_gate.replication.standby.answers import OnDisk
from stargate_gate.replication.standby.steps import Remark, Step
from stargate_gate.replication.wire.messages import Message


@dataclass(frozen=True)
class Do:
    """Carry out one step of that job; its answer is `StepDone` or `StepFailed`."""

    job: int
    step: Step


@dataclass(frozen=True)
class Cancel:
    """End what runs for that job; it has no answer any more."""

    job: int


@dataclass(frozen=True)
class OpenFeed:
    """Open the channel of the feed; the answer is `Connected`."""


@dataclass(frozen=True)
class Send:
    """Send these messages, in order; the answer is `Sent`. One `Send` at a time is under way.

    after  what is on disk before them: what they confirm
    """

    messages: tuple[Message, ...]
    after: tuple[OnDisk, ...]


@dataclass(frozen=True)
class Welcomed:
    """The leader has taken this standby in."""


@dataclass(frozen=True)
class Equal:
    """Everything of the leader's is here up to that position; also told again, at each heartbeat.

    at  when, by the leader's clock, in seconds since 1970; 0: not known
    """

    position: int
    at: int


@dataclass(frozen=True)
class Wake:
    """Send `Tick` at that time; replaces an earlier `Wake`."""

    at: float


@dataclass(frozen=True)
class End:
    """The session is over; `reason` is one line for operators. No event may follow."""

    reason: str


Instruction: TypeAlias = Do | Cancel | OpenFeed | Send | Welcomed | Equal | Wake | End | Remark
