"""The authorized_keys file: a thread reads it, and the event loop uses the keys that were read last.

The event loop uses only what is in memory. Everything that can take long happens in the thread: to look at
the file (on a network volume this waits for the server), to read it, and to parse it. Parsing holds the
interpreter's lock and would slow the loop down. So the thread sleeps for a moment after each hundred lines,
about half of the time in all.

A login asks for a fresh look and waits for it for `LOOK_WAIT_S` at most. So a new key counts from the next
login on, and a file that is slow or hangs delays each login by that time and stops nothing. The keys that
were read before stay in force until the new ones were read.
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

# Two changes within one tick of the file system's clock look like one; HFS+, SMB and FAT tick in 1 to 2 s.
RACY_S = 2.0
WATCH_S = 5.0  # between looks when there are no logins, for status
LOOK_WAIT_S = 0.5  # a login waits for a fresh look; a small file on a local disk takes a millisecond
FIRST_WAIT_S = 2.0  # a starting node waits for its keys; it can serve its peers without them
SLOW_S = 5.0  # status has a warning if a look takes longer
PAUSE_S = 0.001  # after each chunk of lines: about as long as the chunk took
OPEN_TO_WRITE = 0o002


@dataclass(frozen=True)
class KeysInForce:
    """The result of the last look. `trouble`: why the file as it is now could not be read."""

    keys: AuthorizedKeys = field(default_factory=AuthorizedKeys)
    trouble: str | None = None


def read_authorized_keys(path: Path) -> AuthorizedKeys:
    """Read the file at `path` once. Blocks.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a file of keys.
    """
    content, _ = read_regular(path, MAX_FILE_BYTES)
    if (problem := problem_of_whole(content)) is not None:
        raise ValueError(problem)
    return parse_authorized_keys(content)


class KeyReader:
    """Reads one file again whenever it has changed. Runs in the thread of `KeyFile`. Blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, ...] | None = None
        self._digest = b""
        self._read_once = False
        self.in_force = KeysInForce()

    def look(self, *, anew: bool = False) -> KeysInForce:
        """The keys in force now. Reads the file only if it has changed, or if `anew`. Never raises."""
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
        self._digest, self._read_once = digest, True
        self.in_force = KeysInForce(keys)
        log.info("authorized_keys_read", path=str(self._path), keys=len(keys.entries), lines=keys.lines)
        for problem in keys.problems:
            log.warning("authorized_keys_problem", path=str(self._path), problem=problem)

    def _report_trouble(self, what: str) -> None:
        effect = (
            "the keys read last stay in force"
            if self._read_once
            else "nobody can log in: put public keys there, one a line"
        )
        trouble = f"{what}; {effect}"
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
        self._begun_for = 0  # the value of `_wanted` when the last look began
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
        """Texts about this file for `status`; empty when all is well."""
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
        """Start the thread. Returns after the first look, or after `FIRST_WAIT_S`."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        await self._wait_for_look(FIRST_WAIT_S)

    def close(self) -> None:
        """End the thread. One that hangs in a system call is left behind. Can be called twice."""
        with self._asked:
            self._closed = True
            self._asked.notify()

    async def look(self) -> AuthorizedKeys:
        """Look at the file, but wait for that `LOOK_WAIT_S` at most; the keys in force then."""
        await self._wait_for_look(max(0.0, LOOK_WAIT_S - self._taking_s()))
        return self.keys

    def reload(self) -> None:
        """Have the file read again, even if it seems unchanged. Returns at once."""
        with self._asked:
            self._anew = True
            self._wanted += 1
            self._asked.notify()

    async def _wait_for_look(self, limit_s: float) -> None:
        """Ask for a look that begins after this call, and wait `limit_s` seconds at most for its end."""
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
        """How long the current look has taken so far; 0.0 if there is none."""
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
            # Only those who had asked when the look began: a later change of the file may not have been seen.
            with self._asked:
                ended = [done for number, done in self._waiting if number <= self._begun_for]
            self._wake(ended)

    def _look(self, *, anew: bool) -> None:
        try:
            self._reader.look(anew=anew)
        except Exception:  # the thread must go on, so that the next change of the file is read
            log.exception("authorized_keys_reader_failed", path=str(self._path))

    def _wake(self, ended: list[asyncio.Future[None]]) -> None:
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
