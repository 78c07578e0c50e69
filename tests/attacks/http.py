"""A stranger opens HTTP connections and sends slowly. It used to take /healthz and /readyz away."""

from contextlib import ExitStack, closing, suppress

from tests.attacks.ground import Ground
from tests.support.rawssh import connect

ROUNDS = 3


def attack(ground: Ground) -> None:
    """From the address that the load balancer's questions come from, too; filled again before each."""
    with ExitStack() as stack:
        for _ in range(ROUNDS):
            for _ in range(ground.scaled(400, 120)):
                with suppress(OSError):
                    sock = stack.enter_context(closing(connect(ground.leader.http_port)))
                    sock.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            for path in ("/healthz", "/readyz"):
                assert ground.leader.get(path)[0] == 200, f"{path} is not 200"
            ground.holds("slow HTTP connections")
