"""The same pushes, fetches and clones through Stargate and through plain OpenSSH, in turns, in one run."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.figures import note, row, some, title
from tests.support.cluster import Client, eventually, make_cluster
from tests.support.ports import free_port

ROUNDS = 15
BIG_BYTES = 100 * 10**6
BIG_ROUNDS = 3
SSHD = "/usr/sbin/sshd"


def measure(folder: Path, share: float) -> None:
    """Small operations, and large ones. Times include the client's, and its making of the commit."""
    rounds, big_rounds = some(ROUNDS, share), some(BIG_ROUNDS, share)
    title("Stargate and plain OpenSSH, in turns")
    if not os.access(SSHD, os.X_OK):
        note("not measured: there is no sshd on this machine; apt-get install openssh-server")
        return
    cluster = make_cluster(folder, nodes=1)
    client = cluster.client
    try:
        cluster.bootstrap()
        node = cluster.nodes[0].start().wait_ready()
        with _sshd(folder, client) as port:
            sides = {
                "stargate": client.url(node, "app"),
                "openssh": f"ssh://127.0.0.1:{port}{folder}/plain/app.git",
            }
            subprocess.run(["git", "init", "-q", "--bare", f"{folder}/plain/app.git"], check=True, timeout=30)
            tree = client.work_tree("app")
            _compare("push of one small commit", sides, rounds, lambda url, n: _push(client, tree, url, n))
            _compare("ls-remote", sides, rounds, lambda url, _: client.git("ls-remote", url))
            _compare("push of 100 MB", sides, big_rounds, lambda url, n: _push_big(client, tree, url, n))
            _compare("clone of 100 MB and more", sides, big_rounds, lambda url, _: _clone(client, url))
    finally:
        cluster.end()


def _compare(label: str, sides: dict[str, str], rounds: int, work: Callable[[str, int], object]) -> None:
    took: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, url in sides.items():
            started = time.monotonic()
            work(url, number)
            if number:  # the first round warms up
                took[name].append((time.monotonic() - started) * 1000)
    for name, values in took.items():
        row(f"{label}: {name}", values, "ms")
    ratios = sorted(a / b for a, b in zip(took["stargate"], took["openssh"], strict=True))
    note(f"{label}: stargate/openssh, pair by pair: median {ratios[len(ratios) // 2]:.2f}")


def _push(client: Client, tree: Path, url: str, number: int) -> None:
    """A commit of its own for each side, so that both take the same."""
    client.commit(tree, f"commit {number} for {url}")
    client.git("push", "-q", url, "HEAD:refs/heads/main", cwd=tree)


def _push_big(client: Client, tree: Path, url: str, number: int) -> None:
    """Fresh random bytes each time: a server that has them already is sent nothing."""
    client.commit(tree, f"big {number} for {url}", size_bytes=BIG_BYTES)
    client.git("push", "-q", url, f"HEAD:refs/heads/big-{number}", cwd=tree)


def _clone(client: Client, url: str) -> None:
    client.git("clone", "-q", "--bare", url, str(client.home / f"clone-{time.monotonic_ns()}"))


@contextlib.contextmanager
def _sshd(folder: Path, client: Client) -> Iterator[int]:
    """A plain sshd on loopback with the cluster's host key, for this user."""
    port = free_port()
    keys = folder / "keys" / "plain_authorized_keys"
    keys.write_text(client.key.with_suffix(".pub").read_text())
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [
            SSHD, "-D", "-e", "-f", "/dev/null", "-p", str(port),
            "-h", str(folder / "keys" / "ssh_host_ed25519_key"),
            "-o", "ListenAddress=127.0.0.1", "-o", f"AuthorizedKeysFile={keys}", "-o", "StrictModes=no",
            "-o", "UsePAM=no", "-o", "PermitRootLogin=yes",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: _answers(port), "sshd listening")
        yield port
    finally:
        server.terminate()
        server.wait(10)


def _answers(port: int) -> bool:
    done = subprocess.run(
        ["ssh-keyscan", "-T", "2", "-p", str(port), "127.0.0.1"], capture_output=True, timeout=10, check=False
    )
    return bool(done.stdout)
