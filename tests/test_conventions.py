"""Conventions of the code that no linter checks."""

import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "stargate_gate"
NOQA = re.compile(r"# noqa(?P<codes>: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*)?(?P<reason>.*)")


def test_every_noqa_gives_its_reason() -> None:
    """A rule of the linter is switched off by code, and for a reason that stands beside it."""
    without = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := NOQA.search(line))
        and (found["codes"] is None or len(found["reason"].strip(" #-()")) < 4)
    ]
    assert not without
