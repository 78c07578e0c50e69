"""Runs the measurements and prints one table each."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import failover, kv, lag, memory, openssh, path, push, refs, scrub, shell
from tests.support.environment import isolated_environment

MEASUREMENTS: dict[str, Callable[[Path, float], None]] = {
    "memory": memory.measure,
    "lag": lag.measure,
    "failover": failover.measure,
    "push": push.measure,
    "openssh": openssh.measure,
    "kv": kv.measure,
    "shell": shell.measure,
    "refs": refs.measure,
    "path": path.measure,
    "scrub": scrub.measure,
}

SHORT = 0.2


def main(names: list[str]) -> int:
    """Run the measurements called `names`, or all; `--short` among them: with a fifth of the rounds."""
    share = SHORT if "--short" in names else 1.0
    names = [name for name in names if name != "--short"]
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 64
    for name in names or MEASUREMENTS:
        with tempfile.TemporaryDirectory(prefix="stargate-bench-") as folder:
            _isolate(Path(folder))
            MEASUREMENTS[name](Path(folder), share)
        print(flush=True)
    return 0


def _isolate(home: Path) -> None:
    wanted = isolated_environment(home)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
