"""Broken rules about damaged copies, and the mutations that they are; see mutations.py."""

from typing import Any

from stargate_gate.replication.standby.acks import Acks
from stargate_gate.replication.standby.apply_steps import ApplySteps
from stargate_gate.replication.standby.core import StandbySession
from stargate_gate.replication.standby.rescue_steps import RescueSteps
from stargate_gate.replication.standby.steps import Steps
from tests.simulation.broken_standby import LIE, keep_nothing
from tests.simulation.mutation import Mutation, Patch
from tests.simulation.rules import Rules

_ROT = ("bit rot", "scrub")
_LISTS = ("bit rot", "scrub", "scrub", "broken connection", "full check")
_SESSIONS = ("bit rot", "scrub", "kill", "broken connection")

_sound_copy = ApplySteps._sound_copy


def _cleared_first(self: ApplySteps, wanted: Any) -> Steps[Any]:
    yield from self._forget_unsound(wanted.id, LIE)
    return (yield from _sound_copy(self, wanted))


def _unsound_is_sound(self: ApplySteps, wanted: Any) -> Steps[Any]:
    copy, problem = yield from _sound_copy(self, wanted)
    return copy, None if wanted.id in self._unsound else problem


FOUND_AND_FORGOTTEN = (Patch(StandbySession, "_replace", lambda _, __: None),)
UNSOUND_IS_CONFIRMED = (
    Patch(StandbySession, "_is_unsound", lambda _, __: False),
    Patch(Acks, "_may_be_told", lambda _, __: True),
)
UNSOUND_IN_A_LIST = (Patch(StandbySession, "_replaces", lambda _: False),)
UNSOUND_STAYS = (Patch(ApplySteps, "_sound_copy", _unsound_is_sound),)
CLEARED_FIRST = (Patch(ApplySteps, "_sound_copy", _cleared_first),)
DAMAGED_NOT_KEPT = (Patch(RescueSteps, "keep_damaged", keep_nothing),)


MUTATIONS = (
    Mutation(
        "what was found damaged is confirmed",
        Rules(),
        "I9",
        _ROT,
        gap=20,
        every=10,
        patches=UNSOUND_IS_CONFIRMED,
        seed=4,
    ),
    Mutation(
        "a list is confirmed with a damaged copy",
        Rules(),
        "I9",
        _LISTS,
        gap=15,
        every=8,
        patches=UNSOUND_IN_A_LIST,
    ),
    Mutation("a damaged copy that was found is forgotten", Rules(), "I9", _ROT, patches=FOUND_AND_FORGOTTEN),
    Mutation("notes of damaged copies are not read", Rules(read_notes=False), "I9", _SESSIONS),
    Mutation(
        "a damaged copy stays if its refs are right",
        Rules(),
        "I5",
        _ROT,
        recover=True,
        patches=UNSOUND_STAYS,
        seed=18,
    ),
    Mutation("the note goes before the damaged copy", Rules(), "I9", _ROT, patches=CLEARED_FIRST),
    Mutation(
        "a damaged copy is not kept",
        Rules(),
        "I4",
        ("bit rot", "scrub", "lost lock", "isolation"),
        mode="async",
        patches=DAMAGED_NOT_KEPT,
        seed=21,
    ),
)
