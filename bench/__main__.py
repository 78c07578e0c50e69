"""Runs the measurements and prints one table each."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import failover, lag, memory, openssh

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
            MEASUREMENTS[name](Path(folder))
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
