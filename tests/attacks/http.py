"""A stranger opens HTTP connections and sends slowly. Nobody else got /healthz and /readyz then."""

from contextlib import ExitStack, closing, suppress

from tests.attacks.target import Target
from tests.support.rawssh import connect

ROUNDS = 3


def attack(target: Target) -> None:
    """From the load balancer's address, and opened again before each request of it."""
    with ExitStack() as stack:
        for _ in range(ROUNDS):
            for _ in range(target.scaled(400, 120)):
                with suppress(OSError):
                    sock = stack.enter_context(closing(connect(target.leader.http_port)))
                    sock.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            for path in ("/healthz", "/readyz"):
                assert target.leader.get(path)[0] == 200, f"{path} is not 200"
            target.check("slow HTTP connections")
