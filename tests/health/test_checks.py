"""The probes: they find real faults, and one that hangs holds up nobody."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stargate_gate.health import checks as checks_module
from stargate_gate.health.checks import Checks, Probe, data_dir_probe, git_probe, ssh_probe

LIMIT_S = 10.0


def eventually(probe: Callable[[], bool]) -> None:
    """Wait until `probe` says yes."""
    deadline = time.monotonic() + LIMIT_S
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data_dir as far as the probe looks."""
    (tmp_path / "run").mkdir()
    return tmp_path


class Switch:
    """A probe whose outcome a test sets, and that tells each run."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def run(self) -> str | None:
        self.entered.set()
        self.open.wait(LIMIT_S)
        return self.text


@pytest.fixture
def switch() -> Iterator[Switch]:
    """Let go of at the end, so that no thread is left."""
    switch = Switch()
    yield switch
    switch.open.set()


def test_a_node_that_was_not_checked_yet_is_not_healthy(switch: Switch) -> None:
    """No green light before the first look."""
    checks = Checks([Probe("x", 0.01, 1, switch.run)])
    assert checks.health().failing == {"x": "not checked yet"}
    checks.start()
    eventually(lambda: checks.health().ok)
    checks.stop()


def test_a_failure_shows_and_goes(switch: Switch) -> None:
    """With the time since when, for the leader that cannot write."""
    checks = Checks([Probe("x", 0.01, 1, switch.run)])
    checks.start()
    eventually(lambda: checks.health().ok)
    assert checks.failing_for_s("x") == 0
    switch.text = "broken"
    eventually(lambda: checks.health().failing == {"x": "broken"})
    eventually(lambda: checks.failing_for_s("x") > 0.05)
    switch.text = None
    eventually(lambda: checks.health().ok)
    checks.stop()


def test_a_probe_that_hangs_shows_as_a_failure(switch: Switch) -> None:
    """A disk that never answers: the answer about it comes at once, the others go on."""
    other = Switch()
    checks = Checks([Probe("disk", 0.01, 0.05, switch.run), Probe("other", 0.01, 1, other.run)])
    checks.start()
    eventually(lambda: checks.health().ok)
    switch.open.clear()
    eventually(lambda: "no result for" in str(checks.health().failing.get("disk")))
    assert checks.health().checks["other"] is None
    eventually(lambda: checks.failing_for_s("disk") > 0.1)
    started = time.monotonic()
    checks.stop(0.1)
    assert time.monotonic() - started < 5


def test_a_probe_that_breaks_goes_on(switch: Switch) -> None:
    """Its error is the result."""

    def broken() -> str | None:
        if switch.text:
            raise ValueError(switch.text)
        return None

    checks = Checks([Probe("x", 0.01, 1, broken)])
    switch.text = "a bug"
    checks.start()
    eventually(lambda: checks.health().failing == {"x": "ValueError: a bug"})
    switch.text = None
    eventually(lambda: checks.health().ok)
    checks.stop()


def test_a_data_dir_that_takes_writes_passes(data_dir: Path) -> None:
    """A real write and fsync."""
    assert data_dir_probe(data_dir).run() is None


def test_a_data_dir_that_is_gone_fails(tmp_path: Path) -> None:
    """One line, no path of the operator's."""
    assert data_dir_probe(tmp_path / "gone").run() == "cannot write: No such file or directory"


def test_a_full_disk_fails(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room for a push is told before pushes fail."""
    monkeypatch.setattr(checks_module, "MIN_FREE_BYTES", 2**70)
    monkeypatch.setattr(checks_module, "MIN_FREE_PARTS", 1)
    text = data_dir_probe(data_dir).run()
    assert text is not None
    assert text.endswith("make room")


def test_git_is_really_run(tmp_path: Path) -> None:
    """A git that is missing or fails is told."""
    environment = {"PATH": "/usr/bin:/bin"}
    assert git_probe(["git", "--version"], environment).run() is None
    assert git_probe(["git", "no-such-command"], environment).run() == "git exited 1"
    missing = git_probe([str(tmp_path / "git")], environment).run()
    assert missing == "git does not start: No such file or directory"


def test_the_ssh_listener_is_really_connected_to() -> None:
    """Also through a wildcard address; a closed one is told."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        assert ssh_probe(lambda: [("0.0.0.0", port)]).run() is None
    text = ssh_probe(lambda: [("0.0.0.0", port)]).run()
    assert text == f"no connection to 0.0.0.0 port {port}: Connection refused"
    assert ssh_probe(list).run() == "not listening"


def test_a_wildcard_of_ipv6_on_a_machine_without_ipv6_is_no_fault() -> None:
    """The samples listen on [::] too. The kernel allows that, and lets nobody connect: was "not healthy"."""
    program = (
        "import socket; from stargate_gate.health.checks import ssh_probe\n"
        "four, six = (socket.create_server((host, 0), family=family) for host, family in "
        "(('0.0.0.0', socket.AF_INET), ('::', socket.AF_INET6)))\n"
        "ports = [listener.getsockname()[1] for listener in (four, six)]\n"
        "print(ssh_probe(lambda: [('0.0.0.0', ports[0]), ('::', ports[1])]).run())\n"
        "print(ssh_probe(lambda: [('::', ports[1])]).run())\n"
    )
    off = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f'{off} && exec "$@"', "sh", sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    both, alone = done.stdout.splitlines()
    assert both == "None"
    assert alone.startswith("no connection to :: port ")
