"""One read key uses as many sessions, and then connections, as it can. It used to get all of the node's."""

from contextlib import ExitStack

from tests.attacks.target import Target
from tests.support.rawssh import ClosedError, RawClient, string

CONNECTIONS = 20  # with all their channels: limits.max_sessions
IDLE = 805  # a few more than a node accepts in all
CHANNELS = 10  # what one connection may have
COMMAND = "git-upload-pack 'attacked'"


def attack(target: Target) -> None:
    """Upload-packs whose client opens no window; then connections that run nothing."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            client = stack.enter_context(RawClient(target.leader.ssh_port).login(target.reader))
            for number in range(CHANNELS):
                client.ask(client.open(number, window_bytes=0), "exec", string(COMMAND))
        _others_go_on(target, "all sessions of a read key")
    with ExitStack() as stack:
        for _ in range(IDLE):
            try:
                stack.enter_context(RawClient(target.leader.ssh_port).login(target.reader))
            except (ClosedError, ConnectionError):
                continue
        _others_go_on(target, "idle connections of a read key")


def _others_go_on(target: Target, what: str) -> None:
    target.check(what)
    for words in ("repo list", "health", "status"):
        done = target.client.ssh(target.leader, words)
        answers = {0, 1} if words == "status" else {0}  # 1: it warns of something, as it may
        assert done.returncode in answers, (words, done.returncode, done.stdout, done.stderr)
    target.restart_standby(what)
