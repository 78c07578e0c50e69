"""Ports on loopback that no other test, and no outgoing connection, takes.

`bind` to port 0, close, and use the number later was a race: the kernel gives the number to the next one who
asks, be it another test or a client's own end of a connection. So:

- The numbers lie outside the range that the kernel takes from by itself (ip_local_port_range in ip(7)):
  only who asks for such a number gets it.
- A process takes them in blocks. A block is taken by a name in the abstract namespace of unix(7), which is
  as wide as that of ports. It is kept until the process ends, however it ends, since a node that was killed
  is started again at the same port. So workers of one test run, and test runs side by side, share none.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

LOOPBACK = "127.0.0.1"
LOWEST, HIGHEST = 10_000, 65_535  # below are the ports of well-known programs, and of the demo
BLOCK = 100
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_held: list[socket.socket] = []  # a file descriptor for each block of this process


def free_port() -> int:
    """A TCP and UDP port on loopback that is free, and that this process has not given before.

    Raises:
        RuntimeError: none is left on this machine.
    """
    return next(_ports)


def _free_ports() -> Iterator[int]:
    for block in _blocks():
        if _take(block):
            yield from filter(_is_free, block)
    raise RuntimeError("no port is left for tests: end other test runs on this machine")


def _blocks() -> Iterator[range]:
    """Those that do not touch the kernel's range; when there is no such block, all."""
    low, high = map(int, _RANGE_FILE.read_text().split())
    starts = range(LOWEST, HIGHEST + 1 - BLOCK, BLOCK)
    blocks = [range(start, start + BLOCK) for start in starts]
    return iter([block for block in blocks if block[-1] < low or block[0] > high] or blocks)


def _take(block: range) -> bool:
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0stargate-tests-ports-{block[0]}")
    except OSError:
        name.close()
        return False
    _held.append(name)
    return True


def _is_free(port: int) -> bool:
    """Whether another program listens there, or uses it."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


_ports = _free_ports()


def _after_fork() -> None:
    """A child has its parent's blocks open, and would give the same numbers."""
    global _ports  # noqa: PLW0603 # one allocator per process is the point
    _ports = _free_ports()


os.register_at_fork(after_in_child=_after_fork)
