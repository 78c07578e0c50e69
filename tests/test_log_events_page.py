"""docs/log-events.md and the code name the same events, with the same levels and fields."""

import re
from pathlib import Path

import pytest

from tests.support.log_events import Logged, logged_events

PAGE = Path(__file__).parents[1] / "docs" / "log-events.md"
ROW = re.compile(r"^\| `([a-z_]+)` \| ([a-z, ]+) \| ([a-z_, ]*) ?\| (.+?) \| (.*?) ?\|$", re.MULTILINE)
TOLD = {"warning", "error", "critical"}


@pytest.fixture(scope="module")
def logged() -> list[Logged]:
    return logged_events()


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[set[str], set[str]]]:
    """By event: levels and fields."""
    found = ROW.findall(PAGE.read_text())
    names = [name for name, *_ in found]
    assert len(names) == len(set(names)), "an event has two rows"
    return {name: (_words(levels), _words(fields)) for name, levels, fields, _, _ in found}


def test_the_page_has_every_warning_and_error(logged: list[Logged], rows: dict) -> None:
    """With what it means and what to do; whoever adds one writes that first."""
    missing = {f"{one.event} ({one.where})" for one in logged if one.level in TOLD and one.event not in rows}
    assert missing == set()


def test_the_page_has_no_event_that_nothing_writes(logged: list[Logged], rows: dict) -> None:
    """Operators search for these names."""
    assert rows.keys() - {one.event for one in logged} == set()


def test_levels_are_those_of_the_code(logged: list[Logged], rows: dict) -> None:
    """Debug lines, of what was said before, are not on the page."""
    levels: dict[str, set[str]] = {}
    for one in logged:
        levels.setdefault(one.event, set()).add(one.level)
    wrong = {
        event: (said, levels[event]) for event, (said, _) in rows.items() if said != levels[event] - {"debug"}
    }
    assert wrong == {}


def test_fields_of_the_code_are_on_the_page(logged: list[Logged], rows: dict) -> None:
    """As far as the code names them where it logs."""
    wrong = {
        one.event: one.fields - rows[one.event][1]
        for one in logged
        if one.event in rows and one.fields is not None and one.fields - rows[one.event][1]
    }
    assert wrong == {}


def test_every_row_is_read(rows: dict) -> None:
    """A row that the pattern above does not take would count for nothing."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(lines) == len(rows)


def _words(text: str) -> set[str]:
    return {word.strip() for word in text.split(",")} - {""}
