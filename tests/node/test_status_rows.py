"""Each row of the status: one situation, and all that an operator or a program is told of it.

testdata/status.txt has, for each situation, the exit status, the page, and what the log, /healthz and the
metrics say. `pytest --rewrite` writes it anew.
"""

import json
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stargate_gate.health.concerns import LEVELS, TABLE
from stargate_gate.health.metrics import Metrics
from stargate_gate.health.report import TEXT_COLUMNS, Health, Readiness, Reports, Status
from stargate_gate.node.assessment import Situation, status_of
from stargate_gate.node.concern_log import ConcernLog
from tests.support.datadriven import check

from .situations import LEADER, SITUATIONS

ROWS = Path(__file__).parent / "testdata" / "status.txt"
SAMPLE = re.compile(r'^stargate_concerns\{kind="(\w+)",level="(\w+)"\} (\S+)$', re.MULTILINE)
LEVEL = re.compile(r"^stargate_status_level (\S+)$", re.MULTILINE)


class Source:
    """A node in that situation."""

    def __init__(self, situation: Situation) -> None:
        self.situation = situation

    def status(self) -> Status:
        return status_of(self.situation)

    def health(self) -> Health:
        return self.situation.health

    def ready(self) -> Readiness:
        return Readiness(self.situation.ready, self.situation.view.role, self.situation.view.term)


def told(name: str) -> list[str]:
    """Everything that is said of that situation; all of it agrees, or this raises."""
    source = Source(SITUATIONS[name])
    status = source.status()
    exit_status, page = Reports(source).status()
    as_json = json.loads(status.to_json())
    healthz = json.loads(source.health().to_json(status))
    metrics = Metrics(source).render()[0].decode()
    counted = {kind: int(float(value)) for kind, _, value in SAMPLE.findall(metrics)}
    kinds = [one.kind for one in status.concerns]

    assert counted == {kind: kinds.count(kind) for kind in LEVELS}
    level = LEVEL.search(metrics)
    assert level is not None
    assert int(float(level[1])) == exit_status == status.level
    assert as_json["level"] == healthz["level"] == status.level.word
    assert as_json["concerns"] == healthz["concerns"]
    assert [one["kind"] for one in as_json["concerns"]] == kinds
    assert as_json["headline"] == healthz["headline"] == status.headline()
    assert " ".join(page.split("\n\n")[0].split()) == status.headline()
    with capture_logs() as logged:
        ConcernLog(source.status).look()
    assert [(one["kind"], one["text"]) for one in logged] == [(one.kind, one.text) for one in status.concerns]
    assert all(len(line) <= TEXT_COLUMNS for line in page.splitlines() if " " in line.strip())
    return [
        *(line or "." for line in page.splitlines()),
        f"exit {exit_status}; /healthz {200 if source.health().ok else 503} {healthz['level']}",
        *(f"{one['log_level']} event=concern kind={one['kind']}" for one in logged),
        *(f"stargate_concerns{{{kind}}} {count}" for kind, count in counted.items() if count),
    ]


def test_each_situation_is_told_the_same_everywhere(request: pytest.FixtureRequest) -> None:
    """Headline, exit status, text, JSON, /healthz, metrics and log."""
    check(
        ROWS,
        lambda command: told(command.removeprefix("status of ")),
        rewrite=request.config.getoption("--rewrite"),
    )


def test_the_file_has_every_situation() -> None:
    """Whoever adds one adds its block."""
    blocks = re.findall(r"^status of (.*)$", ROWS.read_text(), re.MULTILINE)
    assert blocks == list(SITUATIONS)


def test_each_kind_of_concern_has_a_situation() -> None:
    """A new kind is shown here before anybody relies on it."""
    shown = {one.kind for situation in SITUATIONS.values() for one in status_of(situation).concerns}
    assert shown == TABLE.keys()


@pytest.mark.parametrize("name", ["the only copy, of many"])
def test_all_repositories_are_in_the_json_and_few_on_the_page(name: str) -> None:
    """People read the first few, programs get all."""
    status = status_of(SITUATIONS[name])
    assert len(json.loads(status.to_json())["unreplicated"]["repositories"]) == 9_000
    assert "and 8990 more" in " ".join(status.to_text().split())


def test_what_is_over_is_logged_once_and_what_goes_on_is_not_logged_again() -> None:
    """Though its text changes with every second."""
    source = Source(SITUATIONS["a member that is away"])
    log = ConcernLog(source.status)
    with capture_logs() as first:
        log.look()
        log.look()
    assert [one["event"] for one in first] == ["concern"]
    source.situation = SITUATIONS["a member that never came in this term"]
    with capture_logs() as again:
        log.look()
    assert again == []
    source.situation = LEADER
    with capture_logs() as over:
        log.look()
        log.look()
    assert [(one["event"], one["kind"]) for one in over] == [("concern_over", "member_absent")]
