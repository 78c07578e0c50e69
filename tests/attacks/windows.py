"""A key sends data into channels that run nothing. 400 MiB of it used to stay in the node's memory."""

from contextlib import ExitStack

from tests.attacks.target import Target
from tests.support.rawssh import DATA, REQUEST, RawClient, string, uint32

CHANNELS = 10  # what one connection may have
PIECE = b"x" * 32_000
PIECES = 65  # a little more than 2 MiB, which was the window


def attack(target: Target) -> None:
    """First into channels without a command, then into commands that do not read."""
    for what, command in (
        ("without a command", ""),
        ("of a command that waits", "git-upload-pack 'attacked'"),
    ):
        with ExitStack() as stack:
            for _ in range(target.scaled(20, 8)):
                client = stack.enter_context(RawClient(target.leader.ssh_port).login(target.reader))
                _fill(client, command)
            target.check(f"data into channels {what}")
    target.in_sync("after all data")


def _fill(client: RawClient, command: str) -> None:
    for number in range(CHANNELS):
        channel = client.open(number, window_bytes=0)
        try:
            for _ in range(PIECES):
                client.send(bytes([DATA]) + uint32(channel) + string(PIECE))
            if command:
                client.send(bytes([REQUEST]) + uint32(channel) + string("exec") + b"\x00" + string(command))
        except ConnectionError:
            return
