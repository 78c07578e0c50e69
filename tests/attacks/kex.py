"""A stranger asks for many key exchanges at once. 50 with 176 bytes each used to end a node."""

import time
from contextlib import ExitStack, closing

from stargate_gate.net.algorithms import KEY_EXCHANGES
from tests.attacks.target import Target
from tests.support.rawssh import connect, kexinit, packet

AT_ONCE = 50  # limits.max_unauthenticated
ADDRESSES = 5  # of the attacker: one address would not get that many places
WATCHED_S = 4.0  # longer than election.watchdog_s
COSTLY = (
    "rsa2048-sha256",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group18-sha512",
)
GROUP_1024 = bytes([34]) + b"\x00\x00\x04\x00" * 3  # RFC 4419: the client chooses the size of the group


def attack(target: Target) -> None:
    """Each exchange that is costly, and each that is offered."""
    offered = target.scaled(len(KEY_EXCHANGES), 1)
    for name in (*COSTLY, *KEY_EXCHANGES[:offered]):
        for _ in range(target.scaled(3, 1)):
            _at_once(target, name)
        target.check(f"{AT_ONCE} at once ask for {name}")
    target.in_sync("after all key exchanges")


def _at_once(target: Target, name: str) -> None:
    with ExitStack() as stack:
        sources = [f"127.0.0.{3 + index % ADDRESSES}" for index in range(AT_ONCE)]
        socks = [stack.enter_context(closing(connect(target.leader.ssh_port, one))) for one in sources]
        asked = b"SSH-2.0-attack\r\n" + packet(kexinit(name))
        if "exchange" in name:
            asked += packet(GROUP_1024)
        for sock in socks:
            try:
                sock.sendall(asked)
            except ConnectionError:
                continue  # refused already
        until, slowest_s = time.monotonic() + target.scaled(2, 1) * WATCHED_S / 2, 0.0
        while time.monotonic() < until:
            slowest_s = max(slowest_s, target.health())
            target.nodes_run(name)
        target.say(f"    slowest /healthz {slowest_s / target.idle_health_s:.0f} times as long as idle")
