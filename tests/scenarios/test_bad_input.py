"""What goes wrong at set-up and in the wild, and what people then see. Each with a clear outcome."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import paramiko
import pytest

from tests.support.cluster import (
    STARGATE,
    Client,
    Cluster,
    NodeProcess,
    eventually,
    make_key,
    running_cluster,
)
from tests.support.nodelog import complete_log, wait_logged
from tests.support.ports import free_port

Make = Callable[..., Cluster]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    """One cluster for the tests that leave it as it was."""
    with running_cluster(tmp_path_factory.mktemp("bad-input")) as cluster:
        yield cluster


def exits(node: NodeProcess, status: int, *words: str) -> None:
    """The node ends by itself with `status`; its log has every one of `words` and no traceback."""
    assert node.start().wait() == status, node.log()
    for word in words:
        assert word in node.log()
    assert "Traceback" not in node.log()


def test_a_wrong_key_is_refused_as_ssh_refuses(shared: Cluster) -> None:
    """Nobody gets in by a key that no line names."""
    stranger = Client(shared.client.home, make_key(shared.root / "stranger"), shared.client.known_hosts)
    refused = stranger.ssh(shared.leader(), "health")
    assert refused.returncode == 255
    assert b"Permission denied (publickey)" in refused.stderr


def test_an_unknown_command_is_refused_with_a_hint(shared: Cluster) -> None:
    """No shell: anything unknown is a usage error that names what there is."""
    for command in ("ls -la", "bash -i", "git-shell", "repo rename a b"):
        refused = shared.client.ssh(shared.leader(), command)
        assert refused.returncode == 64, command
        assert refused.stderr.strip(), command


def test_a_git_service_without_a_repository_is_refused_as_git_shows_it(shared: Cluster) -> None:
    """git reads stdout, so the line stands there as an ERR pkt-line."""
    refused = shared.client.ssh(shared.leader(), "git-upload-pack")
    assert refused.returncode == 64
    assert b"ERR git-upload-pack takes one repository name" in refused.stdout


@pytest.mark.parametrize(
    "name",
    [
        "../outside", "org/../../outside", "/etc/passwd/../../x", "-option", "org/--upload-pack=x",
        "a\tb", "org/.git", ".",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_repositories(shared: Cluster, name: str) -> None:
    """Path tricks are refused, by name, before anything is looked up or made."""
    for service in ("git-upload-pack", "git-receive-pack", "git-upload-archive"):
        refused = shared.client.ssh(shared.leader(), f"{service} '{name}'")
        assert refused.returncode in {64, 66}, (service, refused)
    outside = {path.name for path in shared.root.iterdir()}
    assert "outside" not in outside


def test_a_link_out_of_the_repositories_is_not_followed(shared: Cluster) -> None:
    """A symbolic link that somebody put there serves nothing."""
    leader = shared.leader()
    secret = shared.root / "secret.git"
    subprocess.run(["git", "init", "-q", "--bare", str(secret)], check=True, timeout=10)
    link = leader.data_dir / "repositories" / "link.git"
    link.symlink_to(secret)
    try:
        refused = shared.client.ssh(leader, "git-upload-pack 'link'")
        assert refused.returncode in {66, 69}
        assert "link" not in shared.client.ssh(leader, "repo", "list").stdout.decode().split()
    finally:
        link.unlink()


@pytest.mark.parametrize("port", ["ssh_port", "http_port"])
def test_garbage_on_a_port_harms_nobody(shared: Cluster, port: str) -> None:
    """Random bytes, and connections that are cut: no traceback, and the next client is served."""
    leader = shared.leader()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", getattr(leader, port)), timeout=5) as sock:
            sock.sendall(os.urandom(3000))
    assert leader.get("/healthz")[0] == 200
    assert shared.client.ssh(leader, "health").returncode == 0
    assert "Traceback" not in complete_log(leader)


def test_setenv_does_not_make_an_admin(shared: Cluster) -> None:
    """The client's environment never tells who it is."""
    key = make_key(shared.root / "reader")
    keys = Path(shared.nodes[0].config["ssh"]["authorized_keys"])
    line = 'environment="STARGATE_USER=reader",environment="STARGATE_ACCESS=read" '
    with keys.open("a") as file:
        file.write(line + key.with_suffix(".pub").read_text())
    reader = Client(shared.client.home, key, shared.client.known_hosts)
    asked = ("-o", "SetEnv=STARGATE_ACCESS=admin STARGATE_USER=dev")
    hello = reader.ssh(shared.leader(), options=asked)
    assert b"reader" in hello.stdout
    refused = reader.ssh(shared.leader(), "repo", "create", "mine", options=asked)
    assert refused.returncode == 77
    pushed = reader.ssh(shared.leader(), "git-receive-pack 'mine'", options=asked)
    assert pushed.returncode == 77


def test_each_client_sees_the_refusal_of_a_standby(shared: Cluster) -> None:
    """git says "not leader" and exits 128; raw ssh and paramiko see exit 9."""
    standby, client = shared.standby(), shared.client
    tree = client.work_tree("refused")
    by_git = client.git("push", client.url(standby, "any/app"), "main", cwd=tree, ok=False)
    assert by_git.returncode == 128
    leader = shared.leader()
    expected = f"not leader: {standby.name} is a standby; the leader is {leader.name} at ssh://"
    assert f"fatal: remote error: {expected}" in by_git.stderr
    by_ssh = client.ssh(standby, "git-receive-pack 'any/app'")
    assert by_ssh.returncode == 9
    assert expected in by_ssh.stderr.decode()
    with paramiko.SSHClient() as connection:
        connection.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        connection.connect(
            "127.0.0.1", standby.ssh_port, "git", key_filename=str(client.key), look_for_keys=False,
            allow_agent=False, timeout=10,
        )  # fmt: skip
        _, stdout, stderr = connection.exec_command("git-receive-pack 'any/app'", timeout=10)
        assert expected in stderr.read().decode()
        assert stdout.channel.recv_exit_status() == 9
    assert client.ssh(standby, "repo", "create", "any/app").returncode == 9
    assert client.ssh(standby, "ready").returncode == 9
    assert client.ssh(standby, "health").returncode == 0


def test_a_push_by_a_local_path_meets_the_hook(shared: Cluster) -> None:
    """The pre-receive hook: 9 where nobody leads, 77 without the gate's token; nothing is written."""
    client, leader, standby = shared.client, shared.leader(), shared.standby()
    tree = client.work_tree("local-path")
    client.git("push", "-q", client.url(leader, "local/app"), "main", cwd=tree)
    before = shared.wait_equal()
    client.commit(tree, "by the back door")
    at_leader = client.git("push", str(leader.repository("local/app")), "main", cwd=tree, ok=False)
    assert at_leader.returncode == 1
    assert "push through ssh" in at_leader.stderr
    at_standby = client.git("push", str(standby.repository("local/app")), "main", cwd=tree, ok=False)
    assert at_standby.returncode == 1
    assert "not leader" in at_standby.stderr
    assert shared.wait_equal() == before


def test_the_leader_that_was_killed_refuses_by_its_hook(unstarted: Make) -> None:
    """After `kill -9` the kernel, not a file, tells the hook that nobody leads here."""
    cluster = unstarted().start()
    a, client = cluster["node-a"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "app"), "main", cwd=tree)
    a.kill()
    refused = client.git("push", str(a.repository("app")), "main:other", cwd=tree, ok=False)
    assert refused.returncode == 1
    assert "not leader" in refused.stderr


def test_a_config_with_five_mistakes_reports_five_lines(unstarted: Make) -> None:
    """All at once, each with file, key and remedy; exit 78; no traceback."""
    node = unstarted().nodes[0]
    node.config["nod"] = {}
    node.config["ssh"]["listen"] = "127.0.0.1:notaport"
    node.config["election"]["heartbeat_s"] = "1"
    node.config["replication"] = {"mode": "synchronous"}
    node.config["limits"] = {"max_sessions": -1}
    node.write_config()
    for command in (["serve", "-c"], ["check-config"]):
        done = subprocess.run(
            [*STARGATE, *command, str(node.config_file)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 78
        lines = done.stderr.strip().splitlines()
        assert len([line for line in lines if str(node.config_file) in line]) == 5, done.stderr
        for key in ("nod", "ssh.listen", "election.heartbeat_s", "replication.mode", "limits.max_sessions"):
            assert key in done.stderr
        assert "Traceback" not in done.stderr


def test_an_unreadable_key_is_a_configuration_error(unstarted: Make) -> None:
    """The cluster key is missing, or is no key: exit 78 and the path."""
    cluster = unstarted()
    node = cluster.nodes[0]
    cluster.bootstrap()
    for content in (None, "no key at all\n"):
        path = cluster.root / "keys" / "other_key"
        if content is not None:
            path.write_text(content)
            path.chmod(0o600)
        node.config["cluster"]["key"] = str(path)
        exits(node, 78, "cluster.key", str(path))


def test_an_absent_lock_file_is_never_a_first_start(unstarted: Make) -> None:
    """Without bootstrap, or with the share not mounted, a node serves and says loudly that it cannot lead."""
    cluster = unstarted()
    node = cluster.nodes[0].start().wait_healthy()
    eventually(lambda: "bootstrap" in str(node.status().get("warnings")), "a warning that names bootstrap")
    assert not node.ready()
    assert not cluster.lock_path.exists()
    refused = cluster.client.ssh(node, "git-receive-pack 'x'")
    assert refused.returncode == 9


def test_bootstrap_refuses_a_second_time(unstarted: Make) -> None:
    """A running cluster's record is never overwritten by a command typed twice."""
    cluster = unstarted()
    assert cluster.bootstrap().returncode == 0
    before = cluster.lock_path.read_bytes()
    for node in cluster.nodes:
        again = cluster.bootstrap(node)
        assert again.returncode != 0
        assert "Traceback" not in again.stderr
    assert cluster.lock_path.read_bytes() == before


@pytest.mark.parametrize("section", ["ssh", "health"])
def test_a_port_in_use_is_said_with_its_key(unstarted: Make, section: str) -> None:
    """Two programs want one port: the second one ends with one clear line."""
    cluster = unstarted()
    cluster.bootstrap()
    node = cluster.nodes[0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node.config[section]["listen"] = f"127.0.0.1:{port}"
        exits(node, 69, f"{section}.listen", str(port))


def test_two_serves_on_one_data_dir_are_refused(unstarted: Make) -> None:
    """The second one names the first one's pid."""
    cluster = unstarted().start()
    first = cluster.nodes[0]
    second = NodeProcess("second", first.config_file, dict(first.config), cluster.root / "second.log")
    exits(second, 69, str(first.pid))
    assert first.ready()


def test_a_node_with_another_host_key_does_not_join(unstarted: Make) -> None:
    """All nodes are one host behind one address: a mismatch with the record is exit 78."""
    cluster = unstarted()
    a, b = cluster.nodes
    cluster.bootstrap()
    a.start().wait_ready()
    b.config["ssh"]["host_keys"] = [str(make_key(cluster.root / "keys" / "another_host_key"))]
    exits(b, 78, "ssh.host_keys", "node-a")


def test_two_nodes_of_one_name_are_told_apart(unstarted: Make) -> None:
    """The second node-a is not taken for the first: it is refused as a standby, in words, and never leads."""
    cluster = unstarted()
    a, b = cluster.nodes
    cluster.bootstrap()
    a.start().wait_ready()
    b.config["node"]["name"] = "node-a"
    b.start().wait_healthy()
    eventually(
        lambda: "node-a" in str((b.status().get("mirror") or {}).get("last_error")),
        "the refusal in b's status",
    )
    assert a.status()["sync_set"] == []
    a.kill()
    refused = cluster.client.ssh(b, "git-receive-pack 'x'")
    assert refused.returncode == 9
    assert not b.ready()


def test_an_empty_data_dir_under_an_old_name_does_not_lead(unstarted: Make) -> None:
    """A reinstalled node has to be checked against the leader first, whatever it is called."""
    cluster = unstarted().start()
    a, b, client = cluster["node-a"], cluster["node-b"], cluster.client
    tree = client.work_tree("app")
    client.git("push", "-q", client.url(a, "app"), "main", cwd=tree)
    cluster.wait_equal()
    b.kill()
    a.kill()
    shutil.rmtree(b.data_dir)
    b.start().wait_healthy()
    refused = client.ssh(b, "git-receive-pack 'app'")
    assert refused.returncode == 9
    assert not b.ready()
    a.start().wait_ready()
    a.wait_in_sync_set("node-b")
    assert "app.git" in cluster.wait_equal()


def test_a_client_that_never_logs_in_is_sent_away(unstarted: Make) -> None:
    """login_timeout_s: an idle connection does not hold a place for ever."""
    cluster = unstarted(overrides={"limits": {"login_timeout_s": 0.5, "max_unauthenticated": 3}})
    cluster.start()
    a = cluster.nodes[0]
    idle = [socket.create_connection(("127.0.0.1", a.ssh_port), timeout=10) for _ in range(3)]
    try:
        for sock in idle:
            while sock.recv(4096):
                pass
    finally:
        for sock in idle:
            sock.close()
    assert cluster.client.ssh(a, "health").returncode == 0


def test_a_broken_line_of_authorized_keys_costs_only_itself(shared: Cluster) -> None:
    """The line is reported by its number; the keys around it still log in."""
    keys = Path(shared.nodes[0].config["ssh"]["authorized_keys"])
    before = keys.read_text()
    key = make_key(shared.root / "late")
    try:
        keys.write_text(
            'environment="STARGATE_USER=x ssh-ed25519 AAAA\n' + before + key.with_suffix(".pub").read_text()
        )
        late = Client(shared.client.home, key, shared.client.known_hosts)
        assert late.ssh(shared.leader(), "health").returncode == 0
        assert shared.client.ssh(shared.leader(), "health").returncode == 0
        assert "line 1" in str(shared.leader().status()["warnings"])
    finally:
        keys.write_text(before)


def test_free_ports_are_really_used(unstarted: Make) -> None:
    """Port 0: the node says where it listens."""
    cluster = unstarted()
    node = cluster.nodes[0]
    cluster.bootstrap()
    node.config["ssh"]["listen"] = "127.0.0.1:0"
    node.config["health"]["listen"] = f"127.0.0.1:{free_port()}"
    node.start().wait_ready()
    wait_logged(node, "ssh_listening")
