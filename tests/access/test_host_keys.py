"""The node's own keys: made once, refused with a remedy when they cannot be used."""

import stat
import subprocess
from pathlib import Path

import pytest

from stargate_gate.access.authorized_keys import fingerprint_of
from stargate_gate.access.host_keys import fingerprints, load_host_keys, load_or_make_host_keys, public_key_of
from stargate_gate.errors import ConfigurationError
from tests.support.cluster import make_key


def test_a_single_node_makes_its_host_key_once(tmp_path: Path) -> None:
    """ed25519, 0600, the same at the next start, and known to ssh-keygen."""
    (first,) = load_or_make_host_keys(tmp_path)
    (second,) = load_or_make_host_keys(tmp_path)
    assert first.public_data == second.public_data
    path = tmp_path / "ssh_host_ed25519_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert listed.split()[1] == fingerprints([first])[0]


def test_host_keys_are_loaded_in_order(tmp_path: Path) -> None:
    """Several types; their fingerprints are what peers pin."""
    paths = [make_key(tmp_path / kind, kind=kind) for kind in ("ed25519", "ecdsa")]
    keys = load_host_keys(paths)
    assert [key.get_algorithm() for key in keys] == ["ssh-ed25519", "ecdsa-sha2-nistp256"]
    assert fingerprints(keys) == tuple(fingerprint_of(public_key_of(path)) for path in paths)


def test_every_bad_host_key_is_reported_at_once(tmp_path: Path) -> None:
    """Missing, open to others, encrypted, damaged, two of one type: each with its path and a remedy."""
    open_to_others = make_key(tmp_path / "open")
    open_to_others.chmod(0o640)
    encrypted = make_key(tmp_path / "encrypted")
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", encrypted], check=True, timeout=30)
    damaged = tmp_path / "damaged"
    damaged.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n")
    damaged.chmod(0o600)
    good = [make_key(tmp_path / "one"), make_key(tmp_path / "two")]
    with pytest.raises(ConfigurationError) as refusal:
        load_host_keys([tmp_path / "missing", open_to_others, encrypted, damaged, *good])
    problems = refusal.value.problems
    assert len(problems) == 5
    for problem, words in zip(
        problems,
        (
            "ssh-keygen -t ed25519",
            "chmod 600",
            "encrypted",
            "no private key",
            "several keys of type ssh-ed25519",
        ),
        strict=True,
    ):
        assert problem.startswith("ssh.host_keys: ")
        assert words in problem


def test_a_bad_cluster_key_names_its_own_setting(tmp_path: Path) -> None:
    """The cluster's key is read, and not a host key."""
    with pytest.raises(ConfigurationError, match=r"cluster\.key: .*missing"):
        public_key_of(tmp_path / "missing")


@pytest.mark.parametrize(("mode", "fine"), [(0o640, True), (0o644, False)])
def test_a_group_may_read_a_key_that_somebody_else_owns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, *, fine: bool
) -> None:
    """The node starts with a file that check-config accepts: root:git 0640."""
    path = make_key(tmp_path / "key")
    path.chmod(mode)
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    if fine:
        assert load_host_keys([path])
        assert public_key_of(path)
    else:
        with pytest.raises(ConfigurationError, match="chmod 600"):
            load_host_keys([path])
