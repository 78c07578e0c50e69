"""What the demo makes before its nodes start."""

import contextlib
import socket
from pathlib import Path

import pytest

from stargate_gate.cli.demo_files import LOOPBACK, DemoFiles, _port, demo_files
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
def temp_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temp dir of its own, as the demo finds it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("SSH_PORTS", "HTTP_PORTS"):  # other demos may run on this machine
        monkeypatch.setattr(f"stargate_gate.cli.demo_files.{name}", (free_port(), free_port()))
    return tmp_path


def ports(files: DemoFiles) -> set[int]:
    """Every port that its nodes will listen on."""
    return {port for node in files.nodes for port in (node.ssh_port, node.http_port)}


def test_demos_that_start_at_the_same_moment_have_ports_of_their_own() -> None:
    """Neither listens yet, so the ports look free: each demo still takes four that no other one has."""
    with demo_files() as first, demo_files() as second, demo_files() as third:
        assert len(ports(first) | ports(second) | ports(third)) == 12


def test_many_demos_find_ports() -> None:
    """The kernel may offer a port that another demo has taken and does not listen on yet."""
    many = 600  # of 14,000 that it offers: with one attempt each, about twenty would fail
    with contextlib.ExitStack() as held, socket.create_server((LOOPBACK, 0)) as taken:
        wanted = taken.getsockname()[1]
        assert len({_port(wanted, held) for _ in range(many)}) == many


def test_a_demo_gives_its_ports_back() -> None:
    """A second run starts clean: the same ports again."""
    with demo_files() as first:
        before = ports(first)
    with demo_files() as second:
        assert ports(second) == before


def test_a_port_that_another_program_uses_is_not_taken(temp_dir: Path) -> None:
    """Whoever it belongs to; and everything is removed at the end."""
    with demo_files() as before:
        wanted = before.nodes[0].ssh_port
    with socket.create_server((LOOPBACK, wanted)), demo_files() as files:
        assert wanted not in ports(files)
    assert list(temp_dir.iterdir()) == []
