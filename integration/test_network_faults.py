"""Cables: what is right for the flock engine, whose lock does not hang on the network between the nodes."""

import time
from collections.abc import Iterator

import pytest

from integration.harness import Cluster, Plan, Session, eventually
from integration.scenario import scenario

# A cut is noticed by ack_timeout_s; the times are those of a cluster that should not wait long.
REPLICATION = {"ack_timeout_s": 2, "ack_max_s": 20}
LEASE_S = 5


@pytest.fixture(scope="module")
def pair(session: Session) -> Iterator[Cluster]:
    """One pair for the file, with a floating address; each test leaves it mended and in step."""
    with session.cluster(Plan(floating=True, overrides={"replication": REPLICATION})) as made:
        yield made


def test_a_leader_that_is_cut_from_its_standby_goes_on_alone(pair: Cluster) -> None:
    """It drops the standby from the record first; the standby sees the lock held, and does not take over."""
    with scenario(pair, "leader cut from the standby") as it:
        it.leader.cut_from(it.standby)
        it.wait_accepted()
        assert it.leader.status()["sync_set"] == []
        it.say(f"{it.leader.name} goes on alone, with an empty sync set")
        it.nobody_took_over()
        it.leader.mend()
        it.leader.wait_sync_set(it.standby.name)
        it.say("mended; the standby is back in the sync set")


def test_a_leader_that_is_cut_from_its_clients_keeps_the_lock(pair: Cluster) -> None:
    """The engine cannot know: nobody takes over; pushes fail until it is mended or the leader stopped."""
    with scenario(pair, "leader cut from clients, then stopped by an operator") as it:
        it.leader.cut_from(pair.client)
        eventually(lambda: any(not push.ok for push in it.pusher.pushes()), "a push that fails")
        eventually(lambda: time.monotonic() > it.since_s + LEASE_S, "longer than a lease", 2 * LEASE_S)
        it.nobody_took_over()
        it.say(f"{it.leader.name} keeps the lock; an operator stops it")
        assert it.leader.stop() == 0
        it.standby.wait_ready()
        it.pusher.wait_accepted(it.since_s + LEASE_S)
        it.say(f"{it.standby.name} leads, and clients reach it")
        it.leader.start()


def test_a_leader_whose_network_is_gone_keeps_the_lock(pair: Cluster) -> None:
    """On a shared volume that outlives the network, its cut moves nothing; the same when it is back."""
    with scenario(pair, "leader's network unplugged and plugged in again") as it:
        it.leader.disconnect()
        eventually(lambda: any(not push.ok for push in it.pusher.pushes()), "a push that fails")
        eventually(lambda: time.monotonic() > it.since_s + LEASE_S, "longer than a lease", 2 * LEASE_S)
        assert not it.standby.ready()
        it.leader.reconnect()
        it.leader.wait_ready()
        it.nobody_took_over()
        it.leader.wait_sync_set(it.standby.name)
        it.say(f"plugged in again: {it.leader.name} still leads")


def test_pushes_go_on_over_a_bad_line(pair: Cluster) -> None:
    """Every tenth packet between the nodes is lost: slower, and nothing else."""
    with scenario(pair, "every tenth packet between the nodes lost") as it:
        it.leader.lose_packets(10, it.standby)
        for _ in range(10):
            it.wait_accepted()
        it.nobody_took_over()
        it.leader.mend()
        it.leader.wait_sync_set(it.standby.name)


def test_a_large_push_over_a_slow_line_keeps_the_standby(pair: Cluster) -> None:
    """It takes longer than ack_timeout_s, but it makes progress: the standby stays in the sync set."""
    leader, standby = pair.settle()
    tree = pair.client.work_tree("large")
    oid = pair.client.commit(tree, "large", size_kib=8192)
    pushed = '"command": "git-receive-pack'
    pushes, late = (leader.logs().count(word) for word in (pushed, "standby_late"))
    leader.slow_down(kbit_s=10_000)  # a MiB, which counts as progress, takes less than half of ack_timeout_s
    try:
        began_s = time.monotonic()
        pair.client.push(tree)
        took_s = time.monotonic() - began_s
    finally:
        leader.speed_up()
    assert took_s > 2 * REPLICATION["ack_timeout_s"]
    assert leader.status()["sync_set"] == [standby.name]
    leader.wait_logged(pushed, pushes + 1)
    assert leader.logs().count("standby_late") == late
    assert standby.has(tree, oid)
