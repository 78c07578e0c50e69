"""What the scenarios measured, as a table for the README; kept outside of the checkout."""

import fcntl
import json
import os
import secrets
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from integration.harness.base import cache_dir

HEAD = """| scenario | rounds | next accepted push: median | worst | acknowledged writes | of them lost |
|---|---|---|---|---|---|
"""
RUN = "STARGATE_INTEGRATION_RUN"


@dataclass(frozen=True)
class Result:
    """One round of one scenario. `waited_s`: the longest time without an accepted write."""

    scenario: str
    waited_s: float
    acknowledged: int
    lost: int


def file_of_run() -> Path:
    """Where the rounds of this run are, in whichever process they ran."""
    run = os.environ.setdefault(RUN, secrets.token_hex(4))  # workers inherit it
    return cache_dir() / f"results-{run}.jsonl"


def note(result: Result) -> None:
    """Keep one round's result."""
    with file_of_run().open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(asdict(result)) + "\n")


def table(results: list[Result]) -> str:
    """The Markdown table, a line for each scenario in the order in which they came."""
    return HEAD + "".join(f"{line}\n" for line in _lines(results))


def _lines(results: list[Result]) -> Iterator[str]:
    for scenario in dict.fromkeys(result.scenario for result in results):
        rounds = [result for result in results if result.scenario == scenario]
        waited = [result.waited_s for result in rounds]
        yield (
            f"| {scenario} | {len(rounds)} | {statistics.median(waited):.2f} s | {max(waited):.2f} s "
            f"| {sum(result.acknowledged for result in rounds)} | {sum(result.lost for result in rounds)} |"
        )


def written(run_file: Path) -> tuple[Path, str] | None:
    """Write the table of a run to `failover.md` beside its rounds; None if nothing was measured."""
    if not run_file.exists():
        return None
    results = [Result(**json.loads(line)) for line in run_file.read_text().splitlines()]
    run_file.unlink()
    text, file = table(results), cache_dir() / "failover.md"
    file.write_text(text)
    return file, text
