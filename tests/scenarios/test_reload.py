"""SIGHUP: keys and log settings are read again, the log says what else has changed, and nothing ends."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster, NodeProcess, eventually, make_key
from tests.support.nodelog import log_lines, wait_logged

HUP = 1 << (signal.SIGHUP - 1)


def reload(node: NodeProcess) -> dict[str, Any]:
    """Send one SIGHUP; what the node says that it did."""
    before = len(log_lines(node, "reloaded"))
    node.signal(signal.SIGHUP)
    return wait_logged(node, "reloaded", before + 1)[before]


def outlives_hangups(node: NodeProcess) -> bool:
    """Whether the kernel would not end it by one now."""
    fields = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{node.pid}/status").read_text().splitlines()
        if ":" in line
    )
    return bool((int(fields["SigCgt"], 16) | int(fields["SigIgn"], 16)) & HUP)


def test_a_leader_that_is_hung_up_reads_again_and_leads_on(cluster: Cluster) -> None:
    """The term stays, new keys count, the log gets quieter; what needs a restart is named."""
    a, client = cluster["node-a"], cluster.client
    keys = Path(a.config["ssh"]["authorized_keys"])
    second = make_key(client.home / "second", comment="second@example.org")
    keys.write_text(keys.read_text() + second.with_suffix(".pub").read_text())
    a.config["log"]["level"] = "warning"
    a.config["election"]["drain_s"] = 9
    a.write_config()
    assert reload(a)["needs_restart"] == ["election.drain_s"]
    wait_logged(a, "config_needs_restart")
    a.config["log"]["level"] = "info"
    a.config["election"]["drain_s"] = 8
    a.write_config()
    done = reload(a)
    assert (done["authorized_keys"], done["log_level"], done["needs_restart"]) == (2, "info", [])
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "org/app"), "main", cwd=tree)
    assert a.status()["term"] == 1
    assert a.ready()


def test_a_file_that_is_wrong_changes_nothing(cluster: Cluster) -> None:
    """Each mistake is named; the node goes on with what it has, and takes the file when it is mended."""
    a = cluster["node-a"]
    a.config["log"]["levle"] = "info"
    a.write_config()
    assert reload(a)["config"] == "as before"
    (refused,) = wait_logged(a, "config_not_reloaded")
    assert "did you mean 'level'" in refused["problems"][0]
    a.config_file.unlink()
    assert reload(a)["config"] == "as before"
    del a.config["log"]["levle"]
    a.write_config()
    assert reload(a)["needs_restart"] == []
    assert a.ready()


def test_hangups_never_end_a_node_that_starts_or_stops(unstarted: Callable[..., Cluster]) -> None:
    """From the moment its code is loaded to its last, one after the other."""
    cluster = unstarted(nodes=1)
    assert cluster.bootstrap().returncode == 0
    (node,) = cluster.nodes
    node.start()
    eventually(lambda: outlives_hangups(node), "it knows what a hangup is")

    def hung_up_and_ready() -> bool:
        node.signal(signal.SIGHUP)
        assert node.process is not None
        assert node.process.poll() is None, node.log()
        return node.ready()

    eventually(hung_up_and_ready, "it leads")
    node.signal(signal.SIGTERM)

    def hung_up_and_gone() -> bool:
        assert node.process is not None
        node.signal(signal.SIGHUP)
        return node.process.poll() is not None

    eventually(hung_up_and_gone, "it stops")
    assert node.wait() == 0
