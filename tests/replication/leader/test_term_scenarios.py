"""Scenarios of a leader's term as text; see tests/support/term_scenarios.py for the commands."""

from pathlib import Path

import pytest

from tests.support.term_scenarios import FOLDER, rewritten


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_term_wants_what_the_scenario_says(path: Path) -> None:
    """`python -m tests.support.term_scenarios --rewrite` writes down a change that is meant."""
    text = path.read_text(encoding="utf-8")
    assert rewritten(text) == text
