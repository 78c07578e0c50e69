"""A standby's side of joining the sync set: the offered incarnation is noted, and then confirmed. Pure."""

from typing import TYPE_CHECKING

from stargate_gate.aio.backoff import Backoff
from stargate_gate.errors import StargateError
from stargate_gate.replication.standby.acks import Acks
from stargate_gate.replication.standby.steps import Log, NoteIncarnation, Pause, Steps

if TYPE_CHECKING:
    from stargate_gate.replication.standby.answers import OnDisk


def enroll(incarnation: str, leader: str, acks: Acks, backoff: Backoff) -> Steps[None]:
    """Note it and say so. A disk that takes no writes keeps this node out of the sync set, no more."""
    failures = 0
    while True:
        try:
            on_disk: OnDisk = yield NoteIncarnation(incarnation)
        except StargateError as error:
            failures += 1
            if failures == 1:
                yield Log.of("warning", "membership_not_noted", error=error.message, leader=leader)
            yield Pause(backoff.delay_s(failures))
        else:
            acks.enrolled(incarnation, on_disk)
            return
