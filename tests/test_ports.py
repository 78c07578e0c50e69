"""The numbers that tests listen at: nobody else gets one."""

import socket
import subprocess
import sys
from pathlib import Path

from tests.support.ports import free_port

COUNT = 300
PRINT_PORTS = f"""
import sys
from tests.support.ports import free_port
print(*(free_port() for _ in range({COUNT})), flush=True)
sys.stdin.read()
"""


def test_no_number_is_given_twice_whoever_asks() -> None:
    """Also not to test processes that run at the same time: workers, or another test run."""
    workers = [
        subprocess.Popen([sys.executable, "-c", PRINT_PORTS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    try:
        given = [free_port() for _ in range(COUNT)]
        for worker in workers:
            assert worker.stdout is not None
            given += map(int, worker.stdout.readline().split())
    finally:
        for worker in workers:
            worker.communicate(timeout=60)
    assert len(given) == len(set(given)) == COUNT * 4


def test_the_kernel_gives_none_of_them_to_somebody_else() -> None:
    """A connection's own end, and port 0, come from another range."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not any(low <= free_port() <= high for _ in range(COUNT))


def test_a_port_that_another_program_uses_is_passed_over() -> None:
    """TCP or UDP."""
    first = free_port()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", first + 1))
            assert free_port() != first + 1
        first = free_port()
