"""Periodic probes: can this node still write its disk, run git, take connections?

Each probe loops in its own daemon thread, so that a disk that hangs stops only that thread. Results are kept
in memory. A probe that takes too long counts as failed. `health` never waits.
"""

import errno
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stargate_gate.health.report import Health

DATA_DIR_EVERY_S = 2.0
DATA_DIR_LIMIT_S = 5.0  # a local disk that takes longer for one fsync serves nobody
GIT_EVERY_S = 30.0
GIT_LIMIT_S = 10.0
SSH_EVERY_S = 5.0
SSH_LIMIT_S = 3.0
MIN_FREE_BYTES = 64 * 2**20  # less cannot take an ordinary push
MIN_FREE_PARTS = 50  # but on a small volume, less than a fiftieth of it
PROBE_FILE = ".health-probe"

LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # compared with, not listened on


@dataclass(frozen=True)
class Probe:
    """One thing to look at. `run` returns None or what is wrong in one line; it may block.

    name      as /healthz shows it
    every_s   pause between the end of one run and the start of the next
    limit_s   a run that takes longer counts as failed, and goes on
    """

    name: str
    every_s: float
    limit_s: float
    run: Callable[[], str | None]


@dataclass
class _Result:
    """What a probe said last. `started_s` is set while it runs."""

    text: str | None = "not checked yet"
    started_s: float | None = None
    failing_since_s: float | None = None


class Checks:
    """Runs probes from `start` to `stop`; `health` returns their latest results.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, probes: Sequence[Probe], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._probes = {probe.name: probe for probe in probes}
        self._clock = clock
        self._results = {name: _Result(failing_since_s=clock()) for name in self._probes}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin. Each probe runs at once, then periodically."""
        for probe in self._probes.values():
            thread = threading.Thread(
                target=self._loop, args=(probe,), name=f"check-{probe.name}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self, limit_s: float = 1.0) -> None:
        """End the probes; one that hangs is left behind, as a daemon thread, after `limit_s` in all."""
        self._stop.set()
        deadline = time.monotonic() + limit_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def health(self) -> Health:
        """The latest results, without waiting."""
        with self._guard:
            return Health({name: self._text(probe) for name, probe in self._probes.items()})

    def failing_for_s(self, name: str) -> float:
        """For how long the check `name` has been failing without a break; 0.0 if it passes."""
        with self._guard:
            result = self._results[name]
            if self._text(self._probes[name]) is None:
                return 0.0
            since = result.failing_since_s if result.failing_since_s is not None else result.started_s
            return self._clock() - (since if since is not None else self._clock())

    def _text(self, probe: Probe) -> str | None:
        result = self._results[probe.name]
        if result.started_s is not None:
            running_s = self._clock() - result.started_s
            if running_s > probe.limit_s:
                return f"no result for {running_s:.0f} s (limit {probe.limit_s:.0f} s)"
        return result.text

    def _loop(self, probe: Probe) -> None:
        result = self._results[probe.name]
        while not self._stop.is_set():
            with self._guard:
                result.started_s = self._clock()
            text = _outcome(probe)
            with self._guard:
                result.started_s = None
                result.text = text
                if text is None:
                    result.failing_since_s = None
                elif result.failing_since_s is None:
                    result.failing_since_s = self._clock()
            self._stop.wait(probe.every_s)


def _outcome(probe: Probe) -> str | None:
    try:
        return probe.run()
    except OSError as error:
        return error.strerror or str(error)
    except Exception as error:  # noqa: BLE001 # a probe that breaks must not end its loop unseen
        return f"{type(error).__name__}: {error}"


def data_dir_probe(data_dir: Path) -> Probe:
    """Whether the data_dir takes a small file down to the disk, and has room left."""

    def run() -> str | None:
        path = data_dir / "run" / PROBE_FILE
        try:
            _write_and_sync(path)
        except OSError as error:
            return f"cannot write: {error.strerror or error}"
        return _room(data_dir)

    return Probe("data_dir", DATA_DIR_EVERY_S, DATA_DIR_LIMIT_S, run)


def _write_and_sync(path: Path) -> None:
    """Write a whole block, so that a full disk shows, and take it down to the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, b"\0" * 4096)
        os.fsync(fd)
    finally:
        os.close(fd)


def _room(data_dir: Path) -> str | None:
    volume = os.statvfs(data_dir)
    free_bytes = volume.f_bavail * volume.f_frsize
    wanted_bytes = min(MIN_FREE_BYTES, volume.f_blocks * volume.f_frsize // MIN_FREE_PARTS)
    if free_bytes < wanted_bytes:
        return f"{free_bytes // 2**20} MiB free, {wanted_bytes // 2**20} MiB needed: make room"
    if volume.f_files and not volume.f_favail:
        return "no inodes free: make room"
    return None


def git_probe(argv: Sequence[str], environment: Mapping[str, str]) -> Probe:
    """Whether git runs: `argv` is a harmless git command, as `git --version`."""

    def run() -> str | None:
        try:
            done = subprocess.run(
                argv,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=GIT_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"git gave no answer in {GIT_LIMIT_S:.0f} s"
        except OSError as error:
            return f"git does not start: {error.strerror}"
        return f"git exited {done.returncode}" if done.returncode else None

    return Probe("git", GIT_EVERY_S, 2 * GIT_LIMIT_S, run)


def ssh_probe(addresses: Callable[[], Sequence[tuple[str, int]]]) -> Probe:
    """Whether the SSH listener takes connections on each (host, port) that `addresses` names.

    [::] where the machine has no IPv6 address at all can be listened on and not be connected to, by
    nobody: that is no fault of the node's, as long as it has another address.
    """

    def run() -> str | None:
        bound = addresses()
        if not bound:
            return "not listening"
        for host, port in bound:
            try:
                socket.create_connection((LOOPBACK_OF.get(host, host), port), SSH_LIMIT_S).close()
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and host in LOOPBACK_OF and len(bound) > 1:
                    continue
                return f"no connection to {host} port {port}: {error.strerror or error}"
        return None

    return Probe("ssh", SSH_EVERY_S, 2 * SSH_LIMIT_S * 4, run)
