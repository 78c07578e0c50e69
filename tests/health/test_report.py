"""How the status report reads, for programs and for people."""

import json
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.health.concerns import LEVELS, Concern, Kind, Level, level_of, worst_first
from stargate_gate.health.report import Health, Readiness, Status, mirror_text, standby_text
from stargate_gate.health.wording import behind, duration, time_of_day
from stargate_gate.status import AddressReport, Equality, MirrorStatus, Refill, StandbyStatus

NOON = 1_767_441_600  # 2026-01-03 12:00:00 UTC
EMPTY = Concern("sync_set_empty", "the sync set is empty")
WARNING = Concern("other", "look at this")

LEADER = Status(
    node="node-a",
    role="leader",
    term=7,
    leader="node-a",
    mode="async",
    ready=True,
    version="1.2.3",
    sync_set=("node-b",),
    standbys=(StandbyStatus("node-b", True, 0, 0.0), StandbyStatus("node-c", False, 12, 3.14159)),
    cluster="prod",
    address="stargate.local:2222",
    position=1042,
    uptime_s=12_345.6789,
)
STANDBY = replace(
    LEADER,
    node="node-b",
    role="standby",
    ready=False,
    reason="node-b is a standby",
    standbys=(),
    mirror=MirrorStatus(True, "node-a", 3, 1.25),
)


IN_STEP = replace(
    STANDBY, mirror=MirrorStatus(
        False, "node-a", behind_s=42.0, last_error="gone", position=4, not_connected_s=42.3,
        in_step=Equality(7, 4, NOON), refill=Refill(3, 40, 8, 6), problem="no answer",
    ),
)  # fmt: skip


def test_json_has_the_keys_of_the_contract() -> None:
    """Programs rely on these names and types."""
    report = json.loads(LEADER.to_json())
    assert report["node"] == "node-a"
    assert report["role"] == "leader"
    assert report["term"] == 7
    assert report["leader"] == "node-a"
    assert report["sync_set"] == ["node-b"]
    assert report["standbys"][1] == {
        "name": "node-c", "in_sync": False, "lag_changes": 12, "lag_s": 3.142,
        "refill": None, "problem": None, "heard_s": None, "tried_s": None,
    }  # fmt: skip
    assert report["rescued_refs"] == 0
    assert report["mode"] == "async"
    assert set(report) >= {
        "warnings",
        "cluster",
        "address",
        "position",
        "uptime_s",
        "version",
        "ready",
        "reason",
    }
    assert json.loads(STANDBY.to_json())["mirror"].items() >= {
        "connected": True, "leader": "node-a", "behind_changes": 3, "behind_s": 1.25, "last_error": None,
    }.items()  # fmt: skip


def test_json_has_these_keys_in_this_order_and_no_others() -> None:
    """What a package reports besides, for the other nodes or for `promote`, is not part of the contract."""
    assert list(json.loads(LEADER.to_json())) == [
        "node", "role", "term", "leader", "mode", "ready", "version", "sync_set", "standbys", "rescued_refs",
        "reason", "cluster", "address", "position", "uptime_s", "mirror", "addresses", "concerns",
        "recorded_leader", "scrub", "warnings", "level", "headline", "record_age_s", "away", "aside",
        "volumes", "expiring_keys", "unreplicated",
    ]  # fmt: skip
    in_step = json.loads(IN_STEP.to_json())["mirror"]
    assert list(in_step.items()) == [
        ("connected", False), ("leader", "node-a"), ("behind_changes", None), ("behind_s", 42.0),
        ("last_error", "gone"), ("level", False), ("position", 4), ("not_connected_s", 42.3),
        ("in_step_at", NOON), ("in_step_position", 4), ("in_step_term", 7),
        ("refill", {"done": 3, "total": 40, "received_bytes": 8, "bytes_per_s": 6}), ("problem", "no answer"),
        ("heard_s", None), ("tried_s", None),
    ]  # fmt: skip
    never = json.loads(STANDBY.to_json())["mirror"]
    assert [never[key] for key in ("in_step_at", "in_step_position", "in_step_term")] == [None, 0, 0]
    address = replace(LEADER, addresses=(AddressReport("vip", "claimed"),))
    assert json.loads(address.to_json())["addresses"] == [
        {"name": "vip", "state": "claimed", "problem": None}
    ]


def test_json_says_null_when_nobody_leads() -> None:
    """`leader` is a name or null, never an empty text."""
    assert json.loads(replace(STANDBY, leader=None).to_json())["leader"] is None


def test_the_first_line_says_who_leads_and_whether_all_is_well() -> None:
    """An operator under stress reads one line."""

    def first(status: Status) -> str:
        return status.to_text().splitlines()[0]

    assert first(LEADER) == "node-a leads prod in term 7; all is well"
    assert first(replace(LEADER, concerns=(WARNING, WARNING))) == "node-a leads prod in term 7; 2 warnings"
    assert first(replace(LEADER, concerns=(EMPTY, WARNING))) == (
        "node-a leads prod in term 7; 1 critical problem (sync set empty), 1 warning"
    )
    assert first(replace(LEADER, ready=False, reason="it steps down")) == (
        "node-a leads prod in term 7 but takes no writes: it steps down"
    )
    assert first(STANDBY) == "node-a leads prod in term 7; this is node-b, a standby; all is well"
    assert first(replace(STANDBY, leader=None, reason="the lock file is missing")) == (
        "nobody leads prod: the lock file is missing"
    )
    assert first(replace(LEADER, cluster=None)) == "node-a leads in term 7; all is well"


def test_text_is_short_and_aligned() -> None:
    """The whole report, as people see it."""
    assert replace(LEADER, concerns=(EMPTY, WARNING)).to_text() == (
        "node-a leads prod in term 7; 1 critical problem (sync set empty), 1 warning\n"
        "\n"
        "node       node-a, leader, up 3 h 25 min, stargate 1.2.3\n"
        "address    stargate.local:2222\n"
        "mode       async, position 1042\n"
        "sync set   node-b\n"
        "standbys   node-b  in sync      up to date\n"
        "           node-c  not in sync  12 changes, 3.1 s behind\n"
        "rescued    0 refs\n"
        "! critical the sync set is empty\n"
        "  do       get a standby back; do not stop this node before that [runbook:\n"
        "           the-sync-set-is-empty]\n"
        "! warning  look at this\n"
        "  do       see to what it says [runbook: what-status-says]\n"
    )


def test_text_of_a_standby_says_how_far_behind_it_is() -> None:
    """Its link, its lag and its last error."""
    assert "mirror     connected to node-a, 3 changes, 1.2 s behind\n" in STANDBY.to_text()
    refill = Refill(3, 40, 807_700_000, 6_400_000)
    refilled = replace(STANDBY, mirror=MirrorStatus(True, "node-a", 37, 68.9, refill=refill))
    assert (
        "mirror     connected to node-a, catching up: 3 of 40 repositories, 770.3 MiB at\n"
        "           6.1 MiB/s\n"
    ) in refilled.to_text()


def test_a_standby_without_a_connection_is_never_up_to_date() -> None:
    """It says since when, and when it last was; and the headline who leads as far as it can know."""
    cut_off = replace(
        STANDBY, leader=None, recorded_leader="node-a", now=NOON + 42.0,
        mirror=MirrorStatus(
            False, "node-a", not_connected_s=42.3, in_step=Equality(7, 4, NOON)
        ),
        concerns=(Concern("cannot_follow", "cannot connect to node-a.example:2222: no answer"),),
    )  # fmt: skip
    text = cut_off.to_text()
    assert text.startswith(
        "node-a leads prod in term 7 (says the record); this node, node-b, cannot follow\n"
        "it: cannot connect to node-a.example:2222: no answer\n\n"
    )
    assert "mirror     not connected for 42 s; last in step 12:00:00 UTC (term 7, position\n" in text
    assert text.count("no answer") == 1
    never = replace(cut_off, mirror=MirrorStatus(False, "node-a", not_connected_s=3.0)).to_text()
    assert "mirror     not connected for 3 s; never in step with a leader\n" in never
    assert "up to date" not in text + never


def test_the_leader_says_of_a_standby_what_that_says_of_itself() -> None:
    """The same words on both nodes, and no "up to date" for one that is not in sync."""
    refill = Refill(3, 40, 807_700_000, 6_400_000)
    words = "catching up: 3 of 40 repositories, 770.3 MiB at 6.1 MiB/s"
    assert standby_text(StandbyStatus("node-b", False, 37, 68.9, refill)) == words
    assert mirror_text(MirrorStatus(True, "node-a", refill=refill), 0.0) == f"connected to node-a, {words}"
    assert standby_text(StandbyStatus("node-b", False, 0, 0.0, problem="no answer")) == (
        "has everything, cannot be reached"
    )
    assert standby_text(StandbyStatus("node-b", False)) == "not known how far behind"


def test_the_sync_set_of_a_standbys_page_tells_which_one_is_this_node() -> None:
    """It lists the standby itself; and says so if it does not."""
    assert "sync set   node-b (this node)\n" in STANDBY.to_text()
    assert "sync set   empty; this node is not in it\n" in replace(STANDBY, sync_set=()).to_text()


def test_each_concern_has_a_level_and_the_worst_is_the_exit_status() -> None:
    """0 well, 1 warning, 2 critical, 3 unknown: as monitoring plug-ins do."""
    unknown = Concern("starting", "it is starting")
    assert [int(level_of(ones)) for ones in ((), (WARNING,), (WARNING, EMPTY), (unknown, WARNING))] == [
        0, 1, 2, 3,
    ]  # fmt: skip
    assert level_of((unknown, EMPTY)) is Level.CRITICAL
    assert worst_first((WARNING, unknown, EMPTY)) == (EMPTY, unknown, WARNING)
    assert set(LEVELS) == set(get_args(Kind))
    report = json.loads(replace(LEADER, concerns=(EMPTY, WARNING)).to_json())
    assert report["level"] == "critical"
    assert report["warnings"] == ["the sync set is empty", "look at this"]
    assert report["concerns"][0] == {
        "kind": "sync_set_empty", "level": "critical", "text": "the sync set is empty",
        "todo": "get a standby back; do not stop this node before that", "runbook": "the-sync-set-is-empty",
    }  # fmt: skip


@given(st.text(max_size=300), st.text(min_size=1, max_size=63))
def test_text_never_breaks_a_terminal(words: str, name: str) -> None:
    """Whatever stands in an error or a name: at most 80 columns, nothing that moves the cursor."""
    text = replace(
        STANDBY, concerns=(Concern("other", words),), standbys=(StandbyStatus(name, False),),
        mirror=MirrorStatus(True, name, None, None, words),
    ).to_text()  # fmt: skip
    assert all(len(line) <= 80 and (line.isprintable() or not line) for line in text.split("\n"))
    text.encode()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3661, "1 h 1 min"), (200_000, "2 d 7 h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    """Short and exact enough."""
    assert duration(seconds) == text


def test_a_time_of_day_has_its_zone_and_an_older_one_its_date() -> None:
    """Logs are in UTC, too."""
    assert time_of_day(NOON, NOON + 60) == "12:00:00 UTC"
    assert time_of_day(NOON, NOON + 200_000) == "2026-01-03 12:00:00 UTC"


def test_lag_says_what_is_not_known() -> None:
    """None is not zero."""
    assert behind(None, None) == "not known how far behind"
    assert behind(0, 0.0) == "up to date"
    assert behind(1, 0.25) == "1 change, 0.2 s behind"
    assert behind(2, None) == "2 changes behind"


def test_health_names_what_fails() -> None:
    """One line with the failing checks only."""
    health = Health({"data_dir": "cannot write: no space left on device", "git": None})
    assert not health.ok
    assert health.line() == "not healthy: data_dir: cannot write: no space left on device"
    assert json.loads(health.to_json())["failing"] == {"data_dir": "cannot write: no space left on device"}
    assert Health({"git": None}).line() == "healthy"


def test_a_refusal_always_says_not_leader() -> None:
    """Scripts look for these words."""
    assert Readiness(False, "standby", 7, "node-b is a standby").line() == "not leader: node-b is a standby"
    assert Readiness(False, "standby", 7, "not leader: x").line() == "not leader: x"
    assert Readiness(True, "leader", 7).line() == "ready: leads in term 7 and takes writes"


def test_a_floating_address_is_shown_with_what_is_wrong() -> None:
    """A leader takes writes all the same, and says so first."""
    claimed = AddressReport("vip 10.0.0.100 on eth0", "claimed")
    failed = AddressReport("dns stargate.local", "claiming", "no answer")
    stuck = AddressReport("command /move", "releasing", "exited 1")
    assert claimed.trouble() is None
    assert failed.trouble() == "dns stargate.local is not claimed: no answer"
    assert stuck.trouble() == "command /move is not released: exited 1"
    text = replace(LEADER, addresses=(claimed, failed)).to_text()
    assert "           vip 10.0.0.100 on eth0: claimed\n" in text
    assert "           dns stargate.local: claiming\n" in text
    line = Readiness(True, "leader", 3, "", "it is not claimed").line()
    assert line == "ready: leads in term 3 and takes writes; but it is not claimed"
