"""authorized_keys changes, and is large, broken or not a file. Parsing it blocked the loop for seconds."""

import base64
import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from tests.attacks.target import Target
from tests.support.rawssh import ClosedError, RawClient, string

WATCHED_S = 4.0  # longer than election.watchdog_s


def attack(target: Target) -> None:
    """Each file in turn, with logins while it is read. The well-behaved client's key is at its end."""
    path = Path(target.leader.config["ssh"]["authorized_keys"])
    good = path.read_bytes()
    keys = b"".join(map(_line, range(target.scaled(100_000, 30_000))))
    broken = target.scaled(1_000_000, 300_000)
    for what, content in (
        ("many keys", keys + good),
        ("the same, touched", None),
        (f"{broken} broken lines", b"x y\n" * broken + good),
        ("lines of two bytes", b"x\n" * (4 * broken) + good),
        ("few keys again", good),
    ):
        path.touch() if content is None else path.write_bytes(content)
        _watch(target, what)
    path.unlink()
    os.mkfifo(path)
    _watch(target, "a FIFO in its place")
    path.unlink()
    path.write_bytes(good)
    target.check("the good file again")
    target.in_sync("after all files")


def _line(number: int) -> bytes:
    blob = string("ssh-ed25519") + string(hashlib.sha256(b"%d" % number).digest())
    return b"ssh-ed25519 " + base64.b64encode(blob) + b" u%d\n" % number


def _watch(target: Target, what: str) -> None:
    until, slowest_s = time.monotonic() + target.scaled(2, 1) * WATCHED_S / 2, 0.0
    while time.monotonic() < until:
        with suppress(ClosedError, OSError), RawClient(target.leader.ssh_port) as client:
            client.request_service()
            client.offer(target.reader)
        slowest_s = max(slowest_s, target.health())
        target.nodes_run(what)
    target.say(f"    slowest /healthz {slowest_s / target.idle_health_s:.0f} times as long as idle")
    target.check(what)
