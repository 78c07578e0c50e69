"""What the two programs that stock OpenSSH starts add to the start of the interpreter."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.figures import note, row, some, title
from tests.support.cluster import make_cluster

ROUNDS = 40
USERS = 1000  # lines in authorized_keys


def measure(folder: Path, share: float) -> None:
    """In turns: an interpreter that does nothing, each program, and stargate-shell with a node behind it."""
    rounds = some(ROUNDS, share)
    title("stargate-shell and stargate-authorized-keys")
    cluster = make_cluster(folder, nodes=1)
    try:
        cluster.bootstrap()
        node = cluster.nodes[0].start().wait_ready()
        beside = Path(sys.executable).parent
        kind, key, _ = cluster.client.key.with_suffix(".pub").read_text().split()
        _fill(folder / "keys" / "authorized_keys")
        shell = [str(beside / "stargate-shell"), "--user=dev"]
        uid = str(node.data_dir.stat().st_uid)
        asking = [str(beside / "stargate-authorized-keys"), "-c", str(node.config_file), uid, kind, key]
        took = _compare(
            {
                "python -c pass": [sys.executable, "-c", "pass"],
                "stargate-shell --version": [*shell, "--version"],
                "stargate-shell --data-dir: health": [*shell, f"--data-dir={node.data_dir}"],
                "stargate-shell -c FILE: health": [*shell, "-c", str(node.config_file)],
                f"stargate-authorized-keys, {USERS} lines": asking,
            },
            rounds,
        )
    finally:
        cluster.end()
    base = took.pop("python -c pass")
    for name, median in took.items():
        note(f"{name}: {median - base:.0f} ms more than the interpreter alone (medians)")


def _fill(file: Path) -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{} user-{}\n"
    with file.open("a") as stream:
        for number in range(USERS):
            stream.write(line.format(f"{number:043d}", number))


def _compare(programs: dict[str, Sequence[str]], rounds: int) -> dict[str, float]:
    """Medians in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, argv in programs.items():
            started = time.monotonic()
            # With pipes: without them, a limit makes it look for the end in steps of up to 50 ms.
            subprocess.run(
                argv, env={"SSH_ORIGINAL_COMMAND": "health"}, stdin=subprocess.DEVNULL,
                capture_output=True, check=True, timeout=60,
            )  # fmt: skip
            if number:  # the first round warms up
                times[name].append((time.monotonic() - started) * 1000)
    for name, values in times.items():
        row(name, values, "ms")
    return {name: sorted(values)[len(values) // 2] for name, values in times.items()}
