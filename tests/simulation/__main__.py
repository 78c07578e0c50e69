"""python -m tests.simulation --seed N --steps M --nodes K --mode sync|strict|async"""

import argparse
import sys

from tests.simulation.campaigns import run_many
from tests.simulation.episode import MODES


def main() -> int:
    """Run, and print what came of it; 1 if an invariant failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first episode; the next has the next")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of all episodes")
    parser.add_argument("--nodes", type=int, choices=range(2, 6), help="default: each seed decides")
    parser.add_argument("--mode", choices=MODES, help="default: each seed decides")
    options = parser.parse_args()
    report = run_many(options.seed, options.steps, nodes=options.nodes, mode=options.mode)
    sys.stdout.write(f"{report}\n{report.failure or 'no invariant failed'}\n")
    return 0 if report.failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
