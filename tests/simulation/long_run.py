"""A long run in many sittings: what is done is in a file, and the next sitting goes on from there.

    python -m tests.simulation --long --total 100000000 --state FILE

Seeds are handed out in batches, to as many processes as the machine has cores. A batch counts when all of
its episodes have ended without a violation; one that was cut off is run again. A batch with a violation never
counts, so that the next sitting, perhaps with the fault mended, runs it again.
"""

import gc
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.simulation.campaigns import Report, run_many

BATCH = 40  # seeds: a few seconds, so that Ctrl-C takes no longer
TELL_EVERY_S = 20.0


@dataclass
class Progress:
    """What was done so far, in all sittings.

    first    seed of all
    through  every seed from `first` up to this one, without it, is done
    beyond   first seeds of batches that are done as well, out of order
    seconds  of all processes together
    """

    first: int
    through: int
    beyond: list[int] = field(default_factory=list)
    episodes: int = 0
    steps: int = 0
    terms: int = 0
    acknowledgements: int = 0
    seconds: float = 0.0
    coverage: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, path: Path, first: int) -> Self:
        """What the file says; if there is none, nothing is done.

        Raises:
            ValueError: the file is damaged.
        """
        if not path.exists():
            return cls(first, first)
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**found, "coverage": Counter(found["coverage"])})

    def write(self, path: Path) -> None:
        """The old content or the new, also if this process is killed meanwhile."""
        beside = path.with_name(f"{path.name}.new")
        beside.write_text(json.dumps(vars(self), indent=1, sort_keys=True), encoding="utf-8")
        beside.replace(path)

    def add(self, report: Report) -> None:
        """That batch is done."""
        self.episodes += report.episodes
        self.steps += report.steps
        self.terms += report.terms
        self.acknowledgements += report.acknowledgements
        self.seconds += report.seconds
        self.coverage += report.coverage
        self.beyond = sorted([*self.beyond, report.seed])
        while self.beyond and self.beyond[0] == self.through:
            del self.beyond[0]
            self.through += BATCH

    def __str__(self) -> str:
        rate = self.steps / max(self.seconds, 0.001)
        missing = "".join(f"\n        0  {what}" for what in Report(0, coverage=self.coverage).missing())
        return (
            f"seeds {self.first} to {self.through - 1}"
            + (f" and {len(self.beyond)} batches of {BATCH} beyond" if self.beyond else "")
            + f": {self.episodes} episodes, {self.steps} steps ({rate:.0f} a second and process), "
            f"{self.terms} terms, {self.acknowledgements} acknowledgements{missing}"
        )


def run_long(path: Path, total: int, first: int, workers: int | None = None) -> tuple[Progress, str | None]:
    """Run until so many steps are done in all, Ctrl-C is pressed, or an invariant fails; why it failed."""
    progress = Progress.read(path, first)
    count = workers or os.cpu_count() or 1
    failure = None
    with ProcessPoolExecutor(count, initializer=_begin_worker) as pool:
        running: dict[Future[Report], int] = {}
        told_at = time.monotonic()
        try:
            while progress.steps < total and failure is None:
                while len(running) < 2 * count:
                    seed = _next_seed(progress, running.values())
                    running[pool.submit(run_many, seed, episodes=BATCH)] = seed
                failure = _collect(progress, running)
                progress.write(path)
                if time.monotonic() - told_at > TELL_EVERY_S:
                    told_at = time.monotonic()
                    print(f"{progress.steps} of {total} steps", flush=True)  # noqa: T201 - for who waits
        except KeyboardInterrupt:
            print("stopping; the same command goes on from here", flush=True)  # noqa: T201 - as above
        pool.shutdown(cancel_futures=True)
        for future in [one for one in running if one.done() and not one.cancelled()]:
            failure = _take(progress, future.result()) or failure
        progress.write(path)
    return progress, failure


def _next_seed(progress: Progress, running: Iterable[int]) -> int:
    taken = {*progress.beyond, *running}
    seed = progress.through
    while seed in taken:
        seed += BATCH
    return seed


def _collect(progress: Progress, running: dict["Future[Report]", int]) -> str | None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    failure = None
    for future in done:
        del running[future]
        failure = _take(progress, future.result()) or failure
    return failure


def _take(progress: Progress, report: Report) -> str | None:
    if report.failure is None:
        progress.add(report)
    return report.failure


def _begin_worker() -> None:
    """Ctrl-C reaches every process of the terminal; the first one decides what follows from it.

    An episode makes many small objects and few cycles: the collector that looks for cycles runs less often,
    and leaves the modules out. That is 5 % of the time; memory stays below 100 MB.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
