"""Runs the measurements and prints one table each."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import failover, lag, memory, openssh
from tests.support.environment import isolated_environment

MEASUREMENTS: dict[str, Callable[[Path], None]] = {
    "memory": memory.measure,
    "lag": lag.measure,
    "failover": failover.measure,
    "openssh": openssh.measure,
}


def main(names: list[str]) -> int:
    """Run the measurements called `names`, or all."""
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 64
    for name in names or MEASUREMENTS:
        with tempfile.TemporaryDirectory(prefix="stargate-bench-") as folder:
            _isolate(Path(folder))
            MEASUREMENTS[name](Path(folder))
        print(flush=True)
    return 0


def _isolate(home: Path) -> None:
    wanted = isolated_environment(home)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
