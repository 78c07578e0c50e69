"""Which copies of this node are known to be unsound: damaged, and not replaced yet. One small durable file.

A copy is noted as soon as damage is found in it, on disk before anything else follows from that. The note is
removed when a fresh copy of the leader's is on disk in its place. Meanwhile this node

    does not serve the repository from that copy: reads are refused, with the reason
    does not confirm it to the leader
    gives it to no other node

The notes are about this node's disk only. Which nodes lack acknowledged pushes is not known from them: a node
may be damaged without knowing it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import structlog

from stargate_gate.aio.tasks import finish
from stargate_gate.datadir.files import read_json, write_json_durably
from stargate_gate.errors import BrokenRepositoryError
from stargate_gate.formats import UNSOUND

log = structlog.get_logger()

FILE_NAME = "unsound.json"
SHOWN = 5  # in status
MAX_WHY_CHARACTERS = 300  # what git says of damage can be long; the log has all of it


@dataclass(frozen=True)
class Note:
    """One unsound copy.

    name  what the repository was called when it was noted
    why   what is wrong with it, for people
    at    when it was found, in seconds since 1970
    """

    name: str
    why: str
    at: int


Listener: TypeAlias = Callable[[str, Note | None], None]  # repository id; None: there is no note any more


class UnsoundCopies:
    """One per node. Made by `open`; what it tells is from memory."""

    def __init__(
        self, path: Path, notes: Mapping[str, Note] | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._notes: dict[str, Note] = dict(notes or {})
        self._now = now
        self._listeners: list[Listener] = []
        self._turn = asyncio.Lock()

    @classmethod
    def open(cls, path: Path) -> "UnsoundCopies":
        """Read the file. Blocks: for a starting node.

        A damaged file is not believed, and is logged: the damage of the copies is found again when they are
        checked.

        Raises:
            OSError: it cannot be read.
            NewerFormatError: a newer version has written it.
        """
        try:
            return cls(path, from_json(read_json(path, UNSOUND) or {}))
        except ValueError as error:
            log.error(  # noqa: TRY400 - no bug of ours
                "unsound_notes_damaged",
                path=str(path),
                error=str(error),
                remedy="check all repositories of this node",
            )
            return cls(path)

    def tell(self, listener: Listener) -> None:
        """From now on, call `listener` whenever a note is on disk, or was removed."""
        self._listeners.append(listener)

    def notes(self) -> Mapping[str, Note]:
        """All notes, by repository id; a view that follows what happens."""
        return MappingProxyType(self._notes)

    def lines(self, *, leads: bool) -> tuple[str, ...]:
        """For status: what is damaged, why, and what happens; the first few, and how many more.

        leads  this node leads, so that nobody has a newer copy for it
        """
        what_happens = (
            "it is not served; stop this node, so that another one takes over and gives it a sound copy"
            if leads
            else "it is not served, and is fetched anew from the leader"
        )
        lines = tuple(
            f"the copy of {note.name} here is damaged ({note.why}): {what_happens}"
            for note in sorted(self._notes.values(), key=lambda note: note.name)
        )
        if len(lines) <= SHOWN:
            return lines
        return (*lines[:SHOWN], f"{len(lines) - SHOWN} more copies here are damaged: see the log")

    def require_sound(self, identity: str) -> None:
        """Return if that copy may be served.

        Raises:
            BrokenRepositoryError: it is noted as unsound.
        """
        if (note := self._notes.get(identity)) is not None:
            raise BrokenRepositoryError(
                f"the copy of {note.name} on this node is damaged ({note.why}) and is being replaced: "
                f"try again later, or fetch from another node"
            )

    async def note(self, identity: str, name: str, why: str) -> None:
        """That copy is unsound: on disk when this returns. The first note stays if it is noted again.

        Raises:
            OSError: it is not on disk. It counts as noted in memory all the same, so nothing is served from
                it; what is to follow from the note must not be done.
        """
        await finish(self._note(identity, name, why))

    async def clear(self, identity: str) -> None:
        """A fresh copy is in its place, and on disk. Does nothing if there is no note.

        Raises:
            OSError: the note may still be on disk; it stays in memory.
        """
        await finish(self._clear(identity))

    async def _note(self, identity: str, name: str, why: str) -> None:
        async with self._turn:
            before = self._notes.get(identity)
            note = before or Note(name, " ".join(why.split())[:MAX_WHY_CHARACTERS], int(self._now()))
            self._notes[identity] = note
            await asyncio.to_thread(self._write, dict(self._notes))
        if before is None:
            log.error("copy_unsound", repository=note.name, id=identity, why=note.why)
        for listener in self._listeners:
            listener(identity, note)

    async def _clear(self, identity: str) -> None:
        async with self._turn:
            if identity not in self._notes:
                return
            left = {one: note for one, note in self._notes.items() if one != identity}
            await asyncio.to_thread(self._write, left)
            note = self._notes.pop(identity)
        log.info("copy_sound_again", repository=note.name, id=identity)
        for listener in self._listeners:
            listener(identity, None)

    def _write(self, notes: Mapping[str, Note]) -> None:
        write_json_durably(self._path, to_json(notes), UNSOUND)


def to_json(notes: Mapping[str, Note]) -> dict[str, Any]:
    """As it is written."""
    return {"copies": {identity: asdict(note) for identity, note in sorted(notes.items())}}


def from_json(value: Mapping[str, Any]) -> dict[str, Note]:
    """The reverse of `to_json`. Raises ValueError."""
    try:
        copies = value.get("copies", {})
        return {
            str(identity): Note(str(one["name"]), str(one["why"]), int(one["at"]))
            for identity, one in copies.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no notes of unsound copies: {error!r}") from error
