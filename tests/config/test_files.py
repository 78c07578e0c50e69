"""What the configuration points at: real keys made by ssh-keygen, real modes."""

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stargate_gate.config.files import _too_open, broken_files
from stargate_gate.config.findings import dotted
from stargate_gate.config.load import load_checked_config
from stargate_gate.config.model import Cluster, Config, Election, Flock, Node, Ssh
from stargate_gate.errors import ConfigurationError
from tests.support.cluster import make_key

NOBODY = 65534


def check_files(config: Config, *, shared_volume: bool = True) -> list[str]:
    """The problems as lines, "key.path: what is wrong; remedy"."""
    findings = broken_files(config, shared_volume=shared_volume)
    return [f"{dotted(finding.key)}: {finding.text}" for finding in findings]


def with_host_key(*paths: Path) -> Config:
    """A node with these host keys."""
    return Config(ssh=Ssh(host_keys=paths))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_keys_of_ssh_keygen_are_fine(tmp_path: Path, kind: str) -> None:
    """Every kind that servers use, as ssh-keygen leaves it."""
    assert check_files(with_host_key(make_key(tmp_path / "key", kind=kind))) == []


def test_old_pem_keys_are_fine(tmp_path: Path) -> None:
    """ssh-keygen -m PEM and PKCS8 wrote those."""
    for form in ("PEM", "PKCS8"):
        key = tmp_path / form
        assert os.spawnlp(
            os.P_WAIT, "ssh-keygen", "ssh-keygen", "-q", "-t", "rsa", "-m", form, "-N", "", "-f", str(key)
        ) == 0  # fmt: skip
        assert check_files(with_host_key(key)) == []


def passphrase(path: Path) -> None:
    """A key that cannot be used without a person."""
    assert os.spawnlp(
        os.P_WAIT, "ssh-keygen", "ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)
    ) == 0  # fmt: skip


def public(path: Path) -> None:
    """The wrong half."""
    make_key(path.with_name("pair")).with_suffix(".pub").rename(path)


def truncated(path: Path) -> None:
    """Half a key."""
    content = make_key(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def a_socket(path: Path) -> None:
    """Nothing that could be read."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist; name the right file, or make a key with: ssh-keygen"),
        (lambda path: path.mkdir(), "is no regular file"),
        (a_socket, "is no regular file"),
        (lambda path: path.symlink_to("/nonexistent"), "is no regular file"),
        (lambda path: path.symlink_to(path), "is no regular file"),
        (public, "is a public key; name the private one"),
        (passphrase, "is protected by a passphrase; remove it with: ssh-keygen -p"),
        (truncated, "is no private key"),
        (lambda path: path.touch(0o600), "is no private key"),
        (lambda path: path.write_bytes(b"\x00" * 100_000), "is no private key"),
        (
            lambda path: make_key(path).chmod(0o644),
            "is a private key open to everybody (mode 0644); run: chmod 600",
        ),
        (
            lambda path: make_key(path).chmod(0o640),
            "is a private key open to its group (mode 0640); run: chmod 600",
        ),
    ],
)
def test_what_is_no_usable_private_key_is_told(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    """With the key path of the YAML file, the file, and the remedy."""
    path = tmp_path / "key"
    make(path)
    if path.is_file() and make is not public:
        path.chmod(path.stat().st_mode & (0o777 if "open to" in said else 0o600))
    (line,) = check_files(with_host_key(path))
    assert line.startswith(f"ssh.host_keys[0]: {path} ")
    assert said in line


@pytest.mark.parametrize(("mode", "fine"), [(0o640, True), (0o600, True), (0o644, False), (0o606, False)])
def test_a_group_may_read_a_key_that_somebody_else_owns(mode: int, *, fine: bool) -> None:
    """root:stargate 0640 is how services get at keys, as OpenSSH allows."""
    somebody_else = os.stat_result((0o100000 | mode, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
    assert (list(_too_open(Path("key"), somebody_else)) == []) == fine


@pytest.fixture
def not_root() -> Iterator[Path]:
    """A folder that everybody may enter, and a test that does not run with root's powers."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        before = os.geteuid()
        made = make_key(Path(folder) / "key")
        (Path(folder) / "closed").mkdir(mode=0)
        if before == 0:
            os.seteuid(NOBODY)
        else:
            made.chmod(0)
        yield Path(folder)
        os.seteuid(before)


def test_unreadable_files_are_told(not_root: Path) -> None:
    """As when the service's user is not the one who made them."""
    key, closed = not_root / "key", not_root / "closed" / "file"
    (line,) = check_files(with_host_key(key))
    assert (
        line == f"ssh.host_keys[0]: {key} cannot be read by this user; chown it to the user stargate runs as"
    )
    (line,) = check_files(with_host_key(closed))
    assert "cannot be read by this user" in line
    (line,) = check_files(Config(ssh=Ssh(authorized_keys=key)))
    assert line.startswith(f"ssh.authorized_keys: {key} cannot be read by this user")
    config = Config(election=Election(flock=Flock(path=closed / "lock")))
    (line,) = check_files(config)
    assert line.startswith("election.flock.path: ")


def test_two_host_keys_of_one_kind_are_told(tmp_path: Path) -> None:
    """A server offers one of each."""
    one, other = make_key(tmp_path / "one"), make_key(tmp_path / "other")
    (line,) = check_files(with_host_key(one, make_key(tmp_path / "rsa", kind="rsa"), other))
    assert line == f"ssh.host_keys[2]: {other} is a second ssh-ed25519 key after {one}; keep one of each kind"


def test_a_named_authorized_keys_file_must_be_there(tmp_path: Path) -> None:
    """The default one may come later: a node without users starts."""
    path = tmp_path / "authorized_keys"
    config = Config(ssh=Ssh(authorized_keys=path))
    assert "does not exist; name the right file, or make it" in check_files(config)[0]
    path.touch(0o666)
    path.chmod(0o666)
    assert "can be written by everybody (mode 0666); run: chmod go-w" in check_files(config)[0]
    path.chmod(0o644)
    assert check_files(config) == []
    assert check_files(Config(node=Node(data_dir=tmp_path / "new"))) == []


def test_a_name_that_is_too_long_for_the_disk_is_told(tmp_path: Path) -> None:
    """A path may be short enough as a whole and still not be one."""
    path = tmp_path / ("x" * 300)
    ssh = Ssh(host_keys=(path,), authorized_keys=path)
    found = check_files(
        Config(node=Node(data_dir=path), ssh=ssh, election=Election(flock=Flock(path=path / "x")))
    )
    assert [line.split(" ")[0] for line in found] == [
        "ssh.host_keys[0]:", "ssh.authorized_keys:", "election.flock.path:",
    ]  # fmt: skip
    assert all("File name too long" in line for line in found)


def test_a_data_dir_that_is_a_file_is_told(tmp_path: Path) -> None:
    """One that is missing is made later."""
    path = tmp_path / "data"
    path.touch()
    assert check_files(Config(node=Node(data_dir=path))) == [
        f"node.data_dir: {path} is no directory; name one, it is made if it is missing"
    ]


def test_the_folder_of_the_leader_lock_must_be_there(tmp_path: Path) -> None:
    """The lock itself comes by bootstrap; without the shared volume that would be a lock of its own."""
    key = make_key(tmp_path / "key")
    for path, said in [
        (tmp_path / "unmounted" / "lock", "does not exist; mount the shared volume"),
        (key / "lock", "does not exist; mount the shared volume"),
        (tmp_path, "is no regular file"),
        (tmp_path / "lock", ""),
    ]:
        config = Config(
            cluster=Cluster(name="c", address="a:1", key=key),  # type: ignore[arg-type] # read from text
            election=Election(flock=Flock(path=path)),
        )
        found = check_files(config)
        assert len(found) == bool(said)
        assert all(line.startswith("election.flock.path: ") and said in line for line in found)
        assert check_files(config, shared_volume=False) == []


def test_files_and_values_are_told_together(tmp_path: Path) -> None:
    """One run tells everything, in the order of the file, and nothing about values that are wrong anyway."""
    path = tmp_path / "node.yaml"
    path.write_text("ssh:\n  host_keys:\n    - missing\n  authorized_keys: 3\nlog: {level: loud}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_checked_config(path)
    assert [line.removeprefix(str(path)).split(" ")[:2] for line in caught.value.problems] == [
        [":3:", "ssh.host_keys[0]:"],
        [":4:", "ssh.authorized_keys:"],
        [":5:", "log.level:"],
    ]
