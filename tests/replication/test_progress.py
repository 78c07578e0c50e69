"""What counts as getting on: enough bytes, git at work, or a step that is done."""

import os
import time

from stargate_gate.datadir.procs import cpu_s
from stargate_gate.gate.push.acknowledge import shortage_line, waiting_line
from stargate_gate.gate.relay import wants_quiet
from stargate_gate.replication.standby.progress import PROGRESS_BYTES, PROGRESS_CPU_S, Progress


def test_bytes_are_a_sign_of_life_and_a_mebibyte_is_progress() -> None:
    """A trickle keeps nobody waiting; `sign` is told how much there is."""
    lives: list[None] = []
    signs: list[int] = []
    progress = Progress(lambda: lives.append(None), signs.append)
    for _ in range(15):
        progress.came(PROGRESS_BYTES // 16)
    assert len(lives) == 15
    assert signs == []
    progress.came(PROGRESS_BYTES // 16)
    assert signs == [PROGRESS_BYTES]
    progress.came(PROGRESS_BYTES - 1)
    assert len(signs) == 1
    progress.came(1)
    assert signs == [PROGRESS_BYTES, 2 * PROGRESS_BYTES]


def test_a_git_that_works_gets_on_and_one_that_waits_does_not() -> None:
    """Processor time counts from where it was told last, for each process anew."""
    signs: list[int] = []
    progress = Progress(sign=signs.append)
    for used in (0.0, PROGRESS_CPU_S / 2, PROGRESS_CPU_S, PROGRESS_CPU_S, PROGRESS_CPU_S * 1.5):
        progress.worked(used)
    assert signs == [0]
    progress.started()
    progress.worked(PROGRESS_CPU_S)
    assert signs == [0, 0]
    progress.did()
    assert signs == [0, 0, 0]


def test_processor_time_is_that_of_a_process_and_its_children() -> None:
    """It grows while this one works; nobody has none."""
    before = cpu_s(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert cpu_s(os.getpid()) >= before + 0.05
    assert cpu_s(2**22 + 1) == 0


def test_what_a_pusher_is_told() -> None:
    """Whom it waits for, with a share where one can be guessed; and what it is stored on."""
    assert waiting_line({"node-c": 0, "node-b": 120 << 20}, 300 << 20) == (
        "waiting for node-b: 120 MiB (40 %), node-c: 0 MiB"
    )
    assert waiting_line({"node-b": 120 << 20}, 100) == "waiting for node-b: 120 MiB"
    both, one, none = frozenset({"node-b", "node-c"}), frozenset({"node-c"}), frozenset[str]()
    assert shortage_line("node-a", both, both) is None
    assert shortage_line("node-a", none, one) is None
    assert (shortage_line("node-a", both, one) or "").startswith(
        "warning: stored on node-a, node-c; node-b was late or gone"
    )
    assert (shortage_line("node-a", one, none) or "").startswith("warning: stored on node-a only; node-c")


def test_a_quiet_client_is_known_by_its_capabilities() -> None:
    """`git push -q`: no lines of progress."""
    command = b"0" * 40 + b" " + b"1" * 40 + b" refs/heads/quiet\0 report-status-v2 side-band-64k"
    for more, quiet in ((b" quiet agent=git/2.39.5", True), (b" agent=quiet", False)):
        packet = command + more
        assert wants_quiet(b"%04x" % (len(packet) + 4) + packet) is quiet
    assert not wants_quiet(b"0000")
    assert not wants_quiet(b"nonsense")
