"""Real nodes that nobody can log in to, and what they say of it."""

import json
from pathlib import Path

from tests.support.cluster import Cluster, eventually


def test_a_node_without_a_usable_key_says_so(cluster: Cluster) -> None:
    """In /healthz, which stays 200, and in status; it goes away with the first key."""
    node = cluster.standby()
    keys = Path(node.config["ssh"]["authorized_keys"])
    good = keys.read_text()
    keys.write_text("not a key\n")
    eventually(lambda: any("nobody can log in" in one for one in node.status()["warnings"]), "a warning")
    code, body = node.get("/healthz")
    assert code == 200
    (warning,) = json.loads(body)["warnings"]
    assert warning == f"nobody can log in: {keys} has no usable key: write a public key into it"
    keys.write_text(good)
    eventually(lambda: not node.status()["warnings"], "no warning")
    assert json.loads(node.get("/healthz")[1])["warnings"] == []


def test_a_node_takes_the_descriptors_that_it_may_have(unstarted) -> None:
    """A shell's 1024 are fewer than the connections that the defaults allow."""
    cluster: Cluster = unstarted(nodes=1)
    assert cluster.bootstrap().returncode == 0
    node = cluster.nodes[0].start(prefix=("prlimit", "--nofile=256:2048"))
    node.wait_ready()
    limits = Path(f"/proc/{node.pid}/limits").read_text().splitlines()
    (line,) = [one for one in limits if one.startswith("Max open files")]
    assert line.split()[3:5] == ["2048", "2048"]
