"""The authorized_keys file as it is now: a thread of its own reads it, and what was read is swapped in.

The event loop only ever looks at what is in memory. Everything that can take long happens in the thread:
to look at the file (on a network volume that waits for the server), to read it, and to parse it. Parsing
is work for Python, so the thread would slow the loop down by holding the interpreter; it lets go of it
for a moment after each hundred lines, and of the processor for half of the time.

A login asks for a fresh look and waits for it, but no longer than `LOOK_WAIT_S`: so a key counts from the
next login on, and a file that takes long, or hangs, delays logins by that much and stops nothing. Until
what is new has been read, the keys read before stay in force.
"""

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from stargate_gate.access.authorized_keys import MAX_FILE_BYTES, AuthorizedKeys, parse_authorized_keys
from stargate_gate.access.key_blocks import problem_of_whole
from stargate_gate.aio.foreign_files import read_regular

log = structlog.get_logger()

RACY_S = (
    2.0  # two changes within one tick of a file system's clock look alike; HFS+, SMB and FAT tick in 1 to 2 s
)
WATCH_S = 5.0  # without logins the file is looked at that often, so that status knows of it
LOOK_WAIT_S = 0.5  # what a login waits for a fresh look; a small file on a local disk takes a millisecond
FIRST_WAIT_S = 2.0  # what a starting node waits for its keys; it serves its peers without them
SLOW_S = 5.0  # a look that takes longer is told to operators
PAUSE_S = 0.001  # after each chunk of lines: about as long as the chunk took
OPEN_TO_WRITE = 0o002


@dataclass(frozen=True)
class KeysInForce:
    """What the last look has left. `trouble` says why the file as it is now could not be read."""

    keys: AuthorizedKeys = field(default_factory=AuthorizedKeys)
    trouble: str | None = None


def read_authorized_keys(path: Path) -> AuthorizedKeys:
    """The file at `path` as it is now, for who only looks at it once. Blocks.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file of keys at all.
    """
    content, _ = read_regular(path, MAX_FILE_BYTES)
    if (problem := problem_of_whole(content)) is not None:
        raise ValueError(problem)
    return parse_authorized_keys(content)


class KeyReader:
    """What the thread does: looks at one file, and reads it again if it has changed. Blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, ...] | None = None
        self._digest = b""
        self._ever = False
        self.in_force = KeysInForce()

    def look(self, *, anew: bool = False) -> KeysInForce:
        """The keys in force now. Never raises. Reads only what has changed, or `anew`."""
        try:
            if anew or self._signature is None or _signature(self._path.stat()) != self._signature:
                self._read()
        except OSError as error:
            self._signature = None
            self._report_trouble(f"it cannot be read ({error.strerror or error})")
        except ValueError as error:
            self._report_trouble(str(error))
        return self.in_force

    def _read(self) -> None:
        content, info = read_regular(self._path, MAX_FILE_BYTES)
        self._signature = _signature(info) if time.time() - info.st_mtime > RACY_S else None
        if info.st_mode & OPEN_TO_WRITE:
            raise ValueError("everybody can write to it: run chmod o-w on it")
        digest = hashlib.sha256(content).digest()
        if digest == self._digest:
            self.in_force = KeysInForce(self.in_force.keys)
            return
        if (problem := problem_of_whole(content)) is not None:
            raise ValueError(problem)
        keys = parse_authorized_keys(content, lambda: time.sleep(PAUSE_S))
        self._digest, self._ever = digest, True
        self.in_force = KeysInForce(keys)
        log.info("authorized_keys_read", path=str(self._path), keys=len(keys.entries), lines=keys.lines)
        for problem in keys.problems:
            log.warning("authorized_keys_problem", path=str(self._path), problem=problem)

    def _report_trouble(self, what: str) -> None:
        so = (
            "the keys read last stay in force"
            if self._ever
            else "nobody can log in: put public keys there, one a line"
        )
        trouble = f"{what}; {so}"
        if trouble != self.in_force.trouble:
            log.warning("authorized_keys_unreadable", path=str(self._path), trouble=trouble)
        self.in_force = KeysInForce(self.in_force.keys, trouble)


class KeyFile:
    """One file and the thread that watches it, from `start` to `close`. All calls are for the event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = KeyReader(path)
        self._asked = threading.Condition()
        self._wanted = 0  # the number of the last look that was asked for
        self._begun_for = 0  # the number that the look that runs, or ran last, was begun for
        self._anew = False
        self._closed = False
        self._looking_since: float | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._watch, name="authorized-keys", daemon=True)

    @property
    def keys(self) -> AuthorizedKeys:
        """The keys in force, from memory."""
        return self._reader.in_force.keys

    @property
    def problems(self) -> tuple[str, ...]:
        """What operators should know of this file, as finished lines; empty when all is well."""
        in_force = self._reader.in_force
        trouble = [in_force.trouble] if in_force.trouble is not None else []
        taking_s = self._taking_s()
        if taking_s > SLOW_S:
            trouble.insert(
                0,
                f"to read it takes {taking_s:.0f} s already: does the disk that it is on answer? "
                "The keys read last stay in force",
            )
        return tuple(f"{self._path}: {problem}" for problem in (*trouble, *in_force.keys.problems))

    async def start(self) -> None:
        """Begin. Returns after the first look, or after `FIRST_WAIT_S`."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        await self._wait_for_look(FIRST_WAIT_S)

    def close(self) -> None:
        """End the thread; one that hangs is left behind. Harmless when repeated."""
        with self._asked:
            self._closed = True
            self._asked.notify()

    async def look(self) -> AuthorizedKeys:
        """The keys in force after a fresh look, or as they are if that takes longer than `LOOK_WAIT_S`."""
        await self._wait_for_look(max(0.0, LOOK_WAIT_S - self._taking_s()))
        return self.keys

    def reload(self) -> None:
        """Read the file anew, whether or not it seems to have changed. Returns at once."""
        with self._asked:
            self._anew = True
            self._wanted += 1
            self._asked.notify()

    async def _wait_for_look(self, limit_s: float) -> None:
        """Ask for a look that begins after this call, and wait for its end, at most `limit_s` seconds."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        with self._asked:
            if self._closed:
                return
            self._wanted += 1
            waiting = (self._wanted, done)
            self._waiting.append(waiting)
            self._asked.notify()
        try:
            async with asyncio.timeout(limit_s):
                await done
        except TimeoutError:
            pass
        finally:
            with self._asked, contextlib.suppress(ValueError):
                self._waiting.remove(waiting)

    def _taking_s(self) -> float:
        """For how long the look that runs has been running; 0.0 if none runs."""
        since = self._looking_since
        return 0.0 if since is None else time.monotonic() - since

    # --- in the thread --------------------------------------------------------------------------

    def _watch(self) -> None:
        while True:
            with self._asked:
                if self._wanted == self._begun_for and not self._closed:
                    self._asked.wait(WATCH_S)
                if self._closed:
                    return
                self._begun_for = self._wanted
                anew, self._anew = self._anew, False
                self._looking_since = time.monotonic()
            self._look(anew=anew)
            self._looking_since = None
            with self._asked:
                ended = [done for number, done in self._waiting if number <= self._begun_for]
            self._tell(ended)

    def _look(self, *, anew: bool) -> None:
        try:
            self._reader.look(anew=anew)
        except Exception:  # whatever it was, the next change of the file is looked at all the same
            log.exception("authorized_keys_reader_failed", path=str(self._path))

    def _tell(self, ended: list[asyncio.Future[None]]) -> None:
        if not ended or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(_finish, ended)


def _finish(ended: list[asyncio.Future[None]]) -> None:
    for done in ended:
        if not done.done():
            done.set_result(None)


def _signature(info: os.stat_result) -> tuple[int, ...]:
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_dev)
