"""A real sshd in front of real nodes: what is served, refused and logged is what the node's own SSH does."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from tests.support.cluster import Client, Cluster, NodeProcess, make_key, running_cluster
from tests.support.nodelog import wait_sessions
from tests.support.sshd import LIMIT_S, Sshd, drop_in_for, login_name, running_sshd

READER = "the reader's"
ODD_USER = """o'dd "us$er" `id` \\"; exit 0 #"""


def git(
    sshd: Sshd, *args: str, key: Path | None = None, ok: bool = True, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Git through that sshd."""
    client = Client(sshd.client.home, key or sshd.client.key, sshd.client.known_hosts)
    return client.git(*args, ok=ok, cwd=cwd, **env)


def authorize(cluster: Cluster, name: str, options: str) -> Path:
    """One more key, in a line with these options; the comment is its name."""
    key = make_key(
        cluster.root / "keys" / f"user-{len(list((cluster.root / 'keys').iterdir()))}", comment=name
    )
    with (cluster.root / "keys" / "authorized_keys").open("a") as file:
        file.write(f"{options} {key.with_suffix('.pub').read_text()}".lstrip())
    return key


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all of these; node-a leads."""
    with running_cluster(tmp_path_factory.mktemp("front")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def sshd(cluster: Cluster) -> Iterator[Sshd]:
    """In front of the leader."""
    with running_sshd(cluster, cluster["node-a"]) as sshd:
        yield sshd


@pytest.fixture(scope="module")
def reader(cluster: Cluster) -> Path:
    """A key that may read."""
    return authorize(cluster, READER, 'environment="STARGATE_ACCESS=read"')


def test_a_push_and_a_clone_pass(cluster: Cluster, sshd: Sshd, tmp_path: Path) -> None:
    """Through the gate: replicated, and logged like a session of the node's own listener."""
    client, leader = cluster.client, cluster["node-a"]
    tree = client.work_tree("front")
    git(sshd, "push", "-q", sshd.url("front/app"), "main", cwd=tree)
    assert "front/app.git" in cluster.wait_equal()
    git(sshd, "clone", "-q", sshd.url("front/app"), str(tmp_path / "copy"))
    assert (tmp_path / "copy" / "file").read_bytes() == (tree / "file").read_bytes()
    client.commit(tree, "second")
    client.git("push", "-q", client.url(leader, "front/app"), "main", cwd=tree)
    front, own = wait_sessions(leader, 2, user="dev", command="git-receive-pack '/front/app'")
    assert set(front) == set(own)
    same = ("user", "source", "repository", "exit", "ended", "refusal")
    assert [front[name] for name in same] == [own[name] for name in same]
    assert front["source"] == "127.0.0.1"


def test_a_standby_refuses_with_nine(cluster: Cluster) -> None:
    """And in git's own words, before any pack."""
    tree = cluster.client.work_tree("front-standby")
    with running_sshd(cluster, cluster["node-b"]) as sshd:
        refused = sshd.ssh("git-receive-pack 'front/other'")
        assert refused.returncode == 9
        assert b"not leader: node-b is a standby" in refused.stderr
        pushed = git(sshd, "push", sshd.url("front/other"), "main", cwd=tree, ok=False)
        assert pushed.returncode == 128
        assert "fatal: remote error: not leader" in pushed.stderr
        assert sshd.ssh("ready").returncode == 9
        assert sshd.ssh("health").returncode == 0


def test_a_read_key_gets_77(cluster: Cluster, sshd: Sshd, reader: Path) -> None:
    """Whatever the client's environment says."""
    refused = sshd.ssh(
        "git-receive-pack 'front/app'",
        key=reader,
        options=("-o", "SetEnv=STARGATE_ACCESS=admin STARGATE_USER=dev"),
    )
    assert refused.returncode == 77
    assert f"{READER} has read access".encode() in refused.stderr
    wait_sessions(cluster["node-a"], user=READER, exit=77)
    assert sshd.ssh("repo list", key=reader).returncode == 0


def test_the_report_is_held_back(tmp_path: Path) -> None:
    """In mode strict nothing is acknowledged while the only standby is silent: 75, "outcome unknown"."""
    strict = {"mode": "strict", "ack_timeout_s": 4, "ack_max_s": 8}
    with running_cluster(tmp_path, overrides={"replication": strict}) as cluster:
        tree = cluster.client.work_tree("held")
        with running_sshd(cluster, cluster["node-a"]) as sshd:
            git(sshd, "push", "-q", sshd.url("held"), "main", cwd=tree)
            cluster.client.commit(tree, "second")
            cluster["node-b"].signal(signal.SIGSTOP)
            pushed = git(sshd, "push", sshd.url("held"), "main", cwd=tree, ok=False)
            assert pushed.returncode == 1, pushed.stderr
            assert "[remote rejected]" in pushed.stderr
            assert "outcome unknown" in pushed.stderr
            (line,) = wait_sessions(cluster["node-a"], exit=75)
            assert line["user"] == "dev"


def test_plain_ssh_is_greeted_and_has_no_terminal(sshd: Sshd) -> None:
    """As by the node itself; only who insists on a terminal is sent away."""
    greeted = sshd.ssh()
    assert greeted.returncode == 0
    assert b"Hello dev, this is Stargate on node-a. There is no shell here." in greeted.stdout
    insisting = sshd.ssh(options=("-tt",))
    assert insisting.returncode == 255
    assert b"PTY allocation request failed" in insisting.stderr


@pytest.mark.parametrize(
    "words",
    [("sh",), ("scp -f /etc/passwd",), ("git-receive-pack 'a'; id",), ("stargate-feed",)],
)
def test_no_shell_no_sftp_no_peer(sshd: Sshd, words: tuple[str, ...]) -> None:
    """64, and nothing runs; subsystems are forced into stargate-shell like everything else."""
    refused = sshd.ssh(*words)
    assert refused.returncode == 64
    assert not refused.stdout or refused.stdout[4:8] == b"ERR "


async def test_no_subsystem_and_no_forwarding_of_any_kind(
    cluster: Cluster, sshd: Sshd, tmp_path: Path
) -> None:
    """SFTP ends with 64; TCP, the node's control socket and listening are refused by sshd."""
    node = cluster["node-a"]
    connecting = asyncssh.connect(
        "127.0.0.1", sshd.ssh_port, username=login_name(), client_keys=[str(sshd.client.key)],
        known_hosts=None, config=None, agent_path=None,
    )  # fmt: skip
    async with asyncio.timeout(LIMIT_S), connecting as connection:
        sftp = await connection.create_process(subsystem="sftp", encoding=None)
        assert (await sftp.wait()).exit_status == 64
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", node.http_port)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection(str(node.data_dir / "run" / "control.sock"))
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.start_server(lambda *_: lambda *_: None, "127.0.0.1", 0)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.start_unix_server(lambda *_: lambda *_: None, str(tmp_path / "listen"))


def test_odd_bytes_in_the_command_harm_nobody(cluster: Cluster, sshd: Sshd) -> None:
    """Bytes that are no text, control characters, far too long: 64, one log line, and metrics still work."""
    for command in (
        b"\xff\xfe",
        b"git-receive-pack '\xff\x1b[2J\n'",
        b"\x01\x02 '",
        b"a" * 5000,
        b"\xff" * 100_000,
    ):
        refused = sshd.ssh(command)
        assert refused.returncode == 64, (command[:20], refused)
        assert refused.stderr
    assert sshd.ssh("git-upload-pack 'r\u00e9po'").returncode in {64, 66}
    wait_sessions(cluster["node-a"], 5, exit=64, user="dev")
    assert cluster["node-a"].get("/metrics")[0] == 200
    assert cluster["node-a"].get("/healthz")[0] == 200


def test_of_the_environment_only_the_protocol_comes_through(sshd: Sshd, tmp_path: Path) -> None:
    """Protocol 2 works; what a shell, Python or git would read is not accepted, LANG neither."""
    traced = git(sshd, "ls-remote", sshd.url("front/app"), GIT_TRACE_PACKET="1")
    assert "version 2" in traced.stderr
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "json.py").write_text(f"open({str(poison / 'ran')!r}, 'w')\n")
    names = {
        "PYTHONPATH": str(poison), "LANG": "xx", "LC_ALL": "xx", "BASH_ENV": "/dev/null", "GIT_DIR": "/",
        "SSH_ORIGINAL_COMMAND": "health", "STARGATE_CONFIG": "/nowhere",
    }  # fmt: skip
    options = tuple(word for name in names for word in ("-o", f"SendEnv={name}"))
    assert sshd.ssh("ready", options=options, env=names).returncode == 0
    assert not (poison / "ran").exists()
    protocol = ("-o", "SendEnv=GIT_PROTOCOL")
    for odd in ("version=2\n", "../../etc", "x" * 20_000):
        assert sshd.ssh("ready", options=protocol, env={"GIT_PROTOCOL": odd}).returncode == 0


def test_a_user_of_any_name_is_one_word(cluster: Cluster, sshd: Sshd) -> None:
    """Quotes, backslashes and what a shell would run: the same user as through the node's own listener."""
    key = authorize(cluster, ODD_USER, "")
    client = Client(cluster.client.home, key, cluster.client.known_hosts)
    assert sshd.ssh("ready", key=key).returncode == 0
    assert client.ssh(cluster["node-a"], "ready").returncode == 0
    front, own = wait_sessions(cluster["node-a"], 2, user=ODD_USER)
    assert front["source"] == own["source"]


@pytest.mark.parametrize(
    "options",
    [
        'command="id"',
        'from="192.0.2.0/24"',
        'from="!127.0.0.1,127.0.0.0/8"',
        'from="*.example.org,localhost"',
        'expiry-time="20200101Z"',
        "no-cloning",
        'environment="STARGATE_ACCESS=root"',
    ],
)
def test_a_key_that_the_node_refuses_is_refused(cluster: Cluster, sshd: Sshd, options: str) -> None:
    """By both, with the same file."""
    key = authorize(cluster, "refused", options)
    client = Client(cluster.client.home, key, cluster.client.known_hosts)
    assert client.ssh(cluster["node-a"], "health").returncode == 255
    refused = sshd.ssh("health", key=key)
    assert refused.returncode == 255
    assert b"Permission denied" in refused.stderr


def test_the_first_line_that_fits_counts(cluster: Cluster, sshd: Sshd) -> None:
    """Admin from elsewhere, reader from here."""
    key = authorize(cluster, "roamer", 'from="192.0.2.0/24",environment="STARGATE_ACCESS=admin"')
    with (cluster.root / "keys" / "authorized_keys").open("a") as file:
        file.write(
            'from="127.0.*,::1",environment="STARGATE_ACCESS=read" ' + key.with_suffix(".pub").read_text()
        )
    assert b"roamer has read access" in sshd.ssh("git-receive-pack 'front/app'", key=key).stderr


def test_a_certificate_of_sshds_own_ca_is_no_way_in(cluster: Cluster) -> None:
    """It would come without a forced command. Taken back by the drop-in, and by nothing else."""
    keys = cluster.root / "keys"
    ca, key = make_key(keys / "ca"), make_key(keys / "certified")
    login = subprocess.run(
        ["id", "-un"], capture_output=True, text=True, check=True, timeout=LIMIT_S
    ).stdout.strip()
    subprocess.run(
        ["ssh-keygen", "-q", "-s", ca, "-I", "test", "-n", login, key.with_suffix(".pub")],
        check=True,
        timeout=LIMIT_S,
    )
    trust = f"TrustedUserCAKeys {ca.with_suffix('.pub')}"
    node = cluster["node-a"]
    with running_sshd(cluster, node, trust) as sshd:
        assert sshd.ssh("echo in", key=key).returncode == 255
    lines = drop_in_for(node).splitlines(keepends=True)
    weaker = "".join(
        line for line in lines if "TrustedUserCA" not in line and "AuthorizedPrincipals" not in line
    )
    with running_sshd(cluster, node, trust, text=weaker) as sshd:
        assert sshd.ssh("echo in", key=key).stdout == b"in\n"


def test_without_a_node_the_client_hears_so(cluster: Cluster, sshd: Sshd, tmp_path: Path) -> None:
    """The key is still good, since the file is there; then one line without a path."""
    tmp_path.chmod(0o700)
    node = NodeProcess(
        "node-z",
        tmp_path / "z.yaml",
        {**cluster["node-a"].config, "node": {"name": "node-z", "data_dir": str(tmp_path / "z")}},
        tmp_path / "z.log",
    )
    node.write_config()
    with running_sshd(cluster, node) as sshd_of_none:
        told = sshd_of_none.ssh("health")
    assert told.returncode == 69
    assert (
        told.stderr
        == b"stargate: the node behind this SSH server does not answer: try again, or tell an operator\n"
    )
    assert sshd.ssh("health").returncode == 0
