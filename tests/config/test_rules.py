"""What must hold between the keys of a file."""

from typing import Any

import pytest

from stargate_gate.config.load import load_config
from stargate_gate.config.model import Limits

PAIR = """\
cluster: {name: prod, address: "stargate.local:2222", key: /k/cluster}
ssh: {listen: "10.0.0.1:2222", host_keys: [/k/host]}
election: {flock: {path: /mnt/lock}}
"""


def test_a_pair_with_all_it_needs_loads(write: Any) -> None:
    """The text that the other tests break."""
    config = load_config(write(PAIR))
    assert config.cluster is not None
    assert str(config.cluster.address) == "stargate.local:2222"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (", host_keys: [/k/host]", "", "node.yaml:2: ssh.host_keys: is required with cluster"),
        ("[/k/host]", "[]", "node.yaml:2: ssh.host_keys: is required with cluster"),
        (
            "flock: {path: /mnt/lock}",
            "engine: flock",
            "node.yaml:3: election.flock.path: is required with cluster",
        ),
        (
            "election: {flock: {path: /mnt/lock}}",
            "",
            "node.yaml:1: election.flock.path: is required with cluster",
        ),
        (
            "10.0.0.1:2222",
            "0.0.0.0:2222",
            "node.yaml:2: ssh.advertise: is required, since ssh.listen has the wildcard",
        ),
        (
            "10.0.0.1:2222",
            "[::]:2222",
            "node.yaml:2: ssh.advertise: is required, since ssh.listen has the wildcard",
        ),
        (
            "10.0.0.1:2222",
            "[0::0]:1",
            "node.yaml:2: ssh.advertise: is required, since ssh.listen has the wild",
        ),
        (
            "host_keys",
            "advertise: 'stargate.local:2222', host_keys",
            "node.yaml:2: ssh.advertise: 'stargate.local",
        ),
        (
            "host_keys",
            "advertise: '0.0.0.0:2222', host_keys",
            "node.yaml:2: ssh.advertise: nobody can connect to",
        ),
        ("host_keys", "advertise: 'a:0', host_keys", "node.yaml:2: ssh.advertise: port 0 means any port"),
        (
            "stargate.local:2222",
            "stargate.local",
            "node.yaml:1: cluster.address: 'stargate.local' is not host:port",
        ),
        ("/k/cluster", "/k/host", "node.yaml:1: cluster.key: is also in ssh.host_keys"),
        (
            "election: {",
            "election: {engine: etcd, ",
            "node.yaml:3: election.engine: must be one of 'flock', but is",
        ),
    ],
)
def test_what_a_cluster_needs(problems: Any, old: str, new: str, said: str) -> None:
    """Each thing that is missing or contradicts the cluster is one line."""
    assert old in PAIR
    (line,) = problems(PAIR.replace(old, new, 1))
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "election: {flock: {path: /mnt/lock}}",
            "node.yaml:1: election.flock.path: has no meaning without cluster",
        ),
        ("replication: {mode: strict}", "node.yaml:1: replication.mode: 'strict' refuses every push"),
    ],
)
def test_what_a_single_node_cannot_have(problems: Any, text: str, said: str) -> None:
    """A file that was meant for a cluster never makes a node that leads by itself."""
    (line,) = problems(text)
    assert line.startswith(said)
    assert "add cluster (name, address, key)" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("election: {heartbeat_s: 3}", "election.watchdog_s: 3 must be more than election.heartbeat_s (3)"),
        ("election: {watchdog_s: 5}", "election.lease_s: 5 must be more than election.watchdog_s (5)"),
        ("election: {lease_s: 0.5}", "election.lease_s: 0.5 must be more than election.watchdog_s (3)"),
        ("replication: {ack_timeout_s: 1}", "replication.ack_timeout_s: 1 must be more than 1: a standby"),
        (
            "replication: {ack_timeout_s: 0.2}",
            "replication.ack_timeout_s: 0.2 must be more than 1: a standby",
        ),
        (
            "replication: {ack_max_s: 4.9}",
            "replication.ack_max_s: 4.9 must not be less than replication.ack_timeout_s",
        ),
    ],
)
def test_timings_have_an_order(problems: Any, text: str, said: str) -> None:
    """heartbeat < watchdog < lease; a standby's signs of progress < ack_timeout <= ack_max."""
    (line,) = problems(text)
    assert line.startswith(f"node.yaml:1: {said}")


def test_equal_ack_limits_are_fine(write: Any) -> None:
    """One limit for both is a choice."""
    assert load_config(write("replication: {ack_timeout_s: 60}")).replication.ack_timeout_s == 60


@pytest.mark.parametrize(
    ("ssh", "health", "fine"),
    [
        ("[127.0.0.1:1, 127.0.0.1:1]", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.1:1", False),
        ("0.0.0.0:1", "127.0.0.1:1", False),
        ('"[::]:1"', '"[::1]:1"', False),
        ('["0.0.0.0:1", "[::]:1"]', "127.0.0.1:2", True),
        ("127.0.0.1:1", "127.0.0.2:1", True),
        ("127.0.0.1:0", "127.0.0.1:0", True),
        ("localhost:1", "git.example:1", True),
    ],
)
def test_nothing_listens_twice_on_one_place(
    write: Any, problems: Any, ssh: str, health: str, *, fine: bool
) -> None:
    """Port 0 is always free; a wildcard takes every address of its kind."""
    text = f"ssh: {{listen: {ssh}}}\nhealth: {{listen: {health}}}\n"
    if fine:
        load_config(write(text))
    else:
        (line,) = problems(text)
        assert "cannot be had together with" in line


def test_by_default_no_key_can_take_all_pushes_or_keep_its_own_from_waiting() -> None:
    """Found in an attack: 50 pushes of one key that did not go on were all that a node may run."""
    limits = Limits()
    assert limits.max_pushes_per_key < limits.max_pushes
    assert limits.max_sessions_per_key < limits.max_connections_per_key


def test_shares_follow_from_all_sessions(write: Any) -> None:
    """Who changes `max_sessions` alone changes the shares with it; what is given itself stays."""
    limits = load_config(write("limits: {max_sessions: 40}")).limits
    assert (limits.max_pushes, limits.max_sessions_per_key, limits.max_sessions_per_address) == (10, 10, 20)
    assert (limits.max_pushes_per_key, limits.max_connections_per_key) == (5, 20)
    limits = load_config(write("limits: {max_sessions: 40, max_pushes: 39}")).limits
    assert (limits.max_pushes, limits.max_sessions_per_key) == (39, 10)
    assert load_config(write("limits: {max_sessions: 1}")).limits.max_pushes == 1


def test_pushes_leave_sessions_to_reads(problems: Any) -> None:
    """Or nobody could fetch."""
    (line,) = problems("limits: {max_sessions: 40, max_pushes: 40}")
    assert line.startswith("node.yaml:1: limits.max_pushes: 40 leaves no session to reads")


def test_many_places_to_listen_on_are_refused_at_once(problems: Any) -> None:
    """Each is compared with each: 19,000 short ones took more than a minute."""
    text = "".join(f"    - 127.0.0.1:{port}\n" for port in range(10_000, 11_000))
    (line,) = problems(f"ssh:\n  listen:\n{text}")
    assert "ssh.listen: has 1000 addresses; write at most 100" in line


def test_a_private_key_in_place_of_its_path_is_not_shown(problems: Any) -> None:
    """Messages have paths in them."""
    secret = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ"
    lines = problems(
        "ssh:\n  host_keys:\n    - |\n      -----BEGIN OPENSSH PRIVATE KEY-----\n"
        f"      {secret}\n      -----END OPENSSH PRIVATE KEY-----\n"
    )
    assert "ssh.host_keys[0]: holds a key or several lines; write the path of a file" in lines[0]
    assert secret not in "".join(lines)
