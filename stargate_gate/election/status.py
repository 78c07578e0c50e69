"""The state of the election for the other packages: frozen values. Pure."""

from dataclasses import dataclass
from typing import Literal

from stargate_gate.election.port import ClusterRecord


@dataclass(frozen=True)
class Timings:
    """What of the YAML file's election section concerns the elector, in seconds."""

    retry_s: float = 0.1
    heartbeat_s: float = 1.0
    lease_s: float = 5.0
    handover_wait_s: float = 5.0


@dataclass(frozen=True)
class Advertised:
    """What this node publishes about itself when it leads; see `ClusterRecord`."""

    ssh: str = ""
    http: str = ""
    host_keys: tuple[str, ...] = ()
    mode: str = "async"


@dataclass(frozen=True)
class LeadershipView:
    """Who leads, as this node knows it now.

    role       "leader" from the claim of a term until it ends
    record     the newest record that was read or written here; None before the first
    term       this node's term while it leads, else the record's; 0 if unknown
    accepting  leads, has opened, and its lease is valid at the moment of asking
    reason     one line for operators: why it does not lead or accept; "" while accepting
    trouble    why the lock or the record cannot be trusted or reached now, if so. Names paths: not
               for clients
    taking_over  holds the lock and has not claimed its term yet: it follows nobody any more
    proved     leads, and its lease is valid at the moment of asking; also before it has opened and
               while it steps down
    record_age_s  how many seconds ago `record` was read or written, for certain; None: never
    term_age_s  for how long this node has led its term; None: it does not
    """

    role: Literal["leader", "standby"]
    node: str
    record: ClusterRecord | None
    term: int
    accepting: bool
    reason: str
    trouble: str | None
    taking_over: bool = False
    proved: bool = False
    record_age_s: float | None = None
    term_age_s: float | None = None
