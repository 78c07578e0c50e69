"""The drop-in file as it is shipped: sshd takes it, it holds for `git`, and for nobody else."""

import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import make_key
from tests.support.sshd import LIMIT_S, SSHD, drop_in, main_config, require_sshd

TAKEN_BACK = {
    "authorizedkeysfile": "none",
    "trustedusercakeys": "none",
    "authorizedprincipalsfile": "none",
    "authorizedprincipalscommand": "none",
    "authenticationmethods": "publickey",
    "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "hostbasedauthentication": "no",
    "acceptenv": "GIT_PROTOCOL",
    "disableforwarding": "yes",
    "allowtcpforwarding": "no",
    "allowagentforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "permittunnel": "no",
    "gatewayports": "no",
    "x11forwarding": "no",
    "permittty": "no",
    "permituserrc": "no",
}
GENEROUS = (
    "PermitUserRC yes",
    "PermitTunnel yes",
    "GatewayPorts yes",
    "HostbasedAuthentication yes",
    "PasswordAuthentication yes",
    "TrustedUserCAKeys /etc/ssh/ca.pub",
    "AuthorizedPrincipalsFile /etc/ssh/principals",
)


@pytest.fixture
def sshd_config(tmp_path: Path) -> Path:
    """A generous one, like Debian's and worse, that includes the file."""
    file = tmp_path / "sshd_config"
    file.write_text(main_config(2200, make_key(tmp_path / "host_key"), drop_in(), *GENEROUS))
    return file


def effective(sshd_config: Path, user: str) -> dict[str, set[str]]:
    """What sshd would do for a login."""
    require_sshd()
    done = subprocess.run(
        [SSHD, "-T", "-f", sshd_config, "-C", f"user={user},host=client,addr=192.0.2.1"],
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, set()).add(value)
    return found


def test_sshd_takes_it(sshd_config: Path) -> None:
    """As `sshd -t` says before a reload; without a word, which would be a warning."""
    require_sshd()
    done = subprocess.run(
        [SSHD, "-t", "-f", sshd_config], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_takes_back_from_git_what_sshd_config_gives(sshd_config: Path) -> None:
    """Each of these would be a way to a shell, or out of the machine."""
    found = effective(sshd_config, "git")
    assert {name: found[name] for name in TAKEN_BACK} == {name: {value} for name, value in TAKEN_BACK.items()}
    (command,) = found["authorizedkeyscommand"]
    assert command.endswith("%U %t %k")


def test_other_logins_keep_what_they_had(sshd_config: Path, tmp_path: Path) -> None:
    """Also in what stands behind the line that includes it."""
    without = tmp_path / "without"
    without.write_text(
        "\n".join(line for line in sshd_config.read_text().splitlines() if not line.startswith("Include"))
    )
    assert effective(sshd_config, "admin") == effective(without, "admin")
    assert effective(sshd_config, "git") != effective(without, "git")
