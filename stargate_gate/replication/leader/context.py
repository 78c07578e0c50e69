"""What the parts of one LeaderTerm share. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stargate_gate.election.port import Member
from stargate_gate.replication.leader.instructions import Instruction, Log
from stargate_gate.replication.leader.sent_states import Gone
from stargate_gate.replication.leader.sync_rules import Limits, Mode
from stargate_gate.replication.ports import TermRecord
from stargate_gate.replication.wire.about import Profile
from stargate_gate.replication.wire.numbers import FIRST_POSITION


@dataclass(frozen=True)
class FeedSettings:
    """What the leader of a term needs of the configuration. Times in seconds."""

    mode: Mode
    limits: Limits
    heartbeat_s: float
    full_check_s: float


@dataclass(frozen=True)
class Outside:
    """What a term asks of its node in between: no I/O, and not the same answer each time.

    profile          what this node tells its standbys of itself now
    new_incarnation  a fresh random incarnation; see election/incarnation.py
    wall_s           the clock of this node, in seconds since 1970
    late_delay_s     how long to wait before a standby that was late for the n-th time is checked anew
    record_delay_s   the same after n writes of the cluster record in a row whose outcome is unknown
    reach_delay_s    the same after n attempts in a row to reach a standby
    """

    profile: Callable[[], Profile]
    new_incarnation: Callable[[], str]
    wall_s: Callable[[], float]
    late_delay_s: Callable[[int], float]
    record_delay_s: Callable[[int], float]
    reach_delay_s: Callable[[int], float]


class Logbook:
    """Turns lines for the log into instructions. It is used like a logger."""

    def __init__(self, out: list[Instruction]) -> None:
        self._out = out

    def info(self, event: str, **fields: Any) -> None:
        """Something that operators like to know."""
        self._out.append(Log("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        """Something that operators should see to, sooner or later."""
        self._out.append(Log("warning", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        """Something that operators should see to now."""
        self._out.append(Log("error", event, fields))


class Context:
    """Made once for a term.

    record         the cluster record of this term, as it is known now; only looked at
    now            the time of the event that is handled
    position       the newest change's sequence number
    out            the instructions of this event so far
    changed_ids    repositories that a standby has confirmed more of since the waiting pushes were judged
    note_replicated  SyncSet's
    gone           repositories that this node does not have any more, for certain
    changed        the same of standbys: one has come, gone, or changed its stage
    """

    def __init__(
        self, record: TermRecord, me: Member, settings: FeedSettings, outside: Outside, now: float
    ) -> None:
        self.record = record
        self.term = record.number
        self.me = me
        self.settings = settings
        self.outside = outside
        self.now = now
        self.position = FIRST_POSITION
        self.out: list[Instruction] = []
        self.log = Logbook(self.out)
        self.changed = False
        self.changed_ids: set[str] = set()
        self.gone = Gone()
        self.note_replicated: Callable[[], int] = lambda: 0
