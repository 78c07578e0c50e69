"""python -m tests.simulation --seed N --steps M --nodes K --mode sync|strict|async"""

import argparse
import sys
from pathlib import Path

from tests.simulation.campaigns import run_many
from tests.simulation.episode import MODES
from tests.simulation.long_run import run_long


def main() -> int:
    """Run, and print what came of it; 1 if an invariant failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first episode; the next has the next")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of all episodes")
    parser.add_argument("--nodes", type=int, choices=range(2, 6), help="default: each seed decides")
    parser.add_argument("--mode", choices=MODES, help="default: each seed decides")
    parser.add_argument("--long", action="store_true", help="a run in many sittings, on all cores")
    parser.add_argument("--total", type=int, default=100_000_000, help="of --long: steps of all sittings")
    parser.add_argument(
        "--state", type=Path, default=Path("simulation.json"), help="of --long: the file of what is done"
    )
    parser.add_argument("--workers", type=int, help="of --long: processes; default: one for each core")
    options = parser.parse_args()
    if options.long:
        progress, failure = run_long(options.state, options.total, options.seed, options.workers)
        sys.stdout.write(f"{progress}\n{failure or 'no invariant failed'}\n")
        return 0 if failure is None else 1
    report = run_many(options.seed, options.steps, nodes=options.nodes, mode=options.mode)
    sys.stdout.write(f"{report}\n{report.failure or 'no invariant failed'}\n")
    return 0 if report.failure is None else 1


if __name__ == "__main__":
    sys.exit(main())
