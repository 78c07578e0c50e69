"""Which algorithms are offered, what each costs the event loop, and clients with old or odd lists."""

import asyncio
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.kex import get_kex_algs
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from stargate_gate.access.host_keys import load_host_keys
from stargate_gate.gate.ports import Channel, Request
from stargate_gate.gate.ssh.server import ServerSettings, SshServer
from stargate_gate.net.algorithms import CIPHERS, KEY_EXCHANGES, MACS, available
from tests.support.clients import run, ssh_argv
from tests.support.cluster import make_key
from tests.support.rawssh import KEX_INIT, ClosedError, RawClient, kexinit, packet, string

OFFERED = available(KEY_EXCHANGES, get_kex_algs())
LOGINS = 12  # per key exchange
MAX_RATIO = 5.0  # of the CPU time of a login, against curve25519; an RSA key made for each one has 30
COSTLY = ("rsa2048-sha256", "diffie-hellman-group-exchange-sha256", "diffie-hellman-group14-sha256")


class Door:
    """A server on an event loop in a thread of its own, so that its CPU time can be told from a client's."""

    def __init__(self, root: Path, *host_keys: Path) -> None:
        self.key = make_key(root / "alice")
        authorized = root / "authorized_keys"
        authorized.write_text(self.key.with_suffix(".pub").read_text())
        self._settings = ServerSettings(listen=(("127.0.0.1", 0),), authorized_keys=authorized)
        self._host_keys = load_host_keys(host_keys or (make_key(root / "host"),))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.port = 0

    async def handle(self, request: Request, channel: Channel) -> int:
        """Greets."""
        await channel.write(b"hello\n")
        await channel.exit(0)
        return 0

    def do(self, awaitable: Any) -> Any:
        """Wait for something that runs on the server's loop."""
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result(30)

    def cpu_s(self) -> float:
        """CPU seconds that the loop's thread has used."""

        async def used() -> float:
            return time.thread_time()

        return float(self.do(used()))

    @contextmanager
    def serve(self) -> Iterator[None]:
        """From start to end."""
        self._thread.start()
        server = SshServer(self, self._host_keys, self._settings)
        try:
            ((_, self.port),) = self.do(server.start())
            yield
        finally:
            self.do(server.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def login(self, **options: Any) -> str:
        """An asyncssh client with these options; the key exchange that was used."""
        async with asyncssh.connect(
            "127.0.0.1", self.port, username="git", client_keys=[self.key], known_hosts=None,
            config=None, agent_path=None, **options,
        ) as connection:  # fmt: skip
            return str((await connection.run("hello")).stdout)


async def test_no_key_exchange_costs_much_more_than_another(tmp_path: Path) -> None:
    """Attack: 50 connections that ask for a costly one held the loop until the watchdog ended the node."""
    door = Door(tmp_path)
    samples: dict[str, list[float]] = {name: [] for name in OFFERED}
    with door.serve():
        for _ in range(LOGINS):
            for name in OFFERED:
                before = door.cpu_s()
                assert await door.login(kex_algs=[name]) == "hello\n"
                samples[name].append(door.cpu_s() - before)
    costs = {name: statistics.median(each) for name, each in samples.items()}
    base = costs["curve25519-sha256"]
    for name, cost in costs.items():
        print(f"{name:32} {cost * 1000:6.2f} ms of the loop, {cost / base:5.2f} times curve25519-sha256")  # noqa: T201
    assert all(cost <= MAX_RATIO * base for cost in costs.values())


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_key_exchange_ends_with_no_match(tmp_path: Path, name: str) -> None:
    """The client gets an error, and the node computes nothing."""
    door = Door(tmp_path)
    with door.serve(), RawClient(door.port, exchange=False) as client:
        client.line()
        client.sock.sendall(packet(kexinit(name)))
        client.receive()
        with pytest.raises(ClosedError, match=r"(?i)no matching key exchange"):
            client.receive()


@pytest.mark.parametrize("mac", MACS)
@pytest.mark.parametrize("cipher", [name for name in CIPHERS if name.endswith("-ctr")])
async def test_clients_without_gcm_or_etm_get_in(tmp_path: Path, mac: str, cipher: str) -> None:
    """Dropbear and libssh2 before 1.11 have neither."""
    door = Door(tmp_path)
    with door.serve():
        done = await run(*ssh_argv(door.port, door.key, f"Ciphers={cipher}", f"MACs={mac}"), "hello")
    assert (done.status, done.stdout) == (0, "hello\n")


@pytest.mark.parametrize("order", [("ed25519",), ("rsa", "ecdsa", "ed25519")], ids="-".join)
async def test_dropbear_gets_in(tmp_path: Path, order: tuple[str, ...]) -> None:
    """It sends its first packet on a guess, whatever the order of ssh.host_keys."""
    door = Door(tmp_path, *(make_key(tmp_path / f"host-{kind}", kind=kind) for kind in order))
    own = tmp_path / "dropbear"
    subprocess.run(["dropbearconvert", "openssh", "dropbear", door.key, own], check=True, capture_output=True)
    with door.serve():
        done = await run(
            *("dbclient", "-y", "-y", "-T", "-i", own, "-p", str(door.port), "git@127.0.0.1", "hello"),
            env={"HOME": str(tmp_path)},
        )
    assert (done.status, done.stdout) == (0, "hello\n"), done


@pytest.mark.parametrize(
    ("names", "host_keys"),
    [
        (("ecdh-sha2-nistp256", "curve25519-sha256"), "ssh-ed25519"),
        (("curve25519-sha256",), "rsa-sha2-256,ssh-ed25519"),
        (("unknown", "curve25519-sha256"), "ssh-ed25519"),
    ],
)
def test_a_wrong_guess_is_dropped(tmp_path: Path, names: tuple[str, ...], host_keys: str) -> None:
    """RFC 4253, section 7: wrong if the first key exchanges or the first kinds of host key differ."""
    door = Door(tmp_path)
    chosen = names[0] if names[0] in OFFERED else "curve25519-sha256"
    with door.serve(), RawClient(door.port, exchange=False) as client:
        client.line()
        guessed = packet(bytes([KEX_INIT]) + string(b"the wrong guess"))
        client.sock.sendall(packet(kexinit(*names, host_keys=host_keys, guess=True)) + guessed)
        client.receive()
        public = _public(chosen)
        client.send(bytes([KEX_INIT]) + string(public))
        assert client.receive()[0] == 31


def _public(name: str) -> bytes:
    """A public key for this key exchange."""
    if name.startswith("curve25519"):
        return x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    return point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
