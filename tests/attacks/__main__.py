"""python -m tests.attacks [--short] [NAME…]: see tests/attacks/__init__.py."""

import os
import sys
import tempfile
from pathlib import Path

from tests.attacks.ground import attacked_cluster
from tests.attacks.scenarios import SCENARIOS
from tests.support.environment import isolated_environment


def main(names: list[str]) -> int:
    """Run these attacks, or all; 1 if something fell, which goes on with the next."""
    short = "--short" in names
    names = [name for name in names if name != "--short"]
    if unknown := [name for name in names if name not in SCENARIOS]:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}", file=sys.stderr)  # noqa: T201
        return 64
    fallen = []
    for name in names or SCENARIOS:
        _say(f"{name}:")
        with tempfile.TemporaryDirectory(prefix="stargate-attack-") as folder:
            _isolate(Path(folder))
            try:
                with attacked_cluster(Path(folder) / "cluster", short=short, say=_say) as ground:
                    SCENARIOS[name](ground)
            except (AssertionError, TimeoutError) as error:
                fallen.append(name)
                _say(f"FELL: {error}")
    _say(f"fell: {', '.join(fallen)}" if fallen else "all stood")
    return 1 if fallen else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _isolate(home: Path) -> None:
    wanted = isolated_environment(home)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
