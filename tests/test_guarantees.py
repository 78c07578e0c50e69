"""Each claim of docs/guarantees.md has a test, and each test that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/guarantees.md").read_text()
TAG = re.compile(r"\[(\d+)\]")
FAULT_TABLES = ("## Faults", "## How long")


def test_every_named_test_is_there() -> None:
    """By file and name."""
    named = re.findall(r"`((?:tests|integration)/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 20
    for file, name in named:
        source = (ROOT / file).read_text()
        assert not name or re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), f"{file}::{name}"


def test_every_tag_leads_to_tests() -> None:
    """Each number has one list of tests, and each list belongs to something that is claimed."""
    claims, _, tests = PAGE.partition("## The tests")
    listed = re.findall(r"^- \[(\d+)\] ", tests, re.MULTILINE)
    assert set(TAG.findall(claims)) == set(listed)
    assert len(listed) == len(set(listed))


def test_every_cell_of_the_faults_is_tested_or_says_that_it_is_not() -> None:
    """Except for faults that an engine cannot have."""
    cells = 0
    for title in FAULT_TABLES:
        _, _, rest = PAGE.partition(title)
        rows = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| ")]
        header, *faults = rows
        operator = header.endswith("| operator |")
        for row in faults:
            _, *claims = [cell.strip() for cell in row.strip("|").split("|")]
            for cell in claims[:-1] if operator else claims:
                cells += 1
                tested = TAG.search(cell) or "ot tested" in cell
                assert tested or cell.startswith(("nothing to see", "does not apply")), row
    assert cells > 60
