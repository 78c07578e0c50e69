"""How much room the volumes have: measured by a thread for each, so that one that hangs stops nothing else.

This is for status and metrics. Whether the data_dir takes writes at all is a check of /healthz (checks.py).
"""

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from stargate_gate.health.checks import Checks, Probe
from stargate_gate.status import VolumeStatus

EVERY_S = 10.0
LIMIT_S = 5.0  # statvfs takes microseconds, or for ever


class Volumes:
    """Measures from `start` to `stop`. `paths`: what each volume is for, and a path on it.

    `clock` is monotonic, in seconds.
    """

    def __init__(self, paths: Mapping[str, Path], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = dict(paths)
        self._clock = clock
        self._measured: dict[str, tuple[float, os.statvfs_result]] = {}
        self._checks = Checks(
            [Probe(what, EVERY_S, LIMIT_S, partial(self._measure, what)) for what in paths], clock=clock
        )

    def start(self) -> None:
        """Begin. Each volume is measured at once, then periodically."""
        self._checks.start()

    def stop(self) -> None:
        """End it; a thread that hangs in a system call is left behind."""
        self._checks.stop()

    def status(self) -> tuple[VolumeStatus, ...]:
        """The latest figures, without waiting."""
        problems = self._checks.health().checks
        return tuple(self._of(what, problems[what]) for what in self._paths)

    def _of(self, what: str, problem: str | None) -> VolumeStatus:
        path, measured = str(self._paths[what]), self._measured.get(what)
        if measured is None:
            return VolumeStatus(what, path, problem=problem)
        at, room = measured
        return VolumeStatus(
            what,
            path,
            measured_s=max(0.0, self._clock() - at),
            free_bytes=room.f_bavail * room.f_frsize,
            total_bytes=room.f_blocks * room.f_frsize,
            free_inodes=room.f_favail if room.f_files else None,  # some file systems do not count them
            total_inodes=room.f_files or None,
            problem=problem,
        )

    def _measure(self, what: str) -> None:
        at = self._clock()
        self._measured[what] = (at, os.statvfs(self._paths[what]))
