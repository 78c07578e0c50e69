"""How figures are shown: a distribution in one row."""

import statistics
from collections.abc import Sequence


def some(rounds: int, share: float) -> int:
    """That share of the rounds, and at least two."""
    return max(2, round(rounds * share))


def title(text: str) -> None:
    """A measurement's heading, and the header of its rows."""
    print(text)
    print(f"  {'':<44}{'n':>4}{'min':>10}{'median':>10}{'p95':>10}{'max':>10}")


def row(label: str, values: Sequence[float], unit: str) -> None:
    """One distribution."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    figures = (ordered[0], statistics.median(ordered), p95, ordered[-1])
    print(
        f"  {label:<44}{len(ordered):>4}" + "".join(f"{_short(value):>10}" for value in figures) + f"  {unit}"
    )


def note(text: str) -> None:
    """A line below the rows."""
    print(f"  {text}")


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
