"""Text from outside is made safe to show in one place.

The attack: a ref, a comment of a key or a message of a peer holds an escape sequence, a line break or a
bidirectional override, and the terminal or the log of an operator shows something that is not so.
"""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stargate_gate
from stargate_gate.printable import escaped, printable

SHOWN = [
    ("plain", "plain"),
    ("Grüße, 世界 🙂", "Grüße, 世界 🙂"),
    ("a\nb\r\nc\td", "a?b??c?d"),
    ("\x1b[31mred\x1b[0m", "?[31mred?[0m"),
    ("\x1b]0;title\x07", "?]0;title?"),
    ("\x9b2J", "?2J"),
    ("a\u202eb\u2066c\u200e", "a?b?c?"),
    ("one\u2028two\u2029three\x85four", "one?two?three?four"),
    ("\udcff", "?"),
    ("zero\0width\u200b", "zero?width?"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_what_must_not_be_shown_is_replaced(text: str, shown: str) -> None:
    """Control characters, terminal escapes, bidirectional overrides, line breaks, lone surrogates."""
    assert printable(text) == shown
    assert printable(text, instead=" ") == shown.replace("?", " ")


def test_bytes_are_read_as_utf8() -> None:
    """Whatever they are: a ref may have any name."""
    assert printable(b"refs/heads/\xc3\xa4\xff\x1b[2J") == "refs/heads/ä\ufffd?[2J"


def test_long_text_is_cut() -> None:
    """At the limit, which counts the mark of the cut."""
    assert printable("x" * 10, 10) == "x" * 10
    assert printable("x" * 11, 10) == "x" * 9 + "…"
    assert printable("\x1b" * 1_000_000, 4) == "???…"


def test_escapes_show_what_was_there() -> None:
    """For tracebacks and messages in which the characters matter."""
    assert escaped("a\x1b[2J\nb\u202e\udcff\\") == "a\\x1b[2J\\nb\\u202e\\udcff\\"


@given(st.text(st.characters()), st.integers(1, 20))
def test_the_result_can_always_be_shown(text: str, limit: int) -> None:
    """Printable, encodable, within the limit."""
    for shown in (printable(text, limit), printable(text, limit, instead=" "), escaped(text)):
        assert shown.isprintable()
        shown.encode()
    assert len(printable(text, limit)) <= limit


# What asks whether a text is printable and does not replace anything.
ASKING = {
    "gate/commands.py": "refuses the command",
    "logs.py": "puts the value in quotes, as repr does",
    "config/findings.py": "puts the key in quotes, as repr does",
}


def test_no_other_module_does_it() -> None:
    """A second copy would be forgotten when the rule changes."""
    package = Path(stargate_gate.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"isprintable", path.read_text())
    }
    assert found == {"printable.py", *ASKING}
