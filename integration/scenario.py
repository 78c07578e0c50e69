"""What every fault scenario does: a loop of pushes while something breaks, and the count at the end."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from integration.harness import Cluster, Node, Pusher, eventually, longest_gap_s
from integration.results import Result, note

NUMBERS = itertools.count(1)


@dataclass
class Scenario:
    """A settled pair whose name follows the leader, and a developer who pushes without a pause.

    What clients wait is counted from `since_s`, just before the fault.
    """

    cluster: Cluster
    name: str
    tree: str
    leader: Node
    standby: Node
    pusher: Pusher
    term: int
    since_s: float = field(default_factory=time.monotonic)

    def wait_accepted(self) -> None:
        """Wait for an accepted push that begins from now on, with what was done so far in force."""
        self.pusher.wait_accepted(time.monotonic())

    def say(self, text: str) -> None:
        """Print a step with its time since the fault."""
        print(f"[{time.monotonic() - self.since_s:7.2f} s] {self.name}: {text}", flush=True)

    def nobody_took_over(self) -> None:
        """The same leader in the same term, and no other."""
        assert not self.standby.ready()
        assert self.leader.status()["term"] == self.term
        assert self.leader.status()["leader"] == self.leader.name

    def finish(self) -> None:
        """All is well again: pushes are accepted, both nodes are equal, no acknowledged push is missing."""
        self.wait_accepted()
        pushes = self.pusher.stop()
        leader, standby = self.cluster.settle()
        acknowledged = [push.what for push in pushes if push.ok]
        for node in (leader, standby):
            lost = [oid for oid in acknowledged if not node.has(self.tree, oid)]
            assert lost == [], f"acknowledged, and not on {node.name}"
        eventually(lambda: leader.refs(self.tree) == standby.refs(self.tree), "nodes that are equal")
        waited_s = longest_gap_s(pushes, self.since_s)
        note(Result(self.name, waited_s, len(acknowledged), lost=0))
        self.say(f"clients waited {waited_s:.2f} s; {len(acknowledged)} acknowledged, 0 lost")


@contextlib.contextmanager
def scenario(cluster: Cluster, name: str) -> Iterator[Scenario]:
    """Begin with accepted pushes; end with `finish` if nothing failed before."""
    leader, standby = cluster.settle()
    tree = cluster.client.work_tree(f"app-{next(NUMBERS)}")
    cluster.client.push(tree)
    pusher = cluster.client.start_pusher(tree)
    pusher.wait_accepted()
    one = Scenario(cluster, name, tree, leader, standby, pusher, int(leader.status()["term"]))
    yield one
    one.finish()
