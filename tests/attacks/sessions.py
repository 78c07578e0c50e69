"""One read key takes all sessions, and then all connections. It used to take them from everybody."""

from contextlib import ExitStack

from tests.attacks.ground import Ground
from tests.support.rawssh import ClosedError, RawClient, string

CONNECTIONS = 20  # with all their channels: limits.max_sessions
IDLE = 805  # a few more than a node takes in all
CHANNELS = 10  # what one connection may have
COMMAND = "git-upload-pack 'attacked'"


def attack(ground: Ground) -> None:
    """Upload-packs that wait for a window that never opens; then connections that run nothing."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            client = stack.enter_context(RawClient(ground.leader.ssh_port).login(ground.reader))
            for number in range(CHANNELS):
                client.ask(client.open(number, window_bytes=0), "exec", string(COMMAND))
        _others_go_on(ground, "all sessions of a read key")
    with ExitStack() as stack:
        for _ in range(IDLE):
            try:
                stack.enter_context(RawClient(ground.leader.ssh_port).login(ground.reader))
            except (ClosedError, ConnectionError):
                continue
        _others_go_on(ground, "idle connections of a read key")


def _others_go_on(ground: Ground, what: str) -> None:
    ground.holds(what)
    for words in ("repo list", "health", "status"):
        done = ground.client.ssh(ground.leader, words)
        answers = {0, 1} if words == "status" else {0}  # 1: it warns of something, as it may
        assert done.returncode in answers, (words, done.returncode, done.stdout, done.stderr)
    ground.restart_standby(what)
