"""python -m tests.simulation.reseed [NAME …]: where each mutation is found now, written into mutations.py.

For whoever changes the order in which things happen: a seed that found a mutation finds it no more then, and
the search from there may take long. Each is looked for by a process of its own, from its seed on.
"""

import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.simulation.mutations import MUTATIONS

FILE = Path(__file__).with_name("mutations.py")
WORKERS = 2


def find(number: int) -> int | None:
    """The seed that finds that mutation; None: it is not found within its budget."""
    seed, found = MUTATIONS[number].find()
    return None if found is None else seed


def with_seed(text: str, name: str, seed: int) -> str:
    """`text` with that seed in the call that has this name; 0 is what stands there without one."""
    start = text.rindex("Mutation(", 0, text.index(f'"{name}"'))
    end, depth = start + len("Mutation"), 0
    while True:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        if depth == 0:
            break
        end += 1
    call = re.sub(r",\s*seed=\d+", "", text[start:end]).rstrip().rstrip(",")
    return text[:start] + call + (f", seed={seed}" if seed else "") + text[end:]


def main() -> None:
    """Look for all, or for those named."""
    names = sys.argv[1:] or [one.name for one in MUTATIONS]
    numbers = [number for number, one in enumerate(MUTATIONS) if one.name in names]
    missed = []
    with ProcessPoolExecutor(WORKERS) as pool:
        for number, seed in zip(numbers, pool.map(find, numbers), strict=True):
            one = MUTATIONS[number]
            print(f"{one.name}: {one.seed} → {seed}", flush=True)  # noqa: T201 - a program
            if seed is None:
                missed.append(one.name)
            elif seed != one.seed:
                FILE.write_text(with_seed(FILE.read_text(), one.name, seed))
    if missed:
        sys.exit(f"not found: {', '.join(missed)}")


if __name__ == "__main__":
    main()
