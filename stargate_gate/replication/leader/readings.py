"""What is read of repositories, in which order it is put on disk, numbered and sent. Pure.

The theory. Standbys are told *states*, not events: what is sent of a repository is what that repository is
when it is read, with the difference to what was sent before as a short cut. So changes may be joined, lists
and changes may overlap, and what a standby is told last is right.

One reading at a time has the turn of a repository: it reads, and sends or shows what it read, before the next
one reads. So a standby never sees a state that has the number of another one. The turns are kept here, in a
queue for each repository: the product's tasks and the simulator's programs then get them in the same order,
and a reading that is given up passes its turn on in one place.

A state gets a number in this order, and no step begins before the one before it is done:

    read → put on disk → number it, note the number in the journal, send it

If the refs were read *after* they are put on disk, a newer value could be sent, confirmed by everybody, and
lost here by a power failure.

When a repository cannot be read after a push, standbys are told to compare it, and the push is not
acknowledged.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from stargate_gate.replication.leader.context import Context
from stargate_gate.replication.leader.events import (
    DigestRead,
    NotThere,
    OnDisk,
    Purpose,
    ReadEvent,
    ReadGivenUp,
    ReadWanted,
    RefsRead,
    RefsUnreadable,
    Vanished,
)
from stargate_gate.replication.leader.instructions import (
    CannotRead,
    JournalRefined,
    JournalSent,
    Missing,
    Moving,
    Note,
    Numbered,
    Outcome,
    ReadDone,
    ReadRefs,
    SyncRepository,
)
from stargate_gate.replication.leader.sent_states import LastRead, SentStates, State
from stargate_gate.replication.wire.messages import (
    MAX_BROKEN_REFS,
    Changed,
    Compare,
    Deleted,
    Listed,
    News,
    Unreadable,
)

READ_ATTEMPTS = 3  # of a repository that is moved just when it is read


@dataclass
class _Reading:
    """One reading, from ReadWanted to ReadDone.

    attempts    so many were begun
    read        what is being put on disk: a state, or why the repository cannot be read; None: it is read now
    """

    wanted: ReadWanted
    attempts: int = 0
    read: State | RefsUnreadable | None = None


class Readings:
    """Made once for a term.

    send  gives a change with a new number to every standby's backlog
    lost  told of a repository that has vanished, although no user has deleted it
    """

    def __init__(self, context: Context, send: Callable[[News], None], lost: Callable[[str], None]) -> None:
        self.sent_states = SentStates()
        self.last_read = LastRead()
        self._context = context
        self._send = send
        self._lost = lost
        self._deleted: set[str] = set()  # by users, in this term
        self._all: dict[int, _Reading] = {}
        self._turns: dict[str, deque[_Reading]] = {}  # by repository; the first one has the turn

    def state_of(self, read: int) -> str:
        """In words, for errors."""
        reading = self._all.get(read)
        if reading is None:
            return "no such reading"
        if not self._has_turn(reading):
            return "the reading waits for its turn"
        return "the repository is read" if reading.read is None else "the repository is put on disk"

    def want(self, event: ReadWanted) -> bool:
        """One more reading; False if there is one of that number."""
        if event.read in self._all:
            return False
        reading = self._all[event.read] = _Reading(event)
        turns = self._turns.setdefault(event.id, deque())
        turns.append(reading)
        if len(turns) == 1:
            self._begin(reading)
        return True

    def handle(self, event: ReadEvent) -> bool:
        """An answer to ReadRefs or SyncRepository; False if the state does not allow it.

        Transitions: `reading` is after ReadRefs, `syncing` after SyncRepository.

            reading  RefsRead        → syncing, or done if that state is on disk and has a number
            reading  DigestRead      → done (a list)
            reading  RefsUnreadable  → syncing (a push), or done
            reading  Vanished        → done
            syncing  OnDisk          → done: numbered, noted in the journal, sent
            either   NotThere        → reading again, READ_ATTEMPTS times in all, or done
            any      ReadGivenUp     → done, without an outcome
        """
        reading = self._all.get(event.read)
        if reading is None:
            return False
        if isinstance(event, ReadGivenUp):
            self._end(reading)
            return True
        if not self._has_turn(reading):
            return False
        syncing = reading.read is not None
        match event:
            case OnDisk() if syncing:
                self._on_disk(reading)
            case NotThere():
                self._not_there(reading)
            case RefsRead() if not syncing:
                self._refs_read(reading, event.state)
            case DigestRead() if not syncing:
                self._digest_read(reading, event)
            case RefsUnreadable() if not syncing:
                self._unreadable(reading, event)
            case Vanished() if not syncing:
                self._vanished(reading)
            case _:
                return False
        return True

    # -- turns -----------------------------------------------------------------------------------------

    def _has_turn(self, reading: _Reading) -> bool:
        return self._turns[reading.wanted.id][0] is reading

    def _begin(self, reading: _Reading) -> None:
        """It is its turn."""
        wanted = reading.wanted
        if wanted.purpose is Purpose.DELETE and wanted.name is not None:
            self.sent_states.forget(wanted.id)
            self._deleted.add(wanted.id)
            self._context.gone.add(wanted.id)
            self._send(Deleted(self._context.term, self._context.position + 1, wanted.name, wanted.id))
            self._done(reading, Numbered(self._context.position))
            return
        reading.attempts += 1
        reading.read = None
        self._context.out.append(ReadRefs(wanted.read, wanted.purpose))

    def _done(self, reading: _Reading, outcome: Outcome) -> None:
        self._context.out.append(ReadDone(reading.wanted.read, outcome))
        self._end(reading)

    def _end(self, reading: _Reading) -> None:
        """Pass the turn on."""
        del self._all[reading.wanted.read]
        turns = self._turns[reading.wanted.id]
        had_turn = turns[0] is reading
        turns.remove(reading)
        if not turns:
            del self._turns[reading.wanted.id]
        elif had_turn:
            self._begin(turns[0])

    # -- what was read ---------------------------------------------------------------------------------

    def _refs_read(self, reading: _Reading, state: State) -> None:
        self._deleted.discard(state.id)  # it was put back
        self._was_read(state, whole=state.snapshot.whole)
        if reading.wanted.purpose is Purpose.SHOW:
            if (lost := len(state.snapshot.broken)) > MAX_BROKEN_REFS:
                reason = f"{lost} of its refs have no value"
                self._unreadable(
                    reading, RefsUnreadable(self._context.now, reading.wanted.read, state.name, reason)
                )
                return
            self.sent_states.shown(state.name, state.id, state.snapshot.digest)
        if self.sent_states.was_read_again(state):
            self._number(reading, state)
        else:
            reading.read = state
            self._context.out.append(SyncRepository(reading.wanted.read))

    def _on_disk(self, reading: _Reading) -> None:
        state = reading.read
        if isinstance(state, State):
            self.sent_states.is_on_disk(state)
            self._number(reading, state)
        elif state is not None:
            self.sent_states.forget(reading.wanted.id)
            news = Compare(self._context.term, self._context.position + 1, state.name, reading.wanted.id)
            self._send(news)
            self._done(reading, CannotRead(state.name, state.reason))

    def _number(self, reading: _Reading, state: State) -> None:
        """The number of that state, which is on disk; it is sent if it was not.

        What was not sent yet when a standby is shown it is sent to the others as something to compare: a
        difference would not fit those who have seen it.
        """
        seq = self.sent_states.seq_of(state)
        if seq is None:
            seq = self._context.position + 1
            news = self.sent_states.send(state, self._context.term, seq)
            refs = tuple(change.ref for change in news.delta) if isinstance(news, Changed) else None
            self._context.out.append(JournalSent(seq, state.id, str(state.name), refs))
            self._send(news)
        if reading.wanted.purpose is Purpose.SEND_ANNOUNCED:
            self._context.out.append(JournalRefined(seq, state.id))
        self._done(reading, Numbered(seq, state))

    def _digest_read(self, reading: _Reading, event: DigestRead) -> None:
        identity = reading.wanted.id
        self._context.gone.discard(identity)
        self.last_read.note(identity, event.digest, whole=event.whole)
        self._context.out.append(Note(event.name, None))
        self.sent_states.shown(event.name, identity, event.digest)
        self._done(reading, Listed(event.name, identity, event.digest))

    def _was_read(self, state: State, *, whole: bool) -> None:
        self._context.gone.discard(state.id)
        self.last_read.note(state.id, state.snapshot.digest, whole=whole)
        self._context.out.append(Note(state.name, None))

    # -- what could not be read ------------------------------------------------------------------------

    def _unreadable(self, reading: _Reading, event: RefsUnreadable) -> None:
        name, identity, reason = event.name, reading.wanted.id, event.reason
        self._context.out.append(Note(name, f"{name} cannot be read here, and takes no pushes: {reason}"))
        last = self.last_read.get(identity)
        match reading.wanted.purpose:
            case Purpose.LIST:
                self._done(reading, Listed(name, identity, last, reason))
            case Purpose.SHOW:
                self.sent_states.forget(identity)
                context = self._context
                unreadable = Unreadable(context.term, context.position, name, identity, reason, last)
                self._done(reading, unreadable)
            case _:
                reading.read = event
                self._context.out.append(SyncRepository(reading.wanted.read))

    def _not_there(self, reading: _Reading) -> None:
        """It is being moved, or was replaced."""
        purpose = reading.wanted.purpose
        if purpose is not Purpose.LIST and reading.attempts < READ_ATTEMPTS:
            self._begin(reading)
        elif purpose is Purpose.SHOW:
            self._done(reading, Moving())
        else:
            self._missing(reading)

    def _vanished(self, reading: _Reading) -> None:
        """It is gone. A standby that is told so keeps what it has, and confirms the change that it asked for.

        So that confirmation says nothing of what was sent before: if the folder comes back, its state gets
        a new number; and a push that waits for an older number is refused.
        """
        identity = reading.wanted.id
        if reading.wanted.purpose is Purpose.SHOW:
            self.sent_states.forget(identity)
            self._context.gone.add(identity)
            if identity not in self._deleted:
                self._lost(identity)
        self._missing(reading)

    def _missing(self, reading: _Reading) -> None:
        if reading.wanted.purpose is not Purpose.LIST:
            self.last_read.forget(reading.wanted.id)  # no standby may confirm by that what was not read
        self._done(reading, Missing(self._context.position))
