"""Scenarios of a leader's term as text; see tests/support/term_scenarios.py for the commands."""

from pathlib import Path

import pytest

from stargate_gate.replication.leader.sync_rules import Stage
from tests.support.term_scenarios import FOLDER, Scenario, rewritten


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_the_term_wants_what_the_scenario_says(path: Path) -> None:
    """`python -m tests.support.term_scenarios --rewrite` writes down a change that is meant."""
    text = path.read_text(encoding="utf-8")
    assert rewritten(text) == text


def test_a_state_that_cannot_be_is_noticed_at_once() -> None:
    """A standby that is level has noted an incarnation; else the record could not name one."""
    scenario = Scenario()
    for line in ("answer sent reach list", "join b", "hear b About ssh=b:22", "hear b Checked check=1"):
        scenario.run(line)
    (link,) = scenario.term.links.values()
    link.stage = Stage.LEVEL
    noticed, ended, *_ = scenario.run("at 1")
    assert noticed.startswith("log error standby_failed standby=b")
    assert "Stage.LEVEL" in noticed
    assert ended.startswith("EndLink(link=b, reason=this node has failed")
