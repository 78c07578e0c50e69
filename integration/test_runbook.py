"""docs/runbook.md against real nodes: each block of commands does what the page says of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from integration.harness import Cluster, Machine, Node, Plan, Session
from integration.harness.machine import Done
from integration.harness.node import CONFIG, DATA_DIR
from tests.support.runbook import script

OPERATORS = Plan(security_opt=())  # root may be root there, as operators are
SHELL_LINES = script("shell").splitlines()[0]  # the page says that they hold for all blocks on nodes


@pytest.fixture
def cluster(session: Session) -> Iterator[Cluster]:
    """A fresh pair."""
    with session.cluster(OPERATORS) as made:
        yield made


@pytest.fixture(scope="module")
def pair(session: Session) -> Iterator[Cluster]:
    """One pair for what leaves it working."""
    with session.cluster(OPERATORS) as made:
        yield made


def on(node: Machine, name: str, *, user: str = "git", **variables: str) -> Done:
    """Run the block of that name on a node, as an operator there."""
    return node.run("sh", "-euc", f"{SHELL_LINES}\n{script(name)}", user=user, env=variables, limit_s=120)


def told(node: Machine, name: str, *, user: str = "git") -> str:
    """The same; what it printed, in one line: `stargate status` breaks its lines at 80 columns, anywhere."""
    return " ".join(on(node, name, user=user).out.split())


def as_client(cluster: Cluster, name: str, **variables: str) -> Done:
    """Run the block of that name on the developer's machine."""
    return cluster.client.run("sh", "-euc", script(name), cwd="/home/dev", env=variables, limit_s=120)


@contextmanager
def stopped(cluster: Cluster, node: Node) -> Iterator[Machine]:
    """The machine of a node whose service is stopped: the same disks, and no node running."""
    node.stop()
    machine = cluster.add_machine(f"{node.name}-stopped", volumes=cluster.disks_of(node))
    try:
        configuration, _ = node.container.get_archive("/etc/stargate")
        machine.container.put_archive("/etc", b"".join(configuration))
        yield machine
    finally:
        machine.container.remove(force=True)
        cluster.machines.remove(machine)


def test_setting_up(session: Session) -> None:
    """Keys, YAML, check and bootstrap as root and git on a bare machine; then the node leads."""
    with session.cluster(OPERATORS) as cluster:
        machine = cluster.add_machine("bare", tmpfs={"/mnt/shared/stargate": ""})  # a mount of its own
        machine.sh("rm -rf /etc/stargate; install -d -m 0750 -o root -g git /etc/stargate")
        machine.sh("install -d -m 0700 -o git -g git /mnt/shared/stargate")
        on(machine, "setup-keys", user="root")
        on(machine, "setup-yaml", user="root")
        bootstrapped = on(machine, "setup-bootstrap")
        assert "node-a leads first" in bootstrapped.out
        machine.start_process("/opt/stargate/bin/stargate", "serve", "-c", CONFIG, user="git")
        on(machine, "wait-ready")
        assert "node-a leads prod in term" in told(machine, "day2")
        again = machine.run("/opt/stargate/bin/stargate", "bootstrap", "-c", CONFIG, user="git", ok=False)
        assert again.status == 69


def test_day_two(pair: Cluster) -> None:
    """What an operator looks at, on the leader and on the standby, as git and as root."""
    leader, standby = pair.settle()
    pair.client.work_tree("looked-at")
    pair.client.push("looked-at")
    assert "stargate" in on(leader, "shell").out
    for user in ("git", "root"):
        assert "all is well" in told(leader, "day2", user=user)
        assert f"this is {standby.name}, a standby" in told(standby, "day2", user=user)
        assert standby.name in on(leader, "wait-pair", user=user).out
    shown = on(standby, "day2-http").out
    assert '"healthy": true' in shown
    assert '"ready": false' in shown
    assert "stargate_term 1.0" in shown
    records = on(leader, "record").out.splitlines()
    assert len(records) >= 2
    assert f'"sync_set":[["{standby.name}",' in records[-1]
    assert '"highest_term": 1' in on(standby, "day2-disk").out
    assert "repositories" in on(leader, "disk-usage").out
    assert on(leader, "stale-locks").out == ""
    assert "exit" not in on(leader, "verify").out
    assert "sync set" in told(standby, "standby-behind")
    assert "cluster_id" in on(leader, "same-volume").out
    assert on(leader, "same-volume").out.splitlines()[0] == on(standby, "same-volume").out.splitlines()[0]


def test_a_planned_switchover_and_an_upgrade(pair: Cluster) -> None:
    """The check says yes, the other leads, and the first is back in the sync set."""
    leader, standby = pair.settle()
    assert standby.name in on(leader, "switchover-check").out
    assert leader.stop() == 0
    on(standby, "wait-ready")
    alone = standby.sh(f"{SHELL_LINES}\n{script('switchover-check')}", ok=False)
    assert alone.status == 2, "the sync set is empty"
    leader.start()
    on(standby, "upgrade-wait" if leader.name == "node-b" else "wait-pair")
    pair.client.point_name_at(standby.address)


def test_backup_restore_and_moving_in(pair: Cluster) -> None:
    """Every repository comes out, one goes in under another name, an old server's goes in whole."""
    leader, _ = pair.settle()
    client = pair.client
    client.point_name_at(leader.address)
    client.work_tree("app")
    client.push("app")
    for _ in range(2):  # the second time it updates
        as_client(pair, "backup")
    restored = as_client(pair, "restore").out
    assert restored.split()[0] == client.git("rev-parse", "HEAD", cwd="app").out.strip()
    client.git("tag", "v1", cwd="app")
    moved = as_client(pair, "move-in", OLD="/home/dev/app")
    assert "the same" in moved.out
    assert "refs/tags/v1" in leader.refs("team/app")
    client.ssh("repo", "delete", "app-restored")
    assert '"app-restored' in on(leader, "trash").out
    times = as_client(pair, "drill").out
    assert len(re.findall(r"^\d\d:\d\d:\d\d [1-5]$", times, re.MULTILINE)) == 5


def test_another_node_and_a_third_one(cluster: Cluster) -> None:
    """An empty data_dir under the old name is let in, and so is a node with a new name."""
    leader, standby = cluster.settle()
    cluster.client.work_tree("app")
    cluster.client.push("app")
    with stopped(cluster, standby) as machine:
        machine.sh(f"rm -rf {DATA_DIR}/*")
    standby.start()
    on(leader, "upgrade-wait")
    assert standby.refs("app") == leader.refs("app")
    third = cluster.add_node("node-c")
    third.start()
    on(third, "third-wait")
    leader.wait_sync_set(*sorted((standby.name, "node-c")))


def test_keys_are_rotated(cluster: Cluster) -> None:
    """With one node for a moment; then both are in step with the new key, and the old one is unknown."""
    leader, standby = cluster.settle()
    on(leader, "rotate-make", user="root")
    new = leader.run("cat", "/etc/stargate/cluster_ed25519_key.new", user="root").out
    before = leader.run("cat", "/etc/stargate/cluster_ed25519_key", user="root").out
    standby.put("/etc/stargate/cluster_ed25519_key.new", new)
    for node in (leader, standby):
        on(node, "rotate-swap", user="root")
    standby.stop()
    leader.stop()
    leader.start()
    leader.wait_ready()
    standby.start()
    on(leader, "upgrade-wait")
    assert new != before
    assert standby.run("cat", "/etc/stargate/cluster_ed25519_key", user="root").out == new


def test_a_leader_that_was_alone_is_lost_and_comes_back(cluster: Cluster) -> None:
    """The sync set is empty; the other is made to lead; what only the first had is found and restored."""
    leader, standby = cluster.settle()
    client = cluster.client
    client.work_tree("app")
    client.push("app")
    standby.cut_from(leader)
    alone = client.commit("app", "on the leader alone")
    client.push("app")
    assert "the sync set is empty" in told(leader, "standby-behind")
    assert "app []" in on(leader, "only-copy").out
    leader.kill()
    standby.mend()
    assert "exit 9" in told(standby, "why-not")
    looked = on(standby, "promote-look")
    assert "exit 64" in looked.out
    assert leader.name in looked.text
    on(standby, "promote")
    leader.start()
    standby.wait_sync_set(leader.name)
    listed = on(leader, "rescued-list").out
    assert "app" in listed
    on(leader, "rescued-restore", NAME="app", OBJECT=alone)
    assert standby.refs("app")["refs/heads/rescued/main"] == alone
    assert "no rescued refs" in on(leader, "rescued-list").out


@contextmanager
def new_volume(cluster: Cluster, node: Node) -> Iterator[Machine]:
    """A stopped node's machine with a new volume at /mnt/shared: root's, and without a folder in it.

    It is the volume that the nodes have at /mnt/shared/stargate. So at the end what was made in the folder is
    moved up, and they find it.
    """
    volumes = {
        name: {**mount, "bind": mount["bind"].removesuffix("/stargate")}
        if "/mnt/shared" in mount["bind"]
        else mount
        for name, mount in cluster.disks_of(node).items()
    }
    machine = cluster.add_machine(f"{node.name}-new-volume", volumes=volumes)
    try:
        configuration, _ = node.container.get_archive("/etc/stargate")
        machine.container.put_archive("/etc", b"".join(configuration))
        # Docker puts what the image has at /mnt/shared into a volume that is empty.
        machine.sh("rm -rf /mnt/shared/stargate && chown root:root /mnt/shared && chmod 755 /mnt/shared")
        yield machine
        machine.sh("mv /mnt/shared/stargate/leader.lock /mnt/shared/ && rmdir /mnt/shared/stargate")
        machine.sh("chown git:git /mnt/shared && chmod 700 /mnt/shared")
    finally:
        machine.container.remove(force=True)
        cluster.machines.remove(machine)


def test_a_lock_volume_that_is_gone_for_good(cluster: Cluster) -> None:
    """A new cluster out of the repositories: everything is there, and both are in step."""
    leader, standby = cluster.settle()
    cluster.client.work_tree("app")
    oid = cluster.client.commit("app", "before")
    cluster.client.push("app")
    leader.sh("rm /mnt/shared/stargate/leader.lock")
    with stopped(cluster, standby) as machine:
        on(machine, "forget-cluster")
    with stopped(cluster, leader) as machine:
        on(machine, "forget-cluster")
    with new_volume(cluster, leader) as machine:
        on(machine, "new-lock-folder", user="root")
        assert f"{leader.name} leads first" in on(machine, "new-lock").out
    leader.start()
    leader.wait_ready()
    standby.start()
    leader.wait_sync_set(standby.name)
    assert leader.refs("app")["refs/heads/main"] == oid == standby.refs("app")["refs/heads/main"]
    cluster.client.push("app")
    assert yaml.safe_load(leader.run("cat", CONFIG).out)["cluster"]["name"] == leader.status()["cluster"]
