"""Frozen, dead, and full: what is right for the flock engine."""

import time

from integration.harness import Cluster, Plan, Session, disks, eventually
from integration.scenario import scenario

REPLICATION = {"ack_timeout_s": 2, "ack_max_s": 20}
ORDINARY = Plan(floating=True, overrides={"replication": REPLICATION})
LEASE_S = 5


def test_a_standby_that_dies_and_comes_back(session: Session) -> None:
    """The leader goes on alone, and counts on the standby again once it has caught up."""
    with session.cluster(ORDINARY) as cluster, scenario(cluster, "standby killed and back") as it:
        it.standby.kill()
        it.wait_accepted()
        it.leader.wait_sync_set()
        it.nobody_took_over()
        it.standby.start()
        it.leader.wait_sync_set(it.standby.name)
        it.say("the standby is back in the sync set")


def test_a_frozen_leader_keeps_the_lock_and_acknowledges_nothing_when_it_wakes(session: Session) -> None:
    """The kernel holds its lock: nobody leads until it wakes; it then finds its proof too old, and stops."""
    with session.cluster(ORDINARY) as cluster, scenario(cluster, "leader frozen for 8 s and thawed") as it:
        it.leader.pause()
        frozen_s = time.monotonic()
        eventually(lambda: time.monotonic() > frozen_s + LEASE_S + 3, "longer than a lease", 60)
        assert not it.standby.ready()
        assert it.pusher.accepted(frozen_s) == []
        it.say("nobody leads")
        it.leader.thaw()
        _lead_again(cluster)
        it.say("thawed, and one node leads")


def test_a_frozen_leader_is_taken_over_from_when_it_is_killed(session: Session) -> None:
    """What an operator does with a machine that hangs: switch it off."""
    with session.cluster(ORDINARY) as cluster, scenario(cluster, "leader frozen, then switched off") as it:
        it.leader.pause()
        eventually(lambda: time.monotonic() > it.since_s + 1, "frozen for a moment")
        it.leader.kill()
        it.standby.wait_ready()
        assert it.standby.status()["term"] > it.term
        it.leader.start()


def test_a_leader_whose_disk_is_full_hands_over(session: Session) -> None:
    """It cannot write its data_dir for lease_s while a member of the sync set lives: it steps down."""
    plan = Plan(floating=True, overrides={"replication": REPLICATION}, small=frozenset({"node-a"}))
    with session.cluster(plan) as cluster, scenario(cluster, "leader's disk full") as it:
        it.leader.fill_disk()
        it.standby.wait_ready()
        it.say(f"{it.standby.name} leads")
        it.leader.free_disk()
        _lead_again(cluster)


def test_a_full_lock_volume_stops_nothing(session: Session) -> None:
    """The lock's file has its full size from the start: not even a failover needs a free byte there."""
    plan = Plan(floating=True, overrides={"replication": REPLICATION}, small=frozenset({"lock"}))
    with (
        session.cluster(plan) as cluster,
        scenario(cluster, "lock volume full, then the leader killed") as it,
    ):
        cluster.machine("keeper").sh("dd if=/dev/zero of=/mnt/lock/ballast bs=4k 2>/dev/null || true")
        it.wait_accepted()
        it.nobody_took_over()
        it.leader.kill()
        it.standby.wait_ready()
        it.leader.start()


def test_a_lock_volume_that_turns_read_only_ends_the_leadership(session: Session) -> None:
    """No proof, no leader: pushes are refused, reads go on, and all is well once it is mounted anew."""
    plan = Plan(floating=True, overrides={"replication": REPLICATION}, lock_disk=True)
    with session.cluster(plan) as cluster, scenario(cluster, "lock volume read-only for a while") as it:
        disks.turn_read_only(cluster.machine("disk"))
        eventually(lambda: not any(node.ready() for node in cluster.nodes), "no leader")
        broken_s = time.monotonic()
        it.say("nobody leads")
        for node in cluster.nodes:
            refused = cluster.client.push(it.tree, node, ok=False)
            assert refused.status == 128
            assert "not leader" in refused.err
            cluster.client.git("ls-remote", cluster.client.url(it.tree, node))
        eventually(lambda: time.monotonic() > broken_s + LEASE_S, "longer than a lease", 2 * LEASE_S)
        assert not any(node.ready() for node in cluster.nodes)
        assert it.pusher.accepted(broken_s) == []
        it.say("an operator mounts it anew: both nodes are stopped and started")
        for node in cluster.nodes:
            assert node.stop() == 0
            it.say(f"{node.name} is stopped")
        _lead_again(cluster)


def _lead_again(cluster: Cluster) -> None:
    """One node leads with the other in its sync set; one that ends meanwhile is started, as systemd would."""

    def settled() -> bool:
        for node in cluster.nodes:
            if not node.running:
                node.start()
        return cluster.settled()

    eventually(settled, "one leader with the other in its sync set")
