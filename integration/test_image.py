"""The image: not root, with a first process that does its duty, and time for a clean hand-over."""

from integration.harness import Cluster, Session, eventually
from integration.harness.image import PRODUCT, built_image
from integration.harness.machine import STOP_GRACE_S

ZOMBIES = "grep -l '^State:.Z' /proc/[0-9]*/status || true"
ORPHAN = "(setsid sh -c 'sleep 3' >/dev/null 2>&1 &)"  # its parent is gone before it ends


def test_the_image_says_how_it_wants_to_be_run(session: Session) -> None:
    """No root, a health check, and SIGTERM to stop."""
    config = session.client.images.get(built_image(session.client, PRODUCT)).attrs["Config"]
    assert config["User"] == "git"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "stargate", "health"]


def test_the_products_image_has_nothing_of_the_tests(session: Session) -> None:
    """No DNS server, no balancer, no sshd, no developer."""
    look = "getent passwd dev; ls /usr/sbin/sshd /usr/sbin/named /usr/sbin/haproxy; stargate --version"
    said = session.client.containers.run(
        built_image(session.client, PRODUCT), ["-c", look], entrypoint="sh", remove=True, network_mode="none"
    )
    assert said.decode().startswith("stargate ")


def test_the_first_process_reaps_what_nobody_waits_for(pair: Cluster) -> None:
    """A killed git leaves children; none of them stays a zombie."""
    node = pair["node-a"]
    assert node.sh("cat /proc/1/comm").out.strip() == "tini"
    node.sh(ORPHAN)
    seen = node.sh("pgrep -x sleep", ok=False).out.split()
    eventually(lambda: node.sh("pgrep -x sleep", ok=False).out == "", "the end of the orphan")
    assert seen
    eventually(lambda: node.sh(ZOMBIES).out == "", "no zombie")


def test_nothing_in_the_container_is_root_or_has_a_capability(pair: Cluster) -> None:
    """The node's own processes, the first one too."""
    shown = pair["node-a"].sh("grep -hE '^(Uid|CapEff)' /proc/1/status /proc/$(pgrep -x stargate)/status").out
    uids = {line.split()[1] for line in shown.splitlines() if line.startswith("Uid")}
    capabilities = {line.split()[1] for line in shown.splitlines() if line.startswith("CapEff")}
    assert uids == {"2222"}
    assert {int(mask, 16) for mask in capabilities} == {0}


def test_a_stop_is_a_clean_hand_over_within_the_grace(pair: Cluster) -> None:
    """SIGTERM reaches the node through the first process; it ends by itself, with 0, in time."""
    leader, standby = pair.settle()
    assert leader.stop(grace_s=STOP_GRACE_S) == 0
    leader.wait_logged('"event": "stopped"')
    standby.wait_ready()
    leader.start()
    pair.settle()
