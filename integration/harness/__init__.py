"""The harness: a `Session` makes a `Cluster` of two `Node`s and a `Client`, each of them a `Machine`.

    def test_pushes_go_on_when_the_leader_dies(cluster: Cluster) -> None:
        # a fresh pair, in step; node-a leads and stargate.local points to it
        leader, standby = cluster.settle()
        client = cluster.client
        client.work_tree("app")                       # a repository with one commit
        client.push("app")                            # to stargate.local
        leader.kill()                                 # or stop(), pause(), cut_from(…), disconnect()
        standby.wait_ready()
        client.point_name_at(standby.address)         # where no floating address moves by itself
        client.commit("app", "second")
        client.push("app")

Fixtures (integration/conftest.py): `cluster`, a fresh pair for one test; `pair`, one for a whole file;
`session`, for special ones: `with session.cluster(Plan(overrides={"replication": {"mode": "strict"}}))`.
Commands: `machine.run("ip", "addr", user="root").out`, `machine.sh("…", user="root")`, `machine.put(path,
text)`; each has a limit, and raises with everything the command wrote unless `ok=False`.
Facts: `node.status()`, `node.ready()`, `node.refs("app")`, `node.has("app", oid)`, `cluster.report()`.
A loop of writes, to see what clients go through: `pusher = client.start_pusher("app")`, break things,
`longest_gap_s(pusher.stop(), since_s)`; `Plan(floating=True)` lets the nodes move stargate.local themselves.
Waiting: `eventually(probe, "what")`, `node.wait_ready()`, `node.wait_sync_set("node-b")`; all have limits.
More machines on the same network: `cluster.add_machine("balancer")`, root's, with the Debian packages of
integration/packages/tools; `cluster.floating_address` is free for a floating address. In the containers the
user `git` runs Stargate and `dev` is the developer.
Nothing needs to be cleaned up: session and cluster do it, whatever happens to the process.
"""

from integration.harness.client import NAME, Client
from integration.harness.cluster import Cluster, Plan
from integration.harness.machine import CommandFailedError, Done, Machine, eventually
from integration.harness.node import Node
from integration.harness.pushes import Push, Pusher, longest_gap_s
from integration.harness.session import Session

__all__ = [
    "NAME",
    "Client",
    "Cluster",
    "CommandFailedError",
    "Done",
    "Machine",
    "Node",
    "Plan",
    "Push",
    "Pusher",
    "Session",
    "eventually",
    "longest_gap_s",
]
