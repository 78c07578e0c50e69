"""What a standby does in each situation, as text: events in, instructions out. The files are in testdata/."""

from pathlib import Path

import pytest

from tests.support.datadriven import check
from tests.support.session_text import SessionText

FILES = sorted((Path(__file__).parent / "testdata").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_session_answers_each_event_as_written(path: Path, request: pytest.FixtureRequest) -> None:
    """Run with --rewrite after a change of the session, and read what has changed in the files."""
    check(path, SessionText().run, rewrite=request.config.getoption("--rewrite"))
