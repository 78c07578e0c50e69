"""CHANGELOG.md has the form that it names, and a section for this version."""

import re
from pathlib import Path

from stargate_gate import __version__

TEXT = (Path(__file__).parents[1] / "CHANGELOG.md").read_text()
ORDER = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits"]


def test_this_version_has_a_section_with_a_date() -> None:
    """After the section for what comes."""
    titles = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d{2}-\d{2}))?$", TEXT, re.MULTILINE)
    assert titles[0] == ("Unreleased", "")
    assert __version__ in dict(titles)
    assert all(date for version, date in titles[1:])


def test_kinds_of_changes_stand_in_their_order() -> None:
    """Added, Changed, Deprecated, Removed, Fixed, Security; each once."""
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert kinds == [one for one in ORDER if one in kinds]
