"""The leader's rules, each with something wrong: patches of the product's own code, for mutations.py."""

from typing import Any

from stargate_gate.replication.leader import link, sync_set
from stargate_gate.replication.leader.events import Purpose
from stargate_gate.replication.leader.instructions import JournalSent, Numbered, ReadRefs
from stargate_gate.replication.leader.link import Link
from stargate_gate.replication.leader.readings import Readings
from stargate_gate.replication.leader.sent_states import SentStates, State
from stargate_gate.replication.leader.sync_rules import Stage
from stargate_gate.replication.leader.sync_set import SyncSet
from tests.simulation import broken
from tests.simulation.mutation import Patch
from tests.simulation.network import Connection

_number = Readings._number
_refs_read = Readings._refs_read
_become = Link._become
_offer = Link._offer
_close = Connection.close


def _level_at_once(self: Link, stage: Stage) -> None:
    if stage is Stage.CATCHING_UP:
        self.incarnation = ""  # no record names it
        stage = Stage.LEVEL
    _become(self, stage)


def _offer_the_first_again(self: Any) -> None:
    if getattr(self, "_first_incarnation", None) is None:
        _offer(self)
        self._first_incarnation = self._offered
    else:
        self._offered = self.incarnation = self._first_incarnation
        self._offer_sent = True


def _number_without_noting(self: Any, reading: Any, state: State) -> None:
    _number(self, reading, state)
    out = self._context.out
    out[:] = [one for one in out if not isinstance(one, JournalSent)]


def _show_without_a_number(self: Any, reading: Any, state: State) -> None:
    if reading.wanted.purpose is not Purpose.SHOW:
        _refs_read(self, reading, state)
        return
    self.sent_states.shown(state.name, state.id, state.snapshot.digest)
    self._done(reading, Numbered(self._context.position, state))


def _read_again_once_synced(self: Any, reading: Any) -> None:
    reading.read, reading.synced = None, True
    self._context.out.append(ReadRefs(reading.wanted.read, reading.wanted.purpose))


def _number_what_was_read_again(self: Any, reading: Any, state: State) -> None:
    if getattr(reading, "synced", False):
        self.sent_states.is_on_disk(state)
        _number(self, reading, state)
    else:
        _refs_read(self, reading, state)


def _replicated_through_whoever_is_a_member(self: Any) -> int:
    if self._context.record.in_force:
        self._replicated = max(self._replicated, min(map(self._held_through, self.required)))
    return int(self._replicated)


def _close_and_stray(self: Connection, end: Any) -> None:
    self.world.network.strays.append((end.process.node, list(end.recent)))
    _close(self, end)


LATE_IS_NOT_WAITED_FOR = (Patch(sync_set, "required", broken.only_who_is_level),)
CATCHING_UP_IS_NOT_WAITED_FOR = (Patch(sync_set, "required", broken.only_the_record),)
ALONE_IN_STRICT = (Patch(sync_set, "judge", broken.alone_in_strict),)
CONFIRMED_IS_LEVEL = (Patch(Link, "_become", _level_at_once),)
LEVEL_FROM_ITS_LIST = (Patch(Link, "_required_from", lambda self: self._list_seq),)
SAME_INCARNATION_AGAIN = (Patch(Link, "_offer", _offer_the_first_again),)
ANY_TERM_IS_HEARD = (
    Patch(Link, "is_of_term", lambda *_: True),
    Patch(Connection, "close", _close_and_stray),  # no rule: it is too rare that a message turns up elsewhere
)
UNFOUND_IS_LEFT_OUT = (Patch(Link, "_unfound", lambda *_: []),)
UNCOVERED_HOLDS = (Patch(link, "Backlog", broken.UncoveredHolds),)
MATCHED_FOR_GOOD = (Patch(link, "Backlog", broken.MatchedForGood),)
SENT_IS_HELD = (Patch(link, "Backlog", broken.SentIsHeld),)
NOT_SYNCED_BEFORE = (Patch(SentStates, "was_read_again", lambda *_: True),)
READ_AFTER_SYNCING = (
    Patch(Readings, "_on_disk", _read_again_once_synced),
    Patch(Readings, "_refs_read", _number_what_was_read_again),
)
SHOWN_IS_FORGOTTEN = (Patch(SentStates, "shown", lambda *_: None),)
SNAPSHOTS_HAVE_NO_NUMBER = (Patch(Readings, "_refs_read", _show_without_a_number),)
ASYNC_FORGETS = (Patch(SyncSet, "replicated_through", property(_replicated_through_whoever_is_a_member)),)
SENT_IS_NOT_NOTED = (Patch(Readings, "_number", _number_without_noting),)
VANISHED_IS_CONFIRMED = (Patch(SyncSet, "lost", lambda *_: None),)
