"""A real sshd on loopback in front of a node, with the drop-in file that is shipped.

It runs as the user that runs the tests, and that user is the login: only root's sshd can serve others.
So three words of the file are replaced: the login, the YAML file, and the program, which stands behind
env(1) because sshd wants one in folders of root's.
"""

import contextlib
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.share import shared_dir
from tests.support.cluster import Client, Cluster, NodeProcess, eventually
from tests.support.ports import free_port

SSHD = "/usr/sbin/sshd"
PROGRAM = "/opt/stargate/bin/stargate-authorized-keys"
CONFIG_FILE = "/etc/stargate/stargate.yaml"
LIMIT_S = 60.0


def drop_in() -> Path:
    """The file that is shipped."""
    return shared_dir("sshd") / "sshd_config.d" / "stargate.conf"


def login_name() -> str:
    """Whoever runs the tests."""
    return pwd.getpwuid(os.geteuid()).pw_name


def drop_in_for(node: NodeProcess) -> str:
    """The shipped file for this node and this user."""
    script = Path(sys.executable).parent / "stargate-authorized-keys"
    text = drop_in().read_text()
    for old, new in (
        (PROGRAM, f"/usr/bin/env {script}"),
        (CONFIG_FILE, str(node.config_file)),
        ("Match User git\n", f"Match User {login_name()}\n"),
        ("AuthorizedKeysCommandUser git\n", f"AuthorizedKeysCommandUser {login_name()}\n"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def main_config(port: int, host_key: Path, included: Path, *more: str) -> str:
    """An sshd_config like Debian's, on loopback: what it allows to others the drop-in must take back."""
    return "\n".join(
        [
            f"Include {included}",
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {host_key}",
            "PidFile none",
            "UsePAM no",  # of Debian's nothing else needs root
            "StrictModes no",  # the folders of tests may be anybody's
            "PermitRootLogin prohibit-password",
            "AcceptEnv LANG LC_*",
            "X11Forwarding yes",
            "Subsystem sftp internal-sftp",
            *more,
            "",
        ]
    )


@dataclass(frozen=True)
class Sshd:
    """One that runs. Use it as a `NodeProcess` in `Client.url` and `Client.ssh`."""

    ssh_port: int
    log_file: Path
    client: Client

    def url(self, repository: str) -> str:
        """A repository through this sshd."""
        return f"ssh://{login_name()}@127.0.0.1:{self.ssh_port}/{repository}"

    def ssh_argv(
        self, *words: str | bytes, key: Path | None = None, options: tuple[str, ...] = ()
    ) -> list[str | bytes]:
        """The ssh command with one key and no other."""
        client = Client(self.client.home, key or self.client.key, self.client.known_hosts)
        argv = client.ssh_argv(*options)
        return [*argv, "-p", str(self.ssh_port), f"{login_name()}@127.0.0.1", *words]

    def ssh(
        self,
        *words: str | bytes,
        key: Path | None = None,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """`ssh USER@127.0.0.1 WORDS…`."""
        return subprocess.run(
            self.ssh_argv(*words, key=key, options=options), input=b"", capture_output=True,
            timeout=LIMIT_S, check=False, env={**os.environ, **(env or {})},
        )  # fmt: skip

    def log(self) -> str:
        """What sshd said."""
        return self.log_file.read_text(errors="replace")


@contextlib.contextmanager
def running_sshd(cluster: Cluster, node: NodeProcess, *more: str, text: str | None = None) -> Iterator[Sshd]:
    """An sshd in front of `node`; `more` are further lines of its own sshd_config, `text` another drop-in."""
    assert os.access(SSHD, os.X_OK), "no sshd here: apt-get install openssh-server"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # its empty folder; the service makes it elsewhere
    port = free_port()
    folder = cluster.root / f"sshd-{port}"
    folder.mkdir()
    (folder / "stargate.conf").write_text(drop_in_for(node) if text is None else text)
    host_key = cluster.root / "keys" / "ssh_host_ed25519_key"
    (folder / "sshd_config").write_text(main_config(port, host_key, folder / "stargate.conf", *more))
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-o", "LogLevel=VERBOSE", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        sshd = Sshd(port, log_file, cluster.client)
        eventually(lambda: _answers(process, sshd), "sshd listening", LIMIT_S)
        yield sshd
    finally:
        process.terminate()
        process.wait(LIMIT_S)


def _answers(process: subprocess.Popen[bytes], sshd: Sshd) -> bool:
    assert process.poll() is None, sshd.log()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", sshd.ssh_port), 5) as probe:
        return probe.recv(4) == b"SSH-"
    return False
