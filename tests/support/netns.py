"""Network namespaces joined by a switch: machines on one link, each with its own interface eth0.

Needs root, as CI has it. Each machine is entered by setns(2) in a thread of its own or by `ip netns exec`.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

COMMAND_LIMIT_S = 20.0
CLONE_NEWNET = 0x40000000

T = TypeVar("T")


@dataclass(frozen=True)
class Machine:
    """One network namespace on the link."""

    namespace: str
    address: str
    mac: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command line, it runs there."""
        return ("ip", "netns", "exec", self.namespace)

    def run(self, *argv: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program there."""
        return _run(*self.prefix, *argv, ok=ok)

    def addresses(self) -> list[str]:
        """What is on its eth0 now, besides link-local addresses."""
        links = json.loads(self.run("ip", "-json", "address", "show", "dev", "eth0").stdout)
        return [
            f"{one['local']}/{one['prefixlen']}"
            for link in links
            for one in link["addr_info"]
            if one["scope"] == "global"
        ]

    def neighbour(self, address: str) -> str | None:
        """The hardware address that this machine believes `address` to be at."""
        family = "-6" if ":" in address else "-4"
        known = json.loads(
            self.run("ip", family, "-json", "neighbour", "show", "to", address, "dev", "eth0").stdout or "[]"
        )
        return next((str(one["lladdr"]) for one in known if "lladdr" in one), None)

    def inside(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread that is in this namespace; sockets that it opens stay there."""
        answers: list[Any] = []

        def call() -> None:
            descriptor = os.open(f"/var/run/netns/{self.namespace}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(descriptor)
                answers.append((function(), None))
            except BaseException as error:  # noqa: BLE001 # raised again by the caller
                answers.append((None, error))
            finally:
                os.close(descriptor)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        ((answer, error),) = answers
        if error is not None:
            raise error
        return answer  # type: ignore[no-any-return]

    def visit(self, address: str) -> None:
        """Send a datagram there, so that this machine learns where it is."""

        def send() -> None:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"hello", (address, 9))  # discard, RFC 863

        self.inside(send)

    def packets(self) -> socket.socket:
        """A socket that gets every frame that arrives at eth0 from now on."""

        def open_socket() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            sock.bind(("eth0", 3))  # ETH_P_ALL
            return sock

        return self.inside(open_socket)


@contextlib.contextmanager
def machines(count: int) -> Iterator[Sequence[Machine]]:
    """`count` machines at 10.77.0.1, .2, … and fd77::1, ::2, …; all gone afterwards, with what runs there."""
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    tag = secrets.token_hex(3)
    switch = f"sg{tag}"
    made: list[str] = []
    try:
        _run("ip", "netns", "add", switch)
        made.append(switch)
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        found = []
        for number in range(1, count + 1):
            name = f"sg{tag}{number}"
            _run("ip", "netns", "add", name)
            made.append(name)
            found.append(_join(name, switch, number))
        yield tuple(found)
    finally:
        for name in made:
            _run("ip", "netns", "delete", name, ok=False)


def _join(name: str, switch: str, number: int) -> Machine:
    """Plug a cable between the namespace `name` and the switch."""
    _run(
        "ip", "-n", name, "link", "add", "eth0", "type", "veth",
        "peer", "name", f"port{number}", "netns", switch,
    )  # fmt: skip
    _run("ip", "-n", switch, "link", "set", f"port{number}", "master", "br0", "up")
    address = f"10.77.0.{number}"
    _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
    _run("ip", "-n", name, "address", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
    for link in ("lo", "eth0"):
        _run("ip", "-n", name, "link", "set", link, "up")
    links = json.loads(_run("ip", "-n", name, "-json", "link", "show", "dev", "eth0").stdout)
    return Machine(name, address, str(links[0]["address"]))


def _setns(descriptor: int) -> None:
    import ctypes  # noqa: PLC0415 # os.setns comes with Python 3.12

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _run(*argv: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_LIMIT_S, check=False)
    if ok and done.returncode:
        raise AssertionError(f"{' '.join(argv)} exited {done.returncode}: {done.stdout}{done.stderr}")
    return done
