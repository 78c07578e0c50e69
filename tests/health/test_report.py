"""How the status report reads, for programs and for people."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stargate_gate.health.report import (
    AddressReport,
    Health,
    MirrorReport,
    Readiness,
    StandbyReport,
    Status,
    behind,
    duration,
)

LEADER = Status(
    node="node-a",
    role="leader",
    term=7,
    leader="node-a",
    mode="async",
    ready=True,
    version="1.2.3",
    sync_set=("node-b",),
    standbys=(StandbyReport("node-b", True, 0, 0.0), StandbyReport("node-c", False, 12, 3.14159)),
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
    mirror=MirrorReport(True, "node-a", 3, 1.25),
)


def test_json_has_the_keys_of_the_contract() -> None:
    """Programs rely on these names and types."""
    report = json.loads(LEADER.to_json())
    assert report["node"] == "node-a"
    assert report["role"] == "leader"
    assert report["term"] == 7
    assert report["leader"] == "node-a"
    assert report["sync_set"] == ["node-b"]
    assert report["standbys"][1] == {"name": "node-c", "in_sync": False, "lag_changes": 12, "lag_s": 3.142}
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
    assert json.loads(STANDBY.to_json())["mirror"] == {
        "connected": True, "leader": "node-a", "behind_changes": 3, "behind_s": 1.25, "last_error": None,
    }  # fmt: skip


def test_json_says_null_when_nobody_leads() -> None:
    """`leader` is a name or null, never an empty text."""
    assert json.loads(replace(STANDBY, leader=None).to_json())["leader"] is None


def test_the_first_line_says_who_leads_and_whether_all_is_well() -> None:
    """An operator under stress reads one line."""

    def first(status: Status) -> str:
        return status.to_text().splitlines()[0]

    assert first(LEADER) == "node-a leads prod in term 7; all is well"
    assert first(replace(LEADER, warnings=("x", "y"))) == "node-a leads prod in term 7; 2 warnings"
    assert first(replace(LEADER, ready=False, reason="it steps down")) == (
        "node-a leads prod in term 7 but takes no writes: it steps down"
    )
    assert first(STANDBY) == "node-a leads prod in term 7; this is node-b, a standby; all is well"
    assert "not connected" in first(replace(STANDBY, mirror=MirrorReport(False, "node-a")))
    assert first(replace(STANDBY, leader=None, reason="the lock file is missing")) == (
        "nobody leads prod: the lock file is missing"
    )
    assert first(replace(LEADER, cluster=None)) == "node-a leads in term 7; all is well"


def test_text_is_short_and_aligned() -> None:
    """The whole report, as people see it."""
    assert replace(LEADER, warnings=("the sync set is empty",)).to_text() == (
        "node-a leads prod in term 7; 1 warning\n"
        "\n"
        "node       node-a, leader, up 3 h 25 min, stargate 1.2.3\n"
        "address    stargate.local:2222\n"
        "mode       async, position 1042\n"
        "sync set   node-b\n"
        "standbys   node-b  in sync      up to date\n"
        "           node-c  not in sync  12 changes, 3.1 s behind\n"
        "rescued    0 refs\n"
        "! warning  the sync set is empty\n"
    )


def test_text_of_a_standby_says_how_far_behind_it_is() -> None:
    """Its link, its lag and its last error."""
    text = replace(STANDBY, mirror=MirrorReport(False, "node-a", 3, 1.25, "no route to host")).to_text()
    assert "mirror     not connected to node-a, 3 changes, 1.2 s behind\n" in text
    assert "! mirror   last error: no route to host\n" in text


@given(st.text(max_size=300), st.text(min_size=1, max_size=63))
def test_text_never_breaks_a_terminal(words: str, name: str) -> None:
    """Whatever stands in an error or a name: at most 80 columns, nothing that moves the cursor."""
    text = replace(
        STANDBY, warnings=(words,), standbys=(StandbyReport(name, False),),
        mirror=MirrorReport(False, name, None, None, words),
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
