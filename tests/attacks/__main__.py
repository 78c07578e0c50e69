"""python -m tests.attacks [--short] [NAME…]: see tests/attacks/__init__.py."""

import os
import sys
import tempfile
from pathlib import Path

from tests.attacks.scenarios import SCENARIOS
from tests.attacks.target import attacked_cluster
from tests.support.environment import isolated_environment


def main(names: list[str]) -> int:
    """Run these attacks, or all. The exit status is 1 if one has failed; the others run all the same."""
    short = "--short" in names
    names = [name for name in names if name != "--short"]
    if unknown := [name for name in names if name not in SCENARIOS]:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}", file=sys.stderr)  # noqa: T201 # this is its output
        return 64
    failed = []
    for name in names or SCENARIOS:
        _print(f"{name}:")
        with tempfile.TemporaryDirectory(prefix="stargate-attack-") as folder:
            _isolate(Path(folder))
            try:
                with attacked_cluster(Path(folder) / "cluster", short=short, say=_print) as target:
                    SCENARIOS[name](target)
            except (AssertionError, TimeoutError) as error:
                failed.append(name)
                _print(f"FAILED: {error}")
    _print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 # this is its output


def _isolate(home: Path) -> None:
    wanted = isolated_environment(home)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
