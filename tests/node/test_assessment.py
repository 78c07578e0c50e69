"""What of a node's state is a concern, and how bad: a table from situations to words."""

from dataclasses import replace

import pytest

from stargate_gate.health.concerns import level_of
from stargate_gate.health.report import Health
from stargate_gate.node.assessment import Situation, concerns, living_leader, recorded_leader
from stargate_gate.status import AddressReport, StandbyStatus

from .situations import ALONE as ALONE_NODE
from .situations import CUT, FOLLOWING, FRESH, IN_SYNC, LEADER, LEADING, STANDBY, A, C

ALONE = ALONE_NODE.view
DIFFERS = replace(IN_SYNC, differs=("x",))


@pytest.mark.parametrize(
    ("situation", "kinds", "level"),
    [
        (LEADER, [], 0),
        (STANDBY, [], 0),
        (replace(LEADER, ready=False), ["no_writes"], 2),
        (replace(LEADER, view=ALONE, standbys=()), ["sync_set_empty"], 2),
        (replace(LEADER, view=ALONE, standbys=(), mode="async"), ["alone_in_async"], 1),
        (replace(LEADER, view=ALONE, standbys=(), cluster=False), [], 0),
        (replace(LEADER, standbys=()), ["member_absent"], 1),
        (replace(LEADER, standbys=(), mode="strict"), ["sync_set_gone"], 2),
        (replace(LEADER, standbys=(IN_SYNC, StandbyStatus("node-c", False, 3, 1.0))), ["not_in_sync"], 1),
        (replace(LEADER, standbys=(replace(IN_SYNC, problem="x"),)), ["not_reached"], 1),
        (replace(LEADER, health=Health({"git": "gone"})), ["unhealthy"], 2),
        (replace(LEADER, health=Health({}, warnings=("no key",))), ["nobody_can_log_in"], 2),
        (replace(LEADER, view=replace(LEADING, trouble="the volume hangs")), ["lock_unavailable"], 2),
        (replace(LEADER, addresses=(AddressReport("vip", "claiming", "x"),)), ["address_not_claimed"], 2),
        (replace(STANDBY, addresses=(AddressReport("vip", "releasing", "x"),)), ["address_not_released"], 1),
        (replace(LEADER, rescued_refs=2), ["rescued_refs"], 1),
        (replace(LEADER, standbys=(DIFFERS,), warnings=("y",)), ["nodes_differ", "other"], 1),
        (replace(STANDBY, mirror=CUT), ["cannot_follow"], 1),
        (replace(STANDBY, me=C, mirror=CUT), ["cut_off"], 2),
        (replace(STANDBY, me=C), ["not_in_sync"], 1),
        (replace(STANDBY, mirror=replace(STANDBY.mirror, problem="x")), ["not_reached"], 1),
        (replace(STANDBY, mirror=replace(STANDBY.mirror, last_error="x")), ["mirror_error"], 1),
        (replace(STANDBY, mirror=CUT, view=replace(FOLLOWING, trouble="x")), ["nobody_leads"], 2),
        (replace(STANDBY, mirror=CUT, view=replace(FOLLOWING, record=None)), ["starting"], 3),
        (replace(STANDBY, me=A, mirror=None), ["nobody_leads"], 2),
        (replace(STANDBY, mirror=None, view=replace(FOLLOWING, record=FRESH)), ["nobody_leads"], 2),
    ],
)  # fmt: skip
def test_each_situation_has_its_concerns(situation: Situation, kinds: list[str], level: int) -> None:
    """And the worst of them is what `status` ends with."""
    found = list(concerns(situation))
    assert [one.kind for one in found] == kinds
    assert level_of(found) == level
    assert all(one.text for one in found)


def test_who_leads_is_known_only_by_a_living_connection() -> None:
    """The record names who led when it was written."""
    assert living_leader(LEADER) == living_leader(STANDBY) == "node-a"
    cut = replace(STANDBY, mirror=CUT)
    assert living_leader(cut) is None
    assert recorded_leader(cut) == "node-a"
    assert recorded_leader(replace(cut, view=replace(FOLLOWING, trouble="another file"))) is None
