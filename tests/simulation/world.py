"""A cluster, its volume, its network and its clients: everything that one episode is made of."""

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

from stargate_gate.election.port import ClusterRecord, Member
from tests.simulation.client import Client
from tests.simulation.engine import Engine
from tests.simulation.invariants import Ledger
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.process import Process
from tests.simulation.rules import Rules
from tests.simulation.volume import Volume

if TYPE_CHECKING:
    from stargate_gate.repos.plan import RefChange
    from tests.simulation.episode import Plan

CLIENTS = 3


class World:
    """One episode's. `trace`: what happened, line by line, if anybody wants to read it."""

    lease_s = 5.0

    def __init__(self, plan: "Plan", rules: Rules, coverage: Counter[str], *, tracing: bool = False) -> None:
        self.plan = plan
        self.mode = plan.mode
        self.rules = rules
        self.coverage = coverage
        self.trace: list[str] | None = [] if tracing else None
        self.engine = Engine(Random(plan.seed))
        self.ledger = Ledger(self)
        self.nodes = [Node(number) for number in range(plan.nodes)]
        first = ClusterRecord("cluster", 0, 1, self.nodes[0].member, mode=plan.mode)
        self.volume = Volume(self, first, visible_at_sync=plan.visible_at_sync)
        self.network = Network(self)
        self.clients = [Client(self, number) for number in range(CLIENTS)]
        self.pushed_last: dict[str, list[RefChange]] = {}
        self.healing = False
        self.stuck = ""
        self._ids = 0
        for node in self.nodes:
            self.boot(node)
        for client in self.clients:
            self.engine.start("client", client.run())

    def new_id(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"

    def cover(self, what: str) -> None:
        """A transition that happened."""
        self.coverage[what] += 1

    def say(self, node: Any, what: str) -> None:
        if self.trace is not None:
            who = "" if node is None else f"{node}: "
            self.trace.append(f"{self.engine.taken:6} {self.engine.now:8.3f} s  {who}{what}")

    def boot(self, node: Node) -> None:
        process = node.process = Process(self, node)
        process.start("node", process.run())

    def leader_of(self, standby: Process, target: tuple[int, Member]) -> Process | None:
        """The process that can be reached where the record says that the leader is."""
        for node in self.nodes:
            process = node.process
            if node.member == target[1] and process is not None and not process.frozen:
                leading = process.leading
                if leading is not None and leading.number == target[0] and not leading.closed:
                    return process if self.network.reachable(standby, process) else None
        return None
