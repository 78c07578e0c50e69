"""A long run is done in sittings; see long_run.py."""

from pathlib import Path

import pytest

from tests.simulation import long_run
from tests.simulation.campaigns import run_many
from tests.simulation.long_run import Progress, run_long

BATCH = 3


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_run, "BATCH", BATCH)


def test_a_long_run_goes_on_where_it_was(tmp_path: Path):
    """The second sitting does not run again what the first has done, and the total counts both."""
    state = tmp_path / "state.json"
    first, failure = run_long(state, 1, first=1, workers=1)
    assert failure is None
    assert first.through >= 1 + BATCH
    second, failure = run_long(state, first.steps + 1, first=1, workers=1)
    assert failure is None
    assert second.steps > first.steps
    assert second.through > first.through
    assert second.episodes == second.through - 1 + BATCH * len(second.beyond)


def test_the_steps_of_a_batch_count_once(tmp_path: Path):
    """What a file says is what its seeds come to when they are run one after the other."""
    progress, _ = run_long(tmp_path / "state.json", 1, first=7, workers=1)
    episodes = progress.episodes
    assert not progress.beyond
    assert run_many(7, episodes=episodes).steps == progress.steps


def test_batches_that_end_out_of_order_are_remembered(tmp_path: Path):
    """A sitting that is cut off leaves no seed out."""
    progress = Progress(1, 1)
    for seed in (1 + BATCH, 1 + 2 * BATCH):
        progress.add(run_many(seed, episodes=0))
    assert (progress.through, progress.beyond) == (1, [1 + BATCH, 1 + 2 * BATCH])
    path = tmp_path / "state.json"
    progress.write(path)
    again = Progress.read(path, 1)
    again.add(run_many(1, episodes=0))
    assert (again.through, again.beyond) == (1 + 3 * BATCH, [])
